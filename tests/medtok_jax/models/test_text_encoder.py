import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from medtok_jax.models.bert import Bert
from medtok_jax.models.text_encoder import AttentionPooling, TextEncoder, cls_pooling
from tests.helpers.tiny_bert import tiny_bert

HIDDEN = 8


@pytest.fixture
def states():
    return np.random.default_rng(0).normal(size=(3, 6, HIDDEN)).astype(np.float32)


@pytest.fixture
def mask():
    return np.arange(6) < [[6], [3], [0]]


def test_attention_pooling_by_hand(states, mask):
    pooling = AttentionPooling(HIDDEN, rngs=nnx.Rngs(0))
    assert pooling.inner.kernel.shape == (HIDDEN, 128)
    pooled = pooling(states, mask)
    for row in range(2):
        real = states[row][mask[row]]
        inner = np.tanh(real @ np.asarray(pooling.inner.kernel[...]) + np.asarray(pooling.inner.bias[...]))
        scores = np.exp(inner @ np.asarray(pooling.score.kernel[...]))[:, 0]
        np.testing.assert_allclose(pooled[row], scores @ real / scores.sum(), atol=1e-5)
    np.testing.assert_array_equal(pooled[2], 0)


def test_a_score_bias_shifts_attention(states, mask):
    pooling = AttentionPooling(HIDDEN, rngs=nnx.Rngs(0))
    weights = pooling.weights(states, mask, score_bias=jnp.array([0, 50.0, 0, 0, 0, 0]))
    np.testing.assert_allclose(weights[:, 1], [1, 1, 0], atol=1e-6)


def test_cls_pooling(states, mask):
    pooled = cls_pooling(states, mask)
    np.testing.assert_array_equal(pooled[:2], states[:2, 0])
    np.testing.assert_array_equal(pooled[2], 0)


@pytest.mark.parametrize("pooling", ["default", "weighted_pooling"])
def test_padding_changes_nothing(states, mask, pooling):
    encoder = TextEncoder(HIDDEN, pooling=pooling, bert=None, rngs=nnx.Rngs(0))
    longer = np.concatenate([states, np.full((3, 4, HIDDEN), 7.0, np.float32)], axis=1)
    _, pooled = encoder(states, mask)
    _, wanted = encoder(longer, np.pad(mask, ((0, 0), (0, 4))))
    np.testing.assert_allclose(pooled, wanted, atol=1e-6)


@pytest.mark.parametrize("pooling", ["default", "weighted_pooling"])
@pytest.mark.parametrize("trained", [False, True])
def test_an_empty_text_is_the_learned_state_and_gradients_are_finite(states, mask, pooling, trained):
    bert = Bert(tiny_bert(width=HIDDEN), rngs=nnx.Rngs(1)) if trained else None
    graphdef, params = nnx.split(TextEncoder(HIDDEN, pooling=pooling, bert=bert, rngs=nnx.Rngs(0)))
    text = np.zeros(mask.shape, np.int32) if trained else states

    @jax.jit
    def gradients(params):
        def loss(params):
            _, pooled = nnx.merge(graphdef, params)(text, mask)
            return (pooled**2).sum(), pooled

        return jax.grad(loss, has_aux=True)(params)

    found, pooled = gradients(params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((found, pooled)))
    learned = params["no_text"][...]
    np.testing.assert_allclose(pooled[2], learned, atol=1e-6)
    np.testing.assert_allclose(found["no_text"][...], 2 * learned, atol=1e-6)
    if trained:
        assert float(jnp.abs(found["bert"]["layers"][0]["mlp_in"]["kernel"][...]).max()) > 0


def test_a_trained_bert_gives_the_states(mask):
    bert = Bert(tiny_bert(width=HIDDEN), rngs=nnx.Rngs(1))
    ids = np.random.default_rng(0).integers(0, 30, mask.shape).astype(np.int32)
    states, pooled = TextEncoder(HIDDEN, pooling="default", bert=bert, rngs=nnx.Rngs(0))(ids, mask)
    np.testing.assert_array_equal(states[:2], bert(ids, mask)[:2])
    np.testing.assert_array_equal(pooled[:2], states[:2, 0])


def test_bfloat16(states, mask):
    encoder = TextEncoder(HIDDEN, pooling="weighted_pooling", bert=None, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    tokens, pooled = encoder(states, mask)
    assert tokens.dtype == pooled.dtype == jnp.bfloat16


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="not 'mean'"):
        TextEncoder(HIDDEN, pooling="mean", bert=None, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="width 8, not 16"):
        TextEncoder(16, pooling="default", bert=Bert(tiny_bert(width=HIDDEN), rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
