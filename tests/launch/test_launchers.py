"""The launchers give flags that the programs have: scripts run with stand-ins for the tools of a cluster."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from eval.speed.accelerators.targets import TARGETS
from medtok_jax.devices.compiled_step import CPU_OPTIONS
from tests.helpers.paths import ROOT

LAUNCH = ROOT / "launch"
# Parses a command line of the training program as it does itself.
PARSE = """
import json, sys
from absl import flags
from medtok_jax import config as configuration, main
configuration.check_arguments(sys.argv)
assert len(flags.FLAGS(sys.argv)) == 1, sys.argv
print(json.dumps([main.DISTRIBUTED.value, main.WORKDIR.value, main.NUM_PROCESSES.value, main.PROCESS_ID.value]))
"""
# Parses a command line of the benchmarks of speed as they do themselves.
PARSE_SPEED = """
import json, runpy, sys
from absl import flags
from eval.speed.benchmarks import named
from medtok_jax.devices import huge_pages
from preprocessing.common import command_line

def parse(main, check):
    check(sys.argv)
    _, name = flags.FLAGS(sys.argv)
    given = flags.FLAGS
    print(json.dumps([named(name), given.scale, given.encoder, given.num_codes, given.profile, given.output]))

huge_pages.restart_with_huge_pages = lambda: None
command_line.run = parse
runpy.run_module("eval.speed", run_name="__main__")
"""
# Says how it was called and does nothing.
STAND_IN = """#!/bin/bash
printf '%s\\0' "$(basename "$0")" "$@" >> "$CALLS"
printf '\\1' >> "$CALLS"
exit "${STATUS:-0}"
"""
ARGUMENTS = ["--config=configs/default.py:smoke", "--workdir=runs/a b", "--config.data.include=('ICD10CM/E11',)"]


def parse(arguments: list[str], program: str = PARSE) -> list:
    """Return what a program reads; that of training: distributed, workdir, num_processes, process_id."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def run_script(tmp_path):
    """Runs a script of `launch`: `run_script(name, *arguments, **environment) -> (status, calls of stand-ins)`."""
    tools, calls = tmp_path / "tools", tmp_path / "calls"
    tools.mkdir()
    for name in ("srun", "scontrol", "gcloud", "python"):
        (tools / name).write_text(STAND_IN)
        (tools / name).chmod(0o755)
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/activate").write_text("")
    for name in ("python", "uv"):
        (tmp_path / "venv/bin" / name).write_text(STAND_IN)
        (tmp_path / "venv/bin" / name).chmod(0o755)

    def run(name: str, *arguments: str, **environment: str) -> tuple[int, list[list[str]]]:
        calls.write_text("")
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        given = os.environ | {"PATH": path, "CALLS": str(calls), "VENV": str(tmp_path / "venv")} | environment
        command = ["bash", str(LAUNCH / name), *arguments]
        done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=False)
        told = [call.split("\0")[:-1] for call in calls.read_text().split("\1")[:-1]]
        return done.returncode, told

    return run


def arguments_of(command: list[str]) -> list[str]:
    place = command.index("medtok_jax.main")
    assert command[place - 2].endswith("python")
    assert command[place - 1] == "-m"
    return command[place + 1 :]


@pytest.mark.integration
def test_slurm(run_script):
    status, [call] = run_script("slurm.sbatch", *ARGUMENTS, SLURM_SUBMIT_DIR=str(ROOT), SLURM_JOB_ID="7")
    assert status == 0
    assert call[0] == "srun"
    assert arguments_of(call)[1:] == ARGUMENTS
    assert parse(arguments_of(call)) == [True, "runs/a b", None, None]


@pytest.mark.integration
def test_slurm_queues_a_job_again_that_was_stopped_in_time(run_script):
    variables = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7"}
    status, calls = run_script("slurm.sbatch", *ARGUMENTS, **variables, STATUS="143")
    assert status == 143
    assert calls[1] == ["scontrol", "requeue", "7"]
    status, calls = run_script("slurm.sbatch", *ARGUMENTS, **variables, STATUS="2")
    assert (status, len(calls)) == (2, 1)


def test_slurm_asks_for_as_many_processes_as_gpus():
    directives = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", (LAUNCH / "slurm.sbatch").read_text(), re.M)
    options = dict(directives)
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["signal"].startswith("TERM@")
    assert "requeue" in options


