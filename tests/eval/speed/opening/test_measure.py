"""The time of digests is counted within the opening that computes them."""

import hashlib
import time

import pytest

from eval.speed.opening import measure as opening
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError


def test_time_of_digests_is_compared_with_the_rest(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"x")
    digest, spent = hashlib.file_digest, []

    def slow(*arguments):
        spent.append(0.5)
        return digest(*arguments)

    def read(_, workdir):
        assert sha256_of(workdir / "x") == hashlib.sha256(b"x").hexdigest()
        spent.append(2.0)

    monkeypatch.setattr(time, "process_time", lambda: sum(spent))
    monkeypatch.setattr(hashlib, "file_digest", slow)
    monkeypatch.setitem(opening.PARTS, "x", read)
    row = opening.measure("x", None, str(tmp_path))
    assert row["digests"] == 1
    assert row["digest_seconds"] == 0.5
    assert row["digests_per_rest"] == 0.25
    assert hashlib.file_digest is slow


def test_a_finished_run_is_needed():
    with pytest.raises(InputError, match="--workdir"):
        opening.run(None, None)
