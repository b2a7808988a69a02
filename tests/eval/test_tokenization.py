"""The command line and the reports, on a tokenizer directory of real codes with random tokens."""

import io
import json
import re

import pytest
from rich.console import Console

from eval import tokenization
from eval.quality.label_building import GIVEN_TREE
from eval.quality.tree_metrics import SAME_CATEGORY
from eval.reports.quality import markdown
from medtok_jax.lookup import directory
from preprocessing import medtok_codes
from preprocessing.common.errors import InputError
from tests.helpers import hand_world, small_tokenizer
from tests.helpers.forked import run_module
from tests.helpers.small_run import DATA_SET


@pytest.fixture(scope="module")
def tokenizer(data_dir, tmp_path_factory):
    """Random tokens of the codes of a small data set."""
    builder = medtok_codes.open_prepared(DATA_SET, data_dir)
    keys = sorted(example["key"].decode() for split in ("train", "test") for example in builder.as_data_source(split))
    path = tmp_path_factory.mktemp("quality") / "tok"
    tokens = small_tokenizer.make_tokens(keys, embeddings=True)
    name = {"name": DATA_SET, "fingerprint": medtok_codes.fingerprint(builder)}
    directory.write(path, tokens, small_tokenizer.about() | {"data_set": name})
    return path


def run(*arguments):
    return run_module("eval.tokenization", *arguments)


@pytest.mark.integration
def test_the_command(tokenizer, data_dir, tmp_path):
    output = tmp_path / "out"
    flags = (f"--tokenizer={tokenizer}", f"--data_dir={data_dir}", f"--output={output}")
    done = run(*flags, f"--other_seeds={tokenizer}", "--split=validation", "--quick")
    assert done.returncode == 0, done.stderr
    report = json.loads((output / "quality.json").read_text())
    assert report["split"] == "validation"
    assert report["labels"]["data_set"] == DATA_SET
    families = {figure["family"] for figure in report["figures"]}
    assert families >= {"codebook", "identity", "tree", "prefixes", "seeds"}
    for figure in report["figures"]:
        assert figure["n"] > 0
        if figure["value"] == figure["value"]:
            assert figure["low"] <= figure["high"]
        of_tree = figure["family"] == "tree" or figure["metric"] == SAME_CATEGORY
        assert of_tree == (figure["given"] == GIVEN_TREE)
        assert figure["trained"] == ""
    text = (output / "quality.md").read_text()
    assert "| ICD10CM | same-category 1-NN |" in text
    assert GIVEN_TREE in text
    for name in ("codebook.png", "figures.png", "tree.png"):
        assert f"![{name}]({name})" in text
        assert (output / name).stat().st_size > 5000
    assert sorted(path.name for path in output.iterdir()) == [
        *("codebook.png", "figures.png", "quality.json", "quality.md", "tree.png"),
    ]


@pytest.mark.integration
def test_bad_input_is_told_in_a_sentence(tokenizer, data_dir, tmp_path):
    flags = {"tokenizer": tokenizer, "data_dir": data_dir, "output": tmp_path / "out"}
    (tmp_path / "file").touch()
    for change, told in (
        ({"output": None}, "--output is missing"),
        ({"data_dir": tmp_path}, "build it with"),
        ({"output": tmp_path / "file" / "out"}, "cannot be written"),
    ):
        given = {name: value for name, value in (flags | change).items() if value is not None}
        done = run(*(f"--{name}={value}" for name, value in given.items()))
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert told in done.stderr
        assert "measuring" not in done.stdout
    with pytest.raises(InputError, match="'identiy', which is not a family"):
        tokenization._metrics(["identiy"])


def test_the_report_in_plain_values_and_as_markdown():
    """Figures stand beside each other by view, with intervals, items and what was given."""
    labels = hand_world.labels(counts={"pairs": 1234})
    report = tokenization.judge(hand_world.representation(), labels, metrics=["tree", "groups"])
    assert json.loads(json.dumps(report)) == report
    text = markdown(report, ["a.png"])
    assert "- pairs: 1,234" in text
    assert text.rstrip().endswith("![a.png](a.png)")
    one = {(f["metric"], f["scope"], f["view"]): f for f in report["figures"]}
    views = [
        one["same-category 1-NN", "ICD10CM", view] for view in ("vectors", "tokens", "unweighted tokens", "unquantized")
    ]
    cells = " | ".join(f"{f['value']:.3f} [{f['low']:.3f}, {f['high']:.3f}]" for f in views)
    assert f"| ICD10CM | same-category 1-NN | {cells} | 0.015 | {views[0]['n']} codes | {GIVEN_TREE} |" in text


def test_tables_mark_what_was_trained_on_and_given():
    """The tree is given, and crosswalks were in the loss: each is told in a column of its own, or marked."""
    about = {"kind": "hand-made", "trained_on": ["gem_exact"]}
    report = tokenization.judge(
        hand_world.representation(about=about), hand_world.labels(), metrics=tokenization.FAMILIES
    )
    text = markdown(report)
    rows = [line for line in text.splitlines() if line.startswith("| ICD9CM to ICD10CM | R@1 |")]
    assert [row.endswith("| TRAINED on other pairs of this kind: gem_exact |") for row in rows] == [True]
    shorter = [line for line in text.splitlines() if line.startswith("| ICD9CM to ICD10CM, 4 tokens | R@1 |")]
    assert [row.endswith("| no | TRAINED on other pairs of this kind: gem_exact |") for row in shorter] == [True]
    assert "| all systems, 4 tokens | same-category 1-NN |" in text
    shown = Console(record=True, width=200, file=io.StringIO())
    tokenization._print(shown, report)
    told = shown.export_text()
    assert re.search(r"ICD9CM to ICD10CM †\s+│ R@1", told)
    assert re.search(r"all systems \*\s+│ same-category 1-NN", told)
    assert "† TRAINED on other pairs of this kind: gem_exact" in told


def test_the_same_every_time_and_for_a_part_of_the_codes():
    """Drawn are codes by their keys, so that a smaller vocabulary is asked about the same ones."""
    whole, labels = hand_world.representation(), hand_world.labels()
    assert tokenization.judge(whole, labels) == tokenization.judge(hand_world.representation(), labels)
    found = {m.name: m for m in tokenization.measure(whole, labels, quick=True)}
    rows = [row for row in range(len(whole)) if row % 7]
    part = {m.name: m for m in tokenization.measure(whole.take(rows), labels, quick=True)}
    assert set(part) == set(found)
    for name in (
        ("cross_system", "R@1", "vectors", "ICD9CM to ICD10CM"),
        ("groups", "macro accuracy", "vectors", "CCS"),
    ):
        assert len(set(part[name].items.tolist()) & set(found[name].items.tolist())) == len(part[name].items)
