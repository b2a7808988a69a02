"""Every example of docs/tokenization_examples.md runs, in order, with a model that was trained."""

import re
import shlex
import warnings
from pathlib import Path

import pytest

from medtok_jax import UnknownCodeWarning
from medtok_jax.inference.model_reader import load
from tests.helpers.forked import run_module
from tests.helpers.named_codes import with_named_codes
from tests.helpers.paths import ROOT

PAGE = ROOT / "docs" / "tokenization_examples.md"


def examples() -> list[tuple[str, int, str]]:
    """Return language, line and text of every fenced block."""
    text = PAGE.read_text()
    blocks = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(block[1], text[: block.start()].count("\n") + 2, block[2]) for block in blocks]


@pytest.fixture(scope="module")
def workplace(finished_run, tmp_path_factory) -> Path:
    """Return a folder with `runs/default/tokenizer`: the small run's tokens and model, with the codes of the page."""
    place = tmp_path_factory.mktemp("examples")
    with_named_codes(finished_run[0] / "tokenizer", place / "runs" / "default" / "tokenizer")
    return place


@pytest.mark.integration
def test_every_example_runs(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    names: dict = {"__name__": "examples"}
    found = examples()
    assert [language for language, _, _ in found].count("python") >= 7
    for language, line, text in found:
        if language == "python":
            # Errors name the line of the page. No example may yield [UNK], of which a warning tells.
            with warnings.catch_warnings():
                warnings.simplefilter("error", UnknownCodeWarning)
                exec(compile("\n" * (line - 1) + text, str(PAGE), "exec"), names)
        else:
            python, flag, module, *arguments = shlex.split(text.replace("\\\n", " "))
            assert (language, python, flag) == ("bash", "python", "-m")
            done = run_module(module, *arguments, cwd=workplace)
            assert done.returncode == 0, f"line {line}: {done.stderr}"
    printed = capsys.readouterr().out
    for told in (
        "(1, 'ICD10CM/E11.9', 'table'), (2, 'ICD9CM/250.00', 'table')",
        "(2, 28)",
        "17 ICD10CM/E11.9 [TIME] ICD10CM/I10",
        "ancestor ICD10CM/E11.9",
    ):
        assert told in PAGE.read_text()
        assert told in printed
    for told in ("'0010' is a code of several systems: ICD9CM/001.0, ICD9Proc/00.10", "model: text+graph", "nonsense"):
        assert told in printed
    assert load(workplace / "runs" / "default" / "tokenizer").fingerprint
