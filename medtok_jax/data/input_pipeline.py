"""Turn a data set into batches of static shapes. Which codes a step sees is a pure function of (seed, step)."""

import dataclasses
from collections.abc import Iterator, Sequence

import grain
import jraph
import numpy as np

from medtok_jax.batch import NO_STATE, TIER, Batch, CodeLinks
from medtok_jax.data.collate import make_batch, pad_subgraphs, pad_tokens
from medtok_jax.data.dataset import Data
from medtok_jax.data.masking import Masked, Subgraphs
from medtok_jax.data.positives import both_directions
from medtok_jax.data.sampling import CodeSizes, Sampler
from preprocessing.common.ragged import positions

PREFETCH = 4


@dataclasses.dataclass(frozen=True)
class Budgets:
    """Hold the few shapes that batches are padded to.

    Attributes:
        lengths: token lengths.
        graphs: (nodes, edges) of one device's padded graphs, rising; the last holds any batch.
        small: (tokens, nodes) that all but few codes keep within, see `Batch.small`; None where there is no gain.
    """

    lengths: tuple[int, ...]
    graphs: tuple[tuple[int, int], ...]
    small: tuple[int, int] | None = None

    @classmethod
    def fit(
        cls,
        data: Data,
        batch_size: int,
        num_devices: int,
        lengths: Sequence[int],
        sizes: CodeSizes | None = None,
    ) -> "Budgets":
        """Return budgets from the sizes of the codes: mean + 4 standard errors first, then half as much again.

        Args:
            data: its codes in use are what a batch may hold.
            batch_size: codes of a batch over all devices.
            num_devices: devices that share it.
            lengths: token lengths.
            sizes: of codes as batches sample and mask them; None where nothing is masked and all are as frequent.
        """
        table, rows, codes_a_device = data.table, data.selected, batch_size // num_devices
        most = max(int(table.num_nodes[rows].max()), 1), int(table.num_edges[rows].max())
        sizes = CodeSizes.unmasked(data, rows) if sizes is None else sizes
        nodes = _ladder(np.maximum(sizes.nodes, 1), most[0], codes_a_device)
        edges = _ladder(sizes.edges, most[1], codes_a_device)
        steps = max(len(nodes), len(edges))
        graphs = tuple((nodes[min(i, len(nodes) - 1)], edges[min(i, len(edges) - 1)]) for i in range(steps))
        tiers = codes_a_device % TIER == 0
        return cls(tuple(lengths), graphs, _small_shape(sizes, batch_size) if tiers else None)

    def length(self, longest: int) -> int:
        """Return the smallest token length that holds `longest`."""
        return next(length for length in self.lengths if length >= longest)

    def graph(self, nodes: int, edges: int) -> tuple[int, int]:
        """Return the smallest (nodes, edges) with a spare node, which padding needs."""
        return next((n, e) for n, e in self.graphs if n > nodes and e >= edges)


def _small_shape(sizes: CodeSizes, batch_size: int) -> tuple[int, int] | None:
    """Return the cheapest (tokens, nodes) that at most a `TIER`th of a batch exceeds, but for 4 standard errors."""
    tokens, nodes = sizes.tokens, sizes.nodes
    share = 1 / TIER - 4 * np.sqrt((1 / TIER) * (1 - 1 / TIER) / batch_size)
    best = None
    for length in range(8, _multiple(tokens.max(), 8) + 1, 8):
        exceeding = tokens > length
        for places in range(8, _multiple(nodes.max(), 8) + 1, 8):
            if np.mean(exceeding | (nodes > places)) <= share:
                if best is None or length * places < best[0] * best[1]:
                    best = (length, places)
                break
    return best


