"""Define the codebook: rows in regions, trained by gradients, EMA or SimVQ, that quantize embeddings (eq. 3-5).

The rows `0..N-1` are cut into the contiguous regions text | graph | shared; token ids are global row numbers. How the
K tokens of an embedding are chosen is in `search`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from medtok_jax.models.exact import exact
from medtok_jax.models.outputs import Quantized
from medtok_jax.models.search import (
    Match,
    l2_normalize,
    pairwise_distance,
    search_pursuit,
    search_residual,
    search_top_k,
    share_rows,
)
from medtok_jax.regions import REGIONS, Regions


def straight_through(embedding: jax.Array, vector: jax.Array) -> jax.Array:
    """Return `vector`; its gradient goes to `embedding` unchanged."""
    return embedding + jax.lax.stop_gradient(vector - embedding)


def rotation_trick(embedding: jax.Array, vector: jax.Array) -> jax.Array:
    """Return `vector`; its gradient goes back through the rotation and scaling that carry `embedding` onto it.

    Fifty et al., "Restructuring Vector Quantization with the Rotation Trick" (2024), section 4.
    """
    norm_e = jnp.linalg.norm(embedding, axis=-1, keepdims=True) + 1e-12
    norm_v = jnp.linalg.norm(vector, axis=-1, keepdims=True) + 1e-12
    unit_e, unit_v = jax.lax.stop_gradient((embedding / norm_e, vector / norm_v))
    middle = jax.lax.stop_gradient(l2_normalize(unit_e + unit_v))
    rotated = (
        embedding
        - 2.0 * jnp.sum(embedding * middle, -1, keepdims=True) * middle
        + 2.0 * jnp.sum(embedding * unit_e, -1, keepdims=True) * unit_v
    )
    rotated = rotated * jax.lax.stop_gradient(norm_v / norm_e)
    # Rounding in the reflection must not change the forward value.
    return rotated + jax.lax.stop_gradient(vector - rotated)


GRADIENT_ESTIMATORS = {"straight_through": straight_through, "rotation": rotation_trick}


def _of_regions(number: int | tuple[int, ...]) -> tuple[int, ...]:
    return (number,) * len(REGIONS) if isinstance(number, int) else tuple(number)


class FrozenBasis(nnx.Variable):
    """Hold SimVQ's untrained codebook rows: saved with the model, never given a gradient."""


class EmaState(nnx.Variable):
    """Hold running statistics of the EMA codebook update."""


