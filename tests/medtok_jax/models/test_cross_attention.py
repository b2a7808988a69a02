import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from medtok_jax.models.cross_attention import CrossAttention, CrossAttentionLayer

TEXT, NODE, WIDTH, HEADS = 6, 10, 8, 2


@pytest.fixture
def model():
    return CrossAttention(text_width=TEXT, node_width=NODE, width=WIDTH, num_heads=HEADS, rngs=nnx.Rngs(0))


@pytest.fixture
def inputs():
    """Two codes: 5 tokens and 3 nodes, 2 tokens and 4 nodes."""
    rng = np.random.default_rng(1)
    tokens = rng.normal(size=(2, 5, TEXT)).astype(np.float32)
    nodes = rng.normal(size=(2, 4, NODE)).astype(np.float32)
    return tokens, np.arange(5) < [[5], [2]], nodes, np.arange(4) < [[3], [4]]


NO_TEXT = np.random.default_rng(2).normal(size=TEXT).astype(np.float32)


@nnx.jit
def _run(model, *inputs):
    return model(*inputs, NO_TEXT)


def _linear(linear, x):
    return x @ np.asarray(linear.kernel[...]) + np.asarray(linear.bias[...])


def _layer_by_loops(layer, states, context):
    """One code, no padding: every head and query on its own."""
    width = states.shape[1]
    per_head = width // HEADS
    query, key_value = _linear(layer.query, states), _linear(layer.key_value, context)
    mixed = np.zeros_like(states)
    for head in range(HEADS):
        columns = slice(head * per_head, (head + 1) * per_head)
        keys, values = key_value[:, :width][:, columns], key_value[:, width:][:, columns]
        for position in range(len(states)):
            scores = np.array([query[position, columns] @ key / np.sqrt(per_head) for key in keys])
            weights = np.exp(scores) / np.exp(scores).sum()
            mixed[position, columns] = sum(weight * value for weight, value in zip(weights, values, strict=True))
    summed = states + _linear(layer.out, mixed)
    centered = summed - summed.mean(axis=1, keepdims=True)
    normed = centered / np.sqrt((centered**2).mean(axis=1, keepdims=True) + 1e-6)
    return normed * np.asarray(layer.norm.scale[...]) + np.asarray(layer.norm.bias[...])


def test_the_state_of_a_missing_text_is_its_only_token(model, inputs):
    tokens, token_mask, *others = inputs
    stated, only_first = tokens.copy(), token_mask.copy()
    stated[1, 0], only_first[1] = NO_TEXT, np.arange(5) == 0
    wanted, before = _run(model, stated, only_first, *others), _run(model, *inputs)
    found = _run(model, tokens, token_mask & [[True], [False]], *others)
    for one, other, shown in zip(found, wanted, before, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
        assert np.abs(np.asarray(one - shown)[1]).max() > 1e-3


def test_one_layer_of_each_direction_against_loops(inputs):
    model = CrossAttention(
        text_width=TEXT, node_width=NODE, width=WIDTH, num_heads=HEADS, num_layers=1, rngs=nnx.Rngs(3)
    )
    tokens, token_mask, nodes, node_mask = inputs
    text_side, graph_side = _run(model, *inputs)
    for row in range(2):
        words = _linear(model.text_in, tokens[row][token_mask[row]])
        graph = _linear(model.node_in, nodes[row][node_mask[row]])
        read = _layer_by_loops(model.text_to_graph[0], words, graph)
        inner = np.tanh(_linear(model.text_pooling.inner, read)) @ np.asarray(model.text_pooling.score.kernel[...])
        weights = np.exp(inner[:, 0]) / np.exp(inner[:, 0]).sum()
        np.testing.assert_allclose(text_side[row], weights @ read, atol=2e-5)
        np.testing.assert_allclose(
            graph_side[row], _layer_by_loops(model.graph_to_text[0], graph, words).mean(axis=0), atol=2e-5
        )


def test_padding_changes_nothing(model, inputs):
    tokens, token_mask, nodes, node_mask = inputs
    rng = np.random.default_rng(2)
    more_tokens = np.concatenate([tokens, rng.normal(size=(2, 3, TEXT))], axis=1)
    more_nodes = np.concatenate([nodes, rng.normal(size=(2, 6, NODE))], axis=1)
    wide_tokens, wide_nodes = np.pad(token_mask, ((0, 0), (0, 3))), np.pad(node_mask, ((0, 0), (0, 6)))
    wanted = _run(model, *inputs)
    with_tokens = _run(model, more_tokens, wide_tokens, nodes, node_mask)
    with_nodes = _run(model, tokens, token_mask, more_nodes, wide_nodes)
    for padded in (with_tokens, with_nodes):
        for result, reference in zip(padded, wanted, strict=True):
            np.testing.assert_allclose(result, reference, atol=1e-5)


def test_each_side_reads_the_other(model, inputs):
    tokens, token_mask, nodes, node_mask = inputs
    text_side, graph_side = _run(model, *inputs)
    moved_text, _ = _run(model, tokens, token_mask, nodes + 1.0, node_mask)
    _, moved_graph = _run(model, tokens + 1.0, token_mask, nodes, node_mask)
    assert np.abs(text_side - moved_text).max() > 1e-3
    assert np.abs(graph_side - moved_graph).max() > 1e-3


@pytest.mark.parametrize("empty", ["text", "graph"])
def test_gradients_of_a_fully_masked_side_are_finite(model, inputs, empty):
    tokens, token_mask, nodes, node_mask = inputs
    masks = {"text": token_mask, "graph": node_mask}
    masks[empty] = masks[empty] & np.array([[False], [True]])
    graphdef, params = nnx.split(model)

    def loss(params, tokens, nodes):
        sides = nnx.merge(graphdef, params)(tokens, masks["text"], nodes, masks["graph"], NO_TEXT)
        return sum((side**2).sum() for side in sides), sides

    gradients, sides = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(params, tokens, nodes)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((gradients, sides)))
    # A text is never without a token: the state of a missing one stands for it.
    assert np.any(np.asarray(sides[1][0])) == (empty == "text")
    assert np.any(np.asarray(sides[0][0]))


def test_ffn_and_bfloat16(inputs):
    layer = CrossAttentionLayer(WIDTH, num_heads=HEADS, ffn_ratio=2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert layer.mlp.inner.kernel.shape == (WIDTH, 2 * WIDTH)
    shape = {"text_width": TEXT, "node_width": NODE, "width": WIDTH, "num_heads": HEADS, "ffn_ratio": 2}
    exact = _run(CrossAttention(**shape, rngs=nnx.Rngs(0)), *inputs)
    rough = _run(CrossAttention(**shape, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)), *inputs)
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == jnp.bfloat16
        np.testing.assert_allclose(a, b.astype(jnp.float32), atol=0.08)


def test_indivisible_width_is_refused():
    with pytest.raises(ValueError, match=r"30 .* 4 heads"):
        CrossAttention(text_width=TEXT, node_width=NODE, width=30, num_heads=4, rngs=nnx.Rngs(0))
