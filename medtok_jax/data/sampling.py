"""Draw the codes that a training step sees, and what is masked of them: a pure function of (seed, step)."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medtok_jax.batch import CodeLinks
from medtok_jax.data.dataset import Data
from medtok_jax.data.hard_negatives import HardNegatives
from medtok_jax.data.links import LinkSampler
from medtok_jax.data.masking import Masked, Subgraphs
from medtok_jax.data.positives import Positives, both_directions

# Codes drawn to estimate how large codes are.
SIZED_CODES = 16384


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def draw(seed: int, step: int, batch_size: int, count: int) -> np.ndarray:
    """Return the positions `[batch_size]` in 0..count-1 that a step sees: fresh permutations, end to end."""
    where = step * batch_size + np.arange(batch_size)
    epochs = where // count
    return np.concatenate(
        [_permutation(seed, int(epoch), count)[where[epochs == epoch] % count] for epoch in np.unique(epochs)]
    )


class CodeSizes(NamedTuple):
    """Count the wordpieces, nodes and edges of some codes, `[codes]` int64 each."""

    tokens: np.ndarray
    nodes: np.ndarray
    edges: np.ndarray

    @classmethod
    def unmasked(cls, data: Data, rows: np.ndarray) -> "CodeSizes":
        """Return the sizes of codes of which nothing is masked."""
        return cls(data.num_tokens(rows), data.table.num_nodes[rows], data.table.num_edges[rows])

    @classmethod
    def visible(cls, data: Data, rows: np.ndarray, masked: Masked, relations: np.ndarray) -> "CodeSizes":
        """Return the sizes of what masking leaves of codes.

        Args:
            data: codes.
            rows: `[codes]` of the table.
            masked: what is masked of each code.
            relations: `[relations]` bool, those that positives are drawn from.
        """
        if not masked.cuts_graphs:
            return cls.unmasked(data, rows)
        part = Subgraphs.of(data.table, rows).without(masked, relations)
        nodes, edges = (np.bincount(of, minlength=len(rows)) for of in (part.of_node, part.of_edge))
        return cls(data.num_tokens(rows), nodes, edges)

    def take(self, order: np.ndarray) -> "CodeSizes":
        """Return the codes in another order, or some of them."""
        return CodeSizes(*(part[order] for part in self))


class Sampler:
    """Draw the batches of a run.

    Where there are positives or hard negatives, every other code of a batch is drawn for the anchors: a positive of the
    anchor before it; where that has none, a hard negative of any anchor, as many as are asked for; in the places that
    are left, a random code.

    Args:
        data: codes.
        rows: training rows of the table.
        seed, batch_size: of the run.
        positive_relations: names of relations that join positives to anchors.
        link_relations: names of relations whose links are to be predicted, and are masked.
        hard_negatives: draws hard negatives, or None.
        hard_share: share of anchors that bring one, as far as there is room.
        mask_positives: share of codes whose relations to positives are masked.
        modality_dropout: share of codes whose graph is masked, and as large a share whose text is.
    """

    def __init__(
        self,
        data: Data,
        rows: np.ndarray,
        *,
        seed: int,
        batch_size: int,
        positive_relations: Sequence[str] = (),
        link_relations: Sequence[str] = (),
        hard_negatives: HardNegatives | None = None,
        hard_share: float = 0.0,
        mask_positives: float = 0.0,
        modality_dropout: float = 0.0,
    ):
        self.data, self.rows, self.seed, self.batch_size = data, rows, seed, batch_size
        self.mask_positives, self.modality_dropout = mask_positives, modality_dropout
        self.relations = both_directions(data.table.graph, positive_relations)
        self.hard_negatives, self.hard_share = hard_negatives, hard_share
        paired = len(positive_relations) or hard_negatives is not None
        self.positives = Positives(data, rows, self.relations) if paired else None
        self.link_sampler = LinkSampler(data, link_relations) if len(link_relations) else None

    def batch_rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the global batch of a step: `[batch_size]` rows and the slot of each one's partner (-1 for none)."""
        if self.positives is None:
            rows = self.rows[draw(self.seed, step, self.batch_size, len(self.rows))]
            return rows, np.full(self.batch_size, -1)
        half = self.batch_size // 2
        anchors = self.rows[draw(self.seed, step, half, len(self.rows))]
        neighbors, found = self.positives.draw(anchors, np.random.default_rng([self.seed, step, 1]))
        if self.hard_negatives is not None:
            self._put_hard_negatives(anchors, neighbors, np.flatnonzero(~found), step)
        slots = np.arange(half)
        rows = np.stack([anchors, neighbors], axis=1).reshape(-1)
        partner = np.stack([np.where(found, 2 * slots + 1, -1), np.where(found, 2 * slots, -1)], axis=1).reshape(-1)
        return rows, partner

    def _put_hard_negatives(self, anchors: np.ndarray, others: np.ndarray, free: np.ndarray, step: int) -> None:
        """Put hard negatives of some anchors into some of the places that are free, in `others` `[anchors]`."""
        rng = np.random.default_rng([self.seed, step, 4])
        bringing = anchors[rng.permutation(len(anchors))[: round(self.hard_share * len(anchors))]]
        hard = self.hard_negatives.draw(bringing, self.positives, rng)
        hard = hard[hard >= 0][: len(free)]
        others[rng.permutation(free)[: len(hard)]] = hard

    def links(self, step: int, rows: np.ndarray) -> CodeLinks | None:
        """Return the links to predict of the global batch `rows` of a step; None where none are predicted."""
        if self.link_sampler is None:
            return None
        return self.link_sampler.draw(rows, np.random.default_rng([self.seed, step, 3]))

    def masked(self, step: int, links: CodeLinks | None = None) -> Masked:
        """Return what a step masks of the codes of its batch, whose links are to be predicted."""
        rng = np.random.default_rng([self.seed, step, 2])
        shares = {"positives": self.mask_positives, "modality": self.modality_dropout}
        masked = Masked.draw(rng, self.batch_size, **shares)
        return masked if links is None else masked._replace(link=links.node)

    def sizes(self) -> CodeSizes:
        """Return the sizes of the codes of the first batches as they are masked.

        Where nothing is masked and all codes are drawn alike, these are the sizes of all codes in use.
        """
        masks = self.mask_positives or self.modality_dropout or self.link_sampler is not None
        if self.positives is None and not masks:
            return CodeSizes.unmasked(self.data, self.data.selected)
        parts = []
        for step in range(-(-SIZED_CODES // self.batch_size)):
            rows = self.batch_rows(step)[0]
            masked = self.masked(step, self.links(step, rows))
            parts.append(CodeSizes.visible(self.data, rows, masked, self.relations))
        return CodeSizes(*map(np.concatenate, zip(*parts, strict=True)))
