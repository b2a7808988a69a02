"""Targets are complete, and one sentence says what is missing."""

import sys
import types

import pytest

from eval.speed import __main__ as command
from eval.speed.accelerators import targets
from eval.speed.accelerators.targets import PACKAGES, TARGETS
from preprocessing.common.errors import InputError, UserError
from preprocessing.common.extras import EXTRAS


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_target_is_complete(target):
    assert (
        target.rates["bfloat16"]
        >= target.rates["default"]
        >= target.rates["three passes"]
        > target.rates["float32"] / 2
    )
    assert 10**10 < target.memory < target.bandwidth < 10**13
    assert target.source
    assert all(package in EXTRAS for package in PACKAGES[target.platform])
    assert target.arithmetic_seconds({"bfloat16": 2 * target.rates["bfloat16"], "default": 0}) == 2


def test_a_gpu_is_described_in_the_fields_of_its_proto():
    text = TARGETS["h200"].config_text()
    assert text.startswith("gpu_device_info {\n  cuda_compute_capability { major: 9 minor: 0 }\n")
    assert "  memory_bandwidth: 4800000000000\n  device_memory_size: 141000000000\n  core_count: 132\n" in text
    assert text.endswith('platform_name: "CUDA"\ndevice_description_str: "NVIDIA H200"\n')


@pytest.mark.parametrize(
    ("name", "told"), [("v4:2x2x1", "there is no target 'v4:2x2x1'"), (None, "--target is missing")]
)
def test_an_unknown_target_is_told(name, told):
    with pytest.raises(InputError) as raised:
        targets.find(name)
    sentence = str(raised.value)
    assert sentence.startswith(f"{told}; the targets are v5e:2x4, v6e:2x4, v5p:2x2x1, h100, h200")
    assert "the extra tpu for tpu and the extra cuda-aot for cuda" in sentence


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("v5e:2x4", "libtpu", "tpu"), ("h100", "jax_cuda12_plugin", "cuda-aot"), ("h200", "nvidia.cuda_nvcc", "cuda-aot")],
)
def test_a_missing_wheel_names_its_extra(monkeypatch, name, package, extra):
    monkeypatch.setattr(targets, "_is_there", lambda wanted: wanted != package)
    with pytest.raises(
        InputError, match=rf"{package}, which is not installed; run: pip install 'medtok_jax\[{extra}\]'"
    ):
        targets.find(name)


def test_packages_are_looked_for_without_importing_them(monkeypatch):
    assert targets._is_there("json")
    assert not targets._is_there("no_such_package.inside")
    monkeypatch.setitem(sys.modules, "json", None)
    assert not targets._is_there("json")


def test_broken_promises_end_the_command_each_on_its_line(monkeypatch, capsys):
    monkeypatch.setattr(command, "run", lambda name, given: {"broken": ["train: one.", "tokenize: two."]})
    monkeypatch.setattr(command.speed_report, "tables", lambda report: [])
    monkeypatch.setattr(command.flags, "FLAGS", types.SimpleNamespace(output=None, target="v5e:2x4"))
    with pytest.raises(UserError, match="v5e:2x4 breaks the promises above: 2") as told:
        command.main(["speed", "accelerators"])
    assert told.value.exit_status == 1
    assert capsys.readouterr().err.endswith("train: one.\ntokenize: two.\n")
