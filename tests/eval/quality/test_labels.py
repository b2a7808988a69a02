"""Labels of a real data set: what is evaluated must not be in front of the model."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval.quality import label_building
from eval.quality.label_building import BACKWARD, FORWARD, NOT_EVALUATED
from eval.quality.labels import SPLITS, Labels
from medtok_jax.data import code_table
from preprocessing import medtok_codes
from preprocessing.common.errors import InputError
from preprocessing.graph.icd_graph import EDGE_TYPES, REVERSE
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.sources import icd

HELD_OUT = "medtok_codes/icd-holdout_gem_30_eval-holdout_note_30_eval-nodes_32-sample_12000"


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Data directory, builder and labels of a data set that holds crosswalks and notes out."""
    directory = tmp_path_factory.mktemp("held_out")
    builder = medtok_codes.prepare(HELD_OUT, directory, progress=False)
    return directory, builder, label_building.open_labels(HELD_OUT, directory, progress=False)


@pytest.fixture(scope="module")
def shown(held_out):
    """Keys of all nodes in the subgraph of each code, read from the examples themselves."""
    _, builder, _ = held_out
    keys = KnowledgeGraph.load(medtok_codes.graph_path(builder)).node_keys()
    found = {}
    for split in ("train", "validation", "test"):
        for example in builder.as_data_source(split):
            found[example["key"].decode()] = {keys[node] for node in example["nodes"]}
    return found


def pairs_of(labels: Labels, queries) -> list[tuple[str, str]]:
    """(query, target) keys of what is evaluated."""
    owner = np.repeat(queries.query, np.diff(queries.offsets))
    used = [not queries.kind_names[kind].startswith("not ") for kind in queries.kinds]
    return list(zip(labels.keys[owner[used]].tolist(), labels.keys[queries.targets[used]].tolist(), strict=True))


@pytest.mark.integration
def test_no_evaluated_partner_is_in_the_subgraph_of_either_code(held_out, shown):
    labels = held_out[2]
    for direction in (FORWARD, BACKWARD):
        pairs = pairs_of(labels, labels.crosswalk[direction])
        assert len(pairs) > 15
        assert labels.crosswalk[direction].given == ""
        for query, target in pairs:
            assert target not in shown[query]
            assert query not in shown[target]


@pytest.mark.integration
def test_no_evaluated_edge_is_in_the_subgraph_of_its_code(held_out, shown):
    labels = held_out[2]
    pairs = [pair for queries in labels.relations.values() for pair in pairs_of(labels, queries)]
    assert len(pairs) > 100
    assert {queries.given for queries in labels.relations.values()} == {""}
    for query, target in pairs:
        assert target not in shown[query]
        assert query not in shown[target]


@pytest.mark.integration
def test_evaluated_pairs_are_held_out_pairs(held_out):
    """Crosswalk pairs are held out themselves; a note's held-out edge joins nodes above the two codes."""
    _, builder, labels = held_out
    held = pq.read_table(medtok_codes.graph_path(builder) / "holdout.parquet").to_pylist()
    crosswalk = {(row["source"], row["target"]) for row in held if row["relation"] in EDGE_TYPES["gem"]}
    assert set(pairs_of(labels, labels.crosswalk[FORWARD])) <= crosswalk
    assert {(b, a) for a, b in pairs_of(labels, labels.crosswalk[BACKWARD])} <= crosswalk
    exact = {(f"ICD9CM/{a}", f"ICD10CM/{b}") for a, b, is_exact in icd.read_gem().pairs if is_exact}
    queries = labels.crosswalk[FORWARD]
    owner = np.repeat(queries.query, np.diff(queries.offsets))
    for query, target, kind in zip(owner, queries.targets, queries.kinds, strict=True):
        if kind != NOT_EVALUATED:
            wanted = ("exact", "approximate")[kind]
            pair = (str(labels.keys[query]), str(labels.keys[target]))
            assert (pair in exact) == (wanted == "exact")
    graph = KnowledgeGraph.load(medtok_codes.graph_path(builder))
    keys = np.array(graph.node_keys())
    above = {str(key): set(keys[path[path >= 0]]) for key, path in zip(labels.keys, labels.path, strict=True)}
    for relation, queries in labels.relations.items():
        edges = {(row["source"], row["target"]) for row in held if row["relation"] == relation}
        for query, target in pairs_of(labels, queries)[::7]:
            assert any((a, b) in edges for a in above[query] for b in above[target])


@pytest.mark.integration
def test_the_graph_has_no_path_of_crosswalks_to_a_partner_and_no_groups(held_out):
    """Whatever is in between: the code that looks has no crosswalk edge at all."""
    _, builder, labels = held_out
    graph = KnowledgeGraph.load(medtok_codes.graph_path(builder))
    gem = [name for forward in EDGE_TYPES["gem"] for name in (forward, REVERSE[forward])]
    is_gem = np.isin(np.array(graph.relation_names)[np.asarray(graph.relation)], gem)
    joined = set(np.unique(graph.sources()[is_gem]).tolist())
    number = {key: node for node, key in enumerate(graph.node_keys())}
    for direction in (FORWARD, BACKWARD):
        codes = labels.keys[labels.crosswalk[direction].query].tolist()
        assert not joined & {number[code] for code in codes}
    assert not {"in_group", "group_member"} & set(graph.relation_names)
    assert not any(key.startswith(("CCSR/", "CCS/")) for key in number)
    assert labels.given == {"tree": label_building.GIVEN_TREE}


