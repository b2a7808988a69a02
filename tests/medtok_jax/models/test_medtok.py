"""The whole model, real and tiny: what padding, devices and views must not change, and where gradients go."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
import networkx
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict, FrozenConfigDict

from medtok_jax.batch import has_both, has_text
from medtok_jax.models.augmentation import Keep, augmentation, whole_graph
from medtok_jax.models.bert import Bert
from medtok_jax.models.medtok import MedTok
from medtok_jax.models.outputs import Embeddings
from medtok_jax.regions import REGIONS
from medtok_jax.training import losses
from medtok_jax.training.steps import mean_states
from tests.helpers.matmuls import matmuls
from tests.helpers.tiny_bert import tiny_bert

NO_GRAPH, NO_SELF = 10, 11
ROWS = np.array([1, 3, 4, NO_GRAPH, 6, 7, 9, NO_SELF])
EMBEDDINGS = ("text_specific", "graph_specific", "text_cross", "graph_cross")
# Most of the time here is compilation; code this small need not be fast.
compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


class Augment(NamedTuple):
    """The `augment` section; arrays in a compiled function, so that one serves all rates."""

    token_dropout: float = 0.1
    feature_dropout: float = 0.1
    fact_dropout: float = 0.1
    node_dropout: float = 0.1


MILD = Augment()


@functools.partial(compiled, static_argnums=0)
def _encode(graphdef, state, batch, tables):
    return nnx.merge(graphdef, state).encode(batch, tables)


@functools.partial(compiled, static_argnums=0)
def _encode_kept(graphdef, state, batch, tables, keep):
    return nnx.merge(graphdef, state).encode(batch, tables, keep)


@functools.partial(compiled, static_argnums=0)
def _call(graphdef, state, batch, tables):
    return nnx.merge(graphdef, state)(batch, tables)


@functools.partial(compiled, static_argnums=0)
def _two_views(graphdef, state, batch, tables, augment, key):
    return nnx.merge(graphdef, state).two_views(batch, tables, augment=augment, key=key)


@functools.partial(compiled, static_argnums=(0, 1))
def _gradients(graphdef, loss, params, rest, batch, tables):
    def total(params):
        model = nnx.merge(graphdef, params, rest)
        views = model.two_views(batch, tables, augment=MILD, key=jax.random.key(0))
        excluded = losses.not_negatives(batch.text_id, batch.graph_id)
        teacher = mean_states(batch) if losses.distills(loss) else None
        shown = {"has_text": has_text(batch), "has_both": has_both(batch)}
        given = {"excluded": excluded, "partners": None, "teacher": teacher, **shown}
        terms = losses.loss_terms(*views, batch.valid, **given, config=loss)
        return sum(terms.values()), terms

    return jax.grad(total, has_aux=True)(params)


_augmentation = compiled(augmentation, static_argnums=3)


def encode(model, batch, tables) -> dict[str, np.ndarray]:
    found = _encode(*nnx.split(model), batch, tables)
    return {name: np.asarray(getattr(found, name)) for name in EMBEDDINGS}


def two_views(model, batch, tables, seed: int, augment: Augment = MILD) -> tuple[dict, dict]:
    views = _two_views(*nnx.split(model), batch, tables, augment, jax.random.key(seed))
    return tuple({name: np.asarray(getattr(view.embeddings, name)) for name in EMBEDDINGS} for view in views)


def gradients(model, config, batch, tables) -> tuple[dict, dict]:
    """Loss terms and the gradient of their sum for every parameter, by name."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    found, terms = _gradients(graphdef, FrozenConfigDict(config.loss), params, rest, batch, tables)
    return terms, {jax.tree_util.keystr(path): np.asarray(g) for path, g in jax.tree_util.tree_leaves_with_path(found)}


def assert_same(found: dict, wanted: dict, atol: float = 1e-5, names=EMBEDDINGS):
    for name in names:
        np.testing.assert_allclose(found[name], wanted[name], atol=atol, err_msg=name)


@pytest.fixture
def model(config, data):
    return MedTok(config.model, data.sizes(), rngs=nnx.Rngs(0))


@pytest.fixture(scope="session")
def tables(data):
    return jax.tree.map(jnp.asarray, data.tables())


