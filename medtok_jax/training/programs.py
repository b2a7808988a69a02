"""Compile the functions of `steps` for a model on a mesh of devices."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from medtok_jax.devices import sharding
from medtok_jax.devices.compiled_step import CompiledStep
from medtok_jax.training import steps
from medtok_jax.training.metrics import Window, empty_window
from medtok_jax.training.state import TrainState
from medtok_jax.training.steps import Structure


@dataclasses.dataclass(frozen=True)
class Programs:
    """Hold the compiled functions of a model; each is the function of `steps` of that name with `structure` bound.

    Attributes:
        structure: static facts that are bound.
        mesh: devices that they run on.
        train_step: compiled ahead of its calls; donates the state and the window.
        eval_step, encode_step, tokenize_step: of parameters, fixed variables, a placed batch and tables.
        term_gradient_norms: of a state, a placed batch and tables.
    """

    structure: Structure
    mesh: Mesh
    train_step: CompiledStep
    eval_step: Callable
    encode_step: Callable
    tokenize_step: Callable
    term_gradient_norms: Callable

    def empty_window(self) -> Window:
        """Return a window without batches, shaped as those of `train_step`."""
        return self._place(empty_window((*self.metric_names, *steps.NORMS), self.structure.regions.size))

    def empty_eval_window(self) -> Window:
        """Return a window without batches, shaped as those of `eval_step`."""
        return self._place(empty_window(self.metric_names, self.structure.regions.size))

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Return the names of the metrics of a batch."""
        return steps.metric_names(self.structure.config.model)

    def _place(self, window: Window) -> Window:
        return sharding.place_everywhere(window, self.mesh)

    def codebook(self, state: TrainState) -> np.ndarray:
        """Return the rows of the codebook as they are searched, `[N, width]` float32. All processes must call it."""
        gathered = sharding.gather(state, self.mesh)
        return np.asarray(self.structure.model(gathered.params, gathered.fixed).quantizer.codebook())


def compile_programs(structure: Structure, state: TrainState, mesh: Mesh) -> Programs:
    """Return the functions of a model, compiled when they are first called.

    Args:
        structure: static facts.
        state: of the model, or its shapes.
        mesh: devices.
    """
    replicated, split = sharding.replicated(mesh), sharding.split_over_data(mesh)
    layout = sharding.layout(mesh, state)

    def compiled(function: Callable, *variables) -> Callable:
        bound = functools.partial(function, structure=structure)
        return jax.jit(bound, in_shardings=(*variables, split, replicated), out_shardings=replicated)

    return Programs(
        structure=structure,
        mesh=mesh,
        train_step=CompiledStep(
            functools.partial(steps.train_step, structure=structure),
            batch_position=2,
            donate_argnums=(0, 1),
            in_shardings=(layout, replicated, split, replicated),
            out_shardings=(layout, replicated, replicated),
        ),
        eval_step=compiled(steps.eval_step, layout.params, layout.fixed),
        encode_step=compiled(steps.encode_step, layout.params, layout.fixed),
        tokenize_step=compiled(steps.tokenize_step, layout.params, layout.fixed),
        term_gradient_norms=compiled(steps.term_gradient_norms, layout),
    )
