"""Programs are kept on disk, loaded by the next process, and nothing fails where they cannot be kept."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from medtok_jax.devices import compilation_cache
from medtok_jax.devices.compilation_cache import keep_compiled
from tests.helpers.paths import ROOT
from tests.helpers.small_disk import small_disk

PROGRAM = """
import contextlib
import sys
from pathlib import Path
import jax
from medtok_jax.devices import compilation_cache
from medtok_jax.devices.compiled_step import CompiledStep

hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None)
if "fill" in sys.argv:
    compilation_cache.LEAST_FREE = 0
print("said", compilation_cache.keep_compiled(Path(sys.argv[1])))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
if "fill" in sys.argv:
    with contextlib.suppress(OSError), (Path(sys.argv[1]) / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
step = CompiledStep(lambda x: (x @ x).sum(), batch_position=0)
print("result", float(step(jax.numpy.ones((8, 8)))), step.memory is not None)
print("hits", len(hits))
"""
CHOSEN = ("jax_compilation_cache_dir", "jax_persistent_cache_enable_xla_caches")


@pytest.fixture
def unset():
    """JAX as it is where the user has set nothing; as before afterwards."""
    before = {name: getattr(jax.config, name) for name in CHOSEN}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def run(*arguments, **variables: str) -> dict[str, str]:
    """Return what the program prints, by its first word."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment | {"JAX_PLATFORMS": "cpu"} | variables,
    )
    assert "Error" not in done.stderr, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.glob("compiled-*/*") if path.name.startswith("jit_")]


@pytest.mark.integration
def test_the_next_process_loads_what_this_one_compiled(tmp_path):
    first = run(tmp_path)
    assert (first["said"], first["hits"]) == ("None", "0")
    assert entries(tmp_path)
    assert next(tmp_path.glob("compiled-*")).stat().st_mode & 0o777 == 0o700
    second = run(tmp_path)
    assert int(second["hits"]) >= 1
    assert second["result"] == first["result"] == "512.0 True"


@pytest.mark.integration
def test_a_variable_turns_it_off(tmp_path):
    assert run(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false")["said"] == "None"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_a_cut_program_is_compiled_again(tmp_path):
    wanted = run(tmp_path)["result"]
    for path in entries(tmp_path):
        path.write_bytes(path.read_bytes()[:-100])
    environment = {"PYTHONWARNINGS": "ignore"}
    assert run(tmp_path, **environment)["result"] == wanted


@pytest.mark.integration
def test_a_small_or_full_disk_ends_nothing(tmp_path):
    with small_disk(tmp_path / "disk", 2**20):
        found = run(tmp_path / "disk" / "cache")
        assert "MiB are free" in found["said"]
        assert found["result"] == "512.0 True"
        # It fills up behind the check.
        found = run(tmp_path / "disk", "fill")
        assert (found["said"], found["result"]) == ("None", "512.0 True")


def test_another_folder_that_the_user_chose_stays(tmp_path, unset):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "chosen"))
    assert keep_compiled(tmp_path) is None
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "chosen")
    assert list(tmp_path.iterdir()) == []


def test_it_is_on_by_default(tmp_path, unset):
    assert keep_compiled(tmp_path / "medtok_cache") is None
    chosen = Path(jax.config.jax_compilation_cache_dir)
    assert chosen.parent == tmp_path / "medtok_cache"
    assert list(chosen.iterdir()) == []
    assert jax.config.jax_persistent_cache_enable_xla_caches == "none"


def test_a_folder_that_cannot_be_made_is_told_in_a_line(tmp_path, unset):
    (tmp_path / "file").write_text("no folder")
    said = keep_compiled(tmp_path / "file")
    assert said.startswith(f"Compiled programs cannot be kept in {tmp_path / 'file'}")
    assert said.endswith("compiles them again.")
    assert "\n" not in said
    assert jax.config.jax_compilation_cache_dir is None


def test_a_full_disk_is_told_in_a_line(tmp_path, unset, monkeypatch):
    monkeypatch.setattr(compilation_cache, "LEAST_FREE", 2**62)
    assert "MiB are free" in keep_compiled(tmp_path)
    assert jax.config.jax_compilation_cache_dir is None


def test_the_oldest_programs_go(tmp_path, unset, monkeypatch):
    monkeypatch.setattr(compilation_cache, "MOST_KEPT", 250)
    keep_compiled(tmp_path)
    folder = Path(jax.config.jax_compilation_cache_dir)
    for number in range(4):
        path = folder / f"jit_{number}"
        path.write_bytes(bytes(100))
        os.utime(path, (number, number))
    jax.config.update("jax_compilation_cache_dir", None)
    keep_compiled(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["jit_2", "jit_3"]
