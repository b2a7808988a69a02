"""Run a training step on several layouts of devices and print JSON, in a process `test_distributed.py` starts."""

import json
import re
import sys
from pathlib import Path

import jax
import numpy as np

from medtok_jax.devices import sharding
from medtok_jax.training import setup
from medtok_jax.training.steps import CHECKED
from tests.helpers.small_run import small_config

# Name -> devices, parts of the codebook, whether token states lie on the devices.
LAYOUTS = {"one": (1, 1, "no"), "four with states": (4, 1, "yes"), "two by two": (4, 2, "no")}


def one_step(
    data_dir: Path, workdir: Path, devices: int, model_parallel: int, states_on_device: str, *, with_norms: bool
) -> dict:
    """Return the results of a step, with norms of each loss term or without, and what it gathers and reduces."""
    # Warm-up would make the first update zero.
    options = {"train__warmup_steps": 1, "train__lr": 1e-2, "train__model_parallel": model_parallel}
    options |= {"train__num_devices": devices, "data__states_on_device": states_on_device}
    config = small_config(data_dir, model__node_id_features=True, **options)
    training = setup.set_up(config, workdir, progress=False)
    inputs, programs = training.inputs, training.programs
    batch = sharding.place_batch(inputs.train_source(training.plan.last_step)[5], inputs.mesh)
    arguments = (training.state, programs.empty_window(), batch, inputs.tables)
    programs.train_step.compile(*arguments)
    text = programs.train_step.executable(*arguments).as_text()
    norms = programs.term_gradient_norms(training.state, batch, inputs.tables) if with_norms else {}
    state, window, terms = programs.train_step(*arguments)
    state, window, later = programs.train_step(state, window, batch, inputs.tables)
    return {
        "devices": inputs.mesh.size,
        "codes": sorted(np.asarray(batch.index).tolist()),
        "terms": dict(zip(CHECKED, np.asarray(terms).tolist(), strict=True)),
        "later": dict(zip(CHECKED, np.asarray(later).tolist(), strict=True)),
        "norms": {name: float(value) for name, value in norms.items()},
        "gathered": re.findall(r"= \(?\w+\[([\d,]*)\][^=]*? all-gather(?:-start)?\(", text),
        "reduced": re.findall(r"f32\[([\d,]*)\]", " ".join(re.findall(r"= (.*?) all-reduce(?:-start)?\(", text))),
        "parameters": [list(leaf.shape) for leaf in jax.tree.leaves(state.params)],
        "graph": [list(batch.graph.senders.shape), list(batch.graph.nodes["hop"].shape)],
        "text": list(batch.text.shape),
        "tables": {name: list(leaf.sharding.shard_shape(leaf.shape)) for name, leaf in tables_of(state)},
    }


def tables_of(state) -> list:
    """Return the codebook and the table of node ids, with their moments."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    named = [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
    return [(name, leaf) for name, leaf in named if "rows" in name or "'ids'" in name]


def main(data_dir: str, workdir: str, *names: str) -> None:
    found = {}
    for name in names:
        norms = name != "four with states"
        found[name] = one_step(Path(data_dir), Path(workdir) / name, *LAYOUTS[name], with_norms=norms)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