def _multiple(x: int, of: int) -> int:
    return int(-(-x // of) * of)


def _ladder(counts: np.ndarray, largest: int, codes: int, multiple: int = 64) -> list[int]:
    def up(x: float) -> int:
        return _multiple(int(x) + 1, multiple)

    most = up(codes * largest)
    levels = [min(up(codes * counts.mean() + 4 * counts.std() * np.sqrt(codes)), most)]
    while levels[-1] < most:
        levels.append(min(up(levels[-1] * 1.5), most))
    return levels


class BatchBuilder:
    """Turn global batches of table rows into this process's part of padded host arrays.

    Args:
        data: what to read.
        budgets: shapes to pad to.
        num_stacks: devices along the `data` axis of the mesh, over all processes.
        local_stacks: which of them are this process's.
        token_ids: whether the text is wordpieces (a trained encoder) instead of cached states.
        frozen_means: whether a batch has the means of the cached states too, see `Batch`.
        states_on_device: whether cached states lie on the device, so that a batch has but their rows.
        positive_relations: names of the relations that positives are drawn from, which may be masked.
    """

    def __init__(
        self,
        data: Data,
        budgets: Budgets,
        *,
        num_stacks: int,
        local_stacks: Sequence[int],
        token_ids: bool = False,
        frozen_means: bool = False,
        states_on_device: bool = False,
        positive_relations: Sequence[str] = (),
    ):
        self.data, self.budgets = data, budgets
        self.num_stacks, self.local_stacks = num_stacks, tuple(local_stacks)
        self.text_source = data.cache.token_ids if token_ids else data.cache.states
        self.states_on_device, self.frozen_means = states_on_device, frozen_means
        self.positive_relations = both_directions(data.table.graph, positive_relations)

    def __call__(
        self,
        rows: np.ndarray,
        valid: np.ndarray,
        partner: np.ndarray,
        masked: Masked | None = None,
        links: CodeLinks | None = None,
    ) -> Batch:
        """Return this process's part of a batch, its codes arranged so that the large ones have the slots for them.

        Args:
            rows: `[batch]` table rows of the global batch; `valid`, `partner`: `[batch]`, see `Batch`.
            masked: what is masked of each code; None for nothing.
            links: to be predicted, if any.
        """
        masked = Masked.none(len(rows)) if masked is None else masked
        sizes = CodeSizes.visible(self.data, rows, masked, self.positive_relations)
        order, small = self._arrange(sizes)
        rows, valid, masked, sizes = rows[order], valid[order], masked.take(order), sizes.take(order)
        partner = np.where(partner >= 0, np.argsort(order)[partner], -1)[order]
        links = None if links is None else links.take(order)
        table, text, stacks = self.data.table, self.data.text_id[rows], rows.reshape(self.num_stacks, -1)
        length = self.budgets.length(int(sizes.tokens.max()))
        nodes, edges = (
            int(counts.reshape(stacks.shape).sum(1).max()) for counts in (np.maximum(sizes.nodes, 1), sizes.edges)
        )
        shape = self.budgets.graph(nodes, edges)
        mine = (np.array(self.local_stacks)[:, None] * stacks.shape[1] + np.arange(stacks.shape[1])).reshape(-1)
        padded, mask = self._pad_texts(text[mine], masked.text[mine], length)
        of_stack = np.arange(len(rows)).reshape(stacks.shape)
        return make_batch(
            text=padded,
            text_mask=mask,
            graphs=[self._pad_graphs(stacks[n], masked.take(of_stack[n]), shape) for n in self.local_stacks],
            valid=valid[mine],
            index=rows[mine],
            # Codes of which nothing is shown look alike.
            text_id=np.where(masked.text[mine], -1, text[mine]),
            graph_id=np.where(masked.graph[mine], -1, table.graph_id[rows[mine]]),
            partner=partner[mine],
            small=small,
            links=None if links is None else links.part(mine),
            frozen_means=self._means(text[mine], masked.text[mine], length) if self.frozen_means else None,
        )

    def _arrange(self, sizes: CodeSizes) -> tuple[np.ndarray, tuple[int, int] | None]:
        """Return an order in which codes that exceed the small shape stand in every `TIER`th slot, if they fit.

        Returns:
            That order `[batch]`, and the small shape where it holds.
        """
        small, count = self.budgets.small, len(sizes.nodes)
        if small is None:
            return np.arange(count), None
        large = (sizes.tokens > small[0]) | (sizes.nodes > small[1])
        if large.sum() > count // TIER:
            return np.arange(count), None
        # Large codes first: as many slots take the codes next in line as there are too few of them.
        order = np.argsort(~large, kind="stable")
        slots = np.arange(count).reshape(-1, TIER)
        source = np.empty(count, np.int64)
        source[slots[:, -1]] = order[: len(slots)]
        source[slots[:, :-1].reshape(-1)] = order[len(slots) :]
        return source, small

    def _pad_texts(self, texts: np.ndarray, masked: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        where, counts = positions(self.data.cache.offsets, texts)
        if self.states_on_device:
            return pad_tokens(where.astype(np.int32), counts, length, masked=masked, fill=NO_STATE)
        return pad_tokens(self.text_source[where], counts, length, masked=masked)

    def _means(self, texts: np.ndarray, masked: np.ndarray, length: int) -> np.ndarray:
        where, counts = positions(self.data.cache.offsets, texts)
        states, mask = pad_tokens(self.data.cache.states[where], counts, length, masked=masked)
        return states.astype(np.float32).sum(1) / np.maximum(mask.sum(1, keepdims=True, dtype=np.float32), 1)

    def _pad_graphs(self, rows: np.ndarray, masked: Masked, shape: tuple[int, int]) -> jraph.GraphsTuple:
        part = Subgraphs.of(self.data.table, rows)
        if masked.cuts_graphs:
            part = part.without(masked, self.positive_relations)
        return pad_subgraphs(part, len(rows), shape)


class TrainSource:
    """Give random access to training batches by step, for `grain.MapDataset.source`.

    Args:
        builder: makes a batch of rows.
        sampler: which rows a step sees, and what is masked of them.
        steps: of the run.
    """

    def __init__(self, builder: BatchBuilder, sampler: Sampler, steps: int):
        self.builder, self.sampler, self.steps = builder, sampler, steps

    def __repr__(self) -> str:
        sampler = self.sampler
        return f"TrainSource(seed={sampler.seed}, batch_size={sampler.batch_size}, codes={len(sampler.rows)})"

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        rows, partner = self.sampler.batch_rows(step)
        links = self.sampler.links(step, rows)
        masked = self.sampler.masked(step, links)
        return self.builder(rows, np.ones(len(rows), bool), partner, masked, links)


def train_batches(source: TrainSource, start: int) -> Iterator[Batch]:
    """Yield the batches of steps `start`, `start + 1`, ..., made ahead of need in a thread."""
    dataset = grain.MapDataset.source(source)[start:]
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCH)))


class EvalSource:
    """Give random access to batches that pass once over some rows in order, the last filled up with invalid rows."""

    def __init__(self, builder: BatchBuilder, rows: np.ndarray, batch_size: int):
        self.builder, self.rows, self.batch_size = builder, rows, batch_size

    def __repr__(self) -> str:
        return f"EvalSource(batch_size={self.batch_size}, codes={len(self.rows)})"

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, number: int) -> Batch:
        rows = self.rows[number * self.batch_size : (number + 1) * self.batch_size]
        missing = self.batch_size - len(rows)
        valid = np.arange(self.batch_size) < len(rows)
        rows = np.concatenate([rows, np.repeat(self.rows[:1], missing)])
        return self.builder(rows, valid, np.full(self.batch_size, -1))


def eval_batches(source: EvalSource) -> Iterator[Batch]:
    """Yield all batches of one pass, made ahead of need in a thread."""
    dataset = grain.MapDataset.source(source)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCH)))
