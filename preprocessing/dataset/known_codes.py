"""List everything that each code system of a data set knows, whether the data set holds an example of it or not.

A bare code such as `7806` may only be read as a code of one system if no other system knows it. A system knows, beside
its codes, the categories above them (ICD9CM/780.6, fever, until 2008 a code itself) and the codes of earlier editions
(ICD10CM/T81.4XXA). `known_codes.parquet`, beside the graph of a data set, has one row for each key, sorted by key:

| column | content |
|---|---|
| `key` | `SYSTEM/code`, the code in normal form; ICD-10-PCS tables have three characters |
| `kind` | `code`, `category` or `retired` |
| `description` | title |
| `stands` | of a retired code: key of the code or category that stands for it; null if there is none |

Codes are those of the whole vocabulary, also where the data set is a sample. The file is no part of the fingerprint.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.codes import (
    ICD9CM,
    ICD10CM,
    ICD10PCS,
    ICD_SYSTEMS,
    NDC,
    SYSTEMS,
    CodeRecord,
    ancestors,
    compact_code,
    is_wellformed,
)
from preprocessing.common.foreign_files import reading
from preprocessing.graph.categories import is_table

FILE = "known_codes.parquet"
CODE, CATEGORY, RETIRED = "code", "category", "retired"
KINDS = (CODE, CATEGORY, RETIRED)
SCHEMA = pa.schema([("key", pa.string()), ("kind", pa.string()), ("description", pa.string()), ("stands", pa.string())])


class Built(Protocol):
    """Stand for a TFDS builder of a data set that is built; its files are in `data_path`."""

    data_path: os.PathLike


def known_codes(
    records: Iterable[CodeRecord],
    categories: Mapping[str, str],
    editions: Mapping[str, str] | None = None,
    crosswalk: Iterable[tuple[str, str, bool]] = (),
) -> pa.Table:
    """Return the `SCHEMA` table of what the code systems know.

    Args:
        records: codes of the vocabulary, keys unique.
        categories: title by key; a key that is a code too is a code.
        editions: title, or "", by key of the ICD codes of earlier editions; those that still exist are left out.
        crosswalk: (ICD-9-CM code, ICD-10-CM code, is exact) in normal form.
    """
    kinds = {record.key: (CODE, record.description) for record in records}
    for key, title in categories.items():
        kinds.setdefault(key, (CATEGORY, title))
    partners = _partners(crosswalk, kinds)
    rows: list[tuple[str, str, str, str | None]] = [(key, kind, title, None) for key, (kind, title) in kinds.items()]
    editions = {**_stems(editions or {}, kinds), **(editions or {})}
    for key, title in editions.items():
        if key not in kinds:
            stand = _stand_in(key, kinds, partners)
            rows.append((key, RETIRED, title or (kinds[stand][1] if stand else key.replace("/", " ")), stand))
    columns = zip(*sorted(rows, key=lambda row: row[0]), strict=True) if rows else ((), (), (), ())
    return pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=SCHEMA)


def _stems(editions: Mapping[str, str], kinds: Mapping[str, object]) -> dict[str, str]:
    """Return the categories of retired ICD codes that are retired with them, such as ICD9CM/043, without a title."""
    stems = {}
    for key in editions:
        system, _, code = key.partition("/")
        above = [f"{system}/{ancestor}" for ancestor in ancestors(system, code)]
        if above and system != ICD10PCS and key not in kinds and above[-1] not in kinds:
            stems[above[-1]] = ""
    return stems


def _stand_in(key: str, kinds: Mapping[str, object], partners: Mapping[str, str]) -> str | None:
    """Return the nearest code or category above a retired ICD code.

    If that is only the stem, or nothing, its exact partner in the crosswalk is nearer, although of the other edition.
    """
    system, _, code = key.partition("/")
    above = [f"{system}/{ancestor}" for ancestor in ancestors(system, code)]
    nearest = next((ancestor for ancestor in above if ancestor in kinds), None)
    return nearest if nearest in above[:-1] else partners.get(key, nearest)


def _partners(crosswalk: Iterable[tuple[str, str, bool]], kinds: Mapping[str, object]) -> dict[str, str]:
    """Return the only exact partner in the other system, by the key of a diagnosis that is itself not known."""
    partners: dict[str, set[str]] = {}
    for icd9, icd10, is_exact in crosswalk:
        pair = (f"{ICD9CM}/{icd9}", f"{ICD10CM}/{icd10}")
        for one, other in (pair, pair[::-1]):
            if is_exact and one not in kinds and other in kinds:
                partners.setdefault(one, set()).add(other)
    return {key: others.pop() for key, others in partners.items() if len(others) == 1}


def graph_categories(nodes: pa.Table) -> dict[str, str]:
    """Return the names of the nodes of a graph that have the form of a code of ICD or NDC, by key.

    Chapters and sections (`A00-A09`) have no such form; products do (NDC of 9 digits). The nodes of codes are among
    them.
    """
    columns = (nodes[name].to_pylist() for name in ("source", "source_id", "name"))
    return {
        f"{system}/{code}": name
        for system, code, name in zip(*columns, strict=True)
        if system in (*ICD_SYSTEMS, NDC) and (is_wellformed(system, code) or is_table(system, code))
    }


def write_known_codes(folder: Path, table: pa.Table) -> dict[str, dict[str, dict[str, int]]]:
    """Write `known_codes.parquet` into a folder, and return what the report of a data set says of it, by system."""
    pq.write_table(table, folder / FILE, compression="zstd")
    return {"known_codes": count_kinds(table), "ambiguous_without_system": count_ambiguous(table)}


def read_known_codes(source: Built | str | os.PathLike) -> pa.Table:
    """Return the `SCHEMA` table of what the code systems of a data set know.

    Args:
        source: builder of a data set, or the folder of its graph.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    folder = Path(source) if isinstance(source, str | os.PathLike) else Path(source.data_path) / "graph"
    path = folder / FILE
    with reading(path, "known codes", "delete the data set that it belongs to and build it again"):
        table = pq.read_table(path, memory_map=True)
        if table.schema != SCHEMA:
            raise pa.ArrowInvalid(f"its columns are {', '.join(table.schema.names)}")
    return table


