"""Write the heterogeneous graph for MulT-EHR (Chan et al., 2024), https://github.com/HKU-MedAI/MulT-EHR.

Edges join patients to their visits, and visits to diagnoses, procedures and prescriptions. The trainers read four
pickles, two of them graphs of the DGL library. As such a pickle loads only with a similar version of DGL, the graph is
written as arrays, and a script beside them makes the pickles with the DGL that is installed for training:

    NAME_entity_mapping.pkl  node type -> name -> number
    NAME_labels.pkl          mort_pred, readm, los: visit -> class; drug_rec: visit -> drugs; all_drugs: their list
    graph.npz                `RELATION` [2, edges] of each of the four relations, `num_TYPE` and `feat_TYPE` of each of
                             the five node types
    make_graph.py            makes NAME.pkl (the graph) and NAME_ptr.pkl (the graph with features)
    HGT_Causal_MEDTOK.yml    a configuration for main.py
    unmapped_codes.json      codes that the tokenizer does not hold

MulT-EHR draws random features, unless its configuration names a graph with pretrained ones: that is NAME_ptr.pkl, in
which codes have their MedTok embeddings and all other nodes normal numbers of the same standard deviation, 1. Labels
are given to visits with at least one code of each kind: death in the next visit and a next visit within 15 days, as in
`records.samples`; days of the stay in ten classes and drugs by the first four characters of their code, as in the
repository, which takes them from PyHealth. The graph holds all visits, so no label keeps to a prediction time.
"""

import importlib.resources
import pickle  # nosec B403 # It only writes.
import shlex
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models import mult_ehr_check, spelling
from medtok_jax.convert.ehr_models.mult_ehr_check import NAME, RELATIONS
from medtok_jax.convert.ehr_models.open import Records, open_records, print_size
from medtok_jax.convert.ehr_models.projection import kept_variance
from medtok_jax.convert.ehr_models.spelling import Spelling
from medtok_jax.convert.request import Request
from medtok_jax.records.choices import MORTALITY, READMISSION, TASKS
from medtok_jax.records.samples import next_visits, task_labels
from medtok_jax.records.visits import KINDS, PRESCRIPTION, Visits
from preprocessing.codes import ATC, NDC, RXNORM
from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import InputError

WIDTH = 128
UNKNOWN = "[UNK]"
_FILES = "mult_ehr_files"
# First part of the code of a drug that names no code system, such as `MEDICATION//HICL//2731`.
_DRUGS = "MEDICATION"


def convert(request: Request) -> None:
    """Write all files into `request.output` and print the steps to train MulT-EHR on them.

    Options: `width` (of features, 128 by default).

    Raises:
        InputError: an argument cannot be used.
    """
    width = int(request.options.get("width", WIDTH))
    records = open_records(request)
    records.visits.check_intervals("MulT-EHR's task of readmission", "choose another --to")
    visits = records.visits
    check_usable(records)
    unknown = UNKNOWN if request.unmapped == "unk" else None
    spelled = spelling.by_codes(records.rows, visits, special=[UNKNOWN], unknown=unknown)
    matrix, share = spelled.initial_matrix(width, std=1.0)
    mapping, node = entities(visits, spelled)
    labels = visit_labels(visits)
    nodes = sum(len(names) for names in mapping.values())
    # Features are float32, an edge is two int64, and the pickles have some 100 bytes a visit.
    print_size(visits, 4 * width * nodes + 16 * (len(visits.code) + len(visits)) + 100 * len(visits))
    with whole_folder(request.output) as folder:
        _dump(folder / f"{NAME}_entity_mapping.pkl", mapping)
        _dump(folder / f"{NAME}_labels.pkl", labels)
        np.savez(folder / "graph.npz", **edges(visits, node), **features(mapping, spelled, matrix, width))
        _write_script_and_config(folder, request.output, width, len(labels["all_drugs"]))
        records.write_report(folder)
        counts = mult_ehr_check.check_mult_ehr(folder)
    print(kept_variance(records.rows.config.embedding_dim, width, share))
    print("Wrote nodes and labels: " + ", ".join(f"{count:,} of {name}" for name, count in counts.items()) + ".")
    print(next_steps(request.output))


def check_usable(records: Records) -> None:
    """Refuse records without one of the kinds of codes that the graph joins to visits, or without a second visit.

    Raises:
        InputError: the visits have no diagnosis, no procedure or no prescription, or none has a next visit.
    """
    visits = records.visits
    drugs = records.mapper.other_events(_DRUGS)
    faults = []
    for number, kind in enumerate(KINDS):
        if number in visits.kind:
            continue
        unnamed = kind == PRESCRIPTION and drugs
        why = f", as its {drugs:,} events of drugs name them in no code system ({NDC}, {RXNORM}, {ATC})"
        faults.append(f"it has no {kind} code{why if unnamed else ''}")
    if not len(next_visits(visits).row):
        faults.append("no patient in it has two visits, so that there is no next visit to predict")
    if faults:
        raise InputError(
            f"MulT-EHR cannot learn from {records.dataset.root}: {'; '.join(faults)}. Choose another --to."
        )


