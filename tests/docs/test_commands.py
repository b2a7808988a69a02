"""Run every command of the README and the documentation, with small data in place of downloads and long trainings.

Each command runs in a folder of its own, which holds what its arguments name. Overrides make it small; they are added
behind the documented arguments, so that a flag that does not exist fails. A command that no rule covers fails too.
"""

import hashlib
import importlib
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from tests.helpers import mimic_copies, official_files, small_ethos, small_visits, source_copies
from tests.helpers.command_stops import (
    stop_before_data,
    stop_before_measuring,
    stop_before_records,
    stop_before_training,
    train_baselines_briefly,
    write_training_commands,
)
from tests.helpers.commands import Command, collect
from tests.helpers.forked import run_module
from tests.helpers.named_codes import with_named_codes
from tests.helpers.paths import ROOT
from tests.helpers.published import write_release
from tests.helpers.small_run import DATA_SET

pytestmark = [pytest.mark.integration, pytest.mark.thorough]
pytest.importorskip("torch")
pytest.importorskip("polars")

COMMANDS = collect()
TRAINING = "python -m medtok_jax.main --config=configs/default.py --workdir=runs/default"
PIPELINE = "python -m preprocessing.pipeline --output=data --full"
TO_TORCH = "python -m medtok_jax.convert --workdir=runs/default --to=pytorch --output=torch"
TO_ETHOS = "python -m medtok_jax.convert --workdir=runs/default --to=ethos --events=mimic4_meds --output=ethos"
EVALUATION = "python -m eval.tokenization --tokenizer=tokenizer --output=quality --split=validation"
BASELINE = "python -m eval.baselines --kind=raw_text --output=baselines/raw_text"
SMALL_ETHOS = ["--width=64", "--n_layer=1", "--n_head=2", "--n_positions=8"]
# Flags of what a command writes.
OUTPUTS = {"medtok_jax.main": ("workdir",), "preprocessing.medtok_codes": ("data_dir",)}


def overrides(config: ConfigDict) -> list[str]:
    """Return the flags that make the default configuration, or any other one, this one."""
    names = ("data", "model", "loss", "augment", "train")
    values = [(f"{part}.{name}", value) for part in names for name, value in config[part].items()]
    return [f"--config.{name}={value}" for name, value in values if name not in ("data.name", "data.data_dir")]


