"""Write visit graphs for GT-BEHRT (Poulain and Beheshti, ICLR 2024), https://github.com/healthylaife/GT-BEHRT.

Its notebook reads one pickle: a list of patients, each a list of exactly 50 PyTorch Geometric graphs. The files are:

    data.pickle             the patients
    node_vocabulary.txt     name of node id i in line i + 1; id 0 is the readout node
    initial_nodes.npy       [nodes, hidden_size // 5] float32, for `embeddings.word_embeddings.embed`
    model_config.json       sizes to set in the notebook's `model_config`
    samples.json            subject_id, prediction_time and split of each sample in the list
    meanings.json           meanings of the numbers in `adm_type` and `edge_attr`
    unmapped_codes.json     codes that the tokenizer does not hold

Nodes of a visit are the tokens of its codes (`--nodes=tokens`), or one node a code whose initial vector is the code's
embedding (`--nodes=codes`). The model has seven kinds of edges: here one for each unordered pair of diagnosis,
procedure and prescription, and one between the readout node and all others. The notebook defines only the ranges of
`time` and `delta`: here `time` is the day of the year, and `delta` the months since the previous visit.
"""

import functools
import json
import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
from tqdm import tqdm

from medtok_jax.convert.ehr_models import gt_behrt_check, gt_behrt_notebook, spelling
from medtok_jax.convert.ehr_models.gt_behrt_check import LIMITS, NUM_VISITS, READOUT_EDGE
from medtok_jax.convert.ehr_models.open import Records, chosen_labels, open_records, samples_of, told_left_out
from medtok_jax.convert.ehr_models.projection import kept_variance
from medtok_jax.convert.ehr_models.spelling import Spelling
from medtok_jax.convert.request import Request
from medtok_jax.records.choices import MORTALITY
from medtok_jax.records.samples import Samples
from medtok_jax.records.visits import DAYS_A_YEAR, KINDS, VisitTable
from preprocessing.common import extras
from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import InputError
from preprocessing.meds.splits import SUBJECT_SPLITS

READOUT, UNKNOWN = SPECIAL = ("[READOUT]", "[UNK]")
UNKNOWN_ID = SPECIAL.index(UNKNOWN)
HIDDEN_SIZE = 540
# The notebook initializes embeddings by normal numbers of this standard deviation (`initializer_range`).
STD = 0.02
# Kind of the edge, 0 to 5, between nodes of two kinds.
PAIR_EDGE = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])


