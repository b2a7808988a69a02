"""Define cross-attention between the tokens of a description and the nodes of its subgraph (paper eq. 1-2).

The paper attends between two pooled vectors, where a softmax over one key is the constant 1; here attention runs over
token states and node states and pools afterwards.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from medtok_jax.models.bert import attend
from medtok_jax.models.text_encoder import AttentionPooling


class ResidualMlp(nnx.Module):
    """Compute LayerNorm(x + Linear(relu(Linear(x)))), `ratio` times as wide inside."""

    def __init__(self, width: int, *, ratio: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.inner = nnx.Linear(width, ratio * width, dtype=dtype, rngs=rngs)
        self.outer = nnx.Linear(ratio * width, width, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)

    def __call__(self, states: jax.Array) -> jax.Array:
        """Apply the MLP: [..., width] -> [..., width]."""
        return self.norm(states + self.outer(jax.nn.relu(self.inner(states))))


class CrossAttentionLayer(nnx.Module):
    """Let queries attend to a context, with residual and LayerNorm; then, if `ffn_ratio` > 0, apply a two-layer MLP."""

    def __init__(self, width: int, *, num_heads: int, ffn_ratio: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.query = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.key_value = nnx.Linear(width, 2 * width, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.mlp = ResidualMlp(width, ratio=ffn_ratio, dtype=dtype, rngs=rngs) if ffn_ratio else None

    def __call__(self, states: jax.Array, context: jax.Array, *, context_mask: jax.Array) -> jax.Array:
        """Apply it: [batch, queries, width], [batch, keys, width], [batch, keys] bool -> [batch, queries, width].

        Where no key is real the attention adds its output bias only.
        """
        batch, queries, _ = states.shape
        query = self.query(states).reshape(batch, queries, self.num_heads, -1)
        key_value = self.key_value(context).reshape(batch, context.shape[1], 2, self.num_heads, -1)
        mixed = attend(query, key_value[:, :, 0], key_value[:, :, 1], key_mask=context_mask)
        states = self.norm(states + self.out(mixed))
        return states if self.mlp is None else self.mlp(states)


class CrossAttention(nnx.Module):
    """Attend in both directions, text to graph and graph to text, each with its own parameters.

    Both sides are projected to `width` once. The projections are also the keys and values of every layer, as eq. 1-2
    read the other modality's own embeddings: no side sees itself through the other.

    Args:
        text_width: width of the token states.
        node_width: width of the node states.
        width: width of the attention and of both results.
        num_heads: heads of every layer.
        num_layers: layers of each direction.
        ffn_ratio: inner width of an MLP after each attention, in multiples of `width`; 0 leaves it out.
        dtype: dtype of the activations.
        rngs: initializes the parameters.

    Raises:
        ValueError: `width` is not divisible by `num_heads`.
    """

    def __init__(
        self,
        *,
        text_width: int,
        node_width: int,
        width: int,
        num_heads: int = 4,
        num_layers: int = 2,
        ffn_ratio: int = 0,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if width % num_heads:
            raise ValueError(f"the cross-attention width {width} is not divisible by its {num_heads} heads")

        def stack() -> nnx.List:
            shape = {"num_heads": num_heads, "ffn_ratio": ffn_ratio, "dtype": dtype}
            return nnx.List([CrossAttentionLayer(width, **shape, rngs=rngs) for _ in range(num_layers)])

        self.text_in = nnx.Linear(text_width, width, dtype=dtype, rngs=rngs)
        self.node_in = nnx.Linear(node_width, width, dtype=dtype, rngs=rngs)
        self.text_to_graph = stack()
        self.graph_to_text = stack()
        self.text_pooling = AttentionPooling(width, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        token_states: jax.Array,
        token_mask: jax.Array,
        node_states: jax.Array,
        node_mask: jax.Array,
        no_text: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Let each side attend to the other, and pool it.

        Args:
            token_states: [batch, length, text_width].
            token_mask: [batch, length] bool, False at padding; all False where there is no text.
            node_states: [batch, nodes, node_width].
            node_mask: [batch, nodes] bool, False at padding.
            no_text: [text_width], the only state of a text that has no token. It is put in place after the projection,
                so that `token_states` need no gradient.

        Returns:
            text side [batch, width], pooled by learned attention over real tokens, and graph side [batch, width], the
            mean over real nodes; zeros where a side has nothing real.
        """
        tokens, nodes = self.text_in(token_states), self.node_in(node_states)
        stands = ~jnp.any(token_mask, axis=1, keepdims=True) & (jnp.arange(tokens.shape[1]) == 0)
        tokens, token_mask = jnp.where(stands[..., None], self.text_in(no_text), tokens), token_mask | stands
        text_side, graph_side = tokens, nodes
        for layer in self.text_to_graph:
            text_side = layer(text_side, nodes, context_mask=node_mask)
        for layer in self.graph_to_text:
            graph_side = layer(graph_side, tokens, context_mask=token_mask)
        return self.text_pooling(text_side, token_mask), masked_mean(graph_side, node_mask)


def masked_mean(states: jax.Array, mask: jax.Array) -> jax.Array:
    """Average over True positions: [batch, length, width], [batch, length] bool -> [batch, width]; zeros if none."""
    weights = mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    return jnp.einsum("bl,blh->bh", weights.astype(states.dtype), states)
