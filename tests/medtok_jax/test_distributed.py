"""The same step on one device, on eight, and in two processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_run import DATA_SET

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def environment(devices: int = 1) -> dict[str, str]:
    path = os.pathsep.join([str(HERE), str(ROOT)])
    flags = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {"PYTHONPATH": path, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module")
def steps(data_dir, tmp_path_factory) -> dict[str, dict]:
    """`topology.py` on one device, on eight, on eight that hold all token states, and where two share a codebook."""
    found = {}
    settings = [("one", 1, 1, "no"), ("eight", 8, 1, "no")]
    settings += [("eight with states", 8, 1, "yes"), ("four by two", 8, 2, "no")]
    for name, devices, parts, on_device in settings:
        command = [sys.executable, str(HERE / "topology.py"), str(data_dir), str(tmp_path_factory.mktemp("run"))]
        command += [str(parts), on_device]
        done = subprocess.run(command, env=environment(devices), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("what", ["terms", "later", "norms"])
@pytest.mark.parametrize(("name", "stacks"), [("eight", 8), ("eight with states", 8), ("four by two", 4)])
def test_eight_devices_equal_one(steps, what, name, stacks):
    one, eight = steps["one"], steps[name]
    assert (one["devices"], eight["devices"]) == (1, 8)
    assert one["codes"] == eight["codes"]
    assert eight["graph"][0][0] == stacks
    for name, value in one[what].items():
        np.testing.assert_allclose(eight[what][name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["eight", "eight with states"])
def test_only_embeddings_are_gathered(steps, name):
    """All-gathers of the compiled step: vectors of the batch, its embeddings and pooled texts, which are compared over
    the whole batch; no graph, token or codebook tensor."""
    batch, width, text = 64, 16, 384
    gathered = [tuple(int(size) for size in shape.split(",") if size) for shape in steps[name]["gathered"]]
    assert gathered, "InfoNCE over the global batch must gather the embeddings"
    for shape in gathered:
        assert shape == (batch,) or set(shape) <= {batch, width, 2 * width, text}, shape
        assert np.prod(shape) <= max(4 * batch * width, batch * text)


def test_gradients_are_reduced_once(steps):
    """All-reduces of the compiled step hold as many numbers as there are parameters, but for the few that losses over
    the whole batch and metrics need: no gradient is reduced twice."""
    batch, codebook, losses = 64, 120, 6
    sizes = [int(np.prod([int(size) for size in shape.split(",") if size])) for shape in steps["eight"]["reduced"]]
    parameters = sum(int(np.prod(shape)) for shape in steps["eight"]["parameters"])
    assert parameters <= sum(sizes) <= parameters + losses * batch * batch + codebook + 200


def test_a_shared_codebook_is_cut(steps):
    """Rows of the codebook and of node ids, and their moments, lie in halves; no graph or text is gathered."""
    whole, halves = steps["one"]["cut"], steps["four by two"]["cut"]
    assert whole.keys() == halves.keys()
    assert len(halves) == 6
    for name, shape in halves.items():
        assert shape == [whole[name][0] // 2, whole[name][1]], name
    codebook = max(shape[0] for name, shape in whole.items() if "rows" in name)
    batch, text = 64, 384
    for shape in steps["four by two"]["gathered"]:
        sizes = [int(size) for size in shape.split(",") if size]
        assert np.prod(sizes) <= batch * max(codebook, text), shape


def test_two_processes_reach_the_loss_of_one(data_dir, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    fields = {"data.data_dir": data_dir, "data.name": DATA_SET, "data.length_buckets": "(64,)"}
    fields |= {"data.cache_dtype": "float32", "model.embedding_dim": 16, "model.graph_width": 16}
    fields |= {"model.cross_width": 16, "model.cross_layers": 1, "model.codebook_size": 120, "model.kmeans_step": 3}
    fields |= {"train.batch_size": 64, "train.steps": 6, "train.log_every": 2}
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    base = [sys.executable, "-m", "medtok_jax.main", "--config=configs/default.py", *overrides]
    together = ["--distributed", f"--coordinator_address={address}", "--num_processes=2"]
    commands = [[*base, f"--workdir={tmp_path / 'two'}", *together, f"--process_id={number}"] for number in (0, 1)]
    commands.append([*base, f"--workdir={tmp_path / 'one'}"])
    running = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for command in commands
    ]
    for process in running:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
    one, two = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two"))
    for name, trend in one["losses"].items():
        np.testing.assert_allclose(two["losses"][name]["last"], trend["last"], rtol=1e-4, err_msg=name)
    for name, value in one["all_codes"].items():
        np.testing.assert_allclose(two["all_codes"][name], value, rtol=2e-2, err_msg=name)
