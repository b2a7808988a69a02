"""Codes encoded again with something dropped, by a small model as it is initialized: real texts, graphs and code."""

import dataclasses

import numpy as np
import pytest

from eval.common.intervals import interval
from eval.common.representation import Representation
from eval.quality import label_building, robustness
from eval.quality.context import Context
from eval.quality.robustness import FEWER_FACTS, NO_EDGES, NO_GRAPH, NO_TEXT, NOTHING_DROPPED
from medtok_jax.data.masking import Masked
from medtok_jax.devices import sharding
from medtok_jax.inference.trained import TrainedModel
from medtok_jax.regions import REGIONS, parts_of
from medtok_jax.training import setup as runs
from preprocessing.common.errors import InputError
from preprocessing.common.ragged import take
from tests.helpers.small_run import DATA_SET, small_config


@pytest.fixture(scope="module")
def model(data_dir, tmp_path_factory) -> TrainedModel:
    """A model as it is initialized; two of eight tokens are of the text and two of the graph."""
    workdir = tmp_path_factory.mktemp("robustness")
    config = small_config(data_dir, model__text_token_share=0.25, model__graph_token_share=0.25)
    ready = runs.set_up(config, workdir, progress=False)
    return TrainedModel(workdir, ready.config, ready.inputs, ready.programs, ready.state, ready.metadata)


@pytest.fixture(scope="module")
def table(model):
    """The tokens of all codes, as the model gives them."""
    data = model.inputs.data.table
    order = np.argsort(data.key.astype(str))
    parts, regions = parts_of(model.config.model), model.programs.structure.regions
    ends = np.cumsum([part.num_tokens for part in parts]).tolist()
    about = {
        "name": "small",
        "keys": data.key[order].astype(str),
        "descriptions": data.description[order],
        "codebook": model.codebook(),
        "regions": {region: regions.bounds(region) for region in REGIONS},
        "embeddings": tuple(part.embedding for part in parts),
        "token_bounds": tuple(zip([0, *ends[:-1]], ends, strict=True)),
        "region_of_embedding": {part.embedding: part.region for part in parts},
    }
    empty = Representation(tokens=np.zeros((len(order), ends[-1]), np.int32), **about)
    ids, weights, vectors = robustness.encode(model, empty, np.arange(len(order)), robustness.unchanged)
    return Representation(tokens=ids, weights=weights, vectors=vectors, **about)


def test_what_is_dropped(model):
    data, config = model.inputs.data, model.config
    # Of few edges, chance may leave all.
    rows = np.sort(np.argsort(data.table.num_edges, kind="stable")[-3:])
    textless = robustness.without_text(data, rows, config)
    for row in rows:
        assert len(take(textless.cache.states, textless.cache.offsets, textless.text_id[[row]])[0]) == 0
        assert len(take(data.cache.states, data.cache.offsets, textless.text_id[[row - 1]])[0]) > 0
    graphless = robustness.without_graph(data, rows, config).table
    assert graphless.num_nodes.max() == graphless.num_edges.max() == 0
    assert (graphless.self_node == -1).all()
    fewer = robustness.with_fewer_facts(data, rows, config).table
    for row in rows:
        kept, whole = (edges_of(table, row) for table in (fewer, data.table))
        assert set(kept) < set(whole)
        assert {(b, a) for a, b in kept} == set(kept)
        nodes = take(fewer.nodes, fewer.node_offsets, np.array([row]))[0]
        hops = take(fewer.hops, fewer.node_offsets, np.array([row]))[0]
        touched = {nodes[end] for pair in places_of(fewer, row) for end in pair}
        assert set(nodes[hops > 0]) <= touched, "a node that no fact is left of is dropped"
        assert len(nodes) < data.table.num_nodes[row]
    before = sum(len(edges_of(data.table, row)) for row in rows)
    assert 0.1 * before < sum(len(edges_of(fewer, row)) for row in rows) < 0.7 * before
    bag = robustness.without_edges(data, rows, config).table
    assert bag.num_edges.max() == 0
    np.testing.assert_array_equal(bag.num_nodes, data.table.num_nodes)


def edges_of(table, row) -> list[tuple[int, int]]:
    """Edges of a code, as pairs of nodes of the knowledge graph."""
    nodes = take(table.nodes, table.node_offsets, np.array([row]))[0]
    return [(int(nodes[a]), int(nodes[b])) for a, b in places_of(table, row)]


def places_of(table, row) -> list[tuple[int, int]]:
    ends = [
        take(getattr(table, name), table.edge_offsets, np.array([row]))[0].tolist() for name in ("senders", "receivers")
    ]
    return list(zip(*ends, strict=True))


def test_encoding_some_codes_gives_their_rows_of_the_table(model, table):
    rows = np.array([5, 100, 101, 400])
    ids, weights, vectors = robustness.encode(model, table, rows, robustness.unchanged)
    assert np.array_equal(ids, table.tokens[rows])
    assert weights == pytest.approx(table.weights[rows], abs=1e-5)
    assert vectors == pytest.approx(table.vectors[rows], abs=1e-5)


def test_a_dropped_text_is_what_training_masks(model, table):
    size = model.inputs.batch_size
    rows = np.arange(size)
    codes = np.argsort(model.inputs.data.table.key.astype(str))[rows]
    masked = Masked.none(size)._replace(text=np.ones(size, bool))
    batch = model.inputs.unmasked_builder(codes, np.ones(size, bool), np.full(size, -1), masked)
    placed = sharding.place_batch(batch, model.inputs.mesh)
    step = model.programs.tokenize_step
    index, tokens, _ = step(model.state.params, model.state.fixed, placed, model.inputs.tables)
    place = {int(row): number for number, row in enumerate(np.asarray(index))}
    ids, _, _ = robustness.encode(model, table, rows, robustness.without_text)
    np.testing.assert_array_equal(ids, np.asarray(tokens.ids)[[place[int(row)] for row in codes]])
    assert (ids != table.tokens[rows]).any(axis=1).all()


def test_the_tokenizer_of_another_run_is_refused(model, table, data_dir):
    labels = label_building.open_labels(DATA_SET, data_dir, progress=False).for_keys(table.keys)
    other = dataclasses.replace(table, codebook=table.codebook[::-1])
    with pytest.raises(InputError, match="not the tokenizer of the best checkpoint"):
        robustness.measure(Context(other, labels), model)


def test_dropping_more_leaves_less(model, table, data_dir):
    labels = label_building.open_labels(DATA_SET, data_dir, progress=False).for_keys(table.keys)
    found = {(m.scope, m.metric, m.view): interval(m) for m in robustness.measure(Context(table, labels), model)}
    assert {scope for scope, _, _ in found} == {NOTHING_DROPPED, NO_TEXT, NO_GRAPH, FEWER_FACTS, NO_EDGES}
    for view in ("vectors", "tokens"):
        similarity = {
            scope: found[scope, "similarity to the complete code", view].value for scope in robustness.CONDITIONS
        }
        assert similarity[NOTHING_DROPPED] == pytest.approx(1, abs=1e-5)
        assert similarity[NOTHING_DROPPED] > similarity[FEWER_FACTS] > max(similarity[NO_TEXT], similarity[NO_GRAPH])
    itself = {scope: found[scope, "finds itself, R@1", "vectors"].value for scope in robustness.CONDITIONS}
    assert itself[NOTHING_DROPPED] > 0.9
    assert itself[NO_GRAPH] < 0.5 * itself[NOTHING_DROPPED]
