"""Exports of patient records that are killed in the middle and started again, against exports that were not killed."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from preprocessing.common.atomic import PARTIAL
from preprocessing.meds.generated.write import GenerateRequest, generate
from tests.helpers import small_tokenizer
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.thorough, pytest.mark.integration]
pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

RECORDS, TOKENIZER, OUTPUT = "mimic4", "tok", "out"
# The targets, with flags that keep what they write small.
TARGETS = {
    **dict.fromkeys(("behrt", "gt_behrt", "transformehr", "mult_ehr"), ()),
    "ethos": ("--width=12", "--n_layer=1", "--n_positions=16"),
}
# Runs that end before they are killed are repeated.
TRIES = 20


def start(folder: Path, target: str) -> subprocess.Popen:
    """Start an export, and return its process when it begins to write."""
    flags = [f"--to={target}", f"--tokenizer={folder / TOKENIZER}", f"--events={folder / RECORDS}"]
    command = [sys.executable, "-m", "medtok_jax.convert", *flags, f"--output={folder / OUTPUT}", *TARGETS[target]]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    known = set(folder.glob(f"{PARTIAL}*"))
    while process.poll() is None and known.issuperset(folder.glob(f"{PARTIAL}*")):
        time.sleep(0.002)
    return process


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()


def made(folder: Path) -> list[Path]:
    """Return what an export has made: its output, and the records as MEDS."""
    return [path for path in sorted(folder.iterdir()) if path.name not in (RECORDS, TOKENIZER)]


def content(paths: list[Path]) -> dict[str, bytes]:
    """Return the bytes of all files in some folders, by name."""
    return {
        path.relative_to(top.parent).as_posix(): path.read_bytes()
        for top in paths
        for path in top.rglob("*")
        if path.is_file()
    }


def remove(folder: Path) -> None:
    for path in made(folder):
        shutil.rmtree(path)


def kill_twice(folder: Path, target: str, seconds: float, rng: random.Random) -> None:
    """Kill an export twice in a row, each time at a random moment of the first `seconds` in which it writes."""
    kills = 0
    for _ in range(TRIES):
        process = start(folder, target)
        time.sleep(seconds * rng.random())
        process.kill()
        process.communicate()
        if (folder / OUTPUT).exists():
            # It was faster than the first run, since the records were MEDS already or the machine was less busy.
            remove(folder)
            kills = 0
            seconds /= 2
            continue
        assert process.returncode == -signal.SIGKILL
        kills += 1
        if kills == 2:
            return
    raise AssertionError(f"{target} ended before it could be killed")


@pytest.fixture
def world(tmp_path):
    """A copy of MIMIC-IV as it is published, and a tokenizer that holds few of its codes."""
    generate(GenerateRequest(tmp_path / RECORDS, 300, 2, lab_share=0.01, progress=False))
    small_tokenizer.write(tmp_path / TOKENIZER)
    return tmp_path


@pytest.mark.parametrize("target", TARGETS)
def test_a_killed_export_writes_the_same_bytes_when_it_is_started_again(world, target):
    """The records are converted to MEDS on the way, so a kill may come there, too; nothing else is left behind."""
    process = start(world, target)
    began = time.monotonic()
    finish(process)
    seconds = time.monotonic() - began
    expected = content(made(world))
    assert len(expected) > 10
    remove(world)
    kill_twice(world, target, seconds, random.Random(target))
    finish(start(world, target))
    found = content(made(world))
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