class World:
    """Everything that commands read, and the folders in which they run.

    Attributes:
        stage: holds inputs under the names that the documentation gives them.
        data_dir: holds the small data set.
        given: files as the pipeline would download them.
        small: flags of the configuration of the finished run.
    """

    def __init__(self, folder: Path, data_dir: Path, run: Path, config: ConfigDict):
        self.folder, self.data_dir = folder, data_dir
        self.stage = folder / "stage"
        self.given = folder / "given"
        self.small = overrides(config)
        self.done: dict[str, Path] = {}
        self.stage.mkdir()
        for name in ("configs", "launch"):
            (self.stage / name).symlink_to(ROOT / name)
        official_files.write_all(self.given)
        write_release(self.given)
        self._write_records()
        self._write_run(run)
        self._write_products()

    def _write_records(self) -> None:
        """Write files of codes and of patients."""
        codes = "patient,code,system\n1,E119,ICD10CM\n1,250.00,\n2,nonsense,\n"
        for name in ("codes.csv", "I.csv"):
            (self.stage / name).write_text(codes)
        (self.stage / "C.json").write_text(json.dumps([{"code": "ICD10CM/E11.9"}, {"code": "ICD9CM/250.00"}]))
        for name in ("mimic3", "mimic4"):
            mimic_copies.write(self.stage / name, name, capitals=False, gzipped=True)
        for version, directory in (
            ("mimic4", "mimiciv/3.1"),
            ("mimic3", "mimiciii/1.4"),
            ("mimic3", "mimiciii-demo/1.4"),
        ):
            root = self.given / "physionet.org" / "files" / directory
            mimic_copies.write(root, version, capitals=version == "mimic3", gzipped="demo" not in directory)
            files = sorted(path for path in root.rglob("*") if path.is_file())
            lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()} {f.relative_to(root).as_posix()}\n" for f in files]
            (root / "SHA256SUMS.txt").write_text("".join(lines))
        source_copies.eicu(self.given / "physionet.org" / "files" / "eicu-crd-demo" / "2.0.1")
        source_copies.diabetes130(self.given / "diabetes130")
        source_copies.eicu(self.stage / "eicu_demo")
        source_copies.diabetes130(self.stage / "diabetes130")
        source_copies.ehrshot(self.stage / "EHRSHOT_ASSETS")
        splits = {1: "train", 2: "tuning", 3: "train", 4: "held_out", 5: "train"}
        small_visits.write(self.stage / "mimic4_meds", files=2, splits=splits)
        for name in ("M", "mimic3_meds"):
            (self.stage / name).symlink_to("mimic4_meds")
        small_visits.write_labels(self.stage / "benchmark" / "labels" / "mortality" / "labels.parquet")
        events = [("HOSPITAL_ADMISSION", 0), ("ICD//CM//E11", 1), ("ICD//CM//3-6//9", 1), ("TIMELINE_END", 2)]
        for part in ("train", "test"):
            small_ethos.write_tokenized(self.stage / "tokenized" / part, [events] * 30)

    def _write_run(self, finished: Path) -> None:
        """Give a copy of the finished run all the names that runs and tokenizers have in the documentation."""
        run = self.stage / "runs" / "default"
        shutil.copytree(finished, run, ignore=shutil.ignore_patterns("tokenizer"))
        with_named_codes(finished / "tokenizer", run / "tokenizer")
        for name in ("runs/held_out", "runs/quickstart", "runs/tuned", "runs/longer", "O", "R", "OLD", "NEW"):
            (self.stage / name).symlink_to(run)
        for name in ("tokenizer", "held_out"):
            (self.stage / name).symlink_to(run / "tokenizer")

    def _write_products(self) -> None:
        """Keep what some commands write for the commands that read it."""
        (self.stage / "data").symlink_to(self.run(PIPELINE) / "data")
        (self.stage / "medtok_tuned").symlink_to(self.run(TO_TORCH) / "torch")
        (self.stage / "ethos_medtok").symlink_to(self.run(TO_ETHOS) / "ethos")
        (self.stage / "baselines").symlink_to(self.run(BASELINE) / "baselines")

    def run(self, text: str) -> Path:
        """Run a command, unless it has run, and return the folder in which it ran."""
        # A conversion to another directory is the same conversion.
        key = re.sub(r" --output=\S+", "", text) if "medtok_jax.convert" in text else text
        if key not in self.done:
            folder = self.folder / f"case-{len(self.done)}"
            folder.mkdir()
            self.done[key] = folder
            words = shlex.split(text)
            rule = next((rule for start, rule in RULES.items() if words[: len(start)] == list(start)), None)
            if rule is None:
                pytest.fail(f"no rule of {Path(__file__).name} runs this command: {text}")
            rule(self, words, folder)
        return self.done[key]

    def python(
        self, words: list[str], folder: Path, *more: str, prepare: Callable | None = None, status: int = 0
    ) -> None:
        """Run `python -m MODULE ...` with further arguments."""
        module, arguments = words[2], words[3:]
        self.provide(module, arguments, folder)
        env = os.environ | {"TFDS_DATA_DIR": str(self.data_dir), "COLUMNS": "120", "JAX_PLATFORMS": "cpu"}
        done = run_module(module, *arguments, *more, cwd=folder, env=env, timeout=900, prepare=prepare)
        told = f"{shlex.join([*words, *more])} ended with status {done.returncode}"
        assert done.returncode == status, f"{told}:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"

    def provide(self, module: str, arguments: list[str], folder: Path) -> None:
        """Link what the arguments name into a folder, except what the command writes."""
        pairs = [argument.lstrip("-").partition("=") for argument in arguments]
        written = {value for name, _, value in pairs if name in ("output", *OUTPUTS.get(module, ()))}
        for flag, _, value in pairs:
            for name in (value or flag).partition(":")[0].split(","):
                if name and name not in written and (self.stage / name).exists():
                    self._link(Path(name), {Path(output) for output in written}, folder)

    def _link(self, name: Path, written: set[Path], folder: Path) -> None:
        target = folder / name
        if any(name in output.parents for output in written):
            target.mkdir(parents=True, exist_ok=True)
            for path in (self.stage / name).iterdir():
                self._link(name / path.name, written, folder)
        elif name not in written and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to((self.stage / name).resolve())


def small_names(words: list[str]) -> list[str]:
    """Return a command with the small data set in place of all embedded codes, and `D` in place of no directory."""
    words = [re.sub(r"medtok_codes/icd(-holdout\w+)*(?![\w-])", DATA_SET, word) for word in words]
    return [word for word in words if word != "--config.data.data_dir=D"]


def only_help(world: World, words: list[str], folder: Path) -> None:
    """Run a module that is only mentioned, without arguments, with --help."""
    world.python(words[:3], folder, "--help")


