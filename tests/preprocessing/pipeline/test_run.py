"""The pipeline from official files in their true formats to a verified data set: run, repeated, changed and killed."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from preprocessing import medtok_codes
from preprocessing.common.errors import InputError, UserError
from preprocessing.dataset.known_codes import read_known_codes
from preprocessing.pipeline import run as pipeline
from preprocessing.pipeline.plans import PipelineLayout, PipelineOptions
from preprocessing.pipeline.stages import run_stages
from tests.helpers import official_files
from tests.helpers.forked import run_module
from tests.helpers.paths import ROOT
from tests.helpers.published import release_rows, write_release

# Every test starts from a pipeline that ran.
pytestmark = pytest.mark.integration

FULL = "medtok_codes/primekg"
STAGES = [
    *("codes", "primekg", "crossreferences", "process_codes", "descriptions"),
    *("graph", "linking", "dataset", "export", "verify"),
]
# Runs a module like `python -m`, and kills the process when it is about to give a file its final name for the nth time.
KILLER = """
import os, runpy, signal, sys
left = int(sys.argv.pop(1))
def deadly(rename):
    def renamed(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(*arguments, **options)
    return renamed
os.replace, os.rename = deadly(os.replace), deadly(os.rename)
module = sys.argv.pop(1)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Files as a person would fetch them."""
    return official_files.write_all(tmp_path_factory.mktemp("given"))


def run(output, given=None, name=FULL, only=(), **asked):
    """State of every stage."""
    asked = PipelineOptions(from_dir=given, progress=False, **asked)
    results = pipeline.run_pipeline(output, name, asked, Console(quiet=True), list(only))
    return {result.stage.name: result.state for result in results}


@pytest.fixture(scope="module")
def finished(given, tmp_path_factory):
    """A finished pipeline; tests must not change it."""
    output = tmp_path_factory.mktemp("pipeline")
    assert run(output, given, export_json=True) == dict.fromkeys(STAGES, "done")
    return output


def tree(folder):
    """Content of every file; a manifest tells the date on which its files were fetched."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def copy(finished, tmp_path):
    subprocess.run(["cp", "-a", finished, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


def test_from_files_to_a_verified_data_set(finished):
    with (finished / "processed_descriptions.csv").open(encoding="utf-8", newline="") as file:
        described = {f"{row['system']}/{row['code']}": row["description"] for row in csv.DictReader(file)}
    builder = medtok_codes.open_prepared(FULL, finished / "dataset")
    splits = {split: list(builder.as_data_source(split)) for split in ("train", "validation", "test")}
    examples = {example["key"].decode(): example for split in splits.values() for example in split}
    assert examples.keys() == described.keys()
    assert len({key.split("/")[0] for key in examples}) == 10
    for key, text in described.items():
        assert examples[key]["description"].decode() == (text or key.replace("/", " "))
    links = pq.read_table(finished / "links/links.parquet").to_pylist()
    linked = {row["key"] for row in links}
    assert linked == {key for key, example in examples.items() if len(example["nodes"])}
    diabetes = examples["ICD10CM/E11.9"]
    assert next(row["node_id"] for row in links if row["key"] == "ICD10CM/E11.9") == diabetes["nodes"][0] == 2
    assert set(diabetes["nodes"][diabetes["hops"] == 1].tolist()) == {0, 3, 5, 6}
    metformin = examples["RxNorm/6809"]
    assert metformin["nodes"][metformin["self_node"]] == 6


def test_data_sets_with_options_are_built_from_what_it_leaves(finished, tmp_path):
    whole = medtok_codes.open_prepared(FULL, finished / "dataset")
    name = f"{FULL}-nodes_3-hubs_2-sample_50"
    builder = medtok_codes.prepare(name, tmp_path, progress=False, source_dir=finished)
    assert builder.info.splits.total_num_examples == 50 < whole.info.splits.total_num_examples
    links = pq.read_table(finished / "links/links.parquet").to_pylist()
    for split in ("train", "validation", "test"):
        for example in builder.as_data_source(split):
            anchors = [row["node_id"] for row in links if row["key"] == example["key"].decode()]
            assert example["nodes"][example["hops"] == 0].tolist() == anchors[:3]
            assert len(example["nodes"]) <= 3
    assert medtok_codes.report_of(builder)["counts"]["codes"] == whole.info.splits.total_num_examples
    assert set(medtok_codes.report_of(builder)["links"]) == set(systems_of(finished))
    known = read_known_codes(builder)
    assert known.equals(read_known_codes(whole))
    kinds = Counter(known["kind"].to_pylist())
    assert kinds["code"] == whole.info.splits.total_num_examples
    assert kinds["category"] > 0
    assert kinds["retired"] == 0


def systems_of(finished):
    with (finished / "processed_codes/codes.csv").open(encoding="utf-8", newline="") as file:
        return {row["system"] for row in csv.DictReader(file)}


def test_what_it_leaves(finished):
    assert {path.name for path in finished.iterdir()} == {
        *("medical_codes", "primekg", "crossreferences", "processed_codes", "graph", "links", "dataset", "json"),
        *("stages", "processed_descriptions.csv", "processed_descriptions.rejects.csv", "graph.rejects.csv"),
        "verification.json",
    }
    assert sorted(path.stem for path in (finished / "stages").iterdir()) == sorted(STAGES)
    assert not [path for path in finished.rglob("*") if "partial" in path.name or "incomplete" in path.name]
    checks = {check["what"]: check for check in json.loads((finished / "verification.json").read_text())}
    assert checks["codes: SNOMED"] == {
        "what": "codes: SNOMED",
        "expected": "303,325",
        "found": "4",
        "verdict": "differs",
    }
    assert checks["sound subgraphs"]["verdict"] == "as expected"
    assert checks["codes with a graph, of those with nodes"]["verdict"] == "as expected"
    train = json.loads((finished / "json/train.json").read_text())
    assert len(train) == medtok_codes.open_prepared(FULL, finished / "dataset").info.splits["train"].num_examples


def test_a_finished_pipeline_does_nothing(finished, given):
    times = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert run(finished, given, export_json=True) == dict.fromkeys(STAGES, "done already")
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == times


def test_stages_run_again_when_what_they_read_or_wrote_is_another(finished, given, tmp_path):
    output = copy(finished, tmp_path)
    before = tree(output)
    kg = output / "primekg/kg.csv"
    kg.write_text(kg.read_text().replace("Dehydration", "Thirst"))
    states = run(output, name=FULL, only=STAGES[3:], export_json=True)
    assert [name for name in STAGES if states[name] == "done"] == ["graph", "linking", "dataset", "export", "verify"]
    assert tree(output)["json/graphs.jsonl"] != before["json/graphs.jsonl"]
    (output / "links/links.parquet").unlink()
    states = run(output, given, export_json=True)
    assert [name for name in STAGES if states[name] == "done"] == [
        *("primekg", "graph", "linking", "dataset", "export", "verify"),
    ]
    assert tree(output) == before


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(finished, given, tmp_path):
    killer = tmp_path / "killer.py"
    killer.write_text(KILLER)
    output = tmp_path / "output"
    flags = ["--full", "--export_json", f"--output={output}", f"--from_dir={given}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "3"}
    reached = []
    # Counted from where the run before had come; 0 is never reached.
    for renames in (9, 30, 7, 9, 5, 4, 3, 5, 0):
        command = [sys.executable, str(killer), str(renames), "preprocessing.pipeline", *flags]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == (-signal.SIGKILL if renames else 0), result.stderr
        reached.append(len(list((output / "stages").glob("*.json"))))
    assert len(set(reached)) > 4, reached
    assert tree(output) == tree(finished)


def test_only_some_stages(finished, given, tmp_path):
    output = copy(finished, tmp_path)
    (output / "graph" / "graph.json").unlink()
    states = run(output, only=["graph"])
    assert states.pop("graph") == "done"
    assert set(states.values()) == {"not asked for"}
    with pytest.raises(InputError, match=r"no stage 'grpah' here; the stages are codes, primekg"):
        run(output, only=["grpah"])
    with pytest.raises(
        InputError, match=r"the stage linking needs .*codes\.csv, which is not there; run the stage proc"
    ):
        run(tmp_path / "empty", only=["linking"])


def test_strict_minds_rejects_and_verdicts_also_of_finished_stages(finished, given, tmp_path):
    output = copy(finished, tmp_path)
    with pytest.raises(UserError, match=r"rows were rejected \(stages .*process_codes.* checks are off, the first of"):
        run(output, given, export_json=True, strict=True)


def test_what_needs_a_license_may_be_absent(given, tmp_path):
    folder = tmp_path / "given"
    subprocess.run(["cp", "-a", given, folder], check=True)
    for name in ("SNOMED", "CPT4"):
        subprocess.run(["rm", "-r", folder / name], check=True)
    run(tmp_path / "output", folder, only=STAGES[:5])
    with (tmp_path / "output/processed_descriptions.csv").open(encoding="utf-8", newline="") as file:
        assert not {"SNOMED", "CPT4"} & {row["system"] for row in csv.DictReader(file)}
    (folder / "kg.csv").unlink()
    states = run(tmp_path / "offline", folder, only=STAGES[:5], offline=True)
    assert states["descriptions"] == "done"
    with pytest.raises(InputError, match=r"needs .*kg\.csv, which is not there; run the stage primekg first"):
        run(tmp_path / "offline", folder, only=["graph"], offline=True)


def test_the_release(tmp_path):
    folder = write_release(tmp_path / "given")
    output = tmp_path / "output"
    name = "medtok_codes/release"
    assert set(run(output, folder, name=name).values()) == {"done"}
    builder = medtok_codes.open_prepared(name, output / "dataset")
    assert builder.info.splits.total_num_examples == len(release_rows())
    assert set(run(output, folder, name=name).values()) == {"done already"}


def test_a_stage_that_fails_is_told_in_the_table(given, tmp_path):
    layout = PipelineLayout(tmp_path)
    console = Console(record=True, width=130, file=open(os.devnull, "w"))  # noqa: SIM115
    stages = pipeline._STAGES["primekg"](layout, FULL, PipelineOptions(from_dir=given, progress=False))
    (tmp_path / "primekg").mkdir()
    (tmp_path / "primekg/kg.csv").write_text("relation\n")
    with pytest.raises(InputError, match="has no column"):
        run_stages(stages, tmp_path, console, only=["graph", "verify"])
    shown = [line for line in console.export_text().splitlines() if line.startswith("│")]
    states = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in shown}
    assert states["graph"] == "failed"
    assert states["verify"] == "not reached"
    assert states["codes"] == "not asked for"
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]


def command(*arguments):
    return run_module("preprocessing.pipeline", *arguments)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "--output is missing"),
        (["--output=x", "--full", "--release"], "exclude one another"),
        (["--output=x", "--full", "--codes=medtok_codes/icd"], "contradicts --full"),
        (["--output=/dev/null/x", "--full"], "cannot be written"),
    ],
)
def test_wrong_command_lines_exit_with_2_and_one_sentence(arguments, hint):
    result = command(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert hint in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_tells_the_stages():
    result = command("--help")
    assert result.returncode == 0
    assert "needs no network" in result.stdout
    assert "--from_dir" in result.stdout
