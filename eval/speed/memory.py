"""Measure the memory of a training step on its device by the plan of XLA, without training.

The table has a row for each shape that batches of the configuration can have. Text states are random, of the width of
the encoder, which need not be downloaded. The plan is that of the backend it runs on: the plan for a CPU is near that
for an accelerator, except where the two fuse operations differently.
"""

import jax
import numpy as np

from eval.speed.isolation import in_child
from eval.speed.setup import LAST_STEP, Setting, facts, open_run
from medtok_jax.batch import Batch
from medtok_jax.devices import sharding
from medtok_jax.devices.memory import StepMemory, device_memory
from medtok_jax.training.inputs import ModelInputs

# Batches that training prepares ahead or still holds while a step runs.
UNDER_WAY = 4


def run(setting: Setting) -> dict:
    """Plan in a separate process and return facts and rows."""
    setting = setting.prepared()
    found, rows = in_child(measure, setting)
    return {"facts": {"scale": setting.scale} | found, "rows": rows}


def measure(setting: Setting) -> tuple[dict, list[dict]]:
    """Return facts about the plan, and a row for each shape."""
    ready = open_run(setting, on_disk=False)
    inputs, train_step = ready.inputs, ready.programs.train_step
    first, budgets = inputs.train_source(LAST_STEP)[0], inputs.builder.budgets
    rows = []
    lengths = [n for n in budgets.lengths if n < setting.config.data.max_length]
    lengths.append(budgets.length(setting.config.data.max_length))
    graphs = budgets.graphs
    # The longest texts with the largest graphs need the most memory.
    shapes = [(length, graphs[0]) for length in lengths] + ([(lengths[-1], graphs[-1])] if len(graphs) > 1 else [])
    for length, graph in shapes:
        batch = abstract(inputs, first, length, graph)
        train_step.compile(ready.state, ready.programs.empty_window(), batch, inputs.tables)
        executable = train_step.executable(ready.state, None, batch)
        name = f"texts of {length}, {graph[0]} nodes, {graph[1]} edges"
        rows.append(_row(name, executable, batch, inputs.mesh.devices.size))
    found = {"parameters": sum(x.size for x in jax.tree.leaves(ready.state.params))}
    limit = device_memory(jax.devices()[0])
    return facts(ready) | found | ({"device bytes": limit} if limit else {}), rows


def abstract(inputs: ModelInputs, batch: Batch, length: int, graph: tuple[int, int]) -> Batch:
    """Return the shapes and shardings of a batch with texts of `length` and graphs of (nodes, edges)."""
    split = sharding.split_over_data(inputs.mesh)
    stacks = inputs.mesh.shape["data"]

    def shaped(x: np.ndarray, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        rows = x.shape[0] * stacks // len(inputs.builder.local_stacks)
        return jax.ShapeDtypeStruct((rows, *shape), x.dtype, sharding=split)

    replaced = batch.graph._replace(
        nodes={name: shaped(x, graph[:1]) for name, x in batch.graph.nodes.items()},
        **{name: shaped(getattr(batch.graph, name), graph[1:]) for name in ("edges", "senders", "receivers")},
        n_node=shaped(batch.graph.n_node, batch.graph.n_node.shape[1:]),
        n_edge=shaped(batch.graph.n_edge, batch.graph.n_edge.shape[1:]),
    )
    rest = {name: shaped(getattr(batch, name), ()) for name in ("valid", "index", "text_id", "graph_id", "partner")}
    means = batch.frozen_means
    return Batch(
        text=shaped(batch.text, (length, *batch.text.shape[2:])),
        text_mask=shaped(batch.text_mask, (length,)),
        graph=replaced,
        small=batch.small,
        frozen_means=None if means is None else shaped(means, means.shape[1:]),
        **rest,
    )


def _row(name: str, executable: jax.stages.Compiled, batch: Batch, num_devices: int) -> dict:
    memory = StepMemory.of(executable)
    batch_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(batch)) // num_devices
    return {
        "name": name,
        "planned_bytes": memory.total,
        "arguments_bytes": memory.arguments,
        "results_bytes": memory.outputs,
        "scratch_bytes": memory.scratch,
        "with_batches_under_way_bytes": memory.total + (UNDER_WAY - 1) * batch_bytes,
    }
