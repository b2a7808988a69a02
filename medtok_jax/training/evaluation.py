"""Evaluate a model in training on the codes of a split."""

import jax
import numpy as np
from ml_collections import ConfigDict

from medtok_jax.data.dataset import Data
from medtok_jax.training.inputs import ModelInputs
from medtok_jax.training.metrics import describe_usage
from medtok_jax.training.programs import Programs
from medtok_jax.training.state import TrainState
from preprocessing.common.progress import Bar


def validation_rows(data: Data, config: ConfigDict) -> np.ndarray:
    """Return the table rows that a validation passes over: `train.eval_codes` of the split, the same every time."""
    rows = data.rows("validation")
    if not config.train.eval_codes:
        return rows
    order = np.random.default_rng(config.seed).permutation(len(rows))
    return rows[order][: config.train.eval_codes]


def evaluate(state: TrainState, programs: Programs, inputs: ModelInputs, rows: np.ndarray) -> dict[str, float]:
    """Return all metrics by name, as means over some rows of the code table."""
    window = programs.empty_eval_window()
    batches = inputs.eval_batches(rows)
    for batch in Bar(batches, desc="Validating", leave=False, show=jax.process_index() == 0):
        window = window.merge(programs.eval_step(state.params, state.fixed, batch, inputs.tables))
    return window.scalars.compute() | describe_usage(window.usage.compute(), programs.structure.regions)
