import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from flax import nnx

from medtok_jax.batch import MISSING, ORDINARY, SELF
from medtok_jax.models.graph_encoder import KINDS, GraphEncoder, MultiScaleReadout, level_means
from medtok_jax.models.graph_layers import GATLayer, GCNLayer, gcn_normalization
from medtok_jax.models.node_features import NodeFeatures

WIDTH, RELATIONS, HEADS = 8, 5, 2


def _edges(rng, *, num_nodes, num_edges):
    """Random edges, loops and parallel ones among them, a third of them masked."""
    return {
        "senders": rng.integers(0, num_nodes, num_edges).astype(np.int32),
        "receivers": rng.integers(0, num_nodes, num_edges).astype(np.int32),
        "relations": rng.integers(0, RELATIONS, num_edges).astype(np.int32),
        "edge_mask": rng.random(num_edges) < 2 / 3,
    }


@pytest.fixture(params=[0, 1, 2])
def random_graph(request):
    rng = np.random.default_rng(request.param)
    nodes = rng.normal(size=(9, WIDTH)).astype(np.float32)
    table = rng.normal(size=(RELATIONS, WIDTH)).astype(np.float32)
    return nodes, table, _edges(rng, num_nodes=9, num_edges=25)


@pytest.fixture
def batch():
    """Three graphs, of 4 nodes, 1 node without edges, and 3 nodes, and a spare one for a padding node."""
    return {
        "nodes": np.random.default_rng(5).normal(size=(9, WIDTH)).astype(np.float32),
        "senders": np.array([0, 1, 1, 2, 2, 3, 5, 6, 8], np.int32),
        "receivers": np.array([1, 0, 2, 1, 3, 2, 6, 5, 8], np.int32),
        "relations": np.array([0, 0, 1, 1, 2, 2, 4, 4, 3], np.int32),
        "edge_mask": np.arange(9) < 8,
        "hops": np.array([0, 1, 2, 3, 0, 0, 1, 1, 0], np.int32),
        "graph_index": np.array([0, 0, 0, 0, 1, 2, 2, 2, 3], np.int32),
        "node_mask": np.arange(9) < 8,
    }


def _encoder(kind, dtype=jnp.float32):
    return GraphEncoder(kind=kind, width=WIDTH, num_heads=HEADS, num_relations=RELATIONS, dtype=dtype, rngs=nnx.Rngs(0))


@nnx.jit(static_argnames="num_graphs")
def _run(encoder, batch, num_graphs=4):
    return encoder(**batch, num_graphs=num_graphs)


def _edge_list(edges):
    kept = edges["edge_mask"]
    return zip(edges["senders"][kept], edges["receivers"][kept], edges["relations"][kept], strict=True)


def test_gcn_normalization_equals_networkx():
    graph = nx.gnp_random_graph(12, 0.3, seed=4)
    pairs = np.array([pair for edge in graph.edges for pair in (edge, edge[::-1])], np.int32)
    edge_weight, self_weight = gcn_normalization(
        senders=pairs[:, 0], receivers=pairs[:, 1], edge_mask=np.ones(len(pairs), bool), num_nodes=12
    )
    found = np.diag(self_weight)
    found[pairs[:, 0], pairs[:, 1]] = edge_weight
    graph.add_edges_from((node, node) for node in graph)
    adjacency = nx.to_numpy_array(graph)
    # networkx's normalized Laplacian is I - D^-1/2 A D^-1/2, its degrees counting a loop once in the adjacency's row.
    laplacian = nx.normalized_laplacian_matrix(nx.from_numpy_array(adjacency)).toarray()
    np.testing.assert_allclose(found, np.eye(12) - laplacian, atol=1e-6)


