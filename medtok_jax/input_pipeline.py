"""Data set to static-shape batches. Which codes a step sees is a pure function of (seed, step)."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import grain
import jraph
import numpy as np

from medtok_jax.batch import TIER, Batch
from medtok_jax.dataset import Data
from medtok_jax.models.node_features import MISSING, ORDINARY, SELF
from medtok_jax.ragged import positions

PREFETCH = 4


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def draw(seed: int, step: int, batch_size: int, count: int) -> np.ndarray:
    """Places `[batch_size]` in 0..count-1 that a step sees: passes over a fresh permutation each, end to end."""
    where = step * batch_size + np.arange(batch_size)
    epochs = where // count
    return np.concatenate(
        [_permutation(seed, int(epoch), count)[where[epochs == epoch] % count] for epoch in np.unique(epochs)]
    )


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
    def fit(cls, data: Data, batch_size: int, num_devices: int, lengths: Sequence[int]) -> "Budgets":
        """Budgets from the sizes of the codes in use: mean + 4 standard errors first, then half as much again."""
        table, rows, codes_a_device = data.table, data.selected, batch_size // num_devices
        nodes = _ladder(np.maximum(table.num_nodes[rows], 1), codes_a_device)
        edges = _ladder(table.num_edges[rows], codes_a_device)
        steps = max(len(nodes), len(edges))
        graphs = tuple((nodes[min(i, len(nodes) - 1)], edges[min(i, len(edges) - 1)]) for i in range(steps))
        tiers = codes_a_device % TIER == 0
        return cls(tuple(lengths), graphs, _small_shape(data, batch_size) if tiers else None)

    def length(self, longest: int) -> int:
        """Smallest token length that holds `longest`."""
        return next(length for length in self.lengths if length >= longest)

    def graph(self, nodes: int, edges: int) -> tuple[int, int]:
        """Smallest (nodes, edges) with a spare node, which padding needs."""
        return next((n, e) for n, e in self.graphs if n > nodes and e >= edges)


def _small_shape(data: Data, batch_size: int) -> tuple[int, int] | None:
    """The cheapest (tokens, nodes) that at most a `TIER`th of a batch exceeds, but for 4 standard errors."""
    tokens, nodes = data.num_tokens(data.selected), data.table.num_nodes[data.selected]
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


def _ladder(counts: np.ndarray, codes: int, multiple: int = 64) -> list[int]:
    up = lambda x: _multiple(int(x) + 1, multiple)  # noqa: E731
    most = up(codes * counts.max())
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
    """

    def __init__(
        self, data: Data, budgets: Budgets, *, num_stacks: int, local_stacks: Sequence[int], token_ids: bool = False
    ):
        self.data, self.budgets = data, budgets
        self.num_stacks, self.local_stacks = num_stacks, tuple(local_stacks)
        self.text_source = data.cache.token_ids if token_ids else data.cache.states

    def __call__(self, rows: np.ndarray, valid: np.ndarray, partner: np.ndarray) -> Batch:
        """This process's part of a batch, its codes arranged so that the large ones have the slots for them.

        Args:
            rows: `[batch]` table rows of the global batch; `valid`, `partner`: `[batch]`, see `Batch`.
        """
        table = self.data.table
        rows, valid, partner, small = self._arrange(rows, valid, partner)
        stacks = rows.reshape(self.num_stacks, -1)
        text = self.data.text_id[rows]
        length = self.budgets.length(int(self.data.num_tokens(rows).max()))
        nodes = np.maximum(table.num_nodes[stacks], 1).sum(1).max()
        shape = self.budgets.graph(int(nodes), int(table.num_edges[stacks].sum(1).max()))
        mine = (np.array(self.local_stacks)[:, None] * stacks.shape[1] + np.arange(stacks.shape[1])).reshape(-1)
        states, mask = self._texts(text[mine], length)
        return Batch(
            text=states,
            text_mask=mask,
            graph=_stack([self._graph(stacks[number], shape) for number in self.local_stacks]),
            valid=valid[mine],
            index=rows[mine].astype(np.int32),
            text_id=text[mine].astype(np.int32),
            graph_id=table.graph_id[rows[mine]],
            partner=partner[mine].astype(np.int32),
            small=small,
        )

    def _arrange(self, rows: np.ndarray, valid: np.ndarray, partner: np.ndarray) -> tuple:
        """Moves codes that exceed the small shape into every `TIER`th slot, where they fit there."""
        small = self.budgets.small
        if small is None:
            return rows, valid, partner, None
        large = (self.data.num_tokens(rows) > small[0]) | (self.data.table.num_nodes[rows] > small[1])
        if large.sum() > len(rows) // TIER:
            return rows, valid, partner, None
        # Large codes first: as many slots take the codes next in line as there are too few of them.
        order = np.argsort(~large, kind="stable")
        slots = np.arange(len(rows)).reshape(-1, TIER)
        source = np.empty(len(rows), np.int64)
        source[slots[:, -1]] = order[: len(slots)]
        source[slots[:, :-1].reshape(-1)] = order[len(slots) :]
        place = np.argsort(source)
        return rows[source], valid[source], np.where(partner >= 0, place[partner], -1)[source], small

    def _texts(self, texts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        where, counts = positions(self.data.cache.offsets, texts)
        mask = np.arange(length) < counts[:, None]
        padded = np.zeros((*mask.shape, *self.text_source.shape[1:]), self.text_source.dtype)
        padded[mask] = self.text_source[where]
        return padded, mask

    def _graph(self, rows: np.ndarray, shape: tuple[int, int]) -> jraph.GraphsTuple:
        table = self.data.table
        n_node, n_edge = table.num_nodes[rows], table.num_edges[rows]
        missing = n_node == 0
        n_node = np.where(missing, 1, n_node)
        starts = np.cumsum(n_node) - n_node
        where, _ = positions(table.node_offsets, rows)
        node_id, hop, kind = (np.zeros(shape[0], np.int32) for _ in range(3))
        present = np.ones(n_node.sum(), bool)
        present[starts[missing]] = False
        node_id[: len(present)][present] = table.nodes[where]
        hop[: len(present)][present] = table.hops[where]
        kind[:] = ORDINARY
        kind[starts[missing]] = MISSING
        self_node = table.self_node[rows]
        kind[(starts + self_node)[self_node >= 0]] = SELF
        edges, counts = positions(table.edge_offsets, rows)
        shift = np.repeat(starts, counts)
        spare = shape[0] - 1
        senders, receivers = (np.full(shape[1], spare, np.int32) for _ in range(2))
        senders[: len(edges)] = table.senders[edges] + shift
        receivers[: len(edges)] = table.receivers[edges] + shift
        relation = np.zeros(shape[1], np.int32)
        relation[: len(edges)] = table.relations[edges]
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
        rows: training rows of the table.
        seed, batch_size, steps: of the run.
        graph_positives: whether half of each batch are graph neighbours of the other half.
    """

    def __init__(
        self,
        builder: BatchBuilder,
        rows: np.ndarray,
        *,
        seed: int,
        batch_size: int,
        steps: int,
        graph_positives: bool = False,
    ):
        self.builder, self.rows, self.seed = builder, rows, seed
        self.batch_size, self.steps, self.graph_positives = batch_size, steps, graph_positives
        self.is_train = np.zeros(len(builder.data.table), bool)
        self.is_train[rows] = True

    def __repr__(self) -> str:
        return f"TrainSource(seed={self.seed}, batch_size={self.batch_size}, codes={len(self.rows)})"

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        rows, partner = self.batch_rows(step)
        return self.builder(rows, np.ones(len(rows), bool), partner)

    def batch_rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Global batch of a step: `[batch_size]` rows and the slot of each one's partner (-1 for none)."""
        if not self.graph_positives:
            rows = self.rows[draw(self.seed, step, self.batch_size, len(self.rows))]
            return rows, np.full(self.batch_size, -1)
        half = self.batch_size // 2
        anchors = self.rows[draw(self.seed, step, half, len(self.rows))]
        neighbours, found = self._neighbours(anchors, np.random.default_rng([self.seed, step, 1]))
        slots = np.arange(half)
        rows = np.stack([anchors, neighbours], axis=1).reshape(-1)
        partner = np.stack([np.where(found, 2 * slots + 1, -1), np.where(found, 2 * slots, -1)], axis=1).reshape(-1)
        return rows, partner

    def _neighbours(self, anchors: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A random training code one hop from each anchor; where there is none, any training code."""
        data = self.builder.data
        where, counts = positions(data.table.node_offsets, anchors)
        row = data.row_of_node[data.table.nodes[where]]
        usable = (data.table.hops[where] == 1) & (row >= 0) & self.is_train[row]
        owner = np.repeat(np.arange(len(anchors)), counts)[usable]
        order = np.lexsort((rng.random(len(owner)), owner))
        first = np.searchsorted(owner[order], np.arange(len(anchors)))
        found = np.bincount(owner, minlength=len(anchors)) > 0
        neighbours = self.rows[rng.integers(len(self.rows), size=len(anchors))]
        neighbours[found] = row[usable][order[first[found]]]
        return neighbours, found


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