def mentioned(rule: Callable) -> Callable:
    """Return a rule that shows the help where the command has no arguments."""

    def chosen(world: World, words: list[str], folder: Path) -> None:
        (rule if len(words) > 3 else only_help)(world, words, folder)

    return chosen


def plain(*more: str, **options) -> Callable:
    """Return a rule that runs a module with further arguments."""
    return mentioned(lambda world, words, folder: world.python(small_names(words), folder, *more, **options))


@mentioned
def training(world: World, words: list[str], folder: Path) -> None:
    """Train until the data would be read; by the first command, until everything is set up for the first step."""
    given = small_names(words)
    named = any(word.startswith("--config.data.name=") for word in given)
    data = [] if named else [f"--config.data.name={DATA_SET}"]
    sample = ["--config.data.sample_size=0", "--config.data.include=()"]
    prepare = stop_before_training if shlex.join(words) == TRAINING else stop_before_data
    world.python(given, folder, *data, *sample, *world.small, prepare=prepare)


@mentioned
def tokenizing(world: World, words: list[str], folder: Path) -> None:
    """Run a command of the tokenizer; one without arguments is a mention."""
    if len(words) == 4:
        only_help(world, words, folder)
    else:
        world.python(words, folder)


@mentioned
def ablations(world: World, words: list[str], folder: Path) -> None:
    """Run the ablations, and check the trainings that they start."""
    if "--output=ablations" in words and not any(word.startswith("--cells") for word in words):
        words = [*words, "--cells=default,graph_off"]
    world.python(words, folder, prepare=write_training_commands, status=1)
    started = json.loads((folder / "started.json").read_text())
    assert {Path(command[2]).name.partition(":")[2] for command in started} == {"default", "graph_off"}
    for command in started[:2]:
        training(world, ["python", *small_names([word for word in command if "data_dir" not in word])], folder)


def speed(world: World, words: list[str], folder: Path) -> None:
    """Run a benchmark to where it begins to measure; tests/eval/speed measures."""
    if len(words) == 3:
        return only_help(world, words, folder)
    config = [] if any(word.startswith("--config=") for word in words) else ["--config=configs/default.py"]
    words = [*words[:4], *config, *words[4:]]
    more = ["--quick", "--num_codes=400", *world.small, f"--config.data.name={DATA_SET}"]
    return world.python(words, folder, *more, prepare=stop_before_measuring)


@mentioned
def converting(world: World, words: list[str], folder: Path) -> None:
    """Run a conversion; the first model of ETHOS is a small one."""
    world.python(words, folder, *(SMALL_ETHOS if "--to=ethos" in words else []))


def installing(world: World, words: list[str], folder: Path) -> None:
    """Check that the extras of `pip install` exist; installing itself is what launch/test.sh does."""
    assert words[2] == "-e"
    known = set(re.findall(r'^        "([\w-]+)": ', (ROOT / "setup.py").read_text(), re.M))
    extras = {name for group in re.findall(r"\[([\w,-]+)\]", words[3]) for name in group.split(",")}
    assert extras <= known


