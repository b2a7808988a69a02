"""The same step on one device, on eight, and in two processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.paths import ROOT
from tests.helpers.small_run import DATA_SET


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """`environment(devices)` of a process; all share compiled programs, which are most of their time."""
    given = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    given |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla"))}
    given |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def of(devices: int) -> dict[str, str]:
        return os.environ | given | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}

    return of


@pytest.fixture(scope="module")
def steps(data_dir, environment, tmp_path_factory) -> dict[str, dict]:
    """`topology.py` on one device, on eight, on eight that hold all token states, and where two share a codebook."""
    found = {}
    settings = [("one", 1, 1, "no"), ("eight", 8, 1, "no")]
    settings += [("eight with states", 8, 1, "yes"), ("four by two", 8, 2, "no")]
    for name, devices, parts, on_device in settings:
        command = [
            sys.executable,
            str(ROOT / "tests" / "helpers" / "topology.py"),
            str(data_dir),
            str(tmp_path_factory.mktemp("run")),
        ]
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


@pytest.fixture(scope="module")
def train(data_dir, environment):
    """`train(runs, **fields)`: trains in each work directory with so many processes, all at once; the summaries.

    Fields of the configuration are given by work directory.
    """
    small = {"data.data_dir": data_dir, "data.name": DATA_SET, "data.length_buckets": "(64,)"}
    small |= {"data.cache_dtype": "float32", "model.embedding_dim": 16, "model.graph_width": 16}
    small |= {"model.cross_width": 16, "model.cross_layers": 1, "model.codebook_size": 120, "model.kmeans_step": 3}
    small |= {"train.batch_size": 64, "train.steps": 6, "train.log_every": 2}
    base = [sys.executable, "-m", "medtok_jax.main", "--config=configs/default.py"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}

    def commands(workdir: Path, processes: int, fields: dict) -> list[list[str]]:
        command = [*base, *(f"--config.{name}={value}" for name, value in fields.items()), f"--workdir={workdir}"]
        if processes == 1:
            return [command]
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        command += ["--distributed", f"--coordinator_address={address}", f"--num_processes={processes}"]
        return [[*command, f"--process_id={number}"] for number in range(processes)]

    def run(runs: dict[Path, int], **fields: dict[Path, object]) -> list[dict]:
        running = []
        for workdir, processes in runs.items():
            of_run = small | {name: value[workdir] for name, value in fields.items()}
            for command in commands(workdir, processes, of_run):
                running.append(subprocess.Popen(command, cwd=ROOT, env=environment(1), **output))
        for process in running:
            told, _ = process.communicate(timeout=600)
            assert process.returncode == 0, told
        return [json.loads((workdir / "summary.json").read_text()) for workdir in runs]

    return run


def assert_same_losses(first: dict, second: dict) -> None:
    for name, trend in first["losses"].items():
        np.testing.assert_allclose(second["losses"][name]["last"], trend["last"], rtol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def by_processes(train, tmp_path_factory) -> dict[Path, dict]:
    """Work directories of one process and of two, and their summaries."""
    folder = tmp_path_factory.mktemp("processes")
    runs = {folder / "one": 1, folder / "two": 2}
    return dict(zip(runs, train(runs), strict=True))


def test_two_processes_reach_the_loss_of_one(by_processes):
    one, two = by_processes.values()
    assert_same_losses(one, two)
    for name, value in one["all_codes"].items():
        np.testing.assert_allclose(two["all_codes"][name], value, rtol=2e-2, err_msg=name)


def test_a_run_goes_on_with_another_number_of_processes(by_processes, train, tmp_path):
    """What one process began two end, and what two began one ends, alike."""
    one, two = by_processes
    runs = {tmp_path / "one then two": 2, tmp_path / "two then one": 1}
    first, second = train(runs, resume_from=dict(zip(runs, (one, two), strict=True)))
    assert first["step"] == second["step"] == 12
    assert_same_losses(first, second)
    before = by_processes[one]["losses"]["total_loss"]["last"]
    assert first["losses"]["total_loss"]["last"] != pytest.approx(before, rel=1e-3)