def convert(request: Request) -> None:
    """Write all files into `request.output` and print the steps to train GT-BEHRT on them.

    Options: `nodes` (`tokens` or `codes`), `tokens_per_code` (by default those of one embedding), `width` (hidden size,
    540 by default), `task` (`mortality` or `readmission`) or `labels` (MEDS label file), `inputs` (see `samples_of`).

    Raises:
        InputError: an argument cannot be used, or PyTorch Geometric is missing.
    """
    geometric = extras.load("torch_geometric.data")
    options = request.options
    hidden_size = int(options.get("width", HIDDEN_SIZE))
    if hidden_size % 60:
        raise InputError(f"--width={hidden_size} must be a multiple of 60: GT-BEHRT has 5 embeddings and 12 heads.")
    records = open_records(request)
    spelled = spell(records, options.get("nodes", "tokens"), request.unmapped, options.get("tokens_per_code"))
    matrix, share = spelled.initial_matrix(hidden_size // 5, std=STD)
    labels = chosen_labels(request, records.visits, MORTALITY)
    if labels.value.dtype != bool:
        raise InputError(
            f"{options['labels']} has labels of type {labels.value.dtype}; GT-BEHRT takes those in boolean_value."
        )
    chosen = samples_of(request, records.visits, labels)
    with whole_folder(request.output) as folder:
        write(folder, records, spelled, chosen, geometric)
        np.save(folder / "initial_nodes.npy", matrix)
        (folder / "node_vocabulary.txt").write_text("".join(f"{token}\n" for token in spelled.tokens), encoding="utf-8")
        sizes = {"vocab_size": len(spelled.tokens), "hidden_size": hidden_size, "max_position_embedding": NUM_VISITS}
        sizes |= {"age_vocab_size": LIMITS["age"], "delta_size": LIMITS["delta"]}
        (folder / "model_config.json").write_text(json.dumps(sizes, indent=1) + "\n")
        records.write_report(folder)
        contents = gt_behrt_check.check_gt_behrt(folder)
    print(kept_variance(records.tokenizer.config.embedding_dim, hidden_size // 5, share))
    print(
        f"Wrote {contents.patients:,} samples with {contents.visits:,} visits and {contents.positive:,} positive"
        f" labels; a visit has at most {contents.most_nodes:,} nodes and {contents.most_edges:,} edges."
    )
    if chosen.left_out:
        print(told_left_out(chosen))
    print(split_counts(records.dataset.split_of(chosen.labels.subject)))
    print(gt_behrt_notebook.steps(request.output))


def spell(records: Records, nodes: str, unmapped: str, tokens_per_code: int | None) -> Spelling:
    """Return the node vocabulary and the nodes of each code."""
    special = list(SPECIAL)
    unknown = UNKNOWN if unmapped == "unk" else None
    if nodes == "codes":
        return spelling.by_codes(records.tokenizer, records.visits, special=special, unknown=unknown)
    longest = max(stop - start for start, stop in records.tokenizer.config.bounds)
    per_code = longest if tokens_per_code is None else tokens_per_code
    return spelling.by_tokens(records.tokenizer, records.visits, special=special, unknown=unknown, per_code=per_code)


def write(folder: Path, records: Records, spelled: Spelling, chosen: Samples, geometric: ModuleType) -> None:
    """Write `data.pickle`, `samples.json` and `meanings.json`."""
    types, fields = visit_fields(chosen, records.visits.admission_types()[0])
    graphs = VisitGraphs(chosen.visits, spelled)
    padding = [
        geometric.Data(**graphs.padding(), **dict.fromkeys((*fields, "label"), 0), mask=0) for _ in range(NUM_VISITS)
    ]
    patients = []
    for sample in tqdm(range(len(chosen)), "Drawing graphs", unit=" samples"):
        stop = chosen.offsets[sample + 1]
        patient = [
            geometric.Data(
                **graphs.of(int(chosen.row[place])),
                **{name: int(values[place]) for name, values in fields.items()},
                label=int(chosen.labels.value[sample]),
                mask=1,
            )
            for place in range(max(chosen.offsets[sample], stop - NUM_VISITS), stop)
        ]
        # All patients share the objects of padding, so the pickle holds them once.
        patients.append(patient + padding[len(patient) :])
    with open(folder / "data.pickle", "wb") as file:
        pickle.dump(patients, file, protocol=4)
    subjects = chosen.labels.subject
    table = {
        "subject_id": subjects.tolist(),
        "prediction_time": chosen.labels.time.astype(str).tolist(),
        "split": records.dataset.split_of(subjects).tolist(),
    }
    (folder / "samples.json").write_text(json.dumps(table) + "\n")
    meanings = {"adm_type": types, "edge_attr": dict(enumerate(edge_kinds()))}
    (folder / "meanings.json").write_text(json.dumps(meanings, indent=1) + "\n")


def split_counts(split: np.ndarray) -> str:
    """Return the number of histories of each split, and a warning if the notebook would stop for want of some.

    Args:
        split: `[histories]` str.
    """
    counts = {name: int((split == name).sum()) for name in SUBJECT_SPLITS}
    text = "Histories by split: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()) + "."
    missing = [name for name, count in counts.items() if not count]
    if missing:
        text += (
            f"\nWarning: the notebook stops without histories in {' and '.join(missing)}; it needs some in each split."
        )
    return text


def visit_fields(chosen: Samples, names: list[str]) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return the fields of visits that the model reads besides the graphs, clipped to the ranges of `LIMITS`.

    Args:
        chosen: the samples.
        names: types of admission, the most frequent first.

    Returns:
        The meaning of each `adm_type`, and the fields, int64 for each visit in `Samples.row`.
    """
    visits, row = chosen.visits, chosen.row
    last = LIMITS["adm_type"] - 1
    # 0 is padding; the last number stands for rare and unknown types.
    number = {name: place + 1 for place, name in enumerate(names[: last - 1])}
    adm_type = np.array([number.get(name, last) for name in visits.admission_type.tolist()], np.int64)
    day = (visits.start - visits.start.astype("datetime64[Y]")) // np.timedelta64(1, "D") + 1
    raw = {
        "age": np.nan_to_num(visits.age_days / DAYS_A_YEAR)[row],
        "time": day[row],
        "delta": chosen.days_since_previous / (DAYS_A_YEAR / 12),
        "los": visits.days[row],
    }
    fields = {name: np.minimum(values.astype(np.int64), LIMITS[name] - 1) for name, values in raw.items()}
    types = {"0": "padding"} | {str(i + 1): name for i, name in enumerate(names[: last - 1])} | {str(last): "any other"}
    return types, fields | {"adm_type": adm_type[row], "mask_v": np.ones(len(row), np.int64)}


class VisitGraphs:
    """Make the graphs of visits; visits with the same kinds and numbers of nodes share their edges."""

    def __init__(self, visits: VisitTable, spelled: Spelling):
        import torch

        self._tensor = torch.from_numpy
        self.visits = visits
        self.spelled = spelled
        self.of = functools.lru_cache(maxsize=10_000)(self._of)
        self._edges_of = functools.cache(self._edges)

    def padding(self) -> dict:
        """Return the graph that stands for a missing visit: the readout node alone."""
        empty = np.zeros(0, np.int64)
        nodes = {"x": np.zeros(1, np.int64), "edge_index": np.zeros((2, 0), np.int64), "edge_attr": empty}
        return {name: self._tensor(array) for name, array in nodes.items()}

    def _of(self, visit: int) -> dict:
        codes = self.visits.codes_of(visit)
        # Sorted by kind, so that more visits share their edges.
        codes = codes[np.argsort(self.visits.kind[codes], kind="stable")]
        codes = self._with_one_unknown(codes)
        parts = [self.spelled.of(code) for code in codes]
        x = np.concatenate([[0], *parts]).astype(np.int64)
        counts = np.array([len(part) for part in parts], np.int32)
        edge_index, edge_attr = self._edges_of(self.visits.kind[codes].tobytes(), counts.tobytes())
        return {"x": self._tensor(x), "edge_index": edge_index, "edge_attr": edge_attr}

    def _with_one_unknown(self, codes: np.ndarray) -> np.ndarray:
        """Return the codes with only one unknown code of each kind, as they all have the same node."""
        unknown = self.spelled.ids[self.spelled.offsets[codes]] == UNKNOWN_ID
        _, first = np.unique(self.visits.kind[codes[unknown]], return_index=True)
        return codes[np.sort(np.concatenate([np.flatnonzero(~unknown), np.flatnonzero(unknown)[first]]))]

    def _edges(self, kinds: bytes, counts: bytes) -> tuple:
        edges = visit_edges(np.frombuffer(kinds, np.int8), np.frombuffer(counts, np.int32))
        return tuple(self._tensor(array) for array in edges)


def visit_edges(kinds: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of a visit, in both directions.

    Edges join the readout node with all others, the nodes of a code with one another, and the first, second, ... nodes
    of any two codes, so that codes of one node each are all joined.

    Args:
        kinds: `[codes]` int8, kind of each code.
        counts: `[codes]` int32, number of nodes of each code.

    Returns:
        `edge_index` `[2, edges]` and `edge_attr` `[edges]`, int64; node 0 is the readout, those of the codes follow.
    """
    code = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(len(code)) - np.repeat(np.cumsum(counts) - counts, counts)
    joined = (code[:, None] == code) | (rank[:, None] == rank)
    np.fill_diagonal(joined, False)
    source, target = np.nonzero(joined)
    attr = PAIR_EDGE[kinds[code[source]], kinds[code[target]]]
    nodes = np.arange(1, len(code) + 1)
    readout = np.zeros(len(code), np.int64)
    index = np.stack(
        [np.concatenate([source + 1, nodes, readout]), np.concatenate([target + 1, readout, nodes])]
    ).astype(np.int64)
    return index, np.concatenate([attr, np.full(2 * len(code), READOUT_EDGE)]).astype(np.int64)


def edge_kinds() -> list[str]:
    """Return the meanings of the numbers in `edge_attr`."""
    names = {int(PAIR_EDGE[i, j]): f"{KINDS[i]} and {KINDS[j]}" for i in range(3) for j in range(i, 3)}
    return [*(names[i] for i in range(READOUT_EDGE)), "readout node"]