@pytest.mark.parametrize("graph_encoder_type", ["default", "gat", "hierarchical"])
def test_padding_changes_nothing(config, data, build, tables, graph_encoder_type):
    config.model.graph_encoder_type = graph_encoder_type
    tight = encode(MedTok(config.model, data.sizes(), rngs=nnx.Rngs(0)), build(ROWS), tables)
    # More tokens, nodes and edges, and more places for nodes in the dense arrays of cross-attention.
    sizes = dataclasses.replace(data.sizes(), max_nodes=data.sizes().max_nodes + 5)
    wide = build(ROWS, lengths=(20,), graphs=((320, 384),))
    assert_same(encode(MedTok(config.model, sizes, rngs=nnx.Rngs(0)), wide, tables), tight)
    assert max(np.ptp(tight[name], axis=0).max() for name in EMBEDDINGS) > 0.1, "codes differ from one another"


def test_small_codes_at_a_smaller_shape_give_the_same(data, model, build, tables):
    small = np.flatnonzero((data.num_tokens(np.arange(12)) <= 8) & (data.table.num_nodes <= 9))
    large = np.setdiff1d(np.arange(12), small)
    assert len(large) >= 2
    rows = np.concatenate([np.resize(small, 14), large[:2]])
    batch = build(rows, small=(8, 9))
    assert batch.small == (8, 9)
    there, back = two_views(model, batch, tables, 3), two_views(model, batch.replace(small=None), tables, 3)
    np.testing.assert_allclose(mean_states(batch), mean_states(batch.replace(small=None)), atol=1e-6)
    for found, wanted in zip(there, back, strict=True):
        assert_same(found, wanted)


def test_two_stacks_give_what_one_gives(model, build, tables):
    two = build(ROWS, stacks=2)
    assert two.graph.n_node.shape == (2, 5)
    augment = Augment(fact_dropout=0.5, node_dropout=0.3)
    views = (two_views(model, batch, tables, 3, augment) for batch in (build(ROWS), two))
    for wanted, found in zip(*views, strict=True):
        assert_same(found, wanted)


def facts_of(batch, keep_edges) -> dict[int, list[tuple[int, int, bool]]]:
    """(sender, receiver, kept) of every edge of every slot, as positions within the code's own nodes."""
    graph, keep_edges = batch.graph, np.asarray(keep_edges)
    found, slot = {}, 0
    for stack in range(len(graph.n_node)):
        node = edge = 0
        for nodes, edges in zip(graph.n_node[stack][:-1], graph.n_edge[stack][:-1], strict=True):
            mine = np.arange(edge, edge + edges)
            found[slot] = [
                (int(graph.senders[stack][e]) - node, int(graph.receivers[stack][e]) - node, bool(keep_edges[stack][e]))
                for e in mine
            ]
            node, edge, slot = node + nodes, edge + edges, slot + 1
    return found


def test_edges_are_dropped_fact_by_fact_on_any_number_of_stacks(build):
    augment = Augment(fact_dropout=0.3, node_dropout=0.0)

    def draw(batch, seed):
        return facts_of(batch, _augmentation(jax.random.key(seed), batch, augment, 8).graph.edges)

    found = draw(build(ROWS), 0)
    assert found == draw(build(ROWS, stacks=2), 0)
    assert found != draw(build(ROWS), 1)
    kept = []
    for edges in found.values():
        for (a, b, there), (c, d, back) in zip(edges[::2], edges[1::2], strict=True):
            assert (a, b, there) == (d, c, back), "both directions of a fact go together"
            kept.append(there)
    assert 0.3 < np.mean(kept) < 0.9


def test_what_no_kept_fact_joins_to_the_code_is_dropped(build):
    """Nodes and hops are those of a breadth-first search over what is kept, as networkx walks it."""
    batch = build(ROWS)
    for seed in range(5):
        kept = _augmentation(jax.random.key(seed), batch, Augment(fact_dropout=0.4, node_dropout=0.2), 8).graph
        edges, nodes, hops = (np.asarray(part)[0] for part in (kept.edges, kept.nodes, kept.hops))
        graph, real = batch.graph, int(np.sum(batch.graph.n_node[0][:-1]))
        anchors = np.flatnonzero(np.asarray(graph.nodes["hop"])[0][:real] == 0)
        walked = networkx.Graph()
        walked.add_nodes_from(range(real))
        ends = zip(np.asarray(graph.senders)[0][edges], np.asarray(graph.receivers)[0][edges], strict=True)
        walked.add_edges_from((int(a), int(b)) for a, b in ends)
        distance = networkx.multi_source_dijkstra_path_length(walked, set(anchors.tolist()), cutoff=2)
        assert {int(n): int(hops[n]) for n in np.flatnonzero(nodes[:real])} == distance
        assert len(distance) < real, "something is dropped"


