"""Define what the benchmark asks of a model: fit it on training samples, choose its setting on tuning, predict test."""

import dataclasses
from typing import Any, Protocol

import numpy as np

from eval.ehr.split import Split
from eval.ehr.tokenizers.matrix import CodeMatrix


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Hold the predictions of one fitted model.

    Attributes:
        probabilities: of the test samples, float32: `[n]` if the outcome is binary, else `[n, classes]`; those of
            multiclass outcomes sum to 1, those of multilabel outcomes are independent.
        tuning: the same of the tuning samples, from the same parameters, to choose thresholds by.
        about: the chosen setting, its score on tuning, the numbers of parameters and of settings tried, seconds, and
            what else the report tells of a model.
    """

    probabilities: np.ndarray
    tuning: np.ndarray
    about: dict[str, Any]


class Model(Protocol):
    """Predict outcomes from histories and what a tokenizer says of their codes.

    Every model follows the same rules for every tokenizer. The settings that it tries are fixed beforehand. Each is
    fitted on the training samples; the one with the best score on the tuning samples (`tuning.score`) is kept as it
    is, not fitted again. Test samples are only predicted: nothing that is fitted or chosen depends on them.
    """

    name: str

    def fit_predict(
        self, split: Split, matrix: CodeMatrix, *, seed: int, trials: int, classes: int, kind: str
    ) -> Fitted:
        """Fit on training samples, choose by tuning samples, predict both tuning and test samples.

        Args:
            split: samples and outcomes: `[n]` bool if binary, `[n]` int64 below `classes` if multiclass, `[n, classes]`
                bool if multilabel. The outcomes of the test samples must not be read.
            matrix: what the tokenizer says of each code of the data set.
            seed: seed of everything random.
            trials: number of settings to try.
            classes: number of classes; ignored if binary.
            kind: `binary`, `multiclass` or `multilabel`.

        Raises:
            InputError: the training samples do not hold two different outcomes.
        """
        ...
