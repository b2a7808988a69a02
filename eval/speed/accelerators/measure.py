"""Compile the steps of a configuration for a target, and report what they need, what they do and what they break."""

import time
from collections import Counter

import jax

from eval.speed.accelerators import counting, hlo, promises, targets
from eval.speed.accelerators.programs import Step, lower
from eval.speed.accelerators.targets import Target
from eval.speed.isolation import in_child
from eval.speed.setup import Setting
from medtok_jax.devices.memory import StepMemory

HEADERS = (
    "step",
    "memory a device",
    "of it",
    "GFLOP",
    "MB moved",
    "arithmetic",
    "memory traffic",
    "roofline",
    "kernels",
    "fusions",
    "copies",
    "library calls",
    "collectives",
    "MB exchanged",
    "compiled",
)


def run(setting: Setting, name: str | None) -> dict:
    """Compile in a separate process, and return facts, rows, tables and sentences on broken promises."""
    target = targets.find(name)
    setting = setting.prepared()
    facts, rows = in_child(measure, setting, target.name, **target.environment())
    facts = {"scale": setting.scale, "target": target.name} | facts
    broken = [sentence for row in rows for sentence in row["broken"]]
    return {"facts": facts, "rows": rows, "tables": tables(rows), "broken": broken, "peaks": target.report()}


def measure(setting: Setting, name: str) -> tuple[dict, list[dict]]:
    """Return facts about the model, and a row for each step."""
    target = targets.TARGETS[name]
    devices = target.open()
    facts, steps = lower(setting, target, devices)
    kinds = f"{len(devices)} x {devices[0].device_kind}, not there"
    return facts | {"device": kinds, "jax": jax.__version__}, [measure_step(step, target) for step in steps]


def measure_step(step: Step, target: Target) -> dict:
    """Compile one step, and return its row."""
    row, memory, cost = {"name": step.name}, 0, {}
    if step.compiles:
        start = time.perf_counter()
        try:
            compiled = step.lowered.compile(compiler_options=target.compiler_options())
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            reason = " ".join(str(error).split())[:200]
            return row | {"failed": reason, "broken": [promises.does_not_fit(step.name, target, reason)]}
        row["compile_seconds"] = time.perf_counter() - start
        planned = StepMemory.of(compiled)
        memory = planned.total + step.waiting_bytes
        row |= {"planned_bytes": planned.total, "with_batches_under_way_bytes": memory}
        row["share_of_memory"] = memory / target.memory
        text, cost = compiled.as_text(), compiled.cost_analysis() or {}
    else:
        text = step.lowered.as_text("hlo", debug_info=True)
    counts = counting.count(hlo.parse(text))
    expected = {"graph_sizes": step.graph_sizes, "text_sizes": step.text_sizes}
    expected |= {"codes": step.codes, "parts": step.parts}
    row["broken"] = promises.broken(step.name, counts, target, memory=memory, **expected)
    row["matmuls"] = _matmuls(counts, target)
    if step.compiles:
        row |= _work(counts, target)
        # What XLA counts itself, on-chip memory included; it counts nothing for a GPU that is not there.
        row |= {f"xla_{name.replace(' ', '_')}": cost[name] for name in ("flops", "bytes accessed") if name in cost}
    return row


def _work(counts: counting.Counts, target: Target) -> dict:
    flops = Counter()
    for one in counts.matmuls:
        flops[one.precision] += one.flops * one.times
    arithmetic, traffic = target.arithmetic_seconds(flops), counts.bytes / target.bandwidth
    exchanged = Counter()
    for one in counts.collectives:
        exchanged[one.kind, ", ".join(map(str, one.results)), one.bytes] += one.times
    return {
        "flops": counts.flops,
        "flops_by_precision": dict(flops),
        "bytes_moved": counts.bytes,
        "arithmetic_seconds": arithmetic,
        "traffic_seconds": traffic,
        "roofline_seconds": max(arithmetic, traffic),
        "kernels": counts.launches,
        "kernels_by_kind": counts.kernels,
        "collectives": [
            {"kind": kind, "type": described, "bytes": size, "times": times}
            for (kind, described, size), times in exchanged.items()
        ],
    }


def _matmuls(counts: counting.Counts, target: Target) -> list[dict]:
    """Return the promised matmuls by part, place, types and arithmetic."""
    found = Counter()
    for name, matmuls in promises.promised(counts.matmuls).items():
        for one in matmuls:
            types = f"{one.operands[0]} x {one.operands[1]}"
            found[name, promises.place(one.frames), types, promises.arithmetic(one, target)] += one.times
    names = ("part", "place", "types", "arithmetic")
    return [dict(zip(names, key, strict=True)) | {"times": times} for key, times in sorted(found.items())]


def tables(rows: list[dict]) -> list[dict]:
    """Return the tables of a report: steps, collectives, and matmuls that are promised float32."""
    exchanged = [
        [_short(row), one["kind"], one["type"], one["times"], f"{one['bytes'] * one['times'] / 1e6:.3f}"]
        for row in rows
        for one in sorted(row.get("collectives", []), key=lambda one: -one["bytes"] * one["times"])
    ]
    exact = [
        [_short(row), one["part"], one["arithmetic"], one["place"], one["types"], one["times"]]
        for row in rows
        for one in row.get("matmuls", [])
    ]
    return [
        {"title": "steps", "headers": HEADERS, "rows": [_cells(row) for row in rows if row.get("kernels")]},
        {
            "title": "collectives a step",
            "headers": ("step", "kind", "type on a device", "times", "MB"),
            "rows": exchanged,
            "texts": 3,
        },
        {
            "title": "matmuls that are promised float32",
            "headers": ("step", "part", "multiplied in", "place", "types on a device", "times"),
            "rows": exact,
            "texts": 5,
        },
    ]


def _short(row: dict) -> str:
    return row["name"].partition(":")[0]


def _cells(row: dict) -> list[str]:
    kinds = row["kernels_by_kind"]
    return [
        row["name"],
        f"{row['with_batches_under_way_bytes'] / 2**30:.2f} GiB",
        f"{row['share_of_memory']:.1%}",
        f"{row['flops'] / 1e9:,.2f}",
        f"{row['bytes_moved'] / 1e6:,.1f}",
        *(f"{row[f'{name}_seconds'] * 1e3:.3f} ms" for name in ("arithmetic", "traffic", "roofline")),
        f"{row['kernels']:,}",
        *(f"{kinds.get(kind, 0):,}" for kind in ("fusion", "copy", "library", "collective")),
        f"{sum(one['bytes'] * one['times'] for one in row['collectives']) / 1e6:.3f}",
        f"{row['compile_seconds']:.0f} s",
    ]