def test_what_is_dropped_counts_for_nothing(model, build, tables):
    """A view without some facts gives what a batch of the smaller subgraphs gives."""
    batch = build([7])
    kept = _augmentation(jax.random.key(1), batch, Augment(0.0, 0.0, 0.5, 0.3), 8).graph
    nodes, edges = (np.asarray(part)[0] for part in (kept.nodes, kept.edges))
    graph = jax.tree.map(lambda x: np.asarray(x)[0], batch.graph)
    count = int(nodes[: graph.n_node[0]].sum())
    assert 0 < count < graph.n_node[0]
    place, spare = np.cumsum(nodes) - 1, len(nodes) - 1
    order = np.flatnonzero(nodes[: graph.n_node[0]])
    mine = np.flatnonzero(edges[: graph.n_edge[0]])
    fewer = {name: np.zeros_like(value) for name, value in graph.nodes.items()}
    for name, value in graph.nodes.items():
        fewer[name][:count] = np.asarray(kept.hops)[0][order] if name == "hop" else value[order]
    ends = [np.full_like(graph.senders, spare) for _ in range(2)]
    relations = np.zeros_like(graph.edges)
    for end, values in zip(ends, (graph.senders, graph.receivers), strict=True):
        end[: len(mine)] = place[values[mine]]
    relations[: len(mine)] = graph.edges[mine]
    rest_nodes, rest_edges = len(nodes) - count, len(relations) - len(mine)
    smaller = graph._replace(
        nodes=fewer,
        edges=relations,
        senders=ends[0],
        receivers=ends[1],
        n_node=np.array([count, rest_nodes], np.int32),
        n_edge=np.array([len(mine), rest_edges], np.int32),
    )
    wanted = encode(model, batch.replace(graph=jax.tree.map(lambda x: x[None], smaller)), tables)
    keep = Keep(batch.text_mask, jnp.ones((len(batch.text_mask), model.text_width)), kept)
    found = _encode_kept(*nnx.split(model), batch, tables, keep)
    assert_same({name: np.asarray(getattr(found, name)) for name in EMBEDDINGS}, wanted)
    unchanged = encode(model, batch, tables)
    assert np.abs(unchanged["graph_specific"] - wanted["graph_specific"]).max() > 1e-3


def test_a_concealed_text_is_the_learned_state(model, build, tables):
    batch = build([6])
    hidden = batch.replace(text_mask=np.zeros_like(batch.text_mask))
    before = encode(model, hidden, tables)
    other = batch.replace(text=np.asarray(batch.text) + 1.0, text_mask=np.zeros_like(batch.text_mask))
    assert_same(encode(model, other, tables), before, atol=0)
    model.text_encoder.no_text[...] = -model.text_encoder.no_text[...]
    after = encode(model, hidden, tables)
    for name in ("text_specific", "text_cross", "graph_cross"):
        assert np.abs(after[name] - before[name]).max() > 1e-3
    assert_same(after, before, names=("graph_specific",))


def test_frozen_states_ask_for_no_gradient(config, data, build, tables):
    batch = build([6, 7])
    # Other widths than that of the texts.
    wide = ConfigDict(config.model.to_dict() | {"cross_width": 20, "graph_width": 12})
    graphdef, params = nnx.split(MedTok(wide, data.sizes(), rngs=nnx.Rngs(0)))

    def total(params):
        return sum(jnp.sum(x) for x in jax.tree.leaves(nnx.merge(graphdef, params).encode(batch, tables)))

    shapes = [equation.outvars[0].aval.shape for equation in matmuls(jax.grad(total), params)]
    assert (*batch.text.shape[:2], 20) in shapes
    assert batch.text.shape not in shapes


