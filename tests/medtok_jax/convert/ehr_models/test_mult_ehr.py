"""The graph and the labels of MulT-EHR, against plain loops over the patients; every rule of the reader broken once."""

import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from medtok_jax.convert.ehr_models import mult_ehr
from medtok_jax.convert.ehr_models.mult_ehr_check import RELATIONS, check_mult_ehr
from medtok_jax.convert.request import make_request
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.errors import InputError
from tests.helpers import small_visits


def convert(request):
    mult_ehr.convert(request)
    return request.output


def load(folder, name):
    return pickle.loads((folder / f"medtok_{name}.pkl").read_bytes())


@pytest.fixture(scope="module")
def whole(small_tokenizer_dir, small_meds, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out"
    return convert(make_request(output=output, tokenizer=small_tokenizer_dir, events=small_meds))


def named_edges(folder):
    """Relation -> pairs of names."""
    mapping, arrays = load(folder, "entity_mapping"), np.load(folder / "graph.npz")
    names = {kind: list(of_kind) for kind, of_kind in mapping.items()}
    return {
        relation: [(names[head][a], names[tail][b]) for a, b in arrays[relation].T]
        for relation, (head, tail) in RELATIONS.items()
    }


def test_edges_are_those_of_the_patients(whole):
    edges = named_edges(whole)
    visits = {"1": ["11", "12", "13"], "2": ["21", "23"], "3": ["3-20220202", "3-20220205"], "4": ["41", "42"]}
    assert edges["makes"] == [(patient, visit) for patient, of in visits.items() for visit in of]
    assert len(set(edges["diagnosed"])) == len(edges["diagnosed"])
    of_21 = {code for visit, code in edges["diagnosed"] if visit == "21"}
    assert of_21 == {"ICD10CM/E11.9", "ICD9CM/999.99"}
    of_23 = {relation: {code for visit, code in edges[relation] if visit == "23"} for relation in edges}
    assert of_23["diagnosed"] == {"ICD9CM/001.0"}
    assert of_23["treated"] == {"ICD9Proc/00.10"}
    assert of_23["prescribed"] == {"ATC/A10BA02", "NDC/99999999999"}
    assert {code for visit, code in edges["treated"] if visit == "3-20220202"} == {"CPT4/99213"}


def test_labels_by_hand(whole):
    labels, visit = load(whole, "labels"), load(whole, "entity_mapping")["visit"]
    named = {
        task: {name: of[number] for name, number in visit.items() if number in of}
        for task, of in labels.items()
        if task != "all_drugs"
    }
    # Only 11, 12, 13, 23, 41 and 42 have codes of all three kinds.
    assert named["mort_pred"] == {"11": 0, "12": 1}
    # 13 begins 9 days after the end of 12; 41 and 42 overlap.
    assert named["readm"] == {"11": 0, "12": 1}
    assert named["los"] == {"11": 4, "12": 9, "13": 2, "23": 1, "41": 2, "42": 0}
    # Patient 2 has only one such visit.
    assert named["drug_rec"] == {name: ["0000"] for name in ("11", "12", "13", "41", "42")}
    assert labels["all_drugs"] == ["0000"]


def test_codes_begin_as_their_embeddings_and_all_else_at_random(whole, small_tokenizer_dir):
    tokenizer = MedTokTokenizer.from_pretrained(small_tokenizer_dir)
    mapping, arrays = load(whole, "entity_mapping"), np.load(whole / "graph.npz")
    ours, theirs = [], []
    for kind in ("diagnosis", "procedure", "prescription"):
        held = [name for name in mapping[kind] if name in tokenizer]
        ours.append(arrays[f"feat_{kind}"][[mapping[kind][name] for name in held]])
        theirs.append(tokenizer.embed(held, pooled=True))
    ours, theirs = np.concatenate(ours), np.concatenate(theirs)
    assert ours.std() == pytest.approx(1, rel=1e-4)
    scale = np.linalg.norm(ours) / np.linalg.norm(theirs)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T * scale**2, atol=1e-3)
    for kind in ("patient", "visit"):
        assert arrays[f"feat_{kind}"].shape == (len(mapping[kind]), 128)
        assert 0.9 < arrays[f"feat_{kind}"].std() < 1.1


