"""A run leaves no password or key of its environment behind: not in checkpoints, logs, the tokenizer or caches."""

import pytest

from medtok_jax.training import checkpoints
from tests.helpers.tiny_run import SECRETS

pytestmark = pytest.mark.integration


def test_no_file_of_a_run_holds_a_secret_of_its_environment(ended_run, tell):
    files = [path for path in ended_run.rglob("*") if path.is_file()]
    shown = [path for path in files if any(secret.encode() in path.read_bytes() for secret in SECRETS.values())]
    tell("files of a run, searched for credentials", tried=len(files), held=len(files) - len(shown))
    assert shown == []
    # Arrays of checkpoints are compressed, what is said of them is not.
    told = [checkpoints.find(ended_run / "work", prefer=kind).metadata() for kind in checkpoints.KINDS]
    assert all(told)
    assert not any(secret in str(told) for secret in SECRETS.values())
