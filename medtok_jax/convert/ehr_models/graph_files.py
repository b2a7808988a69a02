"""Write visit graphs for GT-BEHRT in the compact form that `visit_graphs.VisitGraphs` opens."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models import visit_graphs
from medtok_jax.convert.ehr_models.spelling import Spelling
from medtok_jax.convert.ehr_models.visit_graphs import ARRAYS, FIELDS, NUM_VISITS
from medtok_jax.records.samples import Samples
from medtok_jax.records.visits import VisitTable
from preprocessing.common import ragged

FOLDER, LOADER = "graphs", "visit_graphs.py"
_CHUNK = 1 << 15


def graph_arrays(
    chosen: Samples, spelled: Spelling, fields: Mapping[str, np.ndarray], unknown: int
) -> dict[str, np.ndarray]:
    """Return the arrays of `visit_graphs.ARRAYS` by name, with the last `NUM_VISITS` visits of each history.

    Args:
        chosen: the histories.
        spelled: nodes of each code.
        fields: values of each of `FIELDS`, int64 for each visit in `Samples.row`.
        unknown: node of all codes that the tokenizer does not hold; it stands in a visit once for each kind of code.
    """
    counts = np.minimum(np.diff(chosen.offsets), NUM_VISITS)
    ends = np.cumsum(counts)
    shown = np.arange(ends[-1]) + np.repeat(chosen.offsets[1:] - ends, counts)
    # Histories share visits, so each one that is shown is written once.
    used, graph = np.unique(chosen.row[shown], return_inverse=True)
    visits = chosen.visits
    parts = [_codes_of(visits, spelled, used[first : first + _CHUNK], unknown) for first in range(0, len(used), _CHUNK)]
    code, per_visit = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    per_code = np.diff(spelled.offsets)[code]
    code_offsets = ragged.offsets_of(per_visit)
    return {
        "nodes": ragged.take(spelled.ids, spelled.offsets, code)[0].astype(np.int32),
        "node_offsets": ragged.offsets_of(per_code)[code_offsets],
        "code_kind": visits.kind[code].astype(np.int8),
        "code_nodes": per_code.astype(np.uint16),
        "code_offsets": code_offsets,
        "entry_graph": graph.astype(np.int32),
        "fields": np.stack([fields[name][shown].astype(np.int16) for name in FIELDS], 1),
        "histories": np.stack([ends - counts, ends, chosen.labels.value.astype(np.int64)], 1),
    }


def write_graphs(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays and the module that opens them into a folder."""
    (folder / FOLDER).mkdir()
    for name in ARRAYS:
        np.save(folder / FOLDER / f"{name}.npy", arrays[name])
    (folder / LOADER).write_text(Path(visit_graphs.__file__).read_text(encoding="utf-8"), encoding="utf-8")


def _codes_of(visits: VisitTable, spelled: Spelling, rows: np.ndarray, unknown: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of some visits, sorted by kind within each, and the `[rows]` number of codes of each."""
    code, counts = ragged.take(visits.code, visits.offsets, rows)
    code = code.astype(np.int64)
    visit = np.repeat(np.arange(len(rows)), counts)
    kind = visits.kind[code]
    order = np.lexsort((kind, visit))
    code, visit, kind = code[order], visit[order], kind[order]
    is_unknown = spelled.ids[spelled.offsets[code]] == unknown
    # Unknown codes of one kind in one visit have the same node; the first of them is kept.
    place = np.flatnonzero(is_unknown)
    _, firsts = np.unique(visit[place] * 4 + kind[place], return_index=True)
    kept = ~is_unknown
    kept[place[firsts]] = True
    return code[kept], np.bincount(visit[kept], minlength=len(rows))
