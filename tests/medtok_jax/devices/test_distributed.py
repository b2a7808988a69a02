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

# All tests of this file start processes.
pytestmark = pytest.mark.integration


def environment(**given: str) -> dict[str, str]:
    """Return the environment of a process that keeps its compiled programs where all tests keep them."""
    return os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | given


@pytest.fixture(scope="module")
def steps(data_dir, tmp_path_factory) -> dict[str, dict]:
    """A step on one device, on eight, on eight that hold all token states, and where two share a codebook."""
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "topology.py"), str(data_dir)]
    command.append(str(tmp_path_factory.mktemp("run")))
    devices = environment(XLA_FLAGS="--xla_force_host_platform_device_count=8")
    done = subprocess.run(command, env=devices, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


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
def train(run_config):
    """`train(runs, resume_from)`: trains in each work directory with so many processes, all at once; the summaries.

    `resume_from` holds the run that each goes on from.
    """
    base = [sys.executable, "-m", "medtok_jax.main"]
    base.append(f"--config={ROOT / 'tests' / 'helpers' / 'small_run.py'}:{run_config.data.data_dir}")
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}

    def commands(workdir: Path, processes: int, resume_from: Path | None) -> list[list[str]]:
        command = [*base, f"--workdir={workdir}"]
        if resume_from:
            command.append(f"--config.resume_from={resume_from}")
        if processes == 1:
            return [command]
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        command += ["--distributed", f"--coordinator_address={address}", f"--num_processes={processes}"]
        return [[*command, f"--process_id={number}"] for number in range(processes)]

    def run(runs: dict[Path, int], resume_from: dict[Path, Path] | None = None) -> list[dict]:
        running = []
        for workdir, processes in runs.items():
            for command in commands(workdir, processes, (resume_from or {}).get(workdir)):
                running.append(subprocess.Popen(command, cwd=ROOT, env=environment(), **output))
        for process in running:
            told, _ = process.communicate(timeout=600)
            assert process.returncode == 0, told
        return [json.loads((workdir / "summary.json").read_text()) for workdir in runs]

    return run


def assert_same_losses(first: dict, second: dict) -> None:
    for name, trend in first["losses"].items():
        np.testing.assert_allclose(second["losses"][name]["last"], trend["last"], rtol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def by_processes(finished_run, train, tmp_path_factory) -> dict[Path, dict]:
    """Work directories of one process and of two, and their summaries."""
    workdir = tmp_path_factory.mktemp("processes") / "two"
    return dict([finished_run, (workdir, *train({workdir: 2}))])


def test_two_processes_reach_the_loss_of_one(by_processes):
    one, two = by_processes.values()
    assert_same_losses(one, two)
    for name, value in one["all_codes"].items():
        np.testing.assert_allclose(two["all_codes"][name], value, rtol=2e-2, err_msg=name)


def test_a_run_goes_on_with_another_number_of_processes(by_processes, train, tmp_path):
    """Two processes end what one began as one ends what two began."""
    one, two = by_processes
    runs = {tmp_path / "one then two": 2, tmp_path / "two then one": 1}
    first, second = train(runs, resume_from=dict(zip(runs, (one, two), strict=True)))
    assert first["step"] == second["step"] == 24
    assert_same_losses(first, second)
    before = by_processes[one]["losses"]["total_loss"]["last"]
    assert first["losses"]["total_loss"]["last"] != pytest.approx(before, rel=1e-3)
