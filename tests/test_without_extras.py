"""Where no extra is installed, a command explains its flags, or says in one sentence which extra it needs."""

import re
import sys

import pytest

from preprocessing.common.extras import EXTRAS
from tests.helpers.forked import run_module
from tests.helpers.paths import ROOT

COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for floor in ("preprocessing", "medtok_jax", "eval")
    for path in (ROOT / floor).rglob("*.py")
    if re.search(r"^    command_line\.run\(", path.read_text(encoding="utf-8"), re.MULTILINE)
)


def forget_extras() -> None:
    """Make packages of extras absent for this process; JAX itself needs SciPy."""
    sys.modules.update(dict.fromkeys(EXTRAS.keys() - {"scipy"}))


@pytest.mark.thorough
@pytest.mark.integration
@pytest.mark.parametrize("module", COMMANDS)
def test_help_needs_no_extra_or_names_it(module):
    done = run_module(module, "--help", prepare=forget_extras)
    if done.returncode == 0:
        assert "--" in done.stdout
    else:
        assert re.fullmatch(r"error: this needs the Python package \w+, .*'medtok_jax\[\w+\]'\n", done.stderr)


def test_all_commands_are_found():
    assert {"medtok_jax.main", "medtok_jax.convert", "preprocessing.meds", "eval.tokenization"} <= set(COMMANDS)
