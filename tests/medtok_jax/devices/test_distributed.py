"""The same step on one device and on four, and the same run in one process and in two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from medtok_jax import train
from medtok_jax.lookup.directory import TokenizerDirectory
from tests.helpers.paths import ROOT
from tests.helpers.two_processes import ends, environment, two_processes

# All tests of this file start processes.
pytestmark = pytest.mark.integration


def steps_of(names: tuple[str, ...], data_dir: Path, workdir: Path) -> dict[str, dict]:
    """Return a step on each of some layouts of `topology`."""
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "topology.py"), str(data_dir), str(workdir), *names]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    done = subprocess.run(command, env=environment(XLA_FLAGS=flags), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_losses_of_a_whole_batch_are_the_same_on_any_number_of_devices():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    command = [sys.executable, "-m", "tests.helpers.sharded_losses"]
    done = subprocess.run(command, env=environment(XLA_FLAGS=flags), cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout.splitlines()[-1])
    for number in ("2", "4"):
        assert found[number].keys() == found["1"].keys()
        for loss, values in found["1"].items():
            assert abs(values[0]) > 1e-3
            np.testing.assert_allclose(found[number][loss], values, rtol=1e-5, err_msg=loss)


@pytest.fixture(scope="module")
def steps(data_dir, tmp_path_factory) -> dict[str, dict]:
    """A step on one device, on four that hold all token states, and on four of which two share a codebook."""
    return steps_of(("one", "four with states", "two by two"), data_dir, tmp_path_factory.mktemp("steps"))


def assert_same_step(one: dict, four: dict, *, stacks: int) -> None:
    assert (one["devices"], four["devices"]) == (1, 4)
    assert one["codes"] == four["codes"]
    assert four["graph"][0][0] == stacks
    for part in ("terms", "later"):
        assert four[part].keys() == one[part].keys()
        for term, value in one[part].items():
            np.testing.assert_allclose(four[part][term], value, rtol=1e-5, err_msg=term)


@pytest.mark.thorough
def test_four_devices_equal_one(steps):
    assert_same_step(steps["one"], steps["four with states"], stacks=4)


@pytest.mark.thorough
def test_four_devices_of_which_two_share_a_codebook_equal_one(steps):
    assert_same_step(steps["one"], steps["two by two"], stacks=2)


@pytest.mark.thorough
def test_gradient_norms_of_four_devices_equal_those_of_one(steps):
    one, four = steps["one"]["norms"], steps["two by two"]["norms"]
    assert one.keys() == four.keys()
    assert len(one) > 5
    for term, value in one.items():
        np.testing.assert_allclose(four[term], value, rtol=1e-5, err_msg=term)


@pytest.mark.thorough
def test_only_embeddings_are_gathered(steps):
    """All-gathers of the compiled step: vectors of the batch, its embeddings and pooled texts, which are compared over
    the whole batch; no graph, token or codebook tensor."""
    batch, width, text = 64, 16, 384
    gathered = steps["four with states"]["gathered"]
    gathered = [tuple(int(size) for size in shape.split(",") if size) for shape in gathered]
    assert gathered, "InfoNCE over the global batch must gather the embeddings"
    for shape in gathered:
        assert shape == (batch,) or set(shape) <= {batch, width, 2 * width, 3 * width, text}, shape
        assert np.prod(shape) <= max(4 * batch * width, batch * text)


@pytest.mark.thorough
def test_gradients_are_reduced_once(steps):
    """All-reduces of the compiled step hold as many numbers as there are parameters, but for the few that losses over
    the whole batch and metrics need: no gradient is reduced twice."""
    batch, width, codebook, losses, step = 64, 16, 120, 4, steps["four with states"]
    sizes = [int(np.prod([int(size) for size in shape.split(",") if size])) for shape in step["reduced"]]
    parameters = sum(int(np.prod(shape)) for shape in step["parameters"])
    # Two arrays of the padded nodes of a device's graphs, whose number depends on the codes, are among them.
    nodes = 2 * step["graph"][1][1] * width
    # Both views of the text part are contrasted by themselves, and the first is distilled into.
    text = 3 * batch * width
    assert parameters <= sum(sizes) <= parameters + losses * batch * batch + nodes + text + codebook + 600


@pytest.mark.thorough
def test_a_shared_codebook_is_split(steps):
    """Rows of the codebook and of node ids, and their moments, lie in halves; no graph or text is gathered."""
    whole, halves = steps["one"]["tables"], steps["two by two"]["tables"]
    assert whole.keys() == halves.keys()
    assert len(halves) == 6
    for name, shape in halves.items():
        assert shape == [whole[name][0] // 2, whole[name][1]], name
    codebook = max(shape[0] for name, shape in whole.items() if "rows" in name)
    batch, text = 64, 384
    for shape in steps["two by two"]["gathered"]:
        sizes = [int(size) for size in shape.split(",") if size]
        assert np.prod(sizes) <= batch * max(codebook, text), shape


def train_by_two(config: ConfigDict, workdir: Path, resume_from: Path | None = None) -> dict:
    """Train in two processes, and return the summary."""
    command = [sys.executable, "-m", "medtok_jax.main", f"--workdir={workdir}"]
    command.append(f"--config={ROOT / 'tests' / 'helpers' / 'small_run.py'}:{config.data.data_dir}")
    if resume_from:
        command.append(f"--config.resume_from={resume_from}")
    with two_processes(command) as running:
        for status, printed in ends(running):
            assert status == 0, printed
    return json.loads((workdir / "summary.json").read_text())


def train_by_one(config: ConfigDict, workdir: Path, resume_from: Path) -> dict:
    """Go on with a run in this process, and return the summary."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.resume_from = str(resume_from)
    return train.train_and_evaluate(config, workdir)


