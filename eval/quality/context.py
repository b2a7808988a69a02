"""Hold the input of every family of metrics: the representation, its labels and the items that count."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from eval.common.representation import Representation
from eval.quality import retrieval
from eval.quality.labels import SPLITS, Labels
from eval.quality.retrieval import Scorer
from preprocessing.common.hashing import hash_strings

# Codes of a system whose neighbors are searched, and codes that a probe is fitted on: (in full, quick).
NEIGHBOR_QUERIES = (6000, 1500)
BACKWARD_QUERIES = (10**9, 1500)
PROBE_CODES = (20_000, 10_000)
PROBE_BAGS = (6000, 4000)


@dataclasses.dataclass(frozen=True)
class Context:
    """Hold one representation under evaluation with its labels and settings.

    Attributes:
        representation: the representation to evaluate.
        labels: labels of its codes, row by row (`Labels.for_keys`).
        split: split whose items count, `validation` or `test`.
        quick: whether to measure fewer items, to choose between models.
        seed: seed of all random draws.
    """

    representation: Representation
    labels: Labels
    split: str = "test"
    quick: bool = False
    seed: int = 0

    @functools.cached_property
    def items(self) -> np.ndarray:
        """Return the identifier of each code, the same in every vocabulary: uint64 `[n]`."""
        return hash_strings("eval/items", self.representation.keys.tolist())

    @functools.cached_property
    def scorers(self) -> list[Scorer]:
        """Return a scorer for each view of the representation."""
        return retrieval.scorers(self.representation)

    def limit(self, sizes: tuple[int, int]) -> int:
        """Return the number of items to measure, of (in full, quick)."""
        return sizes[self.quick]

    def rows_of(self, system: str) -> np.ndarray:
        """Return the rows of a code system in ascending order."""
        return np.flatnonzero(self.labels.systems == system)

    @functools.cached_property
    def systems(self) -> list[str]:
        """Return the code systems of the vocabulary, sorted."""
        return np.unique(self.labels.systems).tolist()

    def subsample(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Return at most `count` of some rows, ascending; the choice by identifier is the same in every vocabulary."""
        if len(rows) <= count:
            return rows
        return np.sort(rows[np.argsort(self.items[rows], kind="stable")[:count]])

    def given(self, what: str, relations: Sequence[str] = ()) -> str:
        """Return `what`, the part of some labels that the graph contains, as far as it applies to the representation.

        The result is empty for a representation that read nothing of it, and says so where it was made from another
        graph.

        Args:
            what: description of the part, empty for none.
            relations: relations of the graph that hold it; a representation that reads no graph may be trained on them.
        """
        about = self.representation.about
        if not about.get("graph", True) and not set(relations) & set(about.get("trained_on") or ()):
            return ""
        trained_on = about.get("data_set") or {}
        if trained_on.get("fingerprint", self.labels.fingerprint) != self.labels.fingerprint:
            return (
                f"UNKNOWN: the tokenizer was made from another data set ({trained_on.get('name', '?')}) than the labels"
            )
        return what

    def trained(self, relations: Sequence[str]) -> str:
        """Return which of some relations the representation was trained on, on other pairs; empty for none.

        A relation is one of the kind that a figure scores: what is held out of it was in no loss, but a tokenizer that
        was trained on the rest has an advantage over one that was not.
        """
        used = [name for name in self.representation.about.get("trained_on") or () if name in relations]
        return f"TRAINED on other pairs of this kind: {', '.join(used)}" if used else ""

    def in_split(self, rows: np.ndarray) -> np.ndarray:
        """Return those of some rows that belong to the split."""
        return rows[self.labels.part[rows] == SPLITS.index(self.split)]
