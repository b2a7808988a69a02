"""Data set to static-shape batches. Which codes a step sees is a pure function of (seed, step)."""

import dataclasses
from collections.abc import Iterator, Sequence

import grain
import jraph
import numpy as np

from medtok_jax.batch import MISSING, NO_STATE, ORDINARY, SELF, TIER, Batch
from medtok_jax.data.dataset import Data
from medtok_jax.data.masking import Masked, Subgraphs
from medtok_jax.data.positives import both_directions
from medtok_jax.data.sampling import Sampler, Sizes
from preprocessing.common.ragged import positions

PREFETCH = 4


@dataclasses.dataclass(frozen=True)
class Budgets:
    """The few shapes that batches are padded to.

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
        sizes: Sizes | None = None,
    ) -> "Budgets":
        """Budgets from the sizes of the codes: mean + 4 standard errors first, then half as much again.

        Args:
            data: its codes in use are what a batch may hold.
            batch_size: codes of a batch over all devices.
            num_devices: devices that share it.
            lengths: token lengths.
            sizes: of codes as batches draw and show them; None where that is each whole, as often as any other.
        """
        table, rows, codes_a_device = data.table, data.selected, batch_size // num_devices
        most = max(int(table.num_nodes[rows].max()), 1), int(table.num_edges[rows].max())
        sizes = Sizes.whole(data, rows) if sizes is None else sizes
        nodes = _ladder(np.maximum(sizes.nodes, 1), most[0], codes_a_device)
        edges = _ladder(sizes.edges, most[1], codes_a_device)
        steps = max(len(nodes), len(edges))
        graphs = tuple((nodes[min(i, len(nodes) - 1)], edges[min(i, len(edges) - 1)]) for i in range(steps))
        tiers = codes_a_device % TIER == 0
        return cls(tuple(lengths), graphs, _small_shape(sizes, batch_size) if tiers else None)

    def length(self, longest: int) -> int:
        """Smallest token length that holds `longest`."""
        return next(length for length in self.lengths if length >= longest)

    def graph(self, nodes: int, edges: int) -> tuple[int, int]:
        """Smallest (nodes, edges) with a spare node, which padding needs."""
        return next((n, e) for n, e in self.graphs if n > nodes and e >= edges)


def _small_shape(sizes: Sizes, batch_size: int) -> tuple[int, int] | None:
    """The cheapest (tokens, nodes) that at most a `TIER`th of a batch exceeds, but for 4 standard errors."""
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
    up = lambda x: _multiple(int(x) + 1, multiple)  # noqa: E731
    most = up(codes * largest)
    levels = [min(up(codes * counts.mean() + 4 * counts.std() * np.sqrt(codes)), most)]
    while levels[-1] < most:
        levels.append(min(up(levels[-1] * 1.5), most))
    return levels


class BatchBuilder:
    """Turns global batches of table rows into this process's part of padded host arrays.

    Args:
        data: what to read.
        budgets: shapes to pad to.
        num_stacks: devices along the `data` axis of the mesh, over all processes.
        local_stacks: which of them are this process's.
        token_ids: whether the text is wordpieces (a trained encoder) instead of cached states.
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
        states_on_device: bool = False,
        positive_relations: Sequence[str] = (),
    ):
        self.data, self.budgets = data, budgets
        self.num_stacks, self.local_stacks = num_stacks, tuple(local_stacks)
        self.text_source = data.cache.token_ids if token_ids else data.cache.states
        self.states_on_device = states_on_device
        self.positive_relations = both_directions(data.table.graph, positive_relations)

    def __call__(self, rows: np.ndarray, valid: np.ndarray, partner: np.ndarray, masked: Masked | None = None) -> Batch:
        """This process's part of a batch, its codes arranged so that the large ones have the slots for them.

        Args:
            rows: `[batch]` table rows of the global batch; `valid`, `partner`: `[batch]`, see `Batch`.
            masked: what is kept from the model; None for nothing.
        """
        masked = Masked.nothing(len(rows)) if masked is None else masked
        sizes = Sizes.shown(self.data, rows, masked, self.positive_relations)
        order, small = self._arrange(sizes)
        rows, valid, masked, sizes = rows[order], valid[order], masked.take(order), sizes.take(order)
        partner = np.where(partner >= 0, np.argsort(order)[partner], -1)[order]
        table, text, stacks = self.data.table, self.data.text_id[rows], rows.reshape(self.num_stacks, -1)
        length = self.budgets.length(int(sizes.tokens.max()))
        a_stack = lambda counts: int(counts.reshape(stacks.shape).sum(1).max())  # noqa: E731
        shape = self.budgets.graph(a_stack(np.maximum(sizes.nodes, 1)), a_stack(sizes.edges))
        mine = (np.array(self.local_stacks)[:, None] * stacks.shape[1] + np.arange(stacks.shape[1])).reshape(-1)
        states, mask = self._texts(text[mine], masked.text[mine], length)
        of_stack = np.arange(len(rows)).reshape(stacks.shape)
        graphs = [self._graph(stacks[n], masked.take(of_stack[n]), shape) for n in self.local_stacks]
        return Batch(
            text=states,
            text_mask=mask,
            graph=_stack(graphs),
            valid=valid[mine],
            index=rows[mine].astype(np.int32),
            # Codes of which nothing is shown look alike.
            text_id=np.where(masked.text[mine], -1, text[mine]).astype(np.int32),
            graph_id=np.where(masked.graph[mine], -1, table.graph_id[rows[mine]]).astype(np.int32),
            partner=partner[mine].astype(np.int32),
            small=small,
        )

    def _arrange(self, sizes: Sizes) -> tuple[np.ndarray, tuple[int, int] | None]:
        """Order in which codes that exceed the small shape stand in every `TIER`th slot, where they fit there.

        Returns:
            That order, and the small shape where it holds.
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

    def _texts(self, texts: np.ndarray, masked: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        where, counts = positions(self.data.cache.offsets, texts)
        mask = np.arange(length) < counts[:, None]
        if self.states_on_device:
            nothing, padded = NO_STATE, np.full(mask.shape, NO_STATE, np.int32)
            padded[mask] = where
        else:
            nothing, padded = 0, np.zeros((*mask.shape, *self.text_source.shape[1:]), self.text_source.dtype)
            padded[mask] = self.text_source[where]
        # What has no description is one token of zeros.
        padded[masked] = nothing
        mask[masked] = np.arange(length) < 1
        return padded, mask

    def _graph(self, rows: np.ndarray, masked: Masked, shape: tuple[int, int]) -> jraph.GraphsTuple:
        part = Subgraphs.of(self.data.table, rows)
        if masked.positives.any() or masked.graph.any():
            part = part.without(masked, self.positive_relations)
        n_node = np.bincount(part.of_node, minlength=len(rows))
        n_edge = np.bincount(part.of_edge, minlength=len(rows))
        missing = n_node == 0
        # A code without a subgraph has one node, that stands for just that.
        starts = np.cumsum(n_node + missing) - n_node - missing
        shift = starts - (np.cumsum(n_node) - n_node)
        place = np.arange(len(part.nodes)) + shift[part.of_node]
        node_id, hop, kind = (np.zeros(shape[0], np.int32) for _ in range(3))
        node_id[place], hop[place] = part.nodes, part.hops
        kind[:] = ORDINARY
        kind[starts[missing]] = MISSING
        known = part.self_node >= 0
        kind[place[part.self_node[known]]] = SELF
        senders, receivers = (np.full(shape[1], shape[0] - 1, np.int32) for _ in range(2))
        relation = np.zeros(shape[1], np.int32)
        edges = len(part.senders)
        senders[:edges], receivers[:edges] = place[part.senders], place[part.receivers]
        relation[:edges] = part.relations
        n_node = n_node + missing
        return jraph.GraphsTuple(
            nodes={"node_id": node_id, "kind": kind, "hop": hop},
            edges=relation,
            senders=senders,
            receivers=receivers,
            n_node=np.append(n_node, shape[0] - n_node.sum()).astype(np.int32),
            n_edge=np.append(n_edge, shape[1] - n_edge.sum()).astype(np.int32),
            globals=None,
        )


def _stack(graphs: list[jraph.GraphsTuple]) -> jraph.GraphsTuple:
    nodes = {name: np.stack([g.nodes[name] for g in graphs]) for name in graphs[0].nodes}
    fields = ("edges", "senders", "receivers", "n_node", "n_edge")
    return jraph.GraphsTuple(
        nodes=nodes, globals=None, **{f: np.stack([getattr(g, f) for g in graphs]) for f in fields}
    )


class TrainSource:
    """Random access to training batches by step, for `grain.MapDataset.source`.

    Args:
        builder: makes a batch of rows.
        sampler: which rows a step sees, and what of them.
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
        return self.builder(rows, np.ones(len(rows), bool), partner, self.sampler.masked(step))


def train_batches(source: TrainSource, start: int) -> Iterator[Batch]:
    """Batches of steps `start`, `start + 1`, ..., made ahead of need in a thread."""
    dataset = grain.MapDataset.source(source)[start:]
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCH)))


class EvalSource:
    """Random access to batches that pass once over some rows in the order given, the last filled with invalid rows."""

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
    """All batches of one pass, made ahead of need in a thread."""
    dataset = grain.MapDataset.source(source)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCH)))