def count_kinds(table: pa.Table) -> dict[str, dict[str, int]]:
    """Return the numbers of rows of each kind, by system, the systems in the order of `codes.SYSTEMS`."""
    counts = Counter(zip(_systems(table), table["kind"].to_pylist(), strict=True))
    return _ordered({system: {kind: counts[system, kind] for kind in KINDS} for system, _ in counts})


def count_ambiguous(table: pa.Table) -> dict[str, dict[str, int]]:
    """Return how many bare spellings, without a dot, need their system, by system.

    Counted are spellings of which exactly one system has a code while others know them as a category or retired code:
    - `code`: under the system of the code, which would be read in any case if only codes counted;
    - `category`, `retired`: under the systems of these, which would be read as the other system's code.
    """
    owners: dict[str, list[tuple[str, str]]] = {}
    for key, kind in zip(table["key"].to_pylist(), table["kind"].to_pylist(), strict=True):
        system, _, code = key.partition("/")
        owners.setdefault(compact_code(code), []).append((system, kind))
    counts: Counter[tuple[str, str]] = Counter()
    for known in owners.values():
        if len(known) > 1 and sum(kind == CODE for _, kind in known) == 1:
            counts.update(known)
    return _ordered({system: {kind: counts[system, kind] for kind in KINDS} for system in set(_systems(table))})


def _systems(table: pa.Table) -> list[str]:
    return [key.partition("/")[0] for key in table["key"].to_pylist()]


def _ordered(counts: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    place = {system: position for position, system in enumerate(SYSTEMS)}
    return {system: counts[system] for system in sorted(counts, key=lambda name: (place.get(name, len(place)), name))}
