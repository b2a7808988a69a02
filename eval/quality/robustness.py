"""Measure whether codes are still recognized when part of their input is missing.

Codes are encoded again without their text, without their graph, without half of the facts (and the nodes that only they
join to the code), or without any edge between the nodes, and searched in the unchanged table of all codes: does a code
find itself, its category, and its partners in the other system? For a dropped text or graph the model reads the learned
state of what is missing, as in training where `augment.modality_dropout` masks one of the two; without that these
states are untrained. A new code without a description is encoded by its system and code (`inference.new_codes`).
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from eval.common.measurement import Measurement
from eval.common.representation import Representation
from eval.quality import retrieval
from eval.quality.context import Context
from eval.quality.label_building import FORWARD
from eval.quality.labels import Queries
from eval.quality.retrieval import Scorer
from medtok_jax.data.code_table import CodeTable
from medtok_jax.data.dataset import Data
from medtok_jax.data.input_pipeline import BatchBuilder, EvalSource, eval_batches
from medtok_jax.data.masking import Subgraphs
from medtok_jax.devices import sharding
from medtok_jax.inference.trained import TrainedModel
from medtok_jax.lookup.similarity import quantize
from preprocessing.common.errors import InputError
from preprocessing.common.ragged import offsets_of, positions

FAMILY = "robustness"
NOTHING_DROPPED, NO_TEXT, NO_GRAPH, FEWER_FACTS, NO_EDGES = (
    "nothing dropped",
    "text dropped",
    "graph dropped",
    "half of the facts dropped",
    "every edge dropped, nodes kept",
)
FACT_SHARE = 0.5
# Codes of the crosswalk, and codes of all systems, that are encoded again.
CODES = 1000


def measure(context: Context, trained: TrainedModel) -> list[Measurement]:
    """Measure the figures under each condition.

    Args:
        context: context of the tokenizer that was made with the model.
        trained: the model with its data.

    Raises:
        InputError: the tokenizer was not written by the run.
    """
    codebook, data = trained.codebook(), trained.inputs.data
    theirs = context.representation.codebook
    if theirs is None or theirs.shape != codebook.shape or not np.allclose(theirs, codebook, atol=1e-5):
        raise InputError(
            f"{context.representation.name} is not the tokenizer of the best checkpoint of {trained.workdir}; give a "
            "--workdir and its own tokenizer."
        )
    in_use = data.table.key[data.selected].astype(str)
    known = np.isin(context.representation.keys, in_use)
    queries = _crosswalk_queries(context, known)
    drawn = context.subsample(context.in_split(np.flatnonzero(known)), CODES)
    rows = np.union1d(drawn, queries.query) if len(queries) else drawn
    found = []
    for condition, change in CONDITIONS.items():
        again = encode(trained, context.representation, rows, change)
        found += _figures(context, condition, rows, drawn, queries, again)
    return found


def encode(
    trained: TrainedModel, representation: Representation, rows: np.ndarray, change: "Change"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the tokens, weights and quantized vectors of some codes, encoded from changed data.

    Args:
        trained: the model that encodes, with its data.
        representation: representation of the codes of the model.
        rows: `[m]` rows of the representation.
        change: (data, table rows, configuration) -> data to encode from.

    Returns:
        Tokens int `[m, T]`, weights float32 `[m, T]` and vectors float32 `[m, D]`.
    """
    config, inputs, programs, state = trained.config, trained.inputs, trained.programs, trained.state
    keys = inputs.data.table.key.astype(str)
    order = np.argsort(keys)
    table_rows = order[np.searchsorted(keys[order], representation.keys[rows])]
    plain = inputs.unmasked_builder
    builder = BatchBuilder(
        change(inputs.data, table_rows, config),
        plain.budgets,
        num_stacks=plain.num_stacks,
        local_stacks=plain.local_stacks,
        token_ids=config.model.text_encoder_trainable,
    )
    parts = []
    for batch in eval_batches(EvalSource(builder, table_rows, inputs.batch_size)):
        placed = sharding.place_batch(batch, inputs.mesh)
        index, tokens, _ = programs.tokenize_step(state.params, state.fixed, placed, inputs.tables)
        parts.append([np.asarray(array) for array in (index, tokens.ids, tokens.weights)])
    row, ids, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    place = {int(table_row): number for number, table_row in enumerate(row) if table_row >= 0}
    order = np.array([place[table_row] for table_row in table_rows.tolist()])
    vectors = quantize(representation.codebook, ids[order], weights[order], representation.bounds)
    return ids[order], weights[order], vectors.reshape(len(rows), -1)


