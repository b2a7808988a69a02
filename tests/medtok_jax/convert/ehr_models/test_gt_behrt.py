"""Visit graphs: batched as GT-BEHRT's notebook does, against plain loops, and every rule of the reader broken."""

import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from tests.helpers import small_visits

torch = pytest.importorskip("torch")
geometric = pytest.importorskip("torch_geometric.data")

from medtok_jax.convert.ehr_models import gt_behrt  # noqa: E402
from medtok_jax.convert.ehr_models.gt_behrt_check import check_gt_behrt  # noqa: E402
from medtok_jax.convert.ehr_models.visit_graphs import VisitGraphs, visit_edges  # noqa: E402
from medtok_jax.tokenizer import MedTokTokenizer  # noqa: E402
from preprocessing.common.errors import InputError  # noqa: E402


def convert(request):
    gt_behrt.convert(request)
    return request.output


def read(folder):
    patients = list(VisitGraphs(folder))
    names = (folder / "node_vocabulary.txt").read_text().splitlines()
    return patients, names, json.loads((folder / "samples.json").read_text())


def joined(counts):
    """Pairs of nodes that have an edge, by a plain loop: same code, or same place in two codes; 0 with all."""
    nodes = [(code, place) for code, count in enumerate(counts) for place in range(count)]
    pairs = {(0, i) for i in range(1, len(nodes) + 1)} | {(i, 0) for i in range(1, len(nodes) + 1)}
    for (i, one), (j, other) in itertools.permutations(enumerate(nodes, 1), 2):
        if one[0] == other[0] or one[1] == other[1]:
            pairs.add((i, j))
    return pairs


@pytest.mark.parametrize("counts", [[1], [1, 1, 1], [4, 4], [3, 1, 2], [2] * 7])
def test_edges_against_a_plain_loop(counts):
    kinds = np.random.default_rng(0).integers(0, 3, len(counts)).astype(np.int8)
    index, attr = visit_edges(kinds, np.array(counts))
    pairs = list(map(tuple, index.T.tolist()))
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == joined(counts)
    names = gt_behrt.edge_kinds()
    assert len(set(names)) == 7
    code = np.repeat(np.arange(len(counts)), counts)
    for (i, j), kind in zip(pairs, attr, strict=True):
        if 0 in (i, j):
            assert names[kind] == "readout node"
        else:
            of = sorted((int(kinds[code[i - 1]]), int(kinds[code[j - 1]])))
            assert names[kind] == " and ".join(("diagnosis", "procedure", "prescription")[k] for k in of)


def test_each_visit_is_a_graph_of_its_tokens(ask, small_tokenizer_dir):
    patients, names, about = read(convert(ask(width=60)))
    tokenizer = MedTokTokenizer.from_pretrained(small_tokenizer_dir)
    # A sample for each visit that another one follows; the stays of patient 4 overlap.
    assert about["subject_id"] == [1, 1, 2, 3]
    assert about["split"] == ["train", "train", "tuning", "train"]
    assert about["prediction_time"][:2] == ["2020-01-05T16:00:00.000000", "2020-03-21T16:00:00.000000"]
    assert [patient[0].label for patient in patients] == [0, 1, 0, 0]
    assert [sum(visit.mask_v for visit in patient) for patient in patients] == [1, 2, 1, 1]
    first = patients[0][0]
    assert first.x.equal(patients[1][0].x)
    found = [names[i] for i in first.x.tolist()]
    # In the order of kinds: diagnoses, procedures, prescriptions; K = 2 tokens each.
    keys = ["ICD10CM/E11.9", "ICD9CM/250.00", "ICD10PCS/0016070", "NDC/00002143380"]
    text_and_graph = [int(tokenizer.encode(key)[place]) for key in keys for place in (0, 2)]
    assert found == ["[READOUT]", *(f"MEDTOK//{number}" for number in text_and_graph)]
    fields = {name: first[name] for name in ("age", "time", "delta", "los", "adm_type", "mask_v", "mask")}
    assert fields == {"age": 69, "time": 1, "delta": 0, "los": 4, "adm_type": 1, "mask_v": 1, "mask": 1}
    second = patients[1][1]
    assert (second.time, second.delta, second.los, second.adm_type) == (61, 1, 20, 2)
    assert [visit.mask_v for visit in patients[1]] == [1, 1] + [0] * 48
    # Patient 3: no stay, so no admission type; age unknown.
    assert (patients[3][0].adm_type, patients[3][0].age) == (10, 0)


