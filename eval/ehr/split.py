"""Hold what a model is fitted, tuned and tested on. No JAX here."""

import dataclasses

import numpy as np

from eval.common.counts import shown
from eval.ehr.inputs import Inputs
from preprocessing.common.errors import InputError


@dataclasses.dataclass(frozen=True)
class Split:
    """Hold what a model is fitted, tuned and tested on; no person is in two of the three.

    Attributes:
        train, tuning, test: the samples, as the model may see them.
        y, y_tuning, y_test: their outcomes, `[n]` bool or int64, or `[n, classes]` bool.
        rows: `[n]` int64, places of the test samples among all.

    Raises:
        InputError: a part is empty, a person is in two of them, or no training sample differs in its outcome.
    """

    train: Inputs
    y: np.ndarray
    tuning: Inputs
    y_tuning: np.ndarray
    test: Inputs
    y_test: np.ndarray
    rows: np.ndarray

    def __post_init__(self) -> None:
        persons = {"train": self.train.person, "tune": self.tuning.person, "test": self.test.person}
        for name, found in persons.items():
            if not len(found):
                raise InputError(
                    f"No sample is left to {name} on; give more records, another --regime or fewer --folds."
                )
        for one, other in (("train", "tune"), ("train", "test"), ("tune", "test")):
            if shared := len(np.intersect1d(persons[one], persons[other])):
                raise InputError(
                    f"{shown(shared, show_small=False)} persons have samples both to {one} and to {other} on; split the"
                    " records by person."
                )
        if (self.y == self.y[:1]).all():
            raise InputError("All training samples have the same outcome, so nothing can be learned; use more records.")

    @property
    def person(self) -> np.ndarray:
        """Return the person of each test sample, `[n]` int64."""
        return self.test.person
