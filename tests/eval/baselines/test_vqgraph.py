"""VQGraph's equations against loops in NumPy, and what its nodes are, against the tables they are made of."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from eval.baselines.data import Codes
from eval.baselines.vqgraph import NodeBatch, VQGraph, VQGraphOptions, edge_reconstruction, node_reconstruction
from eval.baselines.vqgraph_training import Graphs, tokens_of, train
from medtok_jax.data.dataset import load_data
from medtok_jax.text.encoder_files import resolve_text_encoder
from tests.helpers.small_run import small_config

OPTIONS = VQGraphOptions(codebook_size=40, width=16, steps=150, batch_size=16, kmeans_step=10, learning_rate=1e-2)


@pytest.fixture(scope="module")
def graphs(data_dir) -> Graphs:
    """Subgraphs of a small data set."""
    config = small_config(data_dir)
    encoder_dir = resolve_text_encoder(config.model.text_encoder_model)
    return Graphs(Codes.of(config, load_data(config, encoder_dir=encoder_dir, progress=False)))


@pytest.fixture(scope="module")
def batch(graphs):
    """One training batch and its table rows."""
    builder = graphs._builder(OPTIONS.batch_size)
    rows = graphs.data.rows("train")[: OPTIONS.batch_size]
    made = builder(rows, np.ones(len(rows), bool), np.full(len(rows), -1))
    return (jax.tree.map(lambda x: x[0], made.graph), graphs.tables), made.index


@pytest.fixture(scope="module")
def model(graphs) -> VQGraph:
    return VQGraph(OPTIONS, graphs.data.sizes(), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def trained(graphs):
    return train(graphs, OPTIONS, seed=0, progress=False)


@nnx.jit
def _nodes(model, graph, tables):
    return model.nodes(graph, tables)


def encode(model, graph, tables) -> NodeBatch:
    return jax.tree.map(np.asarray, _nodes(model, graph, tables))


def random_nodes(seed: int = 0) -> tuple[NodeBatch, np.random.Generator]:
    rng = np.random.default_rng(seed)
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], bool)
    adjacency = np.triu(rng.random((3, 4, 4)) < 0.5, 1)

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    nodes = NodeBatch(
        states=unit(rng.normal(size=(3, 4, 16))).astype(np.float32),
        mask=mask,
        known=mask & (rng.random((3, 4)) < 0.8),
        anchors=np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]], bool),
        attributes=rng.normal(size=(3, 4, 384)).astype(np.float32),
        adjacency=(adjacency | adjacency.swapaxes(1, 2)).astype(np.float32),
    )
    return nodes, rng


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_node_reconstruction(gamma):
    nodes, rng = random_nodes()
    decoded = rng.normal(size=nodes.attributes.shape)
    errors = []
    for b, i in zip(*np.nonzero(nodes.known), strict=True):
        v, back = nodes.attributes[b, i].astype(np.float64), decoded[b, i]
        errors.append((1 - v @ back / (np.linalg.norm(v) * np.linalg.norm(back))) ** gamma)
    found = node_reconstruction(jnp.asarray(nodes.attributes), jnp.asarray(decoded), nodes.known, gamma=gamma)
    assert found == pytest.approx(np.mean(errors), rel=1e-5)


@pytest.mark.parametrize("scaling", ["minmax", "sigmoid"])
def test_edge_reconstruction(scaling):
    nodes, rng = random_nodes()
    decoded = rng.normal(size=(3, 4, 5))
    pairs = [
        (nodes.adjacency[b, i, j], decoded[b, i] @ decoded[b, j])
        for b in range(3)
        for i in range(4)
        for j in range(4)
        if i != j and nodes.mask[b, i] and nodes.mask[b, j]
    ]
    low, high = min(product for _, product in pairs), max(product for _, product in pairs)
    scale = {"minmax": lambda x: (x - low) / (high - low), "sigmoid": lambda x: 1 / (1 + np.exp(-x))}[scaling]
    wanted = np.mean([(joined - scale(product)) ** 2 for joined, product in pairs])
    inputs = (jnp.asarray(array) for array in (nodes.adjacency, decoded, nodes.mask))
    assert edge_reconstruction(*inputs, scaling=scaling) == pytest.approx(wanted, rel=1e-5)


def test_all_losses_by_loops(model):
    """Nearest row, both decoders, both reconstructions, codebook and commitment term, written down once more."""
    nodes, _ = random_nodes()
    options = dataclasses.replace(OPTIONS, node_weight=0.7, edge_weight=1.3, commitment_weight=0.25)
    book = np.asarray(model.quantizer.codebook(), np.float64)
    weights = {
        name: (np.asarray(layer.kernel[...], np.float64), np.asarray(layer.bias[...], np.float64))
        for name, layer in (("node", model.node_decoder), ("edge", model.edge_decoder))
    }
    rows = np.zeros((3, 4, 16))
    for place in np.ndindex(3, 4):
        rows[place] = min(book, key=lambda row, h=nodes.states[place]: ((row - h) ** 2).sum())
    back = rows @ weights["node"][0] + weights["node"][1]
    cosine = (back * nodes.attributes).sum(-1) / np.linalg.norm(back, axis=-1)
    cosine /= np.linalg.norm(nodes.attributes, axis=-1)
    x = rows @ weights["edge"][0] + weights["edge"][1]
    pairs = nodes.mask[:, :, None] & nodes.mask[:, None] & ~np.eye(4, dtype=bool)
    product = np.einsum("bid,bjd->bij", x, x)
    low, high = product[pairs].min(), product[pairs].max()
    squared = (nodes.adjacency - (product - low) / (high - low)) ** 2
    distance = ((rows - nodes.states) ** 2).sum(-1)[nodes.mask].mean()
    found = model.losses(jax.tree.map(jnp.asarray, nodes), options)
    assert found["node"] == pytest.approx(0.7 * (1 - cosine)[nodes.known].mean(), rel=1e-4)
    assert found["edge"] == pytest.approx(1.3 * squared[pairs].mean(), rel=1e-4)
    assert found["quantization"] == pytest.approx((1 + 0.25) * distance, rel=1e-4)


def test_nodes_are_those_of_the_table(graphs, model, batch):
    inputs, index = batch
    nodes, table = encode(model, *inputs), graphs.data.table
    names = np.asarray(graphs.tables.name_embedding, np.float32)[np.asarray(graphs.tables.node_name)]
    for place, row in enumerate(index):
        here = slice(table.node_offsets[row], table.node_offsets[row + 1])
        edges = slice(table.edge_offsets[row], table.edge_offsets[row + 1])
        count = here.stop - here.start
        assert nodes.mask[place].sum() == nodes.known[place].sum() == count
        np.testing.assert_array_equal(nodes.anchors[place, :count], table.hops[here] == 0)
        np.testing.assert_array_equal(nodes.attributes[place, :count], names[table.nodes[here]])
        wanted = np.zeros(nodes.adjacency[place].shape)
        wanted[table.senders[edges], table.receivers[edges]] = 1
        np.testing.assert_array_equal(nodes.adjacency[place], wanted)


def test_a_code_does_not_see_its_own_name(graphs, model, batch):
    """Another name of its own node changes what it must foretell, not what it is."""
    (graph, tables), index = batch
    places = np.flatnonzero(graphs.data.table.self_node[index] >= 0)
    own = graphs.data.table.nodes[
        graphs.data.table.node_offsets[index[places[0]]] + graphs.data.table.self_node[index[places[0]]]
    ]
    # The node gets a row of its own in the table of names, so that its name alone changes.
    numbers = np.array(tables.node_name)
    names = np.asarray(tables.name_embedding)
    embedding = np.concatenate([names, names[numbers[own]][None]])
    numbers[own] = len(names)
    changed = embedding.copy()
    changed[-1] = -changed[-1]
    before, after = (
        encode(model, graph, tables.replace(node_name=numbers, name_embedding=jnp.asarray(names)))
        for names in (embedding, changed)
    )
    np.testing.assert_allclose(before.states[places[0]], after.states[places[0]], atol=1e-6)
    assert not np.allclose(before.attributes, after.attributes)


def test_training_lowers_the_losses(trained):
    history = trained.history
    assert len(history) == OPTIONS.steps
    for name in ("node", "edge"):
        first, last = (np.mean([terms[name] for terms in part]) for part in (history[:10], history[-10:]))
        assert last < first, name
    # The codebook is fitted before step 10.
    assert history[10]["quantization"] < history[9]["quantization"] / 2


def test_tokens_of_codes(graphs, trained, batch):
    """A code's state is that of its anchors, whatever batch it comes in."""
    found = tokens_of(graphs, trained, 4, progress=False)
    assert found["tokens"].shape == found["weights"].shape == (len(graphs.codes), 4)
    np.testing.assert_allclose(found["weights"].sum(1), 1.0, rtol=1e-5)
    nodes = encode(trained.model, *batch[0])
    for place, row in enumerate(batch[1]):
        mean = nodes.states[place][nodes.anchors[place]].mean(0)
        here = np.flatnonzero(graphs.codes.rows == row)[0]
        np.testing.assert_allclose(found["unquantized"][here], mean / np.linalg.norm(mean), atol=1e-4)
    assert len(np.unique(found["tokens"], axis=0)) > 20