def test_one_node_a_code_begins_as_its_embedding(ask, small_tokenizer_dir):
    folder = convert(ask(nodes="codes", width=60))
    patients, names, _ = read(folder)
    assert [names[i] for i in patients[2][0].x.tolist()] == ["[READOUT]", "ICD10CM/E11.9", "ICD9CM/999.99"]
    matrix = np.load(folder / "initial_nodes.npy")
    tokenizer = MedTokTokenizer.from_pretrained(small_tokenizer_dir)
    held = [name for name in names if name in tokenizer]
    ours, theirs = matrix[[names.index(name) for name in held]], tokenizer.embed(held, pooled=True)
    ratio = np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    np.testing.assert_allclose(ours @ ours.T / ratio[0] ** 2, theirs @ theirs.T, atol=1e-4)


@pytest.mark.parametrize(("unmapped", "nodes"), [("keep", 3), ("unk", 3), ("drop", 2)])
def test_unmapped_codes_become_what_was_asked(ask, unmapped, nodes):
    patients, names, _ = read(convert(ask(unmapped, nodes="codes", width=60)))
    found = [names[i] for i in patients[2][0].x.tolist()]
    assert len(found) == nodes
    assert found[2:] == {"keep": ["ICD9CM/999.99"], "unk": ["[UNK]"], "drop": []}[unmapped]
    assert ("ICD9CM/999.99" in names) == (unmapped == "keep")


def test_the_unknown_node_stands_once_for_each_kind(ask, tmp_path):
    drugs = [f"NDC/0000000000{number}" for number in range(5)]
    events = small_visits.stay(1, 1, "2020-01-01", "2020-01-05", "ICD10CM/E11.9", "ICD9CM/999.99", *drugs)
    events += small_visits.stay(1, 2, "2020-02-01", "2020-02-05", "ICD10CM/E11.9")
    patients, names, _ = read(convert(ask("unk", events=small_visits.write(tmp_path / "meds", events), nodes="codes")))
    assert [names[i] for i in patients[0][0].x.tolist()] == ["[READOUT]", "ICD10CM/E11.9", "[UNK]", "[UNK]"]


