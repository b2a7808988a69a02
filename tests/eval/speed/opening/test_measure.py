"""What digests add to opening is counted within the opening itself."""

import hashlib
import time

import pytest

from eval.speed.opening import measure as opening
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError


def spend(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_time_of_digests_is_compared_with_the_rest(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"x")
    digest = hashlib.file_digest

    def slow(*arguments):
        spend(0.05)
        return digest(*arguments)

    def read(_, workdir):
        assert sha256_of(workdir / "x") == hashlib.sha256(b"x").hexdigest()
        spend(0.1)

    monkeypatch.setattr(hashlib, "file_digest", slow)
    monkeypatch.setitem(opening.PARTS, "x", read)
    row = opening.measure("x", None, str(tmp_path))
    assert row["digests"] == 1
    assert row["digest_seconds"] == pytest.approx(0.05, rel=0.2)
    assert row["digests_per_rest"] == pytest.approx(0.5, rel=0.2)
    assert hashlib.file_digest is slow


def test_a_finished_run_is_needed():
    with pytest.raises(InputError, match="--workdir"):
        opening.run(None, None)
