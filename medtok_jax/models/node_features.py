"""Compute the features of nodes that the graph encoder starts from (paper section 3.1).

A node is its type, the frozen text embedding of its name and, if switched on, its identity. Names make the encoder
inductive: a node never seen in training still has features. The node that is the code itself must not bring its name:
the text side reads that very description, and aligning the two would be vacuous.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from medtok_jax.batch import MISSING, SELF


class NodeFeatures(nnx.Module):
    """Compute node features by kind of node.

    - ORDINARY: type embedding + Linear(name embedding) + node id embedding.
    - SELF: type embedding + one learned "self" vector in place of name and id.
    - MISSING: one learned "no graph" vector alone.

    Args:
        width: width of the result.
        num_types: rows of the type embedding.
        name_width: width of the name embeddings; read only with `use_name`.
        use_name: whether names are features.
        num_node_ids: rows of the node id embedding; 0 leaves it out.
        dtype: dtype of the activations.
        rngs: initializes the parameters.
    """

    def __init__(
        self,
        width: int,
        *,
        num_types: int,
        name_width: int = 0,
        use_name: bool = True,
        num_node_ids: int = 0,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if use_name and name_width < 1:
            raise ValueError(f"names as features need a name_width of 1 or more, not {name_width}")
        self.dtype = dtype
        self.types = nnx.Embed(num_types, width, dtype=dtype, rngs=rngs)
        self.name = nnx.Linear(name_width, width, dtype=dtype, rngs=rngs) if use_name else None
        self.ids = nnx.Embed(num_node_ids, width, dtype=dtype, rngs=rngs) if num_node_ids else None
        initial = nnx.initializers.normal(width**-0.5)
        self.self_vector = nnx.Param(initial(rngs.params(), (width,), jnp.float32))
        self.missing_vector = nnx.Param(initial(rngs.params(), (width,), jnp.float32))

    def __call__(
        self, node_type: jax.Array, name_embedding: jax.Array | None, kind: jax.Array, node_id: jax.Array
    ) -> jax.Array:
        """Return features [n, width] in `dtype`.

        Args:
            node_type: [n] int32 in [0, num_types).
            name_embedding: [n, name_width], or None without `use_name`.
            kind: [n] int32, one of ORDINARY, SELF, MISSING.
            node_id: [n] int32; a node outside [0, num_node_ids) has no id feature, so that new graphs can be read.

        Raises:
            ValueError: the names are features and are not given.
        """
        content = jnp.zeros((node_type.shape[0], self.self_vector.shape[0]), self.dtype)
        if self.name is not None:
            if name_embedding is None:
                raise ValueError("name_embedding is None, but these node features include names")
            content = content + self.name(name_embedding)
        if self.ids is not None:
            known = (node_id >= 0) & (node_id < self.ids.num_embeddings)
            content = content + jnp.where(known[:, None], self.ids(jnp.where(known, node_id, 0)), 0)
        kind = kind[:, None]
        content = jnp.where(kind == SELF, self.self_vector[...].astype(self.dtype), content)
        return jnp.where(kind == MISSING, self.missing_vector[...].astype(self.dtype), self.types(node_type) + content)
