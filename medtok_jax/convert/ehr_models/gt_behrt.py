"""Write visit graphs for GT-BEHRT (Poulain and Beheshti, ICLR 2024), https://github.com/healthylaife/GT-BEHRT.

Its notebook reads a list of histories, each a list of exactly 50 PyTorch Geometric graphs. As a pickle they would take
tens of GB for MIMIC-IV, so they are written in a compact form with a module that makes them. The files are:

    graphs/                 the histories, see `visit_graphs`
    visit_graphs.py         the module that opens them
    node_vocabulary.txt     name of node id i in line i + 1; id 0 is the readout node
    initial_nodes.npy       [nodes, hidden_size // 5] float32, for `embeddings.word_embeddings.embed`
    model_config.json       sizes to set in the notebook's `model_config`
    samples.json            subject_id, prediction_time and split of each history
    meanings.json           meanings of the numbers in `adm_type` and `edge_attr`
    unmapped_codes.json     codes that the tokenizer does not hold

Nodes of a visit are the tokens of its codes (`--nodes=tokens`), or one node a code whose initial vector is the code's
embedding (`--nodes=codes`). The model has seven kinds of edges: here one for each unordered pair of diagnosis,
procedure and prescription, and one between the readout node and all others. The notebook defines only the ranges of
`time` and `delta`: here `time` is the day of the year, and `delta` the months since the previous visit.
"""

import json
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models import graph_files, gt_behrt_check, gt_behrt_notebook, spelling
from medtok_jax.convert.ehr_models.gt_behrt_check import LIMITS
from medtok_jax.convert.ehr_models.open import Records, chosen_labels, open_records, samples_of, told_left_out
from medtok_jax.convert.ehr_models.projection import kept_variance
from medtok_jax.convert.ehr_models.spelling import Spelling
from medtok_jax.convert.ehr_models.visit_graphs import NUM_VISITS, PAIR_EDGE, READOUT_EDGE
from medtok_jax.convert.request import Request
from medtok_jax.records.choices import MORTALITY
from medtok_jax.records.samples import Samples
from medtok_jax.records.visits import DAYS_A_YEAR, KINDS
from preprocessing.common import extras
from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import InputError
from preprocessing.meds.splits import SUBJECT_SPLITS

READOUT, UNKNOWN = SPECIAL = ("[READOUT]", "[UNK]")
UNKNOWN_ID = SPECIAL.index(UNKNOWN)
HIDDEN_SIZE = 540
# The notebook initializes embeddings by normal numbers of this standard deviation (`initializer_range`).
STD = 0.02


def convert(request: Request) -> None:
    """Write all files into `request.output` and print the steps to train GT-BEHRT on them.

    Options: `nodes` (`tokens` or `codes`), `tokens_per_code` (by default those of one embedding), `width` (hidden size,
    540 by default), `task` (`mortality` or `readmission`) or `labels` (MEDS label file), `inputs` (see `samples_of`).

    Raises:
        InputError: an argument cannot be used, or PyTorch Geometric is missing.
    """
    extras.load("torch_geometric.data")  # Fails before any work; the check at the end makes graphs.
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
        write(folder, records, spelled, chosen)
        np.save(folder / "initial_nodes.npy", matrix)
        (folder / "node_vocabulary.txt").write_text("".join(f"{token}\n" for token in spelled.tokens), encoding="utf-8")
        sizes = {"vocab_size": len(spelled.tokens), "hidden_size": hidden_size, "max_position_embedding": NUM_VISITS}
        sizes |= {"age_vocab_size": LIMITS["age"], "delta_size": LIMITS["delta"]}
        (folder / "model_config.json").write_text(json.dumps(sizes, indent=1) + "\n")
        records.write_report(folder)
        contents = gt_behrt_check.check_gt_behrt(folder)
    print(kept_variance(records.rows.config.embedding_dim, hidden_size // 5, share))
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
        return spelling.by_codes(records.rows, records.visits, special=special, unknown=unknown)
    longest = max(stop - start for start, stop in records.rows.config.bounds)
    per_code = longest if tokens_per_code is None else tokens_per_code
    return spelling.by_tokens(records.rows, records.visits, special=special, unknown=unknown, per_code=per_code)


def write(folder: Path, records: Records, spelled: Spelling, chosen: Samples) -> None:
    """Write the graphs, `samples.json` and `meanings.json`, after printing the size of the graphs."""
    types, fields = visit_fields(chosen, records.visits.admission_types()[0])
    arrays = graph_files.graph_arrays(chosen, spelled, fields, UNKNOWN_ID)
    size = sum(array.nbytes for array in arrays.values()) / 1e6
    print(f"{len(chosen):,} histories over {len(arrays['code_offsets']) - 1:,} visits take {size:,.1f} MB.")
    graph_files.write_graphs(folder, arrays)
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
    return types, fields | {"adm_type": adm_type[row]}


def edge_kinds() -> list[str]:
    """Return the meanings of the numbers in `edge_attr`."""
    names = {int(PAIR_EDGE[i, j]): f"{KINDS[i]} and {KINDS[j]}" for i in range(3) for j in range(i, 3)}
    return [*(names[i] for i in range(READOUT_EDGE)), "readout node"]
