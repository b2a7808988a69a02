"""Train the learned baselines in a small loop: AdamW, warm-up, cosine decay, and one fit of the codebook."""

from collections.abc import Callable, Iterable

import jax
import numpy as np
import optax
from flax import nnx

from medtok_jax.training.steps import NonFiniteLoss
from preprocessing.common.progress import Bar


class Trainer:
    """Train a module with the sum of named losses.

    Args:
        model: module to train.
        loss: `(model, batch) -> losses by name`, whose sum is minimized.
        steps: number of training steps.
        learning_rate: peak learning rate.
    """

    def __init__(self, model: nnx.Module, loss: Callable, *, steps: int, learning_rate: float):
        warmup = max(steps // 20, 1)
        schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, max(steps, warmup + 1))
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.0))
        self.graphdef, self.params, self.rest = nnx.split(model, nnx.Param, ...)
        self.opt_state = optimizer.init(self.params)
        graphdef = self.graphdef

        @jax.jit
        def step(params, rest, opt_state, batch):
            def total(params):
                terms = loss(nnx.merge(graphdef, params, rest), batch)
                return sum(terms.values()), terms

            (_, terms), gradients = jax.value_and_grad(total, has_aux=True)(params)
            updates, opt_state = optimizer.update(gradients, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, terms

        self._step = step
        self.history: list[dict[str, float]] = []

    @property
    def model(self) -> nnx.Module:
        """Return the model in its current state."""
        return nnx.merge(self.graphdef, self.params, self.rest)

    def set_codebook(self, rows: np.ndarray) -> None:
        """Set the codebook of the quantizer of the model."""
        model = self.model
        model.quantizer.set_codebook(jax.numpy.asarray(rows))
        _, self.params, self.rest = nnx.split(model, nnx.Param, ...)

    def run(self, batches: Iterable, before_step: dict[int, Callable[[], None]], *, name: str, progress: bool) -> None:
        """Train on all batches and append their losses to `history`.

        Args:
            batches: batches of the loss function.
            before_step: number of a step -> function to call before it.
            name: name of the baseline, for messages.
            progress: whether to show a progress bar.

        Raises:
            NonFiniteLoss: a loss is NaN or infinite.
        """
        pending = []
        for number, batch in enumerate(Bar(batches, desc=f"Training {name}", unit=" steps", show=progress)):
            if number in before_step:
                before_step[number]()
            self.params, self.opt_state, terms = self._step(self.params, self.rest, self.opt_state, batch)
            pending.append(terms)
            # At most four steps are in flight.
            jax.block_until_ready(pending[max(len(pending) - 4, 0)])
        self.history += [{key: float(value) for key, value in terms.items()} for terms in pending]
        if not all(np.isfinite(list(terms.values())).all() for terms in self.history):
            raise NonFiniteLoss(f"the loss of {name} became NaN or infinite; try another --seed.")
