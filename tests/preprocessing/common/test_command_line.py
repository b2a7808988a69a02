"""A command names the extra whose package is not installed."""

import subprocess
import sys

import pytest


def run_without(package: str, module: str, *arguments: str) -> subprocess.CompletedProcess:
    """A command in a process of its own, in which `package` cannot be imported."""
    script = (
        f"import runpy, sys; sys.modules[{package!r}] = None; sys.argv = [{module!r}, *{list(arguments)!r}];"
        f" runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("package", "extra", "module", "arguments"),
    [
        ("polars", "ehr", "preprocessing.meds", ["--input=in", "--output=out"]),
        ("sklearn", "eval", "eval.tokenization", ["--tokenizer=tok", "--output=out"]),
        ("scipy", "eval", "eval.compare", ["--tokenizers=a,b", "--output=out"]),
    ],
)
def test_a_package_that_is_missing_is_one_sentence(package, extra, module, arguments, tmp_path):
    ended = run_without(package, module, *arguments)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert f"Python package {package}" in ended.stderr
    assert f"pip install 'medtok_jax[{extra}]'" in ended.stderr
