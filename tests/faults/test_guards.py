"""Each guard, removed alone from a copy of the code, turns tests red: one that no test needs could get lost unseen."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.thorough]
COMMON, TESTED = "preprocessing/common", "tests/preprocessing/common"
FAILED = 1


class Guard(NamedTuple):
    """Name the code that guards, which its file holds once, what is left without it, and tests that need it."""

    file: str
    code: str
    without: str
    tests: str
    chosen: str = ""


GUARDS = {
    "digests of a listing": Guard(
        f"{COMMON}/listing.py", "digest(folder / name) != wanted", "False", f"{TESTED}/test_listing.py"
    ),
    "sizes of a listing": Guard(
        f"{COMMON}/listing.py", "if status.st_size != size:", "if False:", f"{TESTED}/test_listing.py"
    ),
    "listing of a checkpoint": Guard(
        "medtok_jax/training/checkpoints.py",
        'check_listing(self.path, part=f"{item}/")',
        "pass",
        "tests/medtok_jax/training/test_checkpoints.py",
        "changed_bit",
    ),
    "lock": Guard(
        f"{COMMON}/locks.py",
        "supported = _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "supported = True",
        f"{TESTED}/test_locks.py",
        "second_process_is_refused",
    ),
    "half a line is passed over": Guard(
        f"{COMMON}/lines.py",
        'content[: content.rfind(b"\\n") + 1].decode("utf-8", "replace").split("\\n")[:-1]',
        'content.decode("utf-8", "replace").removesuffix("\\n").split("\\n")',
        f"{TESTED}/test_lines.py",
        "half",
    ),
    "half a line is removed": Guard(
        f"{COMMON}/lines.py",
        "size, end = os.fstat(descriptor).st_size, _end_of_lines(descriptor)",
        "size = end = os.fstat(descriptor).st_size",
        f"{TESTED}/test_lines.py",
        "half",
    ),
    "modes of files": Guard(
        f"{COMMON}/atomic.py", "os.umask(0o077)", "os.umask(0o022)", f"{TESTED}/test_atomic.py", "private"
    ),
    "errors of readers": Guard(
        f"{COMMON}/foreign_files.py",
        "except BaseException as error:  # A panic of polars is no `Exception`.",
        "except ZeroDivisionError as error:",
        f"{TESTED}/test_foreign_files.py",
    ),
    "formulas": Guard(
        f"{COMMON}/spreadsheets.py",
        """return f"'{text}" if _is_formula(text) else text""",
        "return text",
        f"{TESTED}/test_spreadsheets.py",
    ),
    "names in pickles": Guard(
        "medtok_jax/convert/ehr_models/unpickling.py",
        'return self._allowed[f"{module}.{name}"]',
        "return super().find_class(module, name)",
        "tests/medtok_jax/convert/ehr_models/test_unpickling.py",
        "not_listed",
    ),
    "numbers in pickles": Guard(
        "medtok_jax/convert/ehr_models/unpickling.py",
        "argument > numbered",
        "False",
        "tests/medtok_jax/convert/ehr_models/test_unpickling.py",
        "gigabytes",
    ),
    "members of archives": Guard(
        "preprocessing/download/archives.py",
        '".." in parts.parts',
        "False",
        "tests/preprocessing/download/test_archives.py",
        "leaves_the_folder",
    ),
    "pinned repositories": Guard(
        "medtok_jax/lookup/hub.py",
        " or PINNED.get(repository)",
        "",
        "tests/medtok_jax/lookup/test_hub.py",
        "revision_of_a_download",
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """Return a copy of the code and its tests."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("preprocessing", "medtok_jax", "eval", "configs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize("name", GUARDS)
def test_without_a_guard_tests_fail(name, copy, tell):
    guard = GUARDS[name]
    path = copy / guard.file
    text = path.read_text(encoding="utf-8")
    assert text.count(guard.code) == 1, "the guard has another form now"
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", guard.tests, "-k", guard.chosen]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path.write_text(text.replace(guard.code, guard.without), encoding="utf-8")
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
    finally:
        path.write_text(text, encoding="utf-8")
    tell("guards removed, seen by a test", tried=1, held=int(done.returncode == FAILED))
    assert done.returncode == FAILED, done.stdout[-2000:]