def entities(visits: Visits, spelled: Spelling) -> tuple[dict[str, dict[str, int]], np.ndarray]:
    """Number the nodes of each type.

    Returns:
        type -> name -> number, and the `[keys]` int64 number of each code among the nodes of its kind.

    Raises:
        InputError: two patients have a visit of the same name.
    """
    mapping = {
        "patient": {str(subject): i for i, subject in enumerate(visits.subject[visits.is_first])},
        "visit": {str(name): i for i, name in enumerate(visits.name)},
    }
    if len(mapping["visit"]) != len(visits):
        raise InputError("Two patients have visits with the same hadm_id; MulT-EHR needs a distinct one for each.")
    node = np.empty(len(visits.key), np.int64)
    for number, kind in enumerate(KINDS):
        mapping[kind] = {}
        for key in np.flatnonzero(visits.kind == number):
            name = spelled.tokens[spelled.of(key)[0]]
            node[key] = mapping[kind].setdefault(name, len(mapping[kind]))
    return mapping, node


def edges(visits: Visits, node: np.ndarray) -> dict[str, np.ndarray]:
    """Return the distinct edges of each relation, `[2, edges]` int64."""
    patient = np.cumsum(visits.is_first) - 1
    visit = np.repeat(np.arange(len(visits)), np.diff(visits.offsets))
    found = {"makes": np.stack([patient, np.arange(len(visits))])}
    for relation, (_, tail) in RELATIONS.items():
        if tail in KINDS:
            of_kind = visits.kind[visits.code] == KINDS.index(tail)
            found[relation] = np.unique(np.stack([visit[of_kind], node[visits.code[of_kind]]]), axis=1)
    return {relation: found[relation].astype(np.int64) for relation in RELATIONS}


def features(
    mapping: dict[str, dict[str, int]], spelled: Spelling, matrix: np.ndarray, width: int
) -> dict[str, np.ndarray]:
    """Return for each node type `num_TYPE`, int64, and `feat_TYPE`, `[nodes, width]` float32."""
    rng = np.random.default_rng(1)
    row = {token: number for number, token in enumerate(spelled.tokens)}
    arrays = {}
    for kind, names in mapping.items():
        arrays[f"num_{kind}"] = np.int64(len(names))
        arrays[f"feat_{kind}"] = (
            matrix[[row[name] for name in names]]
            if kind in KINDS
            else rng.normal(size=(len(names), width)).astype(np.float32)
        )
    return arrays


def visit_labels(visits: Visits) -> dict:
    """Return the contents of `NAME_labels.pkl`, which the head of this file defines."""
    present = np.zeros((len(visits), len(KINDS)), bool)
    present[np.repeat(np.arange(len(visits)), np.diff(visits.offsets)), visits.kind[visits.code]] = True
    has_all_kinds = present.all(1)
    row = next_visits(visits).row
    following = {
        task: {
            int(v): int(value)
            for v, value in zip(row, task_labels(visits, task).value, strict=True)
            if has_all_kinds[v]
        }
        for task in (TASKS if len(row) else ())
    }
    days = visits.days
    los = np.select([days <= 7, days <= 14], [days, 8], 9)
    cut = [
        key.partition("/")[2][: 4 if key.startswith((f"{NDC}/", f"{ATC}/")) else None] for key in visits.key.tolist()
    ]
    of_patient = np.cumsum(visits.is_first) - 1
    # Drugs are recommended for patients with two such visits or more.
    often = np.bincount(of_patient, has_all_kinds)[of_patient] >= 2
    is_drug = visits.kind == KINDS.index(PRESCRIPTION)
    drug_rec = {
        int(v): list(dict.fromkeys(cut[code] for code in visits.codes_of(v) if is_drug[code]))
        for v in np.flatnonzero(has_all_kinds & often)
    }
    return {
        "mort_pred": following.get(MORTALITY, {}),
        "drug_rec": drug_rec,
        "all_drugs": sorted({drug for drugs in drug_rec.values() for drug in drugs}),
        "los": {int(v): int(los[v]) for v in np.flatnonzero(has_all_kinds)},
        "readm": following.get(READMISSION, {}),
    }


def _dump(path: Path, value: dict) -> None:
    with open(path, "wb") as file:
        pickle.dump(value, file, protocol=4)


def _write_script_and_config(folder: Path, output: Path, width: int, num_drugs: int) -> None:
    files = importlib.resources.files("medtok_jax.convert.ehr_models") / _FILES
    (folder / "make_graph.py").write_text((files / "make_graph.py").read_text(encoding="utf-8"), encoding="utf-8")
    text = (files / "HGT_Causal_MEDTOK.yml").read_text(encoding="utf-8")
    for name, value in {"DIR": output, "NAME": NAME, "WIDTH": width, "NUM_DRUGS": num_drugs}.items():
        text = text.replace(f"${name}", str(value))
    (folder / "HGT_Causal_MEDTOK.yml").write_text(text, encoding="utf-8")


def next_steps(output: Path) -> str:
    """Return the steps that remain in the repository of MulT-EHR."""
    return f"""Next, where MulT-EHR is trained (git clone https://github.com/HKU-MedAI/MulT-EHR; pip install torch dgl
pyhealth wandb plotly pyyaml "setuptools<70" "numpy<2"; a DGL made for that torch, see
https://www.dgl.ai/pages/start.html):
  python {shlex.quote(str(output / "make_graph.py"))}
  cp {shlex.quote(str(output / "HGT_Causal_MEDTOK.yml"))} MulT-EHR/configs/
  in MulT-EHR/main.py    config_name = "HGT_Causal_MEDTOK.yml"
  cd MulT-EHR && python main.py"""
