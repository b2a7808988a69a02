"""Every example of docs/tokenization_examples.md, run in order with a model that was trained."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medtok_jax.inference.model_reader import load
from medtok_jax.lookup import directory
from medtok_jax.lookup.directory import TokenizerDirectory, Tokens
from tests.helpers.paths import ROOT

PAGE = ROOT / "docs" / "tokenization_examples.md"
# Codes that the page names; the data set of the tests may lack them.
NAMED = ("ICD10CM/E11.8", "ICD10CM/E11.9", "ICD10CM/E11.65", "ICD10CM/I10", "ICD10CM/N18.6", "ICD9CM/250.00")
NAMED += ("ICD9CM/401.9", "ICD9CM/401.0", "ICD9CM/001.0", "ICD9Proc/00.10")


def examples() -> list[tuple[str, int, str]]:
    """Language, line and text of every fenced block."""
    text = PAGE.read_text()
    blocks = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(block[1], text[: block.start()].count("\n") + 2, block[2]) for block in blocks]


@pytest.fixture(scope="module")
def workplace(finished_run, tmp_path_factory) -> Path:
    """A folder with `runs/default/tokenizer`: the small run's tokens and model, some under the names on the page."""
    trained = TokenizerDirectory.read(finished_run[0] / "tokenizer")
    strings = {name: np.array(trained.table[name].to_pylist()) for name in directory.STRINGS}
    strings = {name: array.astype(object) for name, array in strings.items()}
    others = [row for row, key in enumerate(strings["key"]) if key not in NAMED]
    missing = [key for key in NAMED if key not in strings["key"]]
    for row, key in zip(others, missing, strict=False):
        strings["key"][row], (strings["system"][row], strings["code"][row]) = key, key.split("/")
    flags = {name: np.array(trained.table[name].to_pylist()) for name in directory.FLAGS}
    tokens = Tokens(strings=strings, ids=trained.ids, weights=trained.weights, codebook=trained.codebook, **flags)
    about = {field.name: getattr(trained.config, field.name) for field in dataclasses.fields(trained.config)}
    for name in ("identity", "codes", "systems", "embedding_dim", "special_tokens", "files"):
        del about[name]

    def add(folder: Path) -> None:
        for name in ("model.safetensors", "model_config.json"):
            shutil.copy(trained.path / name, folder / name)
        shutil.copytree(trained.path / "graph", folder / "graph")

    place = tmp_path_factory.mktemp("examples")
    directory.write(place / "runs" / "default" / "tokenizer", tokens, about, add)
    return place


def test_every_example_runs(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    names: dict = {"__name__": "examples"}
    found = examples()
    assert [language for language, _, _ in found].count("python") >= 7
    for language, line, text in found:
        if language == "python":
            # Errors name the line of the page.
            exec(compile("\n" * (line - 1) + text, str(PAGE), "exec"), names)
        else:
            assert language == "bash"
            command = text.replace("python -m", f"{sys.executable} -m")
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"line {line}: {done.stderr}"
    printed = capsys.readouterr().out
    for told in ("(1, 'ICD10CM/E11.9', 'table'), (2, 'ICD9CM/250.00', 'table')", "(2, 132)", "ancestor ICD10CM/E11.9"):
        assert told in PAGE.read_text()
        assert told in printed
    for told in ("'0010' is a code of several systems: ICD9CM/001.0, ICD9Proc/00.10", "model: text+graph", "nonsense"):
        assert told in printed
    assert load(workplace / "runs" / "default" / "tokenizer").fingerprint