@pytest.mark.thorough
@pytest.mark.integration
def test_without_a_hold_out_the_same_pairs_are_shown_and_said_to_be_given(held_out):
    """The proof above can fail: on the graph that keeps its crosswalks partners are in subgraphs."""
    directory, _, labels = held_out
    name = "medtok_codes/icd-nodes_32-sample_12000"
    leaky = label_building.open_labels(name, _built(name, directory), progress=False)
    assert set(pairs_of(labels, labels.crosswalk[FORWARD])) <= set(pairs_of(leaky, leaky.crosswalk[FORWARD]))
    assert leaky.crosswalk[FORWARD].given == label_building.GIVEN_CROSSWALK
    assert {queries.given for queries in leaky.relations.values()} == {label_building.GIVEN_NOTES}
    table = code_table.load(medtok_codes.open_prepared(name, directory), directory / "medtok_cache", progress=False)
    linked = label_building._LinkedCodes.from_table(table)
    queries = leaky.crosswalk[FORWARD]
    owner = np.repeat(queries.query, np.diff(queries.offsets))
    assert linked.contains(owner, linked.node[queries.targets]).mean() > 0.3


def _built(name, directory):
    medtok_codes.prepare(name, directory, progress=False)
    return directory


@pytest.mark.integration
def test_groups_and_trees_are_the_official_ones(held_out):
    labels = held_out[2]
    row = {key: number for number, key in enumerate(labels.keys.tolist())}
    official = {"CCSR": [(f"ICD10CM/{code}", group) for code, group in icd.read_ccsr()]}
    official["CCS"] = [(f"ICD9CM/{code}", group) for code, group, _ in icd.read_ccs()]
    for name, members in official.items():
        mine = [(labels.groups[name][row[key]], group) for key, group in members if key in row]
        assert len(mine) > 500
        # One number for each group.
        assert len(set(mine)) == len({number for number, _ in mine}) == len({group for _, group in mine})
        assert (labels.groups[name] >= 0).sum() == len(mine)
    for key in row:
        same = labels.category == labels.category[row[key]]
        if key.startswith("ICD10CM/") and row[key] % 50 == 0:
            assert {other[:11] for other in labels.keys[same].tolist()} == {key[:11]}
            assert len(set(labels.path[same, 2].tolist())) <= 1


@pytest.mark.integration
def test_validation_and_test_share_no_item(held_out):
    labels = held_out[2]
    parts = [labels.crosswalk[FORWARD].of_split(split) for split in SPLITS]
    assert not set(parts[0].query.tolist()) & set(parts[1].query.tolist())
    assert min(len(part) for part in parts) > 2
    # The pairs of one direction are not chosen by in the other.
    forward = {split: set(pairs_of(labels, labels.crosswalk[FORWARD].of_split(split))) for split in SPLITS}
    for split, other in (SPLITS, SPLITS[::-1]):
        backward = {(b, a) for a, b in pairs_of(labels, labels.crosswalk[BACKWARD].of_split(split))}
        assert not backward & forward[other]


@pytest.mark.integration
def test_saved_and_read_again(held_out, tmp_path):
    labels = held_out[2]
    labels.save(tmp_path / "labels")
    again = Labels.load(tmp_path / "labels")
    assert again.counts == labels.counts
    assert again.given == labels.given
    for name in ("keys", "systems", "category", "path", "part"):
        assert np.array_equal(getattr(again, name), getattr(labels, name))
    for name, queries in labels.crosswalk.items():
        assert np.array_equal(again.crosswalk[name].targets, queries.targets)
        assert again.crosswalk[name].kind_names == queries.kind_names
    (tmp_path / "labels" / "labels.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as labels"):
        Labels.load(tmp_path / "labels")


@pytest.mark.integration
def test_labels_of_some_codes(held_out):
    labels = held_out[2]
    queries = labels.crosswalk[FORWARD]
    kept = np.unique(np.concatenate([queries.query[:20], queries.targets, np.arange(0, len(labels), 5)]))
    keys = np.sort(np.append(labels.keys[kept], "ICD10CM/Z99.ZZZZ"))
    some = labels.for_keys(keys)
    row = int(np.searchsorted(keys, "ICD10CM/Z99.ZZZZ"))
    assert some.category[row] < 0
    assert (some.path[row] == -1).all()
    assert [group[row] for group in some.groups.values()] == [-1, -1]
    known = set(keys.tolist())
    wanted = {(a, b) for a, b in pairs_of(labels, queries) if a in known and b in known}
    assert set(pairs_of(some, some.crosswalk[FORWARD])) == wanted
    with pytest.raises(InputError, match="none of the codes"):
        labels.for_keys(np.array(["SNOMED/1"]))
