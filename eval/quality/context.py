"""What every family of metrics is told: the representation, its labels row by row, and which items count."""

import dataclasses
import functools

import numpy as np

from eval.common.representation import Representation
from eval.quality import retrieval
from eval.quality.labels import SPLITS, Labels
from eval.quality.retrieval import Scorer
from preprocessing.common.hashing import hash_strings

# Codes a system that look for neighbors, and codes that a probe is fitted on: (in full, quick).
NEIGHBOR_QUERIES = (6000, 1500)
BACKWARD_QUERIES = (10**9, 1500)
PROBE_CODES = (20_000, 10_000)
PROBE_BAGS = (6000, 4000)


@dataclasses.dataclass(frozen=True)
class Context:
    """One representation under judgment.

    Attributes:
        representation: what is judged.
        labels: of its codes, row by row (`Labels.for_keys`).
        split: `validation` or `test`: whose items count.
        quick: whether to look at fewer items, for choosing between models.
        seed: of what is drawn.
    """

    representation: Representation
    labels: Labels
    split: str = "test"
    quick: bool = False
    seed: int = 0

    @functools.cached_property
    def items(self) -> np.ndarray:
        """A number for each code, the same in every vocabulary: uint64 [n]."""
        return hash_strings("eval/items", self.representation.keys.tolist())

    @functools.cached_property
    def scorers(self) -> list[Scorer]:
        """The views of the representation."""
        return retrieval.scorers(self.representation)

    def limit(self, sizes: tuple[int, int]) -> int:
        """How many items, of (in full, quick)."""
        return sizes[self.quick]

    def rows_of(self, system: str) -> np.ndarray:
        """Rows of a code system, rising."""
        return np.flatnonzero(self.labels.systems == system)

    @functools.cached_property
    def systems(self) -> list[str]:
        """Code systems of the vocabulary."""
        return np.unique(self.labels.systems).tolist()

    def drawn(self, rows: np.ndarray, count: int) -> np.ndarray:
        """At most `count` of some rows, those of the lowest numbers: the same in every vocabulary. Rising."""
        if len(rows) <= count:
            return rows
        return np.sort(rows[np.argsort(self.items[rows], kind="stable")[:count]])

    def given(self, what: str) -> str:
        """What the graph gave of some labels: `what`, unless no graph was read, or nobody knows which."""
        about = self.representation.about
        if not about.get("graph", True):
            return ""
        trained_on = about.get("data_set") or {}
        if trained_on.get("fingerprint", self.labels.fingerprint) != self.labels.fingerprint:
            return f"UNKNOWN: made from another data set ({trained_on.get('name', '?')}) than the labels"
        return what

    def in_split(self, rows: np.ndarray) -> np.ndarray:
        """Those of some rows that belong to the split."""
        return rows[self.labels.part[rows] == SPLITS.index(self.split)]
