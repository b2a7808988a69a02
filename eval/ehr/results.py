"""Hold what a cell of the benchmark predicted: the seam between the runner and the report."""

import dataclasses

import numpy as np

from preprocessing.common.errors import InputError

# Kinds of tasks: labels are true or false, one of several classes, or true or false for each class.
KINDS = BINARY, MULTICLASS, MULTILABEL = ("binary", "multiclass", "multilabel")


@dataclasses.dataclass(frozen=True)
class CellResult:
    """Hold the predictions of one task, tokenizer, model, regime and seed on the test samples.

    Attributes:
        task: name of the task.
        tokenizer: name of the tokenizer; a name with `+` joins several.
        model: name of the model.
        regime: one of `regimes.REGIMES`.
        setting: setting of the regime, such as `k=8` or `icd9->icd10`; empty where it has none.
        input: input rule of the task.
        seed: seed of the training and of the training samples that the regime draws.
        y: `[n]` bool (binary), `[n]` int (multiclass) or `[n, classes]` bool (multilabel).
        p: `[n]` float (binary) or `[n, classes]` float probabilities.
        person: `[n]` int, anonymous number of the person of each sample, the same in every cell of a data set.
        p_threshold: probability from which on each sample counts as positive, chosen on the tuning samples of its fold,
            float or `[n]` float; NaN for none.
        about: facts about the fit. The report prints `seconds` (of the cell), `positions` (of a patient in the model's
            input, on average), `parameters` and `mapped` (share of the codes that have tokens) where they are given.
        fold: `[n]` int, the fold of cross-fitting that each sample was tested in; None if one model predicted all.
    """

    task: str
    tokenizer: str
    model: str
    regime: str
    setting: str
    input: str
    seed: int
    y: np.ndarray
    p: np.ndarray
    person: np.ndarray
    p_threshold: float | np.ndarray
    about: dict
    fold: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together.

        Raises:
            InputError: lengths or classes differ, or a value is no probability.
        """
        name = ", ".join(filter(None, (self.task, self.tokenizer, self.model, self.regime, self.setting)))
        if len({len(array) for array in (self.y, self.p, self.person, self.fold) if array is not None}) > 1:
            raise InputError(f"The predictions of {name} have arrays of different lengths; run this cell again.")
        if self.y.ndim == 2 and self.y.shape != self.p.shape:
            raise InputError(f"The predictions of {name} have other classes than its labels; run this cell again.")
        # Sums of float32 probabilities may pass 1 by their last digit.
        if not (np.isfinite(self.p).all() and (self.p >= 0).all() and (self.p <= 1 + 1e-5).all()):
            raise InputError(f"The predictions of {name} are not all between 0 and 1; give probabilities.")

    @property
    def kind(self) -> str:
        """Return the kind of the task: `binary`, `multiclass` or `multilabel`."""
        if self.p.ndim == 1:
            return BINARY
        return MULTILABEL if self.y.ndim == 2 else MULTICLASS
