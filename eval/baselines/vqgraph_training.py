"""Train VQGraph on the subgraphs of the codes of a data set, and tokenize the codes with its codebook."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np
from flax import nnx

from eval.baselines import defaults
from eval.baselines.data import Codes
from eval.baselines.nearest_rows import fit_rows, nearest_rows
from eval.baselines.pursuit import TOP_K
from eval.baselines.training import Trainer
from eval.baselines.vqgraph import VQGraph, VQGraphOptions
from eval.common.representation import Representation
from medtok_jax.batch import Tables
from medtok_jax.data.input_pipeline import BatchBuilder, Budgets, EvalSource, TrainSource, eval_batches, train_batches
from medtok_jax.data.sampling import Sampler
from preprocessing.common.progress import Bar

# Codes of a batch when nothing is trained.
EVAL_BATCH = 256
LENGTHS = (8,)


class Graphs:
    """Make batches `(graph, tables)` of subgraphs, of one stack each and without texts.

    Args:
        codes: codes of a data set.
    """

    def __init__(self, codes: Codes):
        self.codes = codes
        self.data = codes.data.without("text")
        self.tables: Tables = jax.device_put(self.data.tables())

    def _builder(self, batch_size: int) -> BatchBuilder:
        budgets = Budgets.fit(self.data, batch_size, 1, LENGTHS)
        return BatchBuilder(self.data, budgets, num_stacks=1, local_stacks=[0])

    def training(self, batch_size: int, steps: int, seed: int) -> Iterator:
        """Yield `steps` batches of training codes."""
        sampler = Sampler(self.data, self.data.rows("train"), seed=seed, batch_size=batch_size)
        source = TrainSource(self._builder(batch_size), sampler, steps)
        return ((first_stack(batch.graph), self.tables) for batch in train_batches(source, 0))

    def all(self, progress: bool) -> Iterator[tuple]:
        """Yield batches of all codes, each with the rows of its codes in the table and a mask of those that count."""
        source = EvalSource(self._builder(EVAL_BATCH), self.codes.rows, EVAL_BATCH)
        for batch in Bar(eval_batches(source), total=len(source), desc="Tokenizing graphs", show=progress):
            yield (first_stack(batch.graph), self.tables), batch.index, batch.valid


def first_stack(graph):
    """Return the only stack of a padded graph."""
    return jax.tree.map(lambda x: x[0], graph)


def train(graphs: Graphs, options: VQGraphOptions, *, seed: int, progress: bool = True) -> Trainer:
    """Train on the subgraphs of the training codes."""
    model = VQGraph(options, graphs.data.sizes(), rngs=nnx.Rngs(seed))
    steps = options.steps or defaults.steps_for(len(graphs.data.rows("train")), options.batch_size)

    def losses(model: VQGraph, batch: tuple) -> dict[str, jax.Array]:
        return model.losses(model.nodes(*batch), options)

    def fit() -> None:
        trainer.set_codebook(_fit(trainer, graphs, options, steps, seed))

    trainer = Trainer(model, losses, steps=steps, learning_rate=options.learning_rate)
    batches = graphs.training(options.batch_size, steps, seed)
    trainer.run(batches, {min(options.kmeans_step, steps // 3): fit}, name="vqgraph", progress=progress)
    return trainer


def _fit(trainer: Trainer, graphs: Graphs, options: VQGraphOptions, steps: int, seed: int) -> np.ndarray:
    """Fit rows to the states of as many nodes as k-means uses, from separate batches: float32 `[N, width]`."""
    encode = _compiled(trainer, lambda nodes, _: (nodes.states, nodes.mask))
    found = []
    count = 0
    for batch in graphs.training(options.batch_size, steps, seed + 1):
        states, mask = encode(batch)
        found.append(np.asarray(states)[np.asarray(mask)])
        count += len(found[-1])
        if count >= 4 * options.codebook_size:
            break
    return fit_rows(np.concatenate(found), options.codebook_size, seed=seed)


def _compiled(trainer: Trainer, output: Callable) -> Callable:
    """Compile `batch -> output(nodes, model)` for the current state of the model."""
    graphdef, params, rest = trainer.graphdef, trainer.params, trainer.rest

    @jax.jit
    def run(params, rest, batch):
        model = nnx.merge(graphdef, params, rest)
        return output(model.nodes(*batch), model)

    return lambda batch: run(params, rest, batch)


def vqgraph(
    codes: Codes, options: VQGraphOptions, *, num_tokens: int, seed: int, progress: bool = True
) -> Representation:
    """Train on the training codes and tokenize all codes, see `tokens_of`."""
    graphs = Graphs(codes)
    trainer = train(graphs, options, seed=seed, progress=progress)
    arrays = tokens_of(graphs, trainer, num_tokens, progress=progress)
    about = dataclasses.asdict(options) | {"num_tokens": num_tokens, "seed": seed, "losses": trainer.history[-1]}
    about |= {"steps": len(trainer.history), "quantizer": TOP_K}
    return codes.representation("vqgraph", about, **arrays)


def tokens_of(graphs: Graphs, trainer: Trainer, num_tokens: int, *, progress: bool = True) -> dict[str, np.ndarray]:
    """Return the fields of a representation whose tokens are the rows nearest to the mean state of the anchors.

    In training one row replaces a node. To have as many tokens as with other tokenizers, a code gets the `num_tokens`
    nearest rows, weighted as by MedTok: the soft assignment that VQGraph distills from, truncated.

    Args:
        graphs: subgraphs of the codes.
        trainer: trainer of the model.
        num_tokens: number of tokens of each code.
        progress: whether to show a progress bar.
    """
    codes = graphs.codes
    model = trainer.model
    encode = _compiled(trainer, lambda nodes, model: model.codes(nodes))
    index_of = np.full(len(codes.data.table), -1)
    index_of[codes.rows] = np.arange(len(codes))
    points = np.zeros((len(codes), model.quantizer.width), np.float32)
    for batch, rows, valid in graphs.all(progress):
        points[index_of[rows[valid]]] = np.asarray(encode(batch))[valid]
    return nearest_rows(points, np.asarray(model.quantizer.codebook()), num_tokens)