@pytest.mark.integration
def test_tpu_vm(run_script):
    status, [call] = run_script("tpu_vm.sh", "train", *ARGUMENTS, TPU="slice", ZONE="here", SHARE="host:/share")
    assert status == 0
    assert call[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "slice"]
    assert call[6:8] == ["--zone=here", "--worker=all"]
    words = shlex.split(call[8].removeprefix("--command="))
    assert "TFDS_DATA_DIR=/mnt/medtok/data" in words
    assert arguments_of(words)[1:] == ARGUMENTS
    assert parse(arguments_of(words)) == [True, "runs/a b", None, None]


@pytest.mark.integration
def test_tpu_vm_installs_on_all_workers(run_script):
    status, (copy, setup) = run_script("tpu_vm.sh", "install", SHARE="host:/share")
    assert status == 0
    assert copy[4] == "scp"
    assert copy[6] == "medtok:medtok_jax.tar.gz"
    assert copy[-1] == setup[-2] == "--worker=all"
    commands = setup[-1].removeprefix("--command=")
    assert subprocess.run(["bash", "-n", "-c", commands], check=False).returncode == 0
    assert "mount -t nfs host:/share /mnt/medtok" in commands
    assert extras(commands) <= known_extras()
    _, (_, setup) = run_script("tpu_vm.sh", "install")
    assert "nfs" not in setup[-1]


@pytest.mark.integration
def test_tpu_vm_creates_and_deletes(run_script):
    _, [create] = run_script("tpu_vm.sh", "create", ACCELERATOR="v5litepod-8", RUNTIME="v2-alpha-tpuv5-lite")
    assert create[4:6] == ["create", "medtok"]
    assert create[-2:] == ["--accelerator-type=v5litepod-8", "--version=v2-alpha-tpuv5-lite"]
    _, [delete] = run_script("tpu_vm.sh", "delete")
    assert delete[4:6] == ["delete", "medtok"]
    assert run_script("tpu_vm.sh", "everything") == (2, [])


@pytest.mark.integration
@pytest.mark.parametrize(
    ("versions", "chosen"),
    [("lowest", ["--resolution", "lowest-direct"]), ("pinned", ["--constraint", "constraints.txt"])],
)
def test_dependencies(run_script, tmp_path, versions, chosen):
    python = str(tmp_path / "venv/bin/python")
    status, calls = run_script("dependencies.sh", versions, python, "-x")
    assert status == 0
    made, _, (uv, *installed), _, tested = calls
    assert made == ["python", "-m", "venv", "--clear", str(tmp_path / "venv")]
    assert (uv, installed[-1]) == ("uv", ".[test]")
    place = installed.index(chosen[0])
    assert installed[place : place + 2] == chosen
    assert tested[1:3] == ["-m", "pytest"]
    assert tested[-1] == "-x"
    assert all((ROOT / word).exists() for word in tested if word.startswith("tests/"))
    assert run_script("dependencies.sh", "newest", python) == (2, [])
    assert run_script("dependencies.sh", versions) == (2, [])


def extras(text: str) -> set[str]:
    return {name for group in re.findall(r"\.\[([\w,]+)\]", text) for name in group.split(",")}


def known_extras() -> set[str]:
    return set(re.findall(r'^        "(\w+)": ', (ROOT / "setup.py").read_text(), re.M))


@pytest.mark.integration
def test_gke():
    documents = list(yaml.safe_load_all((LAUNCH / "gke.yaml").read_text()))
    claims = {document["metadata"]["name"] for document in documents if document["kind"] == "PersistentVolumeClaim"}
    sets = {document["metadata"]["name"]: document for document in documents if document["kind"] == "JobSet"}
    assert sets.keys() == {"medtok-tpu", "medtok-gpu"}
    for name, accelerator, resource in (
        ("medtok-tpu", "tpu", "google.com/tpu"),
        ("medtok-gpu", "gpu", "nvidia.com/gpu"),
    ):
        assert sets[name]["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
        assert sets[name]["metadata"]["labels"] == {"accelerator": accelerator}
        [job] = sets[name]["spec"]["replicatedJobs"]
        spec = job["template"]["spec"]
        hosts, pod = spec["parallelism"], spec["template"]["spec"]
        assert (spec["completions"], spec["completionMode"]) == (hosts, "Indexed")
        [container] = pod["containers"]
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] in claims
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert "/share" in mounts
        chips = container["resources"]["limits"][resource]
        command = [word.replace("$(JOB_COMPLETION_INDEX)", str(hosts - 1)) for word in container["command"]]
        found = parse(arguments_of(command))
        assert found[:2] == [True, "/share/runs/default"]
        if accelerator == "tpu":
            rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
            assert int(rows) * int(columns) == hosts * chips
        else:
            assert found[2:] == [hosts, hosts - 1]
            address = f"{name}-{job['name']}-0-0.{name}:8482"
            assert f"--coordinator_address={address}" in command
            assert container["ports"] == [{"containerPort": 8482}]


