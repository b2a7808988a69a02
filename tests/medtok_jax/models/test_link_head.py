"""Scores of links by loops."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from medtok_jax.models.link_head import LinkHead

RELATION = np.array([0, 2, -1, 1, 2], np.int32)
WIDTH, NAME_WIDTH = 6, 4


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def test_scores_by_loops():
    rng = np.random.default_rng(0)
    codes, names = (rng.normal(size=(5, width)).astype(np.float32) for width in (WIDTH, NAME_WIDTH))
    head = LinkHead(3, WIDTH, NAME_WIDTH, rngs=nnx.Rngs(0))
    kernel = np.asarray(head.node.kernel[...])
    for relations in (np.ones((3, WIDTH)), rng.normal(size=(3, WIDTH))):
        found = head(jnp.asarray(codes), RELATION, jnp.asarray(names))
        for i, relation in enumerate(RELATION):
            for j in range(5):
                if relation >= 0:
                    wanted = sum(unit(codes[i]) * np.asarray(head.relations[...])[relation] * unit(names[j] @ kernel))
                    np.testing.assert_allclose(found[i, j], wanted, atol=1e-5)
        head.relations[...] = jnp.asarray(relations, jnp.float32)
