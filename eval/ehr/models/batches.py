"""Make batches of fixed shapes from histories: the latest codes of each patient, and the graphs of their visits."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from eval.ehr.inputs import Inputs, Sequences, sequences, statics
from eval.ehr.models.embedding import power_of_two
from eval.ehr.models.windows import scale_of_statics
from eval.ehr.tokenizers.matrix import CodeMatrix
from preprocessing.common.ragged import offsets_of, positions, take

# Numbers of positions for which programs are compiled.
LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
# Most codes of a visit in its graph, the latest ones: the edges are the square of it.
MOST_NODES = 64


class VisitGraphs(NamedTuple):
    """Hold the graphs of the visits of a batch: nodes are its b x l positions, then b x v readouts, one a visit.

    Attributes:
        senders: `[edges]` int32.
        receivers: `[edges]` int32.
        edge_mask: `[edges]` bool, False at padding.
        visit_mask: `[b, v]` bool, True for visits with codes.
        visit_age: `[b, v]` float32, years at the latest code of the visit.
    """

    senders: np.ndarray
    receivers: np.ndarray
    edge_mask: np.ndarray
    visit_mask: np.ndarray
    visit_age: np.ndarray


class PatientBatch(NamedTuple):
    """Hold some samples, one a row; see `inputs.Sequences`.

    Attributes:
        code: `[batch, length]` int32.
        mask: `[batch, length]` bool, True for codes.
        age: `[batch, length]` float32.
        days: `[batch, length]` float32.
        visit: `[batch, length]` int32.
        statics: `[batch, 4]` float32, standardized.
        outcome: `[batch, outputs]` float32, `[batch]` int32 if multiclass.
        valid: `[batch]` bool, False for rows that fill the batch.
        graphs: the graphs of the visits, None if the model reads none.
    """

    code: np.ndarray
    mask: np.ndarray
    age: np.ndarray
    days: np.ndarray
    visit: np.ndarray
    statics: np.ndarray
    outcome: np.ndarray
    valid: np.ndarray
    graphs: VisitGraphs | None


@dataclasses.dataclass(frozen=True)
class Shape:
    """Hold the largest shape of batches.

    Attributes:
        length: most positions of a sample.
        visits: visits of a sample of which graphs are made; 0 if none are.
        is_fixed: whether every batch is padded to this shape and to the most edges that it can have, so that one
            program serves all of them, instead of to what its samples need.
    """

    length: int
    visits: int
    is_fixed: bool = False


def fit_shape(parts: list[Sequences], *, graphs: bool) -> Shape:
    """Return the least shape that holds all samples of some sets."""
    length = max((int(part.mask.sum(axis=1).max(initial=0)) for part in parts), default=0)
    visits = max((int(part.visit.max(initial=0)) + 1 for part in parts), default=1)
    return Shape(_bucket(length), power_of_two(visits) if graphs else 0)


def _bucket(length: int) -> int:
    return next(one for one in LENGTHS if one >= length)


def read_sequences(inputs: Inputs, matrix: CodeMatrix, length: int) -> Sequences:
    """Return the latest codes of samples; of an `expanded` matrix each token takes a position, its feature as code.

    Args:
        inputs: the samples.
        matrix: what the tokenizer says of each code.
        length: most codes, or tokens, of a sample.
    """
    made = sequences(inputs, length)
    if not matrix.expanded:
        return made
    sample, place = np.nonzero(made.mask)
    offsets = matrix.weights.indptr.astype(np.int64)
    feature, counts = take(matrix.weights.indices, offsets, made.code[sample, place])
    sample, place = np.repeat(sample, counts), np.repeat(place, counts)
    from_end = np.searchsorted(sample, sample, side="right") - np.arange(len(sample)) - 1
    latest = from_end < length
    sample, place, feature = sample[latest], place[latest], feature[latest]
    target = np.arange(len(sample)) - np.searchsorted(sample, sample, side="left")
    arrays = {}
    for field in dataclasses.fields(Sequences):
        source = getattr(made, field.name)
        arrays[field.name] = np.zeros(source.shape, source.dtype)
        arrays[field.name][sample, target] = feature if field.name == "code" else source[sample, place]
    return Sequences(**arrays)


class Patients:
    """Hold samples of one set in a shape, ready to be batched.

    Args:
        made: their codes.
        statics: `[n, 4]` float32, standardized.
        outcome: `[n, outputs]` float32, or `[n]` int32 if multiclass.
        shape: largest shape of the batches; of more codes or visits than it has, the latest are kept.
    """

    def __init__(self, made: Sequences, statics: np.ndarray, outcome: np.ndarray, shape: Shape):
        self.shape = shape
        self.statics = statics
        self.outcome = outcome
        arrays = {field.name: getattr(made, field.name)[:, : shape.length] for field in dataclasses.fields(made)}
        if shape.visits:
            # Earlier visits than the graphs have room for are left out.
            extra = np.maximum(arrays["visit"].max(axis=1, initial=0) + 1 - shape.visits, 0)[:, None]
            arrays["mask"] = arrays["mask"] & (arrays["visit"] >= extra)
            arrays["visit"] = np.maximum(arrays["visit"] - extra, 0)
        self.arrays = arrays
        # Positions that each sample takes: the place of its latest code, and one.
        self.sizes = (np.arange(1, arrays["mask"].shape[1] + 1) * arrays["mask"]).max(axis=1, initial=0)
        self.num_edges = np.zeros(len(outcome), np.int64)
        if shape.visits:
            _, sizes = self._graph_codes(np.arange(len(outcome)))
            self.num_edges = ((sizes + 1) ** 2 * (sizes > 0)).sum(axis=1)

    def __len__(self) -> int:
        return len(self.outcome)

    def batch(self, rows: np.ndarray, valid: np.ndarray, edges: Mapping[int, int]) -> PatientBatch:
        """Return samples as a batch, with as many positions as the longest of them needs, or those of a fixed shape.

        Args:
            rows: `[batch]` int64.
            valid: `[batch]` bool, False for rows that fill the batch.
            edges: number of edges to which graphs are padded, by the number of positions, see `edges_of`.
        """
        length = self._length(rows)
        found = {name: array[rows, :length] for name, array in self.arrays.items()}
        graphs = self._graphs(rows, length, edges[length]) if self.shape.visits else None
        return PatientBatch(**found, statics=self.statics[rows], outcome=self.outcome[rows], valid=valid, graphs=graphs)

    def by_length(self, size: int) -> Iterator[tuple[np.ndarray, PatientBatch]]:
        """Yield all samples in batches of `size`, the shortest first, each with its rows; the last one is filled up."""
        order = np.argsort(self.sizes, kind="stable")
        place = np.arange(-(-len(self) // size) * size)
        valid = (place < len(self)).reshape(-1, size)
        rows = order[np.minimum(place, len(self) - 1)].reshape(-1, size)
        edges = self.edges_of(rows)
        for row, kept in zip(rows, valid, strict=True):
            yield row, self.batch(row, kept, edges)

    def edges_of(self, rows: np.ndarray) -> dict[int, int]:
        """Return the number of edges that holds the graphs of each of the batches `[batches, size]`, by positions."""
        if self.shape.visits and self.shape.is_fixed:
            # A sample has most edges where all of its codes are of one visit.
            return {self.shape.length: rows.shape[1] * (self.shape.length + 1) ** 2}
        most: dict[int, int] = {}
        for row in rows if self.shape.visits else ():
            length = self._length(row)
            most[length] = max(most.get(length, 1), int(self.num_edges[row].sum()))
        return {length: power_of_two(edges) for length, edges in most.items()}

    def _length(self, rows: np.ndarray) -> int:
        if self.shape.is_fixed:
            return self.shape.length
        return min(_bucket(int(self.sizes[rows].max(initial=0))), self.shape.length)

    def _graph_codes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which positions are in a graph `[b, length]`, and the sizes of the visits `[b, visits]`."""
        mask, visit = self.arrays["mask"][rows], self.arrays["visit"][rows]
        count, visits = len(rows), self.shape.visits
        cell = np.arange(count)[:, None] * visits + visit
        sizes = np.bincount(cell[mask], minlength=count * visits).reshape(count, visits)
        if sizes.max(initial=0) > MOST_NODES:
            behind = np.zeros(mask.shape, np.int64)
            for row in np.flatnonzero(sizes.max(axis=1) > MOST_NODES):
                for one in np.flatnonzero(sizes[row] > MOST_NODES):
                    where = np.flatnonzero(mask[row] & (visit[row] == one))
                    behind[row, where] = np.arange(len(where))[::-1]
            mask = mask & (behind < MOST_NODES)
            sizes = np.minimum(sizes, MOST_NODES)
        return mask, sizes

    def _graphs(self, rows: np.ndarray, length: int, edges: int) -> VisitGraphs:
        """Return the graphs of a batch: every two nodes of a visit, also a node and itself, are joined both ways."""
        mask, sizes = self._graph_codes(rows)
        mask = mask[:, :length]
        visit, age = self.arrays["visit"][rows, :length], self.arrays["age"][rows, :length]
        count, visits = len(rows), self.shape.visits
        cell = (np.arange(count)[:, None] * visits + visit)[mask]
        node = np.flatnonzero(mask.ravel())
        visit_age = np.zeros(count * visits, np.float32)
        np.maximum.at(visit_age, cell, age[mask])
        full = np.flatnonzero(sizes.ravel())
        # Nodes visit after visit, each visit's readout behind its codes.
        cell, node = np.concatenate([cell, full]), np.concatenate([node, count * length + full])
        order = np.lexsort((node, cell))
        cell, node = cell[order], node[order]
        offsets = offsets_of(np.bincount(cell, minlength=count * visits))
        where, counts = positions(offsets, cell)
        senders, receivers = node[where], np.repeat(node, counts)
        padding = (0, edges - len(senders))
        return VisitGraphs(
            senders=np.pad(senders, padding).astype(np.int32),
            receivers=np.pad(receivers, padding).astype(np.int32),
            edge_mask=np.pad(np.ones(len(senders), bool), padding),
            visit_mask=sizes > 0,
            visit_age=visit_age.reshape(count, visits),
        )


def standardized_statics(train: Inputs, others: list[Inputs]) -> list[np.ndarray]:
    """Return the statics of several sets, the first of training, by the mean and deviation of the training samples."""
    known = statics(train)
    center, spread = scale_of_statics(known)
    every = (known, *(statics(inputs) for inputs in others))
    return [((one - center) / spread).astype(np.float32) for one in every]
