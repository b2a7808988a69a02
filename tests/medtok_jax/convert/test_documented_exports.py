"""Every documented conversion runs as it stands in the guide, whatever the width of the tokenizer's vectors."""

import importlib
import shlex
import shutil

import pytest

from medtok_jax.convert.__main__ import OPTIONS
from tests.helpers import mimic_copies, small_ethos, small_tokenizer, small_visits
from tests.helpers.commands import collect
from tests.helpers.forked import run_module

pytestmark = pytest.mark.integration
pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

# Everything that --to takes patient records for, and only the commands that do not read other exports.
COMMANDS = [
    command.text
    for command in collect()
    if "medtok_jax.convert" in command.text and "--events=mimic4" in command.text and "--to=" in command.text
]
# Targets of narrower nodes or embeddings than some default tokenizer has -> the width without --width.
NARROW = {"gt_behrt": 108, "behrt": 288, "mult_ehr": 128}
# A network of the documented width, but of one layer, so that the file is small.
FURTHER = {"ethos": ["--n_layer=1", "--n_positions=16"]}
CONFIGS = ("default", "pipeline")


def target_of(text: str) -> str:
    return next(word.removeprefix("--to=") for word in shlex.split(text) if word.startswith("--to="))


@pytest.fixture(scope="module", params=CONFIGS)
def world(request, tmp_path_factory):
    """A folder as the guide assumes it, with a tokenizer of the width of a configuration; and that width."""
    model = importlib.import_module(f"configs.{request.param}").get_config().model
    folder = tmp_path_factory.mktemp(request.param)
    tokens = small_tokenizer.make_tokens(dim=model.embedding_dim)
    small_tokenizer.write(folder / "runs" / "default" / "tokenizer", tokens)
    splits = {1: "train", 2: "tuning", 3: "train", 4: "held_out", 5: "train"}
    small_visits.write(folder / "mimic4_meds", files=2, splits=splits)
    mimic_copies.write(folder / "mimic4", "mimic4", capitals=False, gzipped=True)
    return folder, model.embedding_dim


def test_the_guide_names_every_target():
    assert {target_of(text) for text in COMMANDS} >= {*OPTIONS}


@pytest.mark.thorough
@pytest.mark.parametrize("text", COMMANDS, ids=lambda text: "-".join(shlex.split(text)[4:6]))
def test_documented_commands_run_for_every_default_tokenizer(text, world, tmp_path):
    folder, dim = world
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    target = target_of(text)
    if target == "ethos" and "--events=mimic4_meds" in text:
        (tmp_path / "mimic4_meds").unlink()
        small_ethos.write_meds(tmp_path / "mimic4_meds")
    words = shlex.split(text)
    done = run_module(words[2], *words[3:], *FURTHER.get(target, ()), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    width = NARROW.get(target, 768)
    if width < dim:
        assert f"Vectors of {dim} numbers are reduced to {width} by PCA, which keeps" in done.stdout
    else:
        assert f"Vectors of {dim} numbers are mapped to {width} with all angles kept." in done.stdout
    output = next(word.removeprefix("--output=") for word in words if word.startswith("--output="))
    assert any((tmp_path / output).iterdir())
    shutil.rmtree(tmp_path / output)
