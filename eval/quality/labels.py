"""Hold, save and load the labels that token quality is measured by, the same for every representation.

Labels are crosswalk pairs and note edges that the data set holds out of its graph, CCSR and CCS groups, and the code
tree. No subgraph contains them, or they are marked as given, as the code tree is. Settings are chosen on validation
items and figures are reported on test items; a stable hash assigns each item to one of the two.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from preprocessing.common.atomic import recover, whole_folder
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading
from preprocessing.common.ragged import offsets_of, positions

SPLITS = ("validation", "test")
FORMAT_VERSION = 2
FILE = "labels.json"


@dataclasses.dataclass(frozen=True)
class Queries:
    """Hold queries: codes that search other codes, query i for `targets[offsets[i]:offsets[i + 1]]`.

    Attributes:
        query: `[q]` int32, row of the code of each query.
        offsets: `[q + 1]` int64, bounds of the targets of each query.
        targets: `[t]` int32, rows of the targets.
        kinds: `[t]` int8, index into `kind_names` of the relation of each target to its query.
        kind_names: names of the kinds. Targets of a kind that starts with `not ` are never evaluated, and never count
            as wrong answers.
        part: `[q]` int8, index into `SPLITS`.
        given: description of what the graph of the data set contains of these pairs, empty for nothing.
    """

    query: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    kinds: np.ndarray
    kind_names: tuple[str, ...]
    part: np.ndarray
    given: str = ""

    def __len__(self) -> int:
        return len(self.query)

    def take(self, which: np.ndarray) -> "Queries":
        """Return some of the queries, by their numbers."""
        where, counts = positions(self.offsets, which)
        parts = {"targets": self.targets[where], "kinds": self.kinds[where], "part": self.part[which]}
        return dataclasses.replace(self, query=self.query[which], offsets=offsets_of(counts), **parts)

    def of_split(self, split: str) -> "Queries":
        """Return the queries of a split."""
        return self.take(np.flatnonzero(self.part == SPLITS.index(split)))

    def renumbered(self, row_of: np.ndarray) -> "Queries":
        """Return the queries with other row numbers, without the queries that keep no target.

        Args:
            row_of: `[n]` int, new number of each row, -1 for a row to drop.
        """
        owner = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        kept = (row_of[self.targets] >= 0) & (row_of[self.query] >= 0)[owner]
        counts = np.bincount(owner[kept], minlength=len(self))
        some = counts > 0
        return dataclasses.replace(
            self,
            query=row_of[self.query[some]].astype(np.int32),
            offsets=offsets_of(counts[some]),
            targets=row_of[self.targets[kept]].astype(np.int32),
            kinds=self.kinds[kept],
            part=self.part[some],
        )


@dataclasses.dataclass(frozen=True)
class Terms:
    """Hold terms that search codes: term i searches `targets[offsets[i]:offsets[i + 1]]`.

    Attributes:
        text: `[q]` str.
        offsets: `[q + 1]` int64, bounds of the targets of each term.
        targets: `[t]` int32, rows of the targets.
        part: `[q]` int8, index into `SPLITS`.
        given: description of what the graph of the data set contains of these terms, empty for nothing.
    """

    text: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    part: np.ndarray
    given: str = ""

    def __len__(self) -> int:
        return len(self.text)

    def take(self, which: np.ndarray) -> "Terms":
        """Return some of the terms, by their numbers."""
        where, counts = positions(self.offsets, which)
        parts = {"targets": self.targets[where], "part": self.part[which]}
        return dataclasses.replace(self, text=self.text[which], offsets=offsets_of(counts), **parts)

    def of_split(self, split: str) -> "Terms":
        """Return the terms of a split."""
        return self.take(np.flatnonzero(self.part == SPLITS.index(split)))

    def renumbered(self, row_of: np.ndarray) -> "Terms":
        """Return the terms with other row numbers, without the terms that keep no target.

        Args:
            row_of: `[n]` int, new number of each row, -1 for a row to drop.
        """
        owner = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        kept = row_of[self.targets] >= 0
        counts = np.bincount(owner[kept], minlength=len(self))
        some = counts > 0
        return dataclasses.replace(
            self,
            text=self.text[some],
            offsets=offsets_of(counts[some]),
            targets=row_of[self.targets[kept]].astype(np.int32),
            part=self.part[some],
        )


@dataclasses.dataclass(frozen=True)
class Labels:
    """Hold the labels of the n codes of a data set.

    Attributes:
        data_set: name of the data set.
        fingerprint: fingerprint of the data set.
        keys: `[n]` str, sorted.
        systems: `[n]` str, code system of each code.
        category: `[n]` int32, equal for codes of the same category (`preprocessing.codes.category_of`).
        path: `[n, L]` int32, nodes of the code tree from the root to the code itself, padded with -1; all -1 for codes
            outside every tree.
        groups: name (`CCSR`, `CCS`) -> `[n]` int32 group of each code, -1 for none.
        crosswalk: direction, `ICD9CM to ICD10CM` or back -> queries for codes of the same meaning in the other system,
            of the kinds `exact`, `approximate` and `not evaluated`.
        relations: relation -> queries for the codes under the node at the other end of a held-out edge.
        part: `[n]` int8, index into `SPLITS` of each code, for metrics whose items are codes.
        terms: kind -> terms that no text and no name of the data set contains, with the codes that they mean.
        given: family of metrics -> what the graph contains of its labels; families without such labels are absent.
        counts: numbers of labels read, used and left out, by description.
    """

    data_set: str
    fingerprint: str
    keys: np.ndarray
    systems: np.ndarray
    category: np.ndarray
    path: np.ndarray
    groups: dict[str, np.ndarray]
    crosswalk: dict[str, Queries]
    relations: dict[str, Queries]
    part: np.ndarray
    terms: dict[str, Terms] = dataclasses.field(default_factory=dict)
    given: dict[str, str] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def for_keys(self, keys: np.ndarray) -> "Labels":
        """Return the labels of some codes, row by row; codes that the data set lacks get no labels.

        Args:
            keys: `[m]` str, sorted.

        Raises:
            InputError: the data set has none of the codes.
        """
        if len(keys) == len(self.keys) and (keys == self.keys).all():
            return self
        row = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = self.keys[row] == keys
        if not known.any():
            raise InputError(
                f"the data set {self.data_set} has none of the codes, such as {keys[0]}; give that of the tokenizer."
            )
        row_of = np.full(len(self.keys), -1)
        row_of[row[known]] = np.flatnonzero(known)
        # Each code that the data set lacks gets its own category.
        alone = -2 - np.arange(len(keys), dtype=np.int32)
        return dataclasses.replace(
            self,
            keys=keys,
            systems=np.array([key.partition("/")[0] for key in keys]),
            category=np.where(known, self.category[row], alone),
            path=np.where(known[:, None], self.path[row], -1),
            groups={name: np.where(known, group[row], -1) for name, group in self.groups.items()},
            crosswalk={name: queries.renumbered(row_of) for name, queries in self.crosswalk.items()},
            relations={name: queries.renumbered(row_of) for name, queries in self.relations.items()},
            terms={name: terms.renumbered(row_of) for name, terms in self.terms.items()},
            part=np.where(known, self.part[row], 0).astype(np.int8),
        )

    def save(self, directory: Path) -> None:
        """Write the labels atomically to a folder, for `load`."""
        with whole_folder(directory) as folder:
            arrays = {name: getattr(self, name) for name in ("keys", "systems", "category", "path", "part")}
            arrays |= {f"groups/{name}": group for name, group in self.groups.items()}
            for family in ("crosswalk", "relations"):
                for name, queries in getattr(self, family).items():
                    fields = ("query", "offsets", "targets", "kinds", "part")
                    arrays |= {f"{family}/{name}/{field}": getattr(queries, field) for field in fields}
            for name, terms in self.terms.items():
                arrays |= {f"terms/{name}/{field}": getattr(terms, field) for field in _TERM_FIELDS}
            np.savez(folder / "labels.npz", **arrays)
            about = {name: getattr(self, name) for name in ("data_set", "fingerprint", "given", "counts")}
            queries = {f"{f}/{n}": (q.kind_names, q.given) for f in _FAMILIES for n, q in getattr(self, f).items()}
            content = {"format_version": FORMAT_VERSION, "groups": list(self.groups), "queries": queries} | about
            content["terms"] = {name: terms.given for name, terms in self.terms.items()}
            (folder / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> "Labels":
        """Read the labels that `save` wrote.

        Raises:
            InputError: the folder is absent, damaged, or of another version.
        """
        recover(directory)
        with reading(directory, "labels", "delete the folder, and they are made again"):
            content = json.loads((directory / FILE).read_text(encoding="utf-8"))
            if content["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format version {content['format_version']}")
            with np.load(directory / "labels.npz", allow_pickle=False) as arrays:
                found: dict[str, dict[str, Queries]] = {family: {} for family in _FAMILIES}
                for full_name, (kind_names, given) in content["queries"].items():
                    family, name = full_name.split("/", 1)
                    fields = ("query", "offsets", "targets", "kinds", "part")
                    parts = {field: arrays[f"{full_name}/{field}"] for field in fields}
                    found[family][name] = Queries(kind_names=tuple(kind_names), given=given, **parts)
                return cls(
                    **{name: content[name] for name in ("data_set", "fingerprint", "given", "counts")},
                    **{name: arrays[name] for name in ("keys", "systems", "category", "path", "part")},
                    groups={name: arrays[f"groups/{name}"] for name in content["groups"]},
                    terms={
                        name: Terms(**{field: arrays[f"terms/{name}/{field}"] for field in _TERM_FIELDS}, given=given)
                        for name, given in content["terms"].items()
                    },
                    **found,
                )


_FAMILIES = ("crosswalk", "relations")
_TERM_FIELDS = ("text", "offsets", "targets", "part")
