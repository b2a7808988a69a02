"""The labels that token quality is measured by: the same for every representation, cut into validation and test.

All of them are facts about codes that no subgraph shows, or are told to be given: crosswalk pairs and note edges that
the data set holds out of its graph, CCSR and CCS groups, and the code tree (which the graph does hold). Settings are
chosen on validation items and figures reported on test items; a stable hash of the item tells which it is.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import InputError
from preprocessing.common.ragged import offsets_of, positions

SPLITS = ("validation", "test")
FORMAT_VERSION = 1
FILE = "labels.json"


@dataclasses.dataclass(frozen=True)
class Queries:
    """Codes that look for others: query i looks for `targets[offsets[i]:offsets[i + 1]]`.

    Attributes:
        query: `[q]` int32, row of the code that looks.
        offsets: `[q + 1]` int64.
        targets: `[t]` int32, rows of the codes looked for.
        kinds: `[t]` int8, position in `kind_names` of how each target is related.
        kind_names: names of the kinds. Targets of a kind that starts with `not ` are never evaluated, and never count
            as wrong answers.
        part: `[q]` int8, position in `SPLITS`.
        given: empty where the graph of the data set holds none of these pairs, else what it holds.
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
        """Some of the queries."""
        where, counts = positions(self.offsets, which)
        parts = {"targets": self.targets[where], "kinds": self.kinds[where], "part": self.part[which]}
        return dataclasses.replace(self, query=self.query[which], offsets=offsets_of(counts), **parts)

    def of_split(self, split: str) -> "Queries":
        """The queries of a split."""
        return self.take(np.flatnonzero(self.part == SPLITS.index(split)))

    def renumbered(self, row_of: np.ndarray) -> "Queries":
        """The same in other row numbers: `row_of` is the new number of each row, -1 for rows that are no more.

        Queries that are left without a target go.
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
class Labels:
    """Labels of the n codes of a data set.

    Attributes:
        data_set, fingerprint: of the data set.
        keys: `[n]` str, sorted. systems: `[n]` str.
        category: `[n]` int32, equal for codes of one category (`preprocessing.codes.category_of`).
        path: `[n, L]` int32, node of the code tree at each level from the root to the code itself, -1 behind it; a
            row of -1 for codes that stand in no tree.
        groups: name (`CCSR`, `CCS`) -> `[n]` int32 group of each code, -1 for none.
        crosswalk: `ICD9CM to ICD10CM` and back -> what codes mean the same in the other system, kinds `exact`,
            `approximate` and `not evaluated`.
        relations: relation -> query codes and codes under the node at the other end of a held-out edge.
        part: `[n]` int8, position in `SPLITS` of each code where codes themselves are the items.
        given: family of metrics -> what the graph holds of its labels, where that is something.
        counts: what was read, found and left out, by name.
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
    given: dict[str, str] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def for_keys(self, keys: np.ndarray) -> "Labels":
        """The labels of the codes `keys` (sorted), row by row; codes without labels have none.

        Raises:
            InputError: not one of the codes is known.
        """
        if len(keys) == len(self.keys) and (keys == self.keys).all():
            return self
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = self.keys[place] == keys
        if not known.any():
            raise InputError(f"none of the codes, such as {keys[0]}, is one of the data set {self.data_set}.")
        row_of = np.full(len(self.keys), -1)
        row_of[place[known]] = np.flatnonzero(known)
        # Codes that the data set lacks stand in categories of their own.
        alone = -2 - np.arange(len(keys), dtype=np.int32)
        return dataclasses.replace(
            self,
            keys=keys,
            systems=np.array([key.partition("/")[0] for key in keys]),
            category=np.where(known, self.category[place], alone),
            path=np.where(known[:, None], self.path[place], -1),
            groups={name: np.where(known, group[place], -1) for name, group in self.groups.items()},
            crosswalk={name: queries.renumbered(row_of) for name, queries in self.crosswalk.items()},
            relations={name: queries.renumbered(row_of) for name, queries in self.relations.items()},
            part=np.where(known, self.part[place], 0).astype(np.int8),
        )

    def save(self, directory: Path) -> None:
        """Writes a folder of arrays and a JSON file; see `load`."""
        with whole_folder(directory) as folder:
            arrays = {name: getattr(self, name) for name in ("keys", "systems", "category", "path", "part")}
            arrays |= {f"groups/{name}": group for name, group in self.groups.items()}
            for family in ("crosswalk", "relations"):
                for name, queries in getattr(self, family).items():
                    fields = ("query", "offsets", "targets", "kinds", "part")
                    arrays |= {f"{family}/{name}/{field}": getattr(queries, field) for field in fields}
            np.savez(folder / "labels.npz", **arrays)
            about = {name: getattr(self, name) for name in ("data_set", "fingerprint", "given", "counts")}
            queries = {f"{f}/{n}": (q.kind_names, q.given) for f in _FAMILIES for n, q in getattr(self, f).items()}
            content = {"format_version": FORMAT_VERSION, "groups": list(self.groups), "queries": queries} | about
            (folder / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> "Labels":
        """Reads what `save` wrote.

        Raises:
            InputError: it is not there, damaged, or of another version.
        """
        try:
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
                    **found,
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{directory} holds no readable labels ({error}); delete it, and they are made again."
            ) from error


_FAMILIES = ("crosswalk", "relations")