def test_gcn_layer_equals_dense(random_graph):
    nodes, table, edges = random_graph
    layer = GCNLayer(WIDTH, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(WIDTH, dtype=jnp.float32)
    values = nodes @ np.asarray(layer.linear.kernel[...])
    relation = table @ np.asarray(layer.relation.kernel[...])
    adjacency = np.eye(len(nodes))
    for sender, receiver, _ in _edge_list(edges):
        adjacency[receiver, sender] += 1
    root = adjacency.sum(axis=1) ** -0.5
    expected = (root[:, None] * adjacency * root) @ values + np.arange(WIDTH)
    for sender, receiver, kind in _edge_list(edges):
        expected[receiver] += root[sender] * root[receiver] * relation[kind]
    np.testing.assert_allclose(layer(nodes, relation_table=table, **edges), expected, atol=1e-5)


def test_gat_layer_equals_dense(random_graph):
    nodes, table, edges = random_graph
    layer = GATLayer(WIDTH, num_heads=HEADS, rngs=nnx.Rngs(0))
    layer.loop[...] = jnp.array([0.7, -1.1])
    values = (nodes @ np.asarray(layer.linear.kernel[...])).reshape(len(nodes), HEADS, -1)
    relation = table @ np.asarray(layer.relation.kernel[...])
    source, target, loop = (np.asarray(param[...]) for param in (layer.source, layer.target, layer.loop))

    def leaky(x):
        return np.where(x > 0, x, 0.2 * x)

    expected = np.zeros((len(nodes), HEADS, WIDTH // HEADS))
    for node in range(len(nodes)):
        incoming = [(sender, relation[kind]) for sender, receiver, kind in _edge_list(edges) if receiver == node]
        for head in range(HEADS):
            candidates = [*((sender, term[head]) for sender, term in incoming), (node, loop[head])]
            own = values[node, head] @ target[head]
            logits = np.array([leaky(values[other, head] @ source[head] + own + term) for other, term in candidates])
            weights = np.exp(logits) / np.exp(logits).sum()
            expected[node, head] = sum(
                w * values[other, head] for w, (other, _) in zip(weights, candidates, strict=True)
            )
    found = layer(nodes, relation_table=table, **edges)
    np.testing.assert_allclose(found, expected.reshape(len(nodes), WIDTH), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_edges_equal_removed_edges(batch, kind):
    encoder = _encoder(kind)
    keep = np.array([1, 1, 0, 0, 1, 1, 1, 0, 0], bool)
    masked = _run(encoder, batch | {"edge_mask": keep})
    removed = {name: batch[name][keep] for name in ("senders", "receivers", "relations", "edge_mask")}
    for found, expected in zip(masked, _run(encoder, batch | removed), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    whole = _run(encoder, batch)
    assert np.abs(whole[1] - masked[1]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_relations_matter(batch, kind):
    encoder = _encoder(kind)
    other = _run(encoder, batch | {"relations": (batch["relations"] + 1) % RELATIONS})
    assert np.abs(_run(encoder, batch)[1] - other[1]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(batch, kind):
    def pad(values, count, fill):
        return np.concatenate([values, np.full((count, *values.shape[1:]), fill, values.dtype)])

    padded = {
        "nodes": pad(batch["nodes"], 5, 3.0),
        "senders": pad(batch["senders"], 7, 13),
        "receivers": pad(batch["receivers"], 7, 13),
        "relations": pad(batch["relations"], 7, 2),
        "edge_mask": pad(batch["edge_mask"], 7, False),
        "hops": pad(batch["hops"], 5, 0),
        "graph_index": pad(np.where(batch["node_mask"], batch["graph_index"], 5), 5, 5),
        "node_mask": pad(batch["node_mask"], 5, False),
    }
    encoder = _encoder(kind)
    states, pooled = _run(encoder, batch)
    padded_states, padded_pooled = _run(encoder, padded, num_graphs=6)
    np.testing.assert_allclose(padded_states[:8], states[:8], atol=1e-5)
    np.testing.assert_array_equal(padded_states[8:], 0)
    np.testing.assert_allclose(padded_pooled[:3], pooled[:3], atol=1e-5)
    np.testing.assert_array_equal(padded_pooled[3:], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_nodes_does_not_matter(batch, kind):
    order = np.random.default_rng(0).permutation(9)
    place = np.argsort(order).astype(np.int32)
    moved = batch | {name: batch[name][order] for name in ("nodes", "hops", "graph_index", "node_mask")}
    moved |= {name: place[batch[name]] for name in ("senders", "receivers")}
    encoder = _encoder(kind)
    states, pooled = _run(encoder, batch)
    moved_states, moved_pooled = _run(encoder, moved)
    np.testing.assert_allclose(moved_states, states[order], atol=1e-5)
    np.testing.assert_allclose(moved_pooled, pooled, atol=1e-5)


def test_mean_readout_by_hand(batch):
    states, pooled = _run(_encoder("default"), batch)
    expected = [states[:4].mean(0), states[4], states[5:8].mean(0), np.zeros(WIDTH)]
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


def test_multi_scale_readout_by_hand(batch):
    states = batch["nodes"]
    where = {name: batch[name] for name in ("hops", "graph_index", "node_mask")}
    means, present = level_means(states, **where, num_graphs=4)
    np.testing.assert_array_equal(present, [[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0]])
    np.testing.assert_allclose(means[0], [states[0], states[1], states[2], states[:4].mean(0)], atol=1e-6)
    np.testing.assert_allclose(
        means[2, np.array([0, 1, 3])], [states[5], states[6:8].mean(0), states[5:8].mean(0)], atol=1e-6
    )

    readout = MultiScaleReadout(WIDTH, dtype=jnp.float32, rngs=nnx.Rngs(0))
    readout.level_bias[...] = jnp.array([0.5, 0.0, -1.0, 0.2])
    pooled = readout(states, **where, num_graphs=4)
    attention = readout.attention
    for graph in range(3):
        levels = np.flatnonzero(present[graph])
        real = np.asarray(means[graph])[levels]
        inner = np.tanh(real @ np.asarray(attention.inner.kernel[...]) + np.asarray(attention.inner.bias[...]))
        scores = (inner @ np.asarray(attention.score.kernel[...]))[:, 0] + np.asarray(readout.level_bias[...])[levels]
        weights = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(pooled[graph], weights @ real, atol=1e-5)
    np.testing.assert_array_equal(pooled[3], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_and_reach_every_parameter(batch, kind):
    graphdef, params = nnx.split(_encoder(kind))

    @jax.jit
    def gradients(params, nodes, edge_mask):
        def loss(params, nodes):
            states, pooled = nnx.merge(graphdef, params)(
                **(batch | {"nodes": nodes, "edge_mask": edge_mask}), num_graphs=4
            )
            return (jnp.arange(WIDTH) * (states.sum(0) + jnp.sin(pooled).sum(0))).sum()

        return jax.grad(loss, argnums=(0, 1))(params, nodes)

    found = gradients(params, batch["nodes"], batch["edge_mask"])
    for path, leaf in nnx.to_flat_state(found[0]):
        assert bool(jnp.isfinite(leaf[...]).all()), path
        assert float(jnp.abs(leaf[...]).max()) > 0, path
    np.testing.assert_array_equal(found[1][8], 0)
    without_edges = gradients(params, batch["nodes"], np.zeros(9, bool))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(without_edges))


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_over_devices_equals_one_by_one(batch, kind):
    encoder = _encoder(kind)
    other = batch | {"nodes": batch["nodes"][::-1], "edge_mask": batch["edge_mask"] & (np.arange(9) % 3 > 0)}
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), batch, other)
    graphdef, params = nnx.split(encoder)
    together = jax.jit(lambda p, b: jax.vmap(lambda one: nnx.merge(graphdef, p)(**one, num_graphs=4))(b))
    states, pooled = together(params, stacked)
    for index, one in enumerate((batch, other)):
        expected_states, expected_pooled = _run(encoder, one)
        np.testing.assert_allclose(states[index], expected_states, atol=1e-5)
        np.testing.assert_allclose(pooled[index], expected_pooled, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_stays_near_float32(batch, kind):
    exact = _run(_encoder(kind), batch)
    rough = _run(_encoder(kind, jnp.bfloat16), batch)
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == jnp.bfloat16
        np.testing.assert_allclose(a, b.astype(jnp.float32), atol=0.1)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="not 'gin'"):
        GraphEncoder(kind="gin", width=8, num_relations=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"30 .* 4 heads"):
        GraphEncoder(kind="gat", width=30, num_relations=2, rngs=nnx.Rngs(0))


@pytest.fixture
def features():
    return NodeFeatures(WIDTH, num_types=3, name_width=6, num_node_ids=10, rngs=nnx.Rngs(0))


KINDS_OF_NODE = np.array([ORDINARY, SELF, MISSING, ORDINARY], np.int32)


def test_node_features_by_hand(features):
    types, ids = np.array([0, 1, 2, 1], np.int32), np.array([3, 4, 5, 10], np.int32)
    names = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    found = features(types, names, KINDS_OF_NODE, ids)
    type_table, id_table = features.types.embedding[...], features.ids.embedding[...]
    named = names @ np.asarray(features.name.kernel[...]) + np.asarray(features.name.bias[...])
    np.testing.assert_allclose(found[0], type_table[0] + named[0] + id_table[3], atol=1e-5)
    np.testing.assert_allclose(found[1], type_table[1] + features.self_vector[...], atol=1e-6)
    np.testing.assert_allclose(found[2], features.missing_vector[...], atol=1e-6)
    np.testing.assert_allclose(found[3], type_table[1] + named[3], atol=1e-5)


def test_the_code_itself_never_shows_its_name(features):
    types, ids = np.array([0, 1, 2, 1], np.int32), np.array([3, 4, 5, 6], np.int32)
    names = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    found = features(types, names, KINDS_OF_NODE, ids)
    moved = features(types, names + 1.0, KINDS_OF_NODE, ids + 1)
    np.testing.assert_array_equal(found[1:3], moved[1:3])
    assert np.abs(found[0] - moved[0]).max() > 1e-3

    graphdef, params = nnx.split(features)

    def total(params, names):
        return (nnx.merge(graphdef, params)(types, names, KINDS_OF_NODE, ids) ** 2).sum()

    of_params, of_names = jax.grad(total, argnums=(0, 1))(params, names)
    np.testing.assert_array_equal(of_names[1:3], 0)
    assert np.abs(of_names[0]).max() > 0
    id_rows = np.abs(of_params["ids"]["embedding"][...]).max(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(id_rows), [3, 6])


def test_node_features_without_names():
    plain = NodeFeatures(WIDTH, num_types=3, use_name=False, rngs=nnx.Rngs(0))
    types, ids = np.array([0, 1, 2, 1], np.int32), np.zeros(4, np.int32)
    found = plain(types, None, KINDS_OF_NODE, ids)
    np.testing.assert_allclose(found[0], plain.types.embedding[0], atol=1e-6)
    with pytest.raises(ValueError, match="name_width"):
        NodeFeatures(WIDTH, num_types=3, rngs=nnx.Rngs(0))
    named = NodeFeatures(WIDTH, num_types=3, name_width=6, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="name_embedding is None"):
        named(types, None, KINDS_OF_NODE, ids)


def test_without_layers_a_graph_is_the_mean_of_its_nodes(batch):
    sizes = {"width": WIDTH, "num_layers": 0, "num_relations": RELATIONS}
    encoder = GraphEncoder(kind="default", num_heads=HEADS, dtype=jnp.float32, rngs=nnx.Rngs(0), **sizes)
    _, pooled = _run(encoder, batch)
    means = [batch["nodes"][(batch["graph_index"] == graph) & batch["node_mask"]].mean(0) for graph in range(3)]
    np.testing.assert_allclose(pooled[:3], means, atol=1e-6)
    _, cut = _run(encoder, batch | {"edge_mask": np.zeros(9, bool)})
    np.testing.assert_array_equal(cut, pooled)
