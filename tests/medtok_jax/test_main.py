"""The command line: bad input gets one sentence and status 2, before any long work."""

import os
import re
import subprocess

import pytest

from medtok_jax import config as configuration
from preprocessing.common.errors import InputError
from tests.helpers.forked import run_module


def run(*arguments: str) -> subprocess.CompletedProcess:
    # It would start itself anew otherwise.
    return run_module("medtok_jax.main", *arguments, env=os.environ | {"GLIBC_TUNABLES": ""})


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.train.epoch=5"], r"--config.train.epoch is not a field .* nearest is --config.train.epochs\."),
        (["--config.train.epochs=many"], r"--config.train.epochs=many: invalid literal"),
        (["--config=configs/absent.py"], r"There is no configuration file .*configs/absent.py; give another"),
        (["--config.model.num_top_k_tokens=4000"], r"model.num_top_k_tokens is 4000, so that .* only 6000 rows"),
        (["--config.model.text_encoder_model=/absent"], r"text encoder '/absent' is neither"),
        (["--config.data.name=medtok_codes/icdd"], r"did you mean 'medtok_codes/icd'"),
        (["--config=configs/paper.py"], r"doi:10.7910/DVN/7XNT3M"),
        (["--config.train.num_devices=99"], r"train.num_devices=99, but only"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, tmp_path):
    workdir = tmp_path / "run"
    done = run(*arguments, f"--workdir={workdir}", f"--config.data.data_dir={tmp_path / 'data'}")
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert re.search(sentence, lines[0])
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists(), "long work had begun"


@pytest.mark.integration
def test_a_batch_that_devices_cannot_share(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    done = run(f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert "train.batch_size=512 is not divisible by the 3 devices in use" in done.stderr


@pytest.mark.integration
def test_help_names_the_flags():
    done = run("--help")
    assert done.returncode == 0
    assert "--workdir" in done.stdout


def test_without_a_config_the_default_is_put_in_front():
    argv = ["main", "--workdir=x", "--config.train.lr=1"]
    configuration.check_arguments(argv)
    assert argv[1] == "--config=configs/default.py"


@pytest.mark.parametrize("argument", ["--noconfig.data.absent", "--config.train", "--config.lr=3"])
def test_overrides_that_name_no_field(argument):
    with pytest.raises(InputError, match=re.escape(argument.split("=")[0].lstrip("-").removeprefix("no"))):
        configuration.check_arguments(["main", "--config=configs/default.py", argument])