def test_dropout_rates_and_scale(build):
    batch = build(np.tile(ROWS, 16), graphs=((1024, 2048),))
    keep = _augmentation(jax.random.key(0), batch, Augment(0.3, 0.2, 0.0, 0.0), 50)
    assert np.asarray(keep.tokens)[:, 0].all(), "no text becomes empty"
    assert abs(np.asarray(keep.tokens)[:, 1:].mean() - 0.7) < 0.05
    features = np.asarray(keep.features)
    np.testing.assert_allclose(np.unique(features), [0.0, 1.25])
    assert abs(features.mean() - 1.0) < 0.03
    whole = jax.vmap(whole_graph)(batch.graph)
    real = jax.vmap(jraph.get_edge_padding_mask)(batch.graph)
    np.testing.assert_array_equal(keep.graph.edges, real)
    np.testing.assert_array_equal(keep.graph.hops, whole.hops)


def test_the_self_nodes_name_is_never_read(model, data, build, tables):
    def rename(*nodes):
        names = tables.name_embedding.at[data.node_name[[*nodes]]].add(10.0)
        return tables.replace(name_embedding=names)

    before = encode(model, build([6]), tables)
    assert_same(encode(model, build([6]), rename(6)), before, atol=0)
    after = encode(model, build([6]), rename(6, 2))  # Its parent too.
    assert np.abs(after["graph_specific"] - before["graph_specific"]).max() > 1e-3
    # Beside its sibling the same node is an ordinary one, and its name counts.
    sibling = [encode(model, build([7]), t)["graph_specific"] for t in (tables, rename(6))]
    assert np.abs(sibling[0] - sibling[1]).max() > 1e-3


def test_a_code_without_a_graph(model, build, tables):
    alone = encode(model, build([NO_GRAPH]), tables)
    assert all(np.isfinite(value).all() for value in alone.values())
    among = encode(model, build(ROWS), tables)
    assert_same({name: among[name][ROWS == NO_GRAPH] for name in EMBEDDINGS}, alone)
    # It reads the learned "no graph" node alone: no type, no name.
    changed = tables.replace(name_embedding=tables.name_embedding + 1, node_type=1 - tables.node_type)
    assert_same(encode(model, build([NO_GRAPH]), changed), alone, atol=0)
    model.node_features.missing_vector[...] = -model.node_features.missing_vector[...]
    assert np.abs(encode(model, build([NO_GRAPH]), tables)["graph_specific"] - alone["graph_specific"]).max() > 1e-3


def test_codes_of_a_batch_do_not_mix(model, build, tables):
    whole = encode(model, build(ROWS), tables)
    for place, row in enumerate(ROWS):
        assert_same(encode(model, build([row]), tables), {name: whole[name][[place]] for name in EMBEDDINGS})


def test_the_clean_view_is_the_call_and_the_augmented_is_not(model, build, tables):
    clean, augmented = two_views(model, build(ROWS), tables, 0)
    called = _call(*nnx.split(model), build(ROWS), tables)
    assert_same({name: getattr(called.embeddings, name) for name in EMBEDDINGS}, clean)
    _, other = two_views(model, build(ROWS), tables, 1)
    for name in EMBEDDINGS:
        assert np.abs(augmented[name] - clean[name]).max() > 1e-3
        assert np.abs(augmented[name] - other[name]).max() > 1e-3


def test_each_embedding_is_quantized_in_its_region(model, build, tables):
    view = _call(*nnx.split(model), build(ROWS), tables)
    assert view.names == ("text_specific", "graph_specific", "shared")
    quantized = model.quantized_parts(view.embeddings)
    for name, region in zip(view.names, REGIONS, strict=True):
        direct = model.quantizer(quantized[name], region)
        np.testing.assert_array_equal(view.of(name).ids, direct.ids)
        np.testing.assert_allclose(view.of(name).vector, direct.vector, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(quantized[name], axis=1), 1.0, atol=1e-5)


