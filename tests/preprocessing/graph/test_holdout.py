import networkx as nx
import numpy as np
import pyarrow.parquet as pq
import pytest

from preprocessing.common.errors import InputError
from preprocessing.graph import icd_graph
from preprocessing.graph.holdout import Holdout, hold_out, write_held_out
from preprocessing.graph.knowledge_graph import from_facts, node_table
from preprocessing.graph.neighborhoods import neighbor_table, subgraphs

GEM = icd_graph.EDGE_TYPES["gem"]
EVAL = Holdout("gem", 0.3, "eval")


@pytest.fixture(scope="module")
def divided(facts):
    keys = list(facts.ids)
    kept, held = hold_out(facts.facts, keys, GEM, EVAL)
    return keys, kept, held


def test_nothing_is_lost_and_other_relations_stay(facts, divided):
    _, kept, held = divided
    assert set(held) == set(GEM)
    for relation, pairs in facts.facts.items():
        if relation in GEM:
            both = np.concatenate([kept[relation], held[relation]])
            assert sorted(both.tolist()) == sorted(pairs.tolist())
        else:
            assert kept[relation] is pairs


def test_fraction_of_source_nodes(facts, divided):
    _, kept, held = divided
    sources = {a for relation in GEM for a, _ in facts.facts[relation].tolist()}
    chosen = {a for relation in GEM for a, _ in held[relation].tolist()}
    assert abs(len(chosen) / len(sources) - 0.3) < 0.02
    assert not chosen & {a for relation in GEM for a, _ in kept[relation].tolist()}


def test_held_out_pairs_are_not_connected_by_that_edge_type_in_either_subgraph(facts, divided):
    """Neither in the whole graph nor in the subgraph of the source or of the target, by a path of any length."""
    _, kept, held = divided
    graph = from_facts(node_table(facts.rows), kept, icd_graph.REVERSE)
    names = np.array(graph.relation_names)
    is_gem = np.isin(names, [*GEM, *(icd_graph.REVERSE[relation] for relation in GEM)])
    pairs = np.concatenate(list(held.values()))
    whole = nx.Graph(np.concatenate([kept[relation] for relation in GEM]).tolist())
    whole.add_nodes_from(pairs.ravel().tolist())
    component = {node: i for i, nodes in enumerate(nx.connected_components(whole)) for node in nodes}
    assert not any(component[a] == component[b] for a, b in pairs.tolist())

    table = neighbor_table(graph, hub_cap=16, priority=icd_graph.PRIORITY, first_kept=icd_graph.FIRST_KEPT)
    sampled = pairs[np.random.default_rng(0).choice(len(pairs), 1000, replace=False)]
    for ends in (sampled[:, 0], sampled[:, 1]):
        found = subgraphs(table, ends.reshape(-1, 1).astype(np.int32), max_nodes=64)
        for (source, target), subgraph in zip(sampled.tolist(), found, strict=True):
            gem = is_gem[subgraph.relations]
            by_type = nx.Graph()
            by_type.add_nodes_from([source, target])
            nodes = subgraph.nodes
            by_type.add_edges_from(
                zip(nodes[subgraph.senders[gem]].tolist(), nodes[subgraph.receivers[gem]].tolist(), strict=True)
            )
            assert not nx.has_path(by_type, source, target)


def test_the_proof_would_fail_without_a_holdout(facts):
    """The same check, on the graph that keeps its crosswalks, does find connected pairs."""
    whole = nx.Graph(np.concatenate([facts.facts[relation] for relation in GEM]).tolist())
    assert all(nx.has_path(whole, a, b) for a, b in facts.facts["gem_exact"][:50].tolist())


@pytest.mark.parametrize("seed", range(20))
def test_edge_types_within_one_set_of_nodes(seed):
    """A node can be a source of one edge and a target of another: both go."""
    rng = np.random.default_rng(seed)
    facts = {"note": rng.integers(0, 40, (80, 2)), "other": rng.integers(0, 40, (30, 2))}
    keys = [f"S/{i}" for i in range(40)]
    kept, held = hold_out(facts, keys, ["note"], Holdout("note", 0.4, "x"))
    graph = nx.Graph(kept["note"].tolist())
    graph.add_nodes_from(range(40))
    assert len(held["note"]) > 0
    assert not any(nx.has_path(graph, a, b) for a, b in held["note"].tolist() if a != b)
    assert kept["other"] is facts["other"]


def test_choice_depends_on_the_name_and_the_keys_alone(facts, divided):
    keys, _, held = divided
    again = hold_out(facts.facts, keys, GEM, EVAL)[1]
    assert all(np.array_equal(held[relation], again[relation]) for relation in GEM)
    other = hold_out(facts.facts, keys, GEM, Holdout("gem", 0.3, "other"))[1]
    assert not np.array_equal(held["gem_exact"], other["gem_exact"])
    order = np.random.default_rng(0).permutation(len(keys))
    renumbered = np.empty_like(order)
    renumbered[order] = np.arange(len(keys))
    shuffled = {relation: renumbered[facts.facts[relation]] for relation in GEM}
    moved = hold_out(shuffled, [keys[i] for i in order], GEM, EVAL)[1]
    assert np.array_equal(order[moved["gem_exact"]], held["gem_exact"])


def test_pairs_are_written_with_their_keys(divided, tmp_path):
    keys, _, held = divided
    write_held_out(tmp_path / "holdout.parquet", held, keys)
    table = pq.read_table(tmp_path / "holdout.parquet")
    assert table.column_names == ["source", "target", "relation"]
    assert len(table) == sum(map(len, held.values()))
    rows = {tuple(row.values()) for row in table.to_pylist()}
    assert rows == {(keys[a], keys[b], relation) for relation in GEM for a, b in held[relation].tolist()}


def test_all_of_an_edge_type(facts):
    kept, held = hold_out(facts.facts, list(facts.ids), GEM, Holdout("gem", 1.0, "eval"))
    assert not any(len(kept[relation]) for relation in GEM)
    assert all(len(held[relation]) == len(facts.facts[relation]) > 0 for relation in GEM)
    graph = from_facts(node_table(facts.rows), kept, icd_graph.REVERSE)
    names = np.array(graph.relation_names)[np.unique(graph.relation)]
    assert not {*GEM, *(icd_graph.REVERSE[relation] for relation in GEM)} & set(names.tolist())


@pytest.mark.parametrize("fraction", [0, 1.01, -0.1, 30])
def test_fraction_must_be_a_fraction(fraction):
    with pytest.raises(InputError, match=str(fraction)):
        Holdout("gem", fraction, "eval")