def script(world: World, words: list[str], folder: Path) -> None:
    """Run a script of `launch` in an environment that is installed, and the Python commands that it starts."""
    environment = folder / "venv"
    tools = environment / "bin"
    tools.mkdir(parents=True)
    for name in ("python", "ruff"):
        (tools / name).write_text('#!/bin/bash\nprintf "%s\\n" "$(basename "$0") ${*@Q}" >> "$CALLS"\n')
        (tools / name).chmod(0o755)
    (tools / "activate").write_text(f"PATH={shlex.quote(str(tools))}:$PATH\n")
    for name in ("quickstart", "test"):
        (environment / f".installed-{name}").touch()
    calls = folder / "calls"
    given = os.environ | {"VENV": str(environment), "CALLS": str(calls)}
    done = subprocess.run(["bash", words[0]], cwd=ROOT, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    started = [shlex.split(line) for line in calls.read_text().splitlines()]
    assert started
    for command in started:
        if command[:2] == ["python", "-m"]:
            world.run(shlex.join(command))


def checking_pytest(world: World, words: list[str], folder: Path) -> None:
    """Check marks, plugins and paths of a run of pytest, which itself runs inside of one."""
    settings = (ROOT / "pyproject.toml").read_text()
    for name, value in itertools.pairwise(words[3:]):
        if name == "-m":
            assert f'"{value.split()[-1]}:' in settings
    for word in words[3:]:
        if word.startswith("tests/"):
            assert (ROOT / word).exists()
    if any(word.startswith("--numprocesses") for word in words):
        assert importlib.util.find_spec("xdist")


def linting(world: World, words: list[str], folder: Path) -> None:
    """Check that ruff knows the command."""
    program = shutil.which("ruff") or str(Path(sys.executable).with_name("ruff"))
    done = subprocess.run([program, *words[1:-1], "--help"], capture_output=True, check=False)
    assert done.returncode == 0


def tool(world: World, words: list[str], folder: Path) -> None:
    """Check that a tool is installed and that the folders it is given exist; CI runs it."""
    assert shutil.which(words[0]) or Path(sys.executable).with_name(words[0]).exists()
    for word in words[1:]:
        assert word.startswith("-") or (ROOT / word).is_dir()


def dependencies(world: World, words: list[str], folder: Path) -> None:
    """Check the arguments of launch/dependencies.sh, which tests/launch/ runs with stand-ins."""
    assert (ROOT / words[0]).is_file()
    assert words[1] in ("lowest", "pinned")
    assert words[2].startswith("python3")


def writing_the_page(world: World, words: list[str], folder: Path) -> None:
    """Make the page of the configuration; test_pages.py compares it with the file that the command writes."""
    assert importlib.import_module(words[2]).page().startswith("# Configuration")


def board(world: World, words: list[str], folder: Path) -> None:
    """Let TensorBoard inspect the logs instead of serving them."""
    world.provide("tensorboard", words[1:], folder)
    world.provide("tensorboard", [f"x={words[2]}"], folder)
    done = run_module("tensorboard.main", *words[1:], "--inspect", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "total_loss" in done.stdout


def copying(world: World, words: list[str], folder: Path) -> None:
    """Copy into a checkout, of which only the folders are there."""
    (folder / words[3]).mkdir(parents=True)
    done = subprocess.run([*words[:2], str(world.stage / words[2]), words[3]], cwd=folder, check=False)
    assert done.returncode == 0


def elsewhere(world: World, words: list[str], folder: Path) -> None:
    """Check that what a program of other authors reads has been written: files of the conversion, by their names."""
    program = Path(next(word for word in words if word.startswith("ethos_"))).name
    read = {
        "ethos_train": ("data_fp",),
        "ethos_infer": ("input_dir",),
        "ethos_tokenize": ("--config-dir",),
        "infer_samples.py": ("input_dir", "+dataset_kwargs.labels"),
    }[program]
    values = dict(word.split("=", 1) for word in words if "=" in word)
    for name in read:
        assert (world.stage / values[name]).is_dir(), f"{name}={values[name]}"
    if words[0] == "python":
        assert (world.stage / words[1]).is_file()
    if program == "ethos_tokenize":
        found = list((world.stage / values["--config-dir"]).rglob(f"{values['dataset']}.yaml"))
        assert len(found) == 1
    if program == "ethos_train":
        assert (world.stage / values["out_dir"] / "recent_model.pt").is_file()


def changing(world: World, words: list[str], folder: Path) -> None:
    """Change a line by the expression that is meant for a file of other authors."""
    _, _, expression, path = words
    assert path.startswith("ethos-ares/")
    found, written = expression.split("/")[1:3]
    done = subprocess.run(["sed", expression], input=f"x = {found}\n", capture_output=True, text=True, check=True)
    assert done.stdout == f"x = {written}\n"


def publishing(world: World, words: list[str], folder: Path) -> None:
    """Check the form of what is published with the hub's own program, which asks for an account."""
    assert words[1:3] == ["auth", "login"] or (words[1] == "upload" and len(words) == 5)


def cloning(world: World, words: list[str], folder: Path) -> None:
    """Check that the repository is the one that the conversion names."""
    sources = (ROOT / "medtok_jax" / "convert").rglob("*.py")
    assert any(words[2] in path.read_text(encoding="utf-8") for path in sources)


def making_graph(world: World, words: list[str], folder: Path) -> None:
    """Check that the conversion wrote the script, which needs DGL."""
    [text] = [command.text for command in COMMANDS if "--to=mult_ehr" in command.text]
    path = world.run(text) / words[1]
    compile(path.read_text(encoding="utf-8"), str(path), "exec")


def setting(world: World, words: list[str], folder: Path) -> None:
    """Check that a variable is set."""
    assert re.fullmatch(r"[A-Z_]+=\w+", words[1])


def downloading(world: World, words: list[str], folder: Path) -> None:
    """Take files from a folder in place of the network; `list` needs neither."""
    more = [] if words[3:] == ["list"] else ["--offline", f"--from_dir={world.given}"]
    world.python(words, folder, *more)


def judging(world: World, words: list[str], folder: Path) -> None:
    """Evaluate or compare tokenizers: by all metrics with the first command, by the cheapest ones with the others."""
    if len(words) == 3:
        return only_help(world, words, folder)
    cheap = [] if shlex.join(words) == EVALUATION else ["--metrics=codebook,identity"]
    more = ["--quick", f"--data_dir={world.data_dir}", *cheap]
    return world.python(words, folder, *more, prepare=train_baselines_briefly)


def benchmarking(world: World, words: list[str], folder: Path) -> None:
    """Run a benchmark on patients to where it opens the records; tests/eval/ehr fits models."""
    if len(words) == 3:
        return only_help(world, words, folder)
    return world.python(words, folder, prepare=stop_before_records)


def mimic(world: World, words: list[str], folder: Path) -> None:
    """Take MIMIC from files of invented patients in place of PhysioNet."""
    directory = "mimiciii-demo" if "--demo" in words else "mimiciii" if "--version=mimic3" in words else "mimiciv"
    shutil.copytree(world.given / "physionet.org" / "files" / directory, folder / "given")
    world.python(words, folder, f"--from_dir={folder / 'given'}")


# The beginning of a command, and what runs it.
RULES: dict[tuple[str, ...], Callable[[World, list[str], Path], None]] = {
    ("python", "-m", "medtok_jax.main"): training,
    ("python", "-m", "medtok_jax.tokenize"): tokenizing,
    ("python", "-m", "medtok_jax.report"): plain("--max_codes=60"),
    ("python", "-m", "medtok_jax.convert"): converting,
    ("python", "-m", "preprocessing.pipeline"): downloading,
    ("python", "-m", "preprocessing.download"): downloading,
    ("python", "-m", "preprocessing.process_codes"): plain(),
    ("python", "-m", "preprocessing.descriptions"): plain(),
    ("python", "-m", "preprocessing.primekg"): plain(),
    ("python", "-m", "preprocessing.linking"): plain(),
    ("python", "-m", "preprocessing.medtok_codes"): plain(),
    ("python", "-m", "preprocessing.stats"): plain(),
    ("python", "-m", "preprocessing.json_export"): plain(),
    ("python", "-m", "preprocessing.meds"): plain(),
    ("python", "-m", "preprocessing.meds.generated"): plain("--subjects=200"),
    ("python", "-m", "preprocessing.meds.planted"): plain("--patients=24"),
    ("python", "-m", "preprocessing.mimic"): mimic,
    ("python", "-m", "eval.tokenization"): judging,
    ("python", "-m", "eval.compare"): judging,
    ("python", "-m", "eval.ehr.benchmark"): benchmarking,
    ("python", "-m", "eval.baselines"): plain(f"--codes={DATA_SET}", prepare=train_baselines_briefly),
    ("python", "-m", "eval.ablations"): ablations,
    ("python", "-m", "eval.faults"): only_help,
    ("python", "-m", "eval.speed"): speed,
    ("python", "-m", "pytest"): checking_pytest,
    ("python", "-m", "tests.helpers.configuration_page"): writing_the_page,
    ("python", "mult_ehr/make_graph.py"): making_graph,
    ("./launch/dependencies.sh",): dependencies,
    ("./launch/quickstart.sh",): script,
    ("./launch/test.sh",): script,
    ("pip", "install"): installing,
    ("tensorboard",): board,
    ("ruff",): linting,
    ("mypy",): tool,
    ("bandit",): tool,
    ("cp", "-r"): copying,
    ("export",): setting,
    # Programs of other authors, which need a network, an account, or a GPU.
    ("git", "clone"): cloning,
    ("hf",): publishing,
    ("torchrun",): elsewhere,
    ("sed", "-i"): changing,
    ("ethos_infer",): elsewhere,
    ("ethos_tokenize",): elsewhere,
    ("python", "ethos_medtok/ethos_stage/infer_samples.py"): elsewhere,
}


@pytest.fixture(scope="module")
def world(data_dir, run_config, finished_run, tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("commands"), data_dir, finished_run[0], run_config)


def test_commands_are_found():
    assert len(COMMANDS) > 90
    assert {command.page for command in COMMANDS} >= {"README.md", "docs/training.md", "docs/data.md"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}:{command.line}")
def test_the_command_runs(command: Command, world):
    world.run(command.text)


def test_an_unknown_command_fails(world):
    with pytest.raises(pytest.fail.Exception, match="no rule"):
        world.run("conda install medtok")
    with pytest.raises(AssertionError, match="ended with status 2"):
        world.run("python -m medtok_jax.tokenize verify --tokenizzer=tokenizer")