class Quantizer(nnx.Module):
    """Quantize embeddings by K rows each of a codebook in regions.

    Args:
        regions: sizes of the three regions; `regions.size` is N.
        width: d.
        num_tokens: number of tokens of an embedding, for all regions or each, in the order of `regions.REGIONS`.
        num_nearest: how many of them `pursuit` gives to the nearest rows, likewise; the others refine.
        kind: `top_k` (paper eq. 3-4), `residual` or `pursuit`; see `search`.
        normalize: whether embeddings and, but for `residual`, rows are l2-normalized. Residual rows keep their length,
            since what is left after a step is shorter than a unit vector. Rows of `pursuit` are unit vectors always.
        weight_temperature: softmax temperature of eq. 4.
        gradient: `straight_through` or `rotation`.
        simvq: rows = frozen basis x one learned `[d, d]` map (Zhu et al., "SimVQ", 2024).
        shared_search: rows that embeddings of the shared region search: that `region`, or the `book` of all regions.
        ema_decay: 0 trains the rows by gradient; otherwise they follow the embeddings by an exponential moving average.
        top_k: `(x, k) -> (values, indices)`, as `jax.lax.top_k`; over several devices `sharding.top_k`.
        rngs: parameter initialization.

    Attributes:
        unit_rows: whether rows are searched at unit length.
        refines: whether tokens refine what those before them leave over.
        mixes: whether the first `num_nearest` tokens are mixed by least squares.
    """

    def __init__(
        self,
        regions: Regions,
        width: int,
        *,
        num_tokens: int | tuple[int, ...],
        num_nearest: int | tuple[int, ...] = 1,
        kind: str = "top_k",
        shared_search: str = "region",
        normalize: bool = True,
        weight_temperature: float = 0.07,
        gradient: str = "straight_through",
        simvq: bool = False,
        ema_decay: float = 0.0,
        top_k: Callable = jax.lax.top_k,
        rngs: nnx.Rngs,
    ):
        self.regions, self.width = regions, width
        self.normalize, self.ema_decay = normalize, ema_decay
        self.shared_searches_all = shared_search == "book"
        self.estimate_gradient = GRADIENT_ESTIMATORS[gradient]
        self.mixes, self.refines = kind == "pursuit", kind != "top_k"
        self.unit_rows = kind == "pursuit" or (kind == "top_k" and normalize)
        self._tokens = _of_regions(num_tokens)
        self._nearest = _of_regions(num_nearest if self.mixes else 1)

        def search(tokens: int, nearest: int) -> Callable[[jax.Array, jax.Array], Match]:
            return {
                "top_k": functools.partial(
                    search_top_k,
                    num_tokens=tokens,
                    unit_length=normalize,
                    temperature=weight_temperature,
                    top_k=top_k,
                ),
                "residual": functools.partial(search_residual, num_tokens=tokens),
                "pursuit": functools.partial(search_pursuit, num_tokens=tokens, num_nearest=nearest, top_k=top_k),
            }[kind]

        self._searches = tuple(map(search, self._tokens, self._nearest))
        rows = l2_normalize(jax.random.normal(rngs.params(), (regions.size, width)))
        self.projection = nnx.Param(jnp.eye(width)) if simvq else None
        self.rows = FrozenBasis(rows) if simvq else EmaState(rows) if ema_decay else nnx.Param(rows)
        self.ema_count = EmaState(jnp.ones((regions.size,))) if ema_decay else None
        self.ema_sum = EmaState(rows) if ema_decay else None

    def num_tokens(self, region: str) -> int:
        """Return the number of tokens of an embedding of a region."""
        return self._tokens[REGIONS.index(region)]

    def num_nearest(self, region: str) -> int:
        """Return how many of these are mixed as nearest rows; the others refine, where the kind does."""
        return self._nearest[REGIONS.index(region)]

    @exact
    def codebook(self) -> jax.Array:
        """Return all rows as they are searched: `[N, width]` float32."""
        rows = self.rows[...] if self.projection is None else self.rows[...] @ self.projection[...]
        return l2_normalize(rows) if self.unit_rows else rows

    def prepare(self, embedding: jax.Array) -> jax.Array:
        """Return an embedding as it is searched and scored: float32, of unit length where `normalize`."""
        return l2_normalize(embedding) if self.normalize else embedding.astype(jnp.float32)

    def searched(self, region: str) -> tuple[int, int]:
        """Return the first row and one past the last row that embeddings of a region may take as tokens."""
        if region == "shared" and self.shared_searches_all:
            return 0, self.regions.size
        return self.regions.bounds(region)

    def __call__(self, embedding: jax.Array, region: str) -> Quantized:
        """Quantize prepared embeddings `[batch, width]` with the rows that their region searches."""
        start, stop = self.searched(region)
        match = self._searches[REGIONS.index(region)](embedding, self.codebook()[start:stop])
        return Quantized(
            embedding=embedding,
            ids=(match.ids + start).astype(jnp.int32),
            weights=match.weights,
            vector=match.vector,
            output=self.estimate_gradient(embedding, jax.lax.stop_gradient(match.vector)),
            distances=match.distances,
        )

    def distances(self, embedding: jax.Array, region: str) -> jax.Array:
        """Return the distances of prepared embeddings `[batch, width]` to the rows that their region searches."""
        start, stop = self.searched(region)
        return pairwise_distance(embedding, self.codebook()[start:stop])

    def parts(self, region: str) -> tuple[int, ...]:
        """Return the bounds of the parts that the rows of a region are fitted in: one, or those of `share_rows`."""
        start, stop = self.regions.bounds(region)
        if not self.refines:
            return 0, stop - start
        return share_rows(stop - start, self.num_tokens(region), self.num_nearest(region))

    def ema_update(self, embedding: jax.Array, ids: jax.Array, weights: jax.Array, valid: jax.Array) -> None:
        """Move the rows in use towards the embeddings assigned to them (van den Oord et al. 2017, appendix A.1).

        Args:
            embedding: `[batch, width]` prepared embeddings.
            ids, weights: `[batch, K]`, their quantization.
            valid: `[batch]` bool; invalid rows move nothing.
        """
        share = (weights * valid[:, None]).reshape(-1)
        targets = jnp.broadcast_to(embedding[:, None], (*ids.shape, self.width))
        if self.refines:
            taken = weights[:, :, None] * jax.lax.stop_gradient(self.codebook())[ids]
            targets = targets - (jnp.cumsum(taken, axis=1) - taken)
        count = jax.ops.segment_sum(share, ids.reshape(-1), self.regions.size)
        total = jax.ops.segment_sum(
            share[:, None] * targets.reshape(-1, self.width), ids.reshape(-1), self.regions.size
        )
        used = count > 0
        decay = jnp.where(used, self.ema_decay, 1.0)
        self.ema_count[...] = decay * self.ema_count[...] + (1.0 - decay) * count
        self.ema_sum[...] = decay[:, None] * self.ema_sum[...] + (1.0 - decay[:, None]) * total
        mean = self.ema_sum[...] / jnp.maximum(self.ema_count[...], 1e-6)[:, None]
        self.rows[...] = jnp.where(used[:, None], mean, self.rows[...])

    def set_codebook(self, rows: jax.Array) -> None:
        """Replace all `[N, width]` rows, forgetting what EMA and SimVQ had learned of the old ones."""
        self.rows[...] = rows
        if self.projection is not None:
            self.projection[...] = jnp.eye(self.width)
        if self.ema_count is not None:
            self.ema_count[...] = jnp.ones((self.regions.size,))
            self.ema_sum[...] = rows