@pytest.mark.parametrize("unmapped", ["unk", "drop"])
def test_unmapped_codes_become_what_was_asked(ask, unmapped):
    edges = named_edges(convert(ask(unmapped)))
    of_21 = sorted(code for visit, code in edges["diagnosed"] if visit == "21")
    assert of_21 == ["ICD10CM/E11.9", *(["[UNK]"] if unmapped == "unk" else [])]


def test_the_configuration_is_filled(ask):
    import yaml

    folder = convert(ask(width=32))
    config = yaml.safe_load((folder / "HGT_Causal_MEDTOK.yml").read_text())
    assert config["datasets"]["pretrained"] == f"{folder}/medtok_ptr.pkl"
    assert (config["GNN"]["in_dim"], config["GNN"]["out_dim"]) == (32, 1)


@pytest.mark.integration
def test_the_script_makes_the_graphs_with_dgl(whole):
    """Runs where DGL is installed, which has no build for every torch."""
    dgl = pytest.importorskip("dgl")
    subprocess.run([sys.executable, whole / "make_graph.py"], check=True, capture_output=True)
    graph, featured = (pickle.loads((whole / f"medtok{suffix}.pkl").read_bytes()) for suffix in ("", "_ptr"))
    assert isinstance(graph, dgl.DGLGraph)
    arrays = np.load(whole / "graph.npz")
    for relation in RELATIONS:
        np.testing.assert_array_equal(np.stack(graph.edges(etype=relation)), arrays[relation])
    for kind, feat in featured.ndata["feat"].items():
        np.testing.assert_array_equal(feat.numpy(), arrays[f"feat_{kind}"])


def change_array(name, change):
    def damage(folder):
        arrays = dict(np.load(folder / "graph.npz"))
        arrays[name] = change(arrays[name])
        np.savez(folder / "graph.npz", **arrays)

    return damage


def change_labels(change):
    def damage(folder):
        labels = load(folder, "labels")
        change(labels)
        (folder / "medtok_labels.pkl").write_bytes(pickle.dumps(labels))

    return damage


def change_mapping(folder):
    mapping = load(folder, "entity_mapping")
    mapping["visit"]["11"] = 77
    (folder / "medtok_entity_mapping.pkl").write_bytes(pickle.dumps(mapping))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change_array("treated", lambda edges: edges + 5), "beyond its"),
        (change_array("treated", lambda edges: edges[:, :0]), "must be .2, edges."),
        (change_array("treated", lambda edges: edges.astype(np.int32)), "int64"),
        (change_array("diagnosed", lambda edges: np.repeat(edges, 2, axis=1)), "an edge twice"),
        (change_array("makes", lambda edges: edges[:, 1:]), "exactly one patient"),
        (change_array("feat_visit", lambda feat: feat[1:]), "feat_visit has the shape"),
        (change_array("feat_visit", lambda feat: feat[:, 1:]), "and the width of the others"),
        (change_array("feat_visit", lambda feat: feat * np.nan), "finite float32"),
        (change_array("num_visit", lambda number: number + 1), "feat_visit has the shape"),
        (change_labels(lambda labels: labels["los"].update({0: 10})), "labels of los must be from 0 to 9"),
        (change_labels(lambda labels: labels["readm"].update({99: 1})), "the visits of readm must be from 0 to 8"),
        (change_labels(lambda labels: labels["readm"].clear()), "no visit has a label for readm"),
        (change_labels(lambda labels: labels["all_drugs"].append("x")), "all_drugs must list"),
        (change_labels(lambda labels: labels.pop("los")), "must hold"),
        (change_mapping, "nodes of visit must be text, numbered"),
    ],
)
def test_what_mult_ehr_could_not_use_is_told(whole, tmp_path, damage, words):
    folder = shutil.copytree(whole, tmp_path / "copy")
    counts = check_mult_ehr(folder)
    assert (counts["patient"], counts["visit"], counts["los"]) == (4, 9, 6)
    damage(folder)
    with pytest.raises(InputError, match=words):
        check_mult_ehr(folder)


def test_a_data_set_without_all_kinds_is_refused(ask, tmp_path):
    events = small_visits.stay(1, 1, "2020-01-01", "2020-01-02", "ICD10CM/E11.9")
    with pytest.raises(InputError, match="no procedure"):
        convert(ask(events=small_visits.write(tmp_path / "meds", events)))
    assert not ask().output.exists()