@pytest.mark.integration
def test_benchmark_gpu(run_script, tmp_path):
    folder = tmp_path / "a b"
    status, calls = run_script("benchmark_gpu.sh", str(folder), CODES="300", ARGUMENTS="--quick")
    assert status == 0
    assert all(call[:3] == ["python", "-m", "eval.speed"] for call in calls)
    read = [parse(call[3:], PARSE_SPEED) for call in calls]
    assert [(names, scale, encoder, profile) for names, scale, encoder, _, profile, _ in read] == [
        (["train"], "icd", None, True),
        (["tokenize"], "icd", None, True),
        (["train"], "release", "bert-base", True),
        (["tokenize"], "release", "bert-base", True),
        (["run"], "release", "bert-base", False),
    ]
    assert all(codes == 300 for *_, codes, _, _ in read)
    assert {output for *_, output in read} == {f"{folder}/default", f"{folder}/paper"}
    # Data of the size of the paper are generated once.
    assert len({word for call in calls for word in call if word.startswith("--folder=")}) == 1


@pytest.mark.integration
def test_benchmark_gpu_says_what_failed(run_script, tmp_path):
    status, calls = run_script("benchmark_gpu.sh", str(tmp_path / "out"), STATUS="2")
    assert (status, len(calls)) == (1, 5)
    status, calls = run_script("benchmark_gpu.sh", str(tmp_path / "out"), BUDGET="0")
    assert (status, calls) == (1, [])


@pytest.mark.integration
def test_flags_of_xla_are_known_to_the_pinned_jax():
    """Flags that XLA does not know end a process before it starts: it names them and aborts."""
    target = TARGETS["h200"]
    options = [f"--{name}={value}" for name, value in (CPU_OPTIONS | target.compiler_options()).items()]
    scripts = [path.read_text() for path in LAUNCH.iterdir()]
    given = [flag for text in scripts for flag in re.findall(r"--xla_\w+(?:=[\w.]+)?", text)]

    def start(flags: list[str]) -> subprocess.CompletedProcess:
        environment = os.environ | {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", "import jax; jax.devices()"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    known = start([*options, *given])
    assert known.returncode == 0, known.stderr
    unknown = start([*options, "--xla_gpu_there_is_no_such_flag=true"])
    assert unknown.returncode != 0
    assert "xla_gpu_there_is_no_such_flag" in unknown.stderr


def test_images():
    text = (LAUNCH / "Dockerfile").read_text()
    assert set(re.findall(r"^FROM \S+ AS (\w+)$", text, re.M)) == {"base", "cuda", "tpu"}
    assert extras(text) == {"data", "cuda", "tpu"} <= known_extras()
    for line in re.findall(r"^COPY (.+)$", text, re.M):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
    [entry] = re.findall(r"^ENTRYPOINT (.+)$", text, re.M)
    assert arguments_of(json.loads(entry)) == []


@pytest.mark.integration
@pytest.mark.parametrize("name", ["slurm.sbatch", "tpu_vm.sh", "gke.yaml", "Dockerfile"])
def test_commands_in_the_head_comments(name):
    """Arguments of training in the comments: those behind the script, the image, or the program itself."""
    lines = [line[1:].strip() for line in (LAUNCH / name).read_text().splitlines() if line.startswith("#")]
    text = re.sub(r"\\\s", " ", "\n".join(lines))
    starts = r"slurm\.sbatch|tpu_vm\.sh train|medtok:(?:cuda|tpu)"
    commands = [shlex.split(rest, comments=True) for rest in re.findall(rf"(?:{starts})((?: +--\S+)+)", text)]
    assert commands or name == "gke.yaml"
    for arguments in commands:
        parse(arguments)
    for extra in extras(text):
        assert extra in known_extras()
    for command in re.findall(r"python -m (\w+(?:\.\w+)+)", text):
        path = ROOT / command.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), command


@pytest.mark.integration
@pytest.mark.parametrize("name", ["slurm.sbatch", "tpu_vm.sh", "quickstart.sh", "test.sh", "environment.sh"])
def test_scripts_are_bash(name):
    done = subprocess.run(["bash", "-n", str(LAUNCH / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