def unchanged(data: Data, rows: np.ndarray, config: ConfigDict) -> Data:
    """Return the data as they are."""
    return data


def without_text(data: Data, rows: np.ndarray, config: ConfigDict) -> Data:
    """Return the data with a text of no wordpieces for some rows."""
    offsets = data.cache.offsets
    cache = dataclasses.replace(data.cache, offsets=np.append(offsets, offsets[-1]))
    text_id = data.text_id.copy()
    text_id[rows] = len(offsets) - 1
    return dataclasses.replace(data, cache=cache, text_id=text_id)


def without_graph(data: Data, rows: np.ndarray, config: ConfigDict) -> Data:
    """Return the data without the subgraph of any code."""
    nothing = np.zeros(len(data.table) + 1, np.int64)
    table = _with_edges(data.table, rows[:0], np.zeros(0, bool))
    nowhere = np.full(len(data.table), -1, np.int32)
    return dataclasses.replace(data, table=dataclasses.replace(table, node_offsets=nothing, self_node=nowhere))


def with_fewer_facts(data: Data, rows: np.ndarray, config: ConfigDict) -> Data:
    """Return the data with half of the facts in the subgraphs of some rows, and the nodes that these join to the code.

    A fact keeps or loses both directions, and hops are those over what is left.
    """
    rows = np.sort(rows)
    whole = Subgraphs.of(data.table, rows)
    facts = np.random.default_rng(config.seed).random(len(whole.senders) // 2) >= FACT_SHARE
    part = whole.along(np.repeat(facts, 2))
    return dataclasses.replace(data, table=_with_subgraphs(data.table, rows, part))


def without_edges(data: Data, rows: np.ndarray, config: ConfigDict) -> Data:
    """Return the data with the nodes of every subgraph and their hops, but no edge between them."""
    return dataclasses.replace(data, table=_with_edges(data.table, rows[:0], np.zeros(0, bool)))


def _with_subgraphs(table: CodeTable, rows: np.ndarray, part: Subgraphs) -> CodeTable:
    """Return the table with these subgraphs of some ascending `rows`, and none of the others."""
    counts = np.bincount(part.of_node, minlength=len(rows))
    edge_counts = np.bincount(part.of_edge, minlength=len(rows))
    starts = np.cumsum(counts) - counts
    nodes, edges = np.zeros(len(table), np.int64), np.zeros(len(table), np.int64)
    nodes[rows], edges[rows] = counts, edge_counts
    self_node = np.full(len(table), -1, np.int32)
    self_node[rows] = np.where(part.self_node >= 0, part.self_node - starts, -1)
    shift = starts[part.of_edge]
    return dataclasses.replace(
        table,
        node_offsets=offsets_of(nodes),
        edge_offsets=offsets_of(edges),
        nodes=part.nodes,
        hops=part.hops,
        senders=part.senders - shift,
        receivers=part.receivers - shift,
        relations=part.relations,
        self_node=self_node,
    )


def _with_edges(table: CodeTable, rows: np.ndarray, kept: np.ndarray) -> CodeTable:
    """Return the table with some edges of `rows` and no others.

    Args:
        table: table of all codes.
        rows: rows that keep edges.
        kept: bool mask over the edges of these rows, in ascending order of rows.
    """
    rows = np.sort(rows)
    where, counts = positions(table.edge_offsets, rows)
    owner = np.repeat(rows, counts)[kept]
    edges = {name: np.asarray(getattr(table, name)[where[kept]]) for name in ("senders", "receivers", "relations")}
    offsets = offsets_of(np.bincount(owner, minlength=len(table)))
    return dataclasses.replace(table, edge_offsets=offsets, **edges)


# Of data, rows of the code table, and the configuration of the model.
Change = Callable[[Data, np.ndarray, ConfigDict], Data]
CONDITIONS: dict[str, Change] = {
    NOTHING_DROPPED: unchanged,
    NO_TEXT: without_text,
    NO_GRAPH: without_graph,
    FEWER_FACTS: with_fewer_facts,
    NO_EDGES: without_edges,
}


def _crosswalk_queries(context: Context, known: np.ndarray) -> Queries:
    if FORWARD not in context.labels.crosswalk:
        return Queries(*(np.zeros(0, np.int32), np.zeros(1, np.int64)), *(np.zeros(0, np.int32),) * 2, (), np.zeros(0))
    queries = context.labels.crosswalk[FORWARD].of_split(context.split)
    evaluated = np.flatnonzero([not name.startswith("not ") for name in queries.kind_names])
    some = np.bincount(
        np.repeat(np.arange(len(queries)), np.diff(queries.offsets))[np.isin(queries.kinds, evaluated)],
        minlength=len(queries),
    )
    queries = queries.take(np.flatnonzero((some > 0) & known[queries.query]))
    return queries.take(np.flatnonzero(np.isin(queries.query, context.subsample(queries.query, CODES))))


def _figures(
    context: Context,
    condition: str,
    rows: np.ndarray,
    drawn: np.ndarray,
    queries: Queries,
    again: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> list[Measurement]:
    representation, labels = context.representation, context.labels
    # The prefix "~" keeps the keys sorted with the codes encoded again behind the table.
    both = dataclasses.replace(
        representation,
        keys=np.concatenate([representation.keys, np.char.add("~", representation.keys[rows])]),
        descriptions=np.concatenate([representation.descriptions, representation.descriptions[rows]]),
        tokens=np.concatenate([representation.tokens, again[0]]),
        weights=np.concatenate([representation.weights, again[1]]),
        vectors=np.concatenate([representation.vectors, again[2]]),
        unquantized=None,
    )
    new_row = np.full(len(representation), -1)
    new_row[rows] = len(representation) + np.arange(len(rows))
    found = []
    for scorer in retrieval.scorers(both):
        where = {"family": FAMILY, "view": scorer.name, "scope": condition, "unit": "codes"}
        own = where | {"items": context.items[drawn], "clusters": labels.category[drawn]}
        similarity = scorer.pairs(new_row[drawn], drawn).astype(float)
        found.append(Measurement(metric="similarity to the complete code", values=similarity, **own))
        for metric, values in _own_figures(context, scorer, drawn, new_row):
            given = context.given(labels.given.get("tree", "")) if "category" in metric else ""
            found.append(Measurement(metric=metric, values=values, given=given, **own))
        if len(queries):
            moved = dataclasses.replace(queries, query=new_row[queries.query])
            wanted = ~np.isin(queries.kinds, [i for i, n in enumerate(queries.kind_names) if n.startswith("not ")])
            ranks = retrieval.find(scorer, moved, context.rows_of(FORWARD.split(" to ")[1]), wanted=wanted)
            part = where | {"items": context.items[queries.query], "clusters": labels.category[queries.query]}
            part |= {"given": context.given(queries.given)}
            for k in (1, 10):
                found.append(Measurement(metric=f"crosswalk R@{k}", values=ranks.hits(k), **part))
    return found


def _own_figures(
    context: Context, scorer: Scorer, drawn: np.ndarray, new_row: np.ndarray
) -> list[tuple[str, np.ndarray]]:
    """Return whether each code finds itself among all codes, and its category among the others of its system."""
    everything = np.arange(len(context.representation))
    itself = _pairs(new_row[drawn], drawn)
    found = [("finds itself, R@1", retrieval.find(scorer, itself, everything).hits(1))]
    category = np.full(len(drawn), np.nan)
    for system in context.systems:
        mine = np.flatnonzero(context.labels.systems[drawn] == system)
        if len(mine):
            candidates = context.rows_of(system)
            category[mine] = retrieval.nearest_share(
                scorer,
                new_row[drawn[mine]],
                candidates,
                np.concatenate([context.labels.category, context.labels.category[np.flatnonzero(new_row >= 0)]]),
                itself=drawn[mine],
            )
    return [*found, ("same-category 1-NN", category)]


def _pairs(query: np.ndarray, target: np.ndarray) -> Queries:
    zeros = np.zeros(len(query), np.int8)
    return Queries(query, np.arange(len(query) + 1), target, zeros, ("itself",), zeros)