def test_the_notebook_batches_it(ask):
    """The batches pass through cells 3 and 9 of the notebook, up to the look-ups in embeddings."""
    patients, names, _ = read(convert(ask()))
    for patient in patients:
        for place, visit in enumerate(patient):
            visit["posi_ids"] = place
    batch = geometric.Batch().from_data_list(list(itertools.chain.from_iterable(patients)))
    limits = {"age": 103, "time": 367, "delta": 144, "adm_type": 11, "los": 1192, "posi_ids": 50}
    for name, rows in limits.items():
        table = torch.nn.Embedding(rows, 2)
        assert table(torch.reshape(batch[name], [batch[name].shape[0] // 50, 50])).shape == (4, 50, 2)
    readout = (batch.x == 0).nonzero().squeeze()
    assert batch.batch[readout].tolist() == list(range(200))
    assert torch.nn.Embedding(len(names), 2)(batch.x).shape == (len(batch.x), 2)
    torch.nn.Embedding(7, 2)(batch.edge_attr)
    assert batch.batch[batch.edge_index[0]].equal(batch.batch[batch.edge_index[1]])
    # Placed by object: a visit that stood in two places would have the later number.
    assert batch.posi_ids.reshape(4, 50).tolist() == [list(range(50))] * 4


def test_a_long_history_keeps_its_last_fifty_visits(ask, tmp_path):
    days = pl.date_range(small_visits.at("2020-01-01"), small_visits.at("2020-03-05"), eager=True)
    codes = ("ICD10CM/E11", "ICD10CM/E11.9", "ICD10CM/E10.9")
    events = [(7, small_visits.at(str(day)), codes[n % 3], None) for n, day in enumerate(days)]
    patients, names, _ = read(convert(ask(events=small_visits.write(tmp_path / "long", events), nodes="codes")))
    assert len(patients) == 64
    patient = patients[-1]
    # The last of 65 days is the label's; the 50 before it are left.
    assert [visit.time for visit in patient] == list(range(15, 65))
    assert names[patient[0].x[1]] == codes[14 % 3]
    assert all(visit.mask_v for visit in patient)


def test_labels_of_a_file_replace_the_next_visit(ask, tmp_path):
    rows = {"subject_id": [1, 1], "boolean_value": [True, False]}
    rows["prediction_time"] = [small_visits.at("2020-02-01"), small_visits.at("2020-05-01")]
    pl.DataFrame(rows).write_parquet(tmp_path / "labels.parquet")
    patients, _, about = read(convert(ask(labels=str(tmp_path / "labels.parquet"))))
    assert about["subject_id"] == [1, 1]
    assert [sum(visit.mask_v for visit in patient) for patient in patients] == [1, 3]
    assert [patient[0].label for patient in patients] == [1, 0]
    rows["integer_value"] = rows.pop("boolean_value")
    pl.DataFrame(rows | {"integer_value": [1, 2]}).write_parquet(tmp_path / "labels.parquet")
    with pytest.raises(InputError, match="GT-BEHRT takes those in boolean_value"):
        gt_behrt.convert(ask(labels=str(tmp_path / "labels.parquet")))


def test_of_a_stay_that_goes_on_only_what_has_happened_is_seen(ask, tmp_path):
    events = [
        *small_visits.stay(1, 1, "2020-01-01", "2020-01-20", "ICD10CM/E11.9", "ICD10PCS/0016070"),
        (1, small_visits.at("2020-01-03"), "NDC/00002143380", 1),
        (1, small_visits.at("2020-01-10"), "ATC/A10BA02", 1),
    ]
    events = small_visits.write(tmp_path / "meds", events)
    times = [small_visits.at("2020-01-05"), small_visits.at("2020-01-20", 16), small_visits.at("2020-01-22")]
    pl.DataFrame({"subject_id": 1, "prediction_time": times, "boolean_value": True}).write_parquet(tmp_path / "labels")
    patients, names, _ = read(convert(ask(events=events, nodes="codes", labels=str(tmp_path / "labels"))))
    seen = [[names[i] for i in patient[0].x.tolist()[1:]] for patient in patients]
    drugs = ["NDC/00002143380", "ATC/A10BA02"]
    assert seen == [drugs[:1], drugs, ["ICD10CM/E11.9", "ICD10PCS/0016070", *drugs]]
    # The days of the stay up to its last code, and all of them from the discharge on.
    assert [patient[0].los for patient in patients] == [1, 19, 19]


def test_a_width_that_does_not_fit_is_refused(ask):
    with pytest.raises(InputError, match="multiple of 60"):
        gt_behrt.convert(ask(width=100))
    assert not ask().output.exists()


@pytest.fixture(scope="module")
def whole(small_tokenizer_dir, small_meds, tmp_path_factory):
    from medtok_jax.convert.request import make_request

    output = tmp_path_factory.mktemp("whole") / "out"
    return convert(make_request(output=output, tokenizer=small_tokenizer_dir, events=small_meds))


def damage(name, where, value):
    """Write `value` into an array of the graphs."""

    def change(folder):
        path = folder / "graphs" / f"{name}.npy"
        array = np.load(path)
        array[where] = value
        np.save(path, array)

    return change


def cut(name, count=1):
    """Take the last elements of an array away."""

    def change(folder):
        path = folder / "graphs" / f"{name}.npy"
        np.save(path, np.load(path)[:-count])

    return change


def empty_graph(folder):
    """Give the first graph no code, and its nodes to nobody."""
    graphs = folder / "graphs"
    arrays = {name: np.load(graphs / f"{name}.npy") for name in ("nodes", "code_kind", "code_nodes")}
    offsets = {name: np.load(graphs / f"{name}.npy") for name in ("node_offsets", "code_offsets")}
    nodes, codes = offsets["node_offsets"][1], offsets["code_offsets"][1]
    np.save(graphs / "nodes.npy", arrays["nodes"][nodes:])
    for name in ("code_kind", "code_nodes"):
        np.save(graphs / f"{name}.npy", arrays[name][codes:])
    for name, gone in (("node_offsets", nodes), ("code_offsets", codes)):
        np.save(graphs / f"{name}.npy", np.maximum(offsets[name] - gone, 0))


def append(name):
    """Repeat the last element of an array."""

    def change(folder):
        path = folder / "graphs" / f"{name}.npy"
        array = np.load(path)
        np.save(path, np.concatenate([array, array[-1:]]))

    return change


def as_floats(folder):
    path = folder / "graphs" / "fields.npy"
    np.save(path, np.load(path).astype(np.float32))


def lengthen(folder):
    """Give all histories the entries of one, which has 51."""
    graphs = folder / "graphs"
    for name in ("entry_graph", "fields"):
        array = np.load(graphs / f"{name}.npy")
        np.save(graphs / f"{name}.npy", np.concatenate([array, np.repeat(array[-1:], 51 - len(array), 0)]))
    damage("histories", (2, slice(2)), [0, 51])(folder)


def put_pickle(folder):
    np.save(folder / "graphs" / "nodes.npy", np.array([print], dtype=object), allow_pickle=True)


FIELD = {name: (0, place) for place, name in enumerate(("age", "time", "delta", "los", "adm_type"))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(
            (damage("fields", FIELD[name], limit), f"entry 0: {name} must be from {lowest} to {limit - 1}")
            for name, lowest, limit in [
                *(("age", 0, 103), ("time", 0, 367), ("delta", 0, 144), ("los", 0, 1192), ("adm_type", 1, 11))
            ]
        ),
        (damage("fields", (3, 0), -1), "entry 3: age must be from 0"),
        (damage("fields", FIELD["adm_type"], 0), "adm_type must be from 1"),
        (cut("fields"), "fields must hold 5 whole numbers for each of the 5 entries"),
        (as_floats, "fields must hold 5 whole numbers"),
        (cut("entry_graph"), "entry_graph must name each of the 4 graphs"),
        (append("entry_graph"), "for each of the 6 entries"),
        (damage("entry_graph", 0, 4), "entry_graph must name each of the 4 graphs, and no other"),
        (damage("entry_graph", 0, -1), "entry_graph must name each of the 4 graphs, and no other"),
        (damage("nodes", 0, 0), "entry 0 has 2 readout nodes"),
        (damage("nodes", 0, 12000), "node ids must be from 0 to 39"),
        (damage("nodes", 0, -1), "node ids must be from 0 to 39"),
        (cut("nodes"), "node_offsets must rise from 0 to the"),
        (damage("node_offsets", 1, -1), "node_offsets must rise"),
        (damage("code_offsets", 1, 1), "code_nodes does not add up"),
        (damage("code_nodes", 0, 7), "code_nodes does not add up"),
        (damage("code_kind", 0, 3), "code_kind must be 0, 1 or 2"),
        (cut("code_kind"), "code_kind must have a value for each of code_nodes"),
        (empty_graph, "entry 0 must have nodes besides the readout node, each with an edge to it"),
        (damage("histories", (1, 1), 99), "history 1 must have 1 to 50 of the 5 entries"),
        (damage("histories", (1, 0), -1), "history 1 must have 1 to 50"),
        (damage("histories", (1, 1), 1), "history 1 must have 1 to 50"),
        (lengthen, "history 2 must have 1 to 50 of the 51 entries"),
        (damage("histories", (0, 2), 2), "history 0 must have the label 0 or 1"),
        (cut("histories"), "does not describe the 3 histories"),
        (put_pickle, "does not hold the arrays"),
    ],
)
def test_what_the_model_could_not_use_is_told(whole, tmp_path, change, words):
    folder = shutil.copytree(whole, tmp_path / "copy")
    assert check_gt_behrt(folder).patients == 4
    change(folder)
    with pytest.raises(InputError, match=words):
        check_gt_behrt(folder)


def test_histories_share_graphs_and_have_their_own_fields(ask, tmp_path):
    """A stay that goes on is seen in another state, a stay that is over by all histories alike; none has its fields."""
    events = [
        *small_visits.stay(1, 1, "2020-01-01", "2020-01-05", "ICD10CM/E11.9"),
        *small_visits.stay(1, 2, "2020-03-07", "2020-03-20", "ICD10CM/E10.9"),
        (1, small_visits.at("2020-03-08"), "NDC/00002143380", 2),
        *small_visits.stay(1, 3, "2020-06-01", "2020-06-05", "ICD10CM/E11.9"),
    ]
    times = [small_visits.at(day) for day in ("2020-02-01", "2020-03-09", "2020-04-01", "2020-05-01")]
    rows = {"subject_id": 1, "prediction_time": times, "boolean_value": [True, False, True, False]}
    pl.DataFrame(rows).write_parquet(tmp_path / "labels")
    events = small_visits.write(tmp_path / "meds", events)
    folder = convert(ask(events=events, nodes="codes", labels=str(tmp_path / "labels")))
    arrays = VisitGraphs(folder).arrays
    # The first stay, the second, and the second as it is seen on its third day; no label sees the last stay.
    assert arrays["entry_graph"].tolist() == [0, 0, 2, 0, 1, 0, 1]
    assert np.diff(arrays["code_offsets"]).tolist() == [1, 2, 1]
    assert arrays["histories"].tolist() == [[0, 1, 1], [1, 3, 0], [3, 5, 1], [5, 7, 0]]
    shown = [[(visit.los, visit.delta, visit.label) for visit in patient if visit.mask] for patient in read(folder)[0]]
    assert shown == [[(4, 0, 1)], [(4, 0, 0), (0, 2, 0)], [(4, 0, 1), (13, 2, 1)], [(4, 0, 0), (13, 2, 0)]]


def test_the_folder_opens_without_this_project(whole):
    """The notebook imports the module from the folder; splits are those of samples.json, and loaders batch them."""
    script = f"""
import sys
sys.path.insert(0, {str(whole)!r})
from visit_graphs import VisitGraphs
from torch_geometric.loader import DataListLoader
dataset = VisitGraphs({str(whole)!r})
parts = [dataset.of(name) for name in ("train", "tuning", "held_out")]
assert not any(name.startswith(("medtok_jax", "preprocessing")) for name in sys.modules)
for batch in DataListLoader(parts[0], batch_size=2):
    print([len(history) for history in batch])
print(len(dataset), [len(part) for part in parts])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=whole.parent, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["[50, 50]", "[50]", "4 [3, 1, 0]"], done.stderr


def test_a_split_holds_its_own_histories(whole):
    """Each history of a split is the one that stands in its place in the whole."""
    dataset, about = VisitGraphs(whole), json.loads((whole / "samples.json").read_text())
    assert set(about["split"]) == {"train", "tuning"}
    for name in ("train", "tuning", "held_out"):
        rows = [row for row, split in enumerate(about["split"]) if split == name]
        part = dataset.of(name)
        assert len(part) == len(rows)
        for mine, row in zip(part, rows, strict=True):
            assert [visit.x.tolist() for visit in mine] == [visit.x.tolist() for visit in dataset[row]]


def test_the_size_grows_with_codes_and_not_with_their_pairs(ask, tmp_path):
    """60 codes a visit have 7,000 edges; the graphs take less than 12 bytes a code and 120 a visit."""
    drugs = [f"NDC/000000{number:05d}" for number in range(60)]
    events = []
    for stay in range(1, 31):
        events += small_visits.stay(1, stay, f"2020-01-{stay:02d}", f"2020-01-{stay:02d}", *drugs)
    folder = convert(ask(events=small_visits.write(tmp_path / "meds", events), nodes="codes"))
    assert len(VisitGraphs(folder)[0][0].edge_attr) == 60 * 59 + 2 * 60
    size = sum(path.stat().st_size for path in (folder / "graphs").iterdir())
    assert size < 30 * (60 * 12 + 120) + 7 * 128


def test_files_that_do_not_belong_together_are_told(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "copy")
    np.save(folder / "initial_nodes.npy", np.zeros((3, 108), np.float32))
    with pytest.raises(InputError, match="needs a row for each node"):
        check_gt_behrt(folder)
    with open(folder / "node_vocabulary.txt", "a") as file:
        file.write("more\n")
    with pytest.raises(InputError, match="repeats a name"):
        check_gt_behrt(folder)
