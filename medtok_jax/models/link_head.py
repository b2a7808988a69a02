"""Score links between quantized codes and the frozen names of nodes: DistMult (Yang et al. 2015)."""

import jax
import jax.numpy as jnp
from flax import nnx

from medtok_jax.models.exact import exact
from medtok_jax.models.search import l2_normalize


class LinkHead(nnx.Module):
    """Score whether a relation leads from a code to a node, by a vector for each relation.

    A node is its frozen name through one linear map, so that nodes that are no codes are scored like any other. Codes
    and nodes are at unit length, and the relations start as ones: a score starts as a cosine.

    Args:
        num_relations: relations of the knowledge graph, each direction counted.
        width: of the codes' vectors.
        name_width: of the names' embeddings.
        rngs: parameter initialization.
    """

    def __init__(self, num_relations: int, width: int, name_width: int, *, rngs: nnx.Rngs):
        self.relations = nnx.Param(jnp.ones((num_relations, width)))
        self.node = nnx.Linear(name_width, width, use_bias=False, rngs=rngs)

    @exact
    def __call__(self, codes: jax.Array, relation: jax.Array, names: jax.Array) -> jax.Array:
        """Return the sum over the width of code i, its relation and node j.

        Args:
            codes: `[batch, width]`.
            relation: `[batch]` int32; any number where there is no link to score.
            names: `[batch, name_width]` frozen embeddings of the nodes' names.

        Returns:
            `[batch, batch]` float32.
        """
        weights = self.relations[...][jnp.maximum(relation, 0)]
        nodes = l2_normalize(self.node(names.astype(jnp.float32)))
        return (l2_normalize(codes) * weights) @ nodes.T
