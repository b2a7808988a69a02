"""Train sequence models in one loop: AdamW with warm-up, early stopping on tuning, batches and noise by a seed.

Compiled programs take everything of a tokenizer and of a setting as arguments, so that cells whose shapes agree share
them.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from eval.ehr.models.batches import PatientBatch, Patients
from eval.ehr.models.classifier import Classifier
from eval.ehr.models.embedding import CodeLookup
from eval.ehr.models.layers import Dropout
from preprocessing.common.progress import Bar

WEIGHT_DECAY = 0.01
# The learning rate multiplies the updates outside, as a step's argument.
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(), optax.add_decayed_weights(WEIGHT_DECAY))
# Batches among which samples of like length are put together.
_GROUPED = 16
# At most this many steps are in flight.
_IN_FLIGHT = 4


@dataclasses.dataclass(frozen=True)
class Setting:
    """Hold what is tuned: a learning rate and a share that dropout drops."""

    learning_rate: float
    dropout: float


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """Hold the budget of training, which is the same for every tokenizer and setting.

    Attributes:
        batch_size: samples of a batch.
        epochs: passes over the training samples, unless they make fewer or more steps than the next two allow.
        least_steps: least number of steps.
        most_steps: most number of steps.
        evaluations: number of looks at the tuning score, evenly over the steps.
        patience: looks without a better score after which training ends.
        trial_share: share of the steps after which settings are compared; the best one goes on.
        most_tuning: most tuning samples whose score is looked at in training, drawn by the seed.
    """

    batch_size: int = 64
    epochs: int = 15
    least_steps: int = 160
    most_steps: int = 2000
    evaluations: int = 16
    patience: int = 8
    trial_share: float = 0.25
    most_tuning: int = 4096

    def steps(self, samples: int) -> int:
        """Return the number of steps for a number of training samples, a multiple of `evaluations`."""
        wanted = int(np.clip(self.epochs * samples / self.batch_size, self.least_steps, self.most_steps))
        return -(-wanted // self.evaluations) * self.evaluations


@functools.partial(jax.jit, static_argnames=("graphdef",))
def train_step(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    opt_state: optax.OptState,
    lookup: CodeLookup,
    batch: PatientBatch,
    *,
    learning_rate: jax.Array,
    dropout: jax.Array,
    key: jax.Array,
    number: jax.Array,
) -> tuple[nnx.State, optax.OptState, jax.Array]:
    """Take one step on the `loss` of a model.

    Args:
        graphdef: the model without parameters.
        params: its parameters.
        opt_state: state of `OPTIMIZER`.
        lookup: what the embedding reads of each code.
        batch: samples.
        learning_rate: scalar.
        dropout: scalar, the share that is dropped.
        key: key of the training.
        number: number of the step.

    Returns:
        parameters, state of the optimizer, loss before the step.
    """
    noise = Dropout(jax.random.fold_in(key, number), dropout)

    def loss(params: nnx.State) -> jax.Array:
        return nnx.merge(graphdef, params).loss(lookup, batch, noise)

    value, gradients = jax.value_and_grad(loss)(params)
    updates, opt_state = OPTIMIZER.update(gradients, opt_state, params)
    return optax.apply_updates(params, jax.tree.map(lambda x: -learning_rate * x, updates)), opt_state, value


@functools.partial(jax.jit, static_argnames=("graphdef",))
def _probabilities(graphdef: nnx.GraphDef, params: nnx.State, lookup: CodeLookup, batch: PatientBatch) -> jax.Array:
    return nnx.merge(graphdef, params).probabilities(lookup, batch)


def predict(
    graphdef: nnx.GraphDef, params: nnx.State, lookup: CodeLookup, patients: Patients, batch_size: int
) -> np.ndarray:
    """Return the probabilities of samples, `[n, outputs]` float32."""
    if not len(patients):
        return np.zeros((0, 1), np.float32)
    order, found = [], []
    for rows, batch in patients.by_length(batch_size):
        order.append(rows[batch.valid])
        found.append(np.asarray(_probabilities(graphdef, params, lookup, batch))[batch.valid])
    placed = np.concatenate(found)
    placed[np.concatenate(order)] = placed.copy()
    return placed


def shuffled_rows(sizes: np.ndarray, steps: int, batch_size: int, seed: int) -> np.ndarray:
    """Return the samples of each batch: one random order of all after another, samples of like length together.

    Of each `_GROUPED` batches that follow one another, the samples are sorted by length, cut into batches, and the
    batches shuffled, so that short samples are not padded to the length of long ones.

    Args:
        sizes: `[samples]` int64, positions that each sample takes.
        steps: number of batches.
        batch_size: samples of a batch.
        seed: seed of the orders.

    Returns:
        `[steps, batch_size]` int64.
    """
    rng = np.random.default_rng(seed)
    rounds = -(-steps * batch_size // len(sizes))
    order = np.concatenate([rng.permutation(len(sizes)) for _ in range(rounds)])[: steps * batch_size]
    rows = np.empty((steps, batch_size), np.int64)
    for first in range(0, steps, _GROUPED):
        group = order[first * batch_size : (first + _GROUPED) * batch_size]
        group = group[np.argsort(sizes[group], kind="stable")].reshape(-1, batch_size)
        rows[first : first + _GROUPED] = group[rng.permutation(len(group))]
    return rows


class Run:
    """Train one model with one setting, stopping and going on as asked, and keep its best parameters.

    Args:
        model: model with a `loss`, at its start.
        lookup: what the embedding reads of each code.
        patients: training samples.
        setting: what is tuned.
        steps: number of steps of the whole training.
        batch_size: samples of a batch.
        seed: seed of batches and noise.
        name: name of the progress bar, None for none.
    """

    def __init__(
        self,
        model: nnx.Module,
        lookup: CodeLookup,
        patients: Patients,
        *,
        setting: Setting,
        steps: int,
        batch_size: int,
        seed: int,
        name: str | None,
    ):
        self.graphdef, self.params = nnx.split(model)
        self.opt_state = OPTIMIZER.init(self.params)
        self.lookup, self.patients, self.setting = lookup, patients, setting
        self.rows = shuffled_rows(patients.sizes, steps, batch_size, seed)
        self.edges = patients.edges_of(self.rows)
        self.key = jax.random.key(seed)
        self.name = name
        self.done = 0
        self.best_params, self.best_score, self.best_step, self.stale = self.params, -np.inf, 0, 0

    def advance(self, steps: int) -> None:
        """Train for a number of steps."""
        warmup = max(len(self.rows) // 20, 1)
        valid = np.ones(self.rows.shape[1], bool)
        pending: list[jax.Array] = []
        for number in range(self.done, self.done + steps):
            rate = self.setting.learning_rate * min(1.0, (number + 1) / warmup)
            self.params, self.opt_state, loss = train_step(
                self.graphdef,
                self.params,
                self.opt_state,
                self.lookup,
                self.patients.batch(self.rows[number], valid, self.edges),
                learning_rate=jnp.float32(rate),
                dropout=jnp.float32(self.setting.dropout),
                key=self.key,
                number=jnp.int32(number),
            )
            pending = [*pending[-_IN_FLIGHT + 1 :], loss]
            jax.block_until_ready(pending[0])
        self.done += steps

    def until(self, last: int, every: int, patience: int, score: Callable[[nnx.State], float]) -> None:
        """Train to a step, looking at the score from time to time.

        Args:
            last: number of the step.
            every: steps between two looks.
            patience: looks without a better score after which training ends.
            score: scores parameters.
        """
        bar = Bar(total=last - self.done, desc=self.name or "", unit=" steps", leave=False, show=self.name is not None)
        with bar:
            while self.done < last and self.stale < patience:
                self.advance(every)
                bar.update(every)
                found = score(self.params)
                self.stale += 1
                if found > self.best_score:
                    self.best_params, self.best_score, self.best_step, self.stale = self.params, found, self.done, 0


def tune(
    make: Callable[[], Classifier],
    lookup: CodeLookup,
    patients: Patients,
    score: Callable[[nnx.GraphDef, nnx.State], float],
    *,
    settings: tuple[Setting, ...],
    options: TrainingOptions,
    seed: int,
    name: str | None,
) -> Run:
    """Train every setting for a share of the steps, from one start and on the same batches, and the best to the end.

    Args:
        make: makes the model at its start.
        lookup: what the embedding reads of each code.
        patients: training samples.
        score: scores parameters on the tuning samples.
        settings: the settings that are tried.
        options: budget of training.
        seed: seed of batches and noise.
        name: name of the progress bar, None for none.

    Returns:
        The finished run of the best setting.
    """
    steps = options.steps(len(patients))
    every = steps // options.evaluations
    short = every * max(round(options.evaluations * options.trial_share), 1)
    best = None
    for number, setting in enumerate(settings):
        label = None if name is None else f"{name}, setting {number + 1} of {len(settings)}"
        run = Run(
            make(),
            lookup,
            patients,
            setting=setting,
            steps=steps,
            batch_size=options.batch_size,
            seed=seed,
            name=label,
        )
        run.until(short, every, options.patience, functools.partial(score, run.graphdef))
        if best is None or run.best_score > best.best_score:
            best = run
    best.until(steps, every, options.patience, functools.partial(score, best.graphdef))
    return best