def test_one_shared_embedding_is_the_middle_of_the_two(config, data, build, tables):
    config.model.update(shared_embedding="one", num_top_k_tokens=2, quantizer_kind="pursuit")
    model = MedTok(config.model, data.sizes(), rngs=nnx.Rngs(0))
    view = _call(*nnx.split(model), build(ROWS), tables)
    assert view.names == ("text_specific", "graph_specific", "shared")
    middle = np.asarray(view.embeddings.text_cross) + np.asarray(view.embeddings.graph_cross)
    wanted = middle / np.linalg.norm(middle, axis=1, keepdims=True)
    np.testing.assert_allclose(view.of("shared").embedding, wanted, atol=1e-5)
    tokens = view.tokens()
    assert [tokens.ids.shape[1], *tokens.vectors.shape[1:]] == [8, 3, config.model.embedding_dim]
    regions = model.quantizer.regions
    for place, region in zip(range(8), ("text",) * 5 + ("graph",) * 1 + ("shared",) * 2, strict=True):
        low, high = regions.bounds(region)
        assert ((low <= tokens.ids[:, place]) & (tokens.ids[:, place] < high)).all()
    assert [len(set(row)) for row in np.asarray(tokens.ids).tolist()] == [8] * len(ROWS), "no token comes twice"
    codebook = np.asarray(model.quantizer.codebook())[regions.bounds("shared")[0] :]
    for embedding, found in zip(("text_cross", "graph_cross"), view.shared_distances, strict=True):
        each = np.linalg.norm(np.asarray(getattr(view.embeddings, embedding))[:, None] - codebook, axis=-1)
        np.testing.assert_allclose(found, each, atol=1e-3)


KINDS = {
    "default, one shared embedding": {"shared_embedding": "one"},
    "default, two layers": {"graph_layers": 2, "cross_layers": 2},
    "GAT, trained BERT, CLS, residual, EMA": {
        "graph_encoder_type": "gat",
        "text_encoder_trainable": True,
        "text_encoder_type": "default",
        "quantizer_kind": "residual",
        "ema_decay": 0.9,
    },
    "GCN, node ids for names, rotation, SimVQ, any length": {
        "graph_encoder_type": "default",
        "node_name_features": False,
        "node_id_features": True,
        "gradient_estimator": "rotation",
        "simvq": True,
        "normalize": False,
    },
}


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_all_its_parameters(config, data, build, tables, kind):
    config.model.update(KINDS[kind])
    trained = config.model.text_encoder_trainable
    for name in ("distillation_weight", "shared_distillation_weight", "text_distillation_weight"):
        config.loss[name] *= not trained
    bert = Bert(tiny_bert(), rngs=nnx.Rngs(1)) if trained else None
    model = MedTok(config.model, data.sizes(), bert=bert, rngs=nnx.Rngs(0))
    batch = build(ROWS, token_ids=trained, textless=np.arange(len(ROWS)) == 2)
    terms, found = gradients(model, config, batch, tables)
    assert all(np.isfinite(value).all() for value in (*terms.values(), *found.values()))
    still = [name for name, value in found.items() if not np.any(value)]
    assert not still, "parameters that nothing moves"
    assert any("rows" in name for name in found) == (not config.model.simvq and not config.model.ema_decay)


@pytest.mark.parametrize("shared_search", ["region", "book"])
def test_tokens_are_found_without_sorting_all_rows(config, data, shared_search):
    config.model.update(quantizer_kind="top_k", shared_search=shared_search)
    graphdef, state = nnx.split(MedTok(config.model, data.sizes(), rngs=nnx.Rngs(0)))
    random = jax.random.normal(jax.random.key(0), (4, 64, config.model.embedding_dim))
    quantize = jax.jit(lambda state, embeddings: nnx.merge(graphdef, state).quantize(embeddings))
    text = quantize.lower(state, Embeddings(*random)).compile().as_text()
    assert "TopK" in text
    assert " sort(" not in text


def test_a_batch_of_codes_without_graphs_has_finite_gradients(config, model, build, tables):
    batch = build([NO_GRAPH] * 8, valid=np.arange(8) < 2)
    terms, found = gradients(model, config, batch, tables)
    assert all(np.isfinite(value).all() for value in (*terms.values(), *found.values()))


def test_concealed_texts_do_not_drown_the_first_steps(config, model, build, tables):
    """Vectors near zero would multiply gradients by a million where they are brought to unit length."""
    whole = gradients(model, config, build(ROWS), tables)[1]
    hidden = gradients(model, config, build(ROWS, textless=np.arange(len(ROWS)) < 3), tables)[1]
    norms = [np.sqrt(sum(np.sum(np.square(value)) for value in found.values())) for found in (whole, hidden)]
    assert norms[1] < min(100, 5 * norms[0])


def test_bfloat16_activations_and_float32_embeddings(config, data, model, build, tables):
    half = MedTok(config.model, data.sizes(), dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(half, nnx.Param)))
    exact, found = encode(model, build(ROWS), tables), encode(half, build(ROWS), tables)
    for name in EMBEDDINGS:
        assert found[name].dtype == np.float32
        assert 0 < np.abs(found[name] - exact[name]).max() < 0.15
