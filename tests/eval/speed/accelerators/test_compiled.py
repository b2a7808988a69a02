"""Programs that are compiled for TPUs and GPUs which are not there keep the promises, and others are found out."""

import contextlib
import json
from pathlib import Path

import pytest

from eval.speed.accelerators import targets
from eval.speed.isolation import in_child
from preprocessing.common.extras import EXTRAS
from tests.helpers.forked import run_module
from tests.helpers.small_run import DATA_SET

pytestmark = pytest.mark.integration


def on(name: str, *more, marks=()):
    """Return the parameters of a test on a target, which is skipped with a reason where its compiler is missing."""
    needed = targets.PACKAGES[targets.TARGETS[name].platform]
    missing = [package for package in needed if not targets._is_there(package)]
    reason = f"needs {', '.join(missing)}, of the extra {EXTRAS[needed[0]]}"
    return pytest.param(name, *more, marks=[pytest.mark.skipif(bool(missing), reason=reason), *marks], id=name)


ROWS, WIDTH, CODES = 8_192, 64, 64


def compile_quantizer(name: str, exactly: bool) -> dict:
    """Compile quantization of a batch with its gradient; return sentences on broken promises, and counts."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from eval.speed.accelerators import counting, hlo, promises
    from medtok_jax.devices import sharding
    from medtok_jax.models.codebook import Quantizer
    from medtok_jax.regions import Regions

    if not exactly:
        jax.default_matmul_precision = lambda precision: contextlib.nullcontext()
    target = targets.TARGETS[name]
    mesh = sharding.make_mesh(target.open())
    regions = Regions(text=ROWS, graph=64, shared=64)
    options = {"num_tokens": 4, "kind": "pursuit", "num_nearest": 2}
    quantizer = nnx.eval_shape(
        lambda: Quantizer(regions, WIDTH, top_k=sharding.top_k(mesh), **options, rngs=nnx.Rngs(0))
    )
    graphdef, state = nnx.split(quantizer)

    def step(state, points):
        def loss(state):
            model = nnx.merge(graphdef, state)
            found = model(model.prepare(points), "text")
            return jnp.sum(found.vector**2) + jnp.sum(found.distances), found.ids

        return jax.grad(loss, has_aux=True)(state)

    whole, split = sharding.replicated(mesh), sharding.split_over_data(mesh)
    jitted = jax.jit(step, in_shardings=(whole, split), out_shardings=(whole, split))
    lowered = jitted.lower(state, jax.ShapeDtypeStruct((CODES, WIDTH), jnp.float32))
    compiled = lowered.compile(compiler_options=target.compiler_options())
    counts = counting.count(hlo.parse(compiled.as_text()))
    return {
        "broken": promises.broken("quantizer", counts, target, memory=0, parts=frozenset(("search",))),
        "parts": {part: len(found) for part, found in promises.promised(counts.matmuls).items()},
        "flops": counts.flops,
        "xla": (compiled.cost_analysis() or {}).get("flops"),
        "bytes": counts.bytes,
        "launches": counts.launches,
        "collectives": [one.kind for one in counts.collectives],
    }


@pytest.mark.parametrize("name", [on("v5e:2x4"), on("h200", marks=[pytest.mark.thorough])])
def test_the_quantizer_keeps_them(name):
    target = targets.TARGETS[name]
    found = in_child(compile_quantizer, name, True, **target.environment())
    assert found["broken"] == []
    assert found["parts"]["search"] >= 3
    assert found["parts"]["least squares"] >= 1
    # Each of a device's codes is compared with all rows: distances, their gradient, and each part once for the tokens.
    searched = 2 * (CODES // target.devices) * WIDTH * ROWS
    assert 2 * searched < found["flops"] < 8 * searched
    assert found["xla"] is None or found["flops"] <= found["xla"] < 2 * found["flops"]
    assert found["bytes"] > ROWS * WIDTH * 4
    assert 10 < found["launches"] < 500
    # Nothing but gradients of the rows crosses devices.
    assert set(found["collectives"]) == ({"all-reduce"} if target.devices > 1 else set())


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "arithmetic"), [on("v5e:2x4", "bfloat16"), on("h200", "TF32")])
def test_a_search_that_is_not_exact_is_found_out(name, arithmetic):
    found = in_child(compile_quantizer, name, False, **targets.TARGETS[name].environment())
    assert any(f"matmuls of the search are in {arithmetic}" in sentence for sentence in found["broken"])


def inexact_search(name: str) -> list[str]:
    """Compile a search whose author forgot `exact`, and return the sentences on it."""
    import jax
    import jax.numpy as jnp

    from eval.speed.accelerators import counting, hlo, promises
    from medtok_jax.models import search

    target = targets.TARGETS[name]
    device = jax.sharding.SingleDeviceSharding(target.open()[0])
    points, rows = (jax.ShapeDtypeStruct((count, WIDTH), jnp.float32, sharding=device) for count in (CODES, ROWS))

    def found(function) -> list[str]:
        text = jax.jit(function).lower(points, rows).compile(compiler_options=target.compiler_options()).as_text()
        counts = counting.count(hlo.parse(text))
        return promises.broken("search", counts, target, memory=0, parts=frozenset(("search",)))

    return [found(search.pairwise_distance), found(search.pairwise_distance.__wrapped__)]


@pytest.mark.parametrize("name", [on("v5e:2x4")])
def test_a_search_without_exact_is_found_out(name):
    kept, broken = in_child(inexact_search, name, **targets.TARGETS[name].environment())
    assert kept == []
    (sentence,) = broken
    assert sentence.startswith("search: 1 of 1 matmuls of the search are in bfloat16, first f32[64,64] x f32[")
    assert "at search.py:" in sentence


@pytest.mark.thorough
@pytest.mark.parametrize("name", [on("v5e:2x4"), on("h200")])
def test_the_steps_of_a_small_model(name, data_dir, tmp_path):
    command = ["eval.speed", "accelerators", f"--target={name}", f"--output={tmp_path}", "--scale=icd"]
    command += ["--config=configs/default.py:smoke", f"--config.data.name={DATA_SET}", "--config.data.sample_size=0"]
    done = run_module(*command, "--config.data.include=()", f"--config.data.data_dir={data_dir}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / f"speed_accelerators_icd_{name.replace(':', '-')}.json").read_text())
    names = [row["name"].partition(":")[0].partition(",")[0] for row in report["rows"]]
    assert names == ["train", "tokenize", "text encoder", "k-means"]
    assert report["broken"] == []
    train, tokenize, encoder, kmeans = report["rows"]
    for row in (train, tokenize, encoder):
        assert 0 < row["share_of_memory"] < 0.5
        assert row["roofline_seconds"] == max(row["arithmetic_seconds"], row["traffic_seconds"]) > 0
        assert row["kernels"] > 20
    assert train["flops"] > 2 * tokenize["flops"]
    parts = {one["part"] for one in train["matmuls"]}
    assert parts >= {"search", "logits", "losses"}
    assert {one["part"] for one in tokenize["matmuls"]} >= {"search", "least squares"}
    assert {one["part"] for one in kmeans["matmuls"]} >= {"k-means", "least squares"}
    assert all(one["arithmetic"] == "float32" for row in report["rows"] for one in row["matmuls"])
    assert bool(train["collectives"]) == (name != "h200")
    assert "bfloat16" in encoder["flops_by_precision"]


def test_an_unknown_target_ends_the_command(tmp_path):
    done = run_module("eval.speed", "accelerators", "--target=v4:2x2x1", f"--output={tmp_path}")
    assert done.returncode == 2
    assert "error: there is no target 'v4:2x2x1'; the targets are v5e:2x4, v6e:2x4" in done.stderr
    assert not list(Path(tmp_path).iterdir())