def assert_same_losses(first: dict, second: dict, *, refitted: bool = False) -> None:
    """Compare the last losses; rows that were `refitted` apart differ, as a code between two rows falls to either."""
    for name, trend in first["losses"].items():
        tolerance = 1e-2 if refitted and name == "quantization_loss" else 1e-4
        np.testing.assert_allclose(second["losses"][name]["last"], trend["last"], rtol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def by_two(run_config, tmp_path_factory) -> tuple[Path, dict]:
    """The finished run as two processes make it."""
    workdir = tmp_path_factory.mktemp("processes") / "two"
    return workdir, train_by_two(run_config, workdir)


@pytest.mark.thorough
def test_two_processes_reach_the_loss_of_one(finished_run, by_two):
    (_, one), (_, two) = finished_run, by_two
    assert_same_losses(one, two)
    codes = TokenizerDirectory.read(finished_run[0] / "tokenizer").config.rows
    for name, value in one["all_codes"].items():
        # A number of codes that nearly tie: those of one in a hundred may fall to another row.
        absolute = codes / 100 if name == "separated" else 0
        np.testing.assert_allclose(two["all_codes"][name], value, rtol=2e-2, atol=absolute, err_msg=name)


@pytest.mark.thorough
def test_one_process_goes_on_where_two_stopped(finished_run, by_two, run_config, tmp_path):
    first = train_by_one(run_config, tmp_path / "one", finished_run[0])
    second = train_by_one(run_config, tmp_path / "two", by_two[0])
    assert first["step"] == second["step"] == 24
    assert_same_losses(first, second, refitted=True)
    before = finished_run[1]["losses"]["total_loss"]["last"]
    assert first["losses"]["total_loss"]["last"] != pytest.approx(before, rel=1e-3)


@pytest.mark.thorough
def test_two_processes_go_on_where_one_stopped(finished_run, run_config, tmp_path):
    first = train_by_one(run_config, tmp_path / "one", finished_run[0])
    assert_same_losses(first, train_by_two(run_config, tmp_path / "two", finished_run[0]))
