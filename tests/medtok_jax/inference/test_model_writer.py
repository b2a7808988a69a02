"""The model part of a tokenizer directory: what goes in comes out, and what is damaged or mixed is refused."""

import json
import shutil

import numpy as np
import pytest

from medtok_jax.inference import model_reader, model_writer
from medtok_jax.inference.model_reader import CONFIG, GRAPH, VARIABLES
from medtok_jax.training import checkpoints
from preprocessing.common.checksums import sealed
from preprocessing.common.errors import InputError


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    return model_writer.export(finished_run[0], tmp_path_factory.mktemp("exported") / "a" / "b")


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "tokenizer")


def test_round_trip(finished_run, run_config, exported):
    found = checkpoints.find(finished_run[0], prefer="best")
    saved = model_reader.load(exported)
    variables = model_writer.flatten(found.restore_variables())
    assert saved.variables.keys() == variables.keys()
    for name, array in variables.items():
        np.testing.assert_array_equal(saved.variables[name], array, err_msg=name)
    metadata = found.metadata()
    assert (list(saved.node_types), list(saved.relation_names)) == (metadata["node_types"], metadata["relation_names"])
    assert (saved.fingerprint, saved.encoder) == (metadata["fingerprint"], metadata["encoder"])
    assert saved.config.model.to_dict() == run_config.model.to_dict()
    assert (saved.sizes.num_nodes, saved.sizes.text_width) == (saved.graph.num_nodes, 384)
    assert saved.neighborhood.codes_are_nodes
    assert saved.neighborhood.first_kept[0] == "parent"
    assert saved.learned_missing_graph, "some codes are shown without their graph"
    _, params, _ = model_reader.structure(saved, saved.sizes, None)
    filled = model_reader.fill(params, saved.variables, "params")
    np.testing.assert_array_equal(filled["quantizer"]["rows"][...], variables["params.quantizer.rows"])


def test_says_nothing_of_this_machine(exported, run_config):
    text = (exported / CONFIG).read_text()
    assert run_config.data.data_dir not in text
    assert "resume_from" not in text


def test_only_known_files_and_nothing_half_written(exported):
    assert sorted(path.name for path in exported.iterdir()) == sorted([VARIABLES, CONFIG, GRAPH])


def test_written_again_in_place(finished_run, folder):
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    model_writer.export(finished_run[0], folder)
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_without_the_graph(finished_run, tmp_path):
    model_writer.export(finished_run[0], tmp_path, with_graph=False)
    assert not (tmp_path / GRAPH).exists()
    assert model_reader.load(tmp_path).graph is None


def test_no_run(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        model_writer.export(tmp_path, tmp_path / "out")


def test_a_directory_that_cannot_be_written(finished_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        model_writer.export(finished_run[0], tmp_path / "file" / "out")


@pytest.mark.parametrize("name", [VARIABLES, CONFIG, f"{GRAPH}/nodes.parquet", f"{GRAPH}/indices.npy", GRAPH])
@pytest.mark.parametrize("damage", ["absent", "truncated", "flipped"])
def test_damage_is_one_sentence(folder, name, damage):
    path = folder / name
    if path.is_dir():
        shutil.rmtree(path)
    elif damage == "absent":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    with pytest.raises(InputError, match=r"^[^\n]+[.]$"):
        model_reader.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 1},
        {"sizes": {}},
        {"config": None},
        {"node_types": ["other"]},
        {"sha256": {}},
        {"reverse": 3},
    ],
)
def test_another_configuration_is_refused(folder, change):
    content = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(sealed(content | change)))
    with pytest.raises(InputError, match=r"^[^\n]+[.]$"):
        model_reader.load(folder)


def test_sizes_that_do_not_fit_the_variables(folder):
    content = json.loads((folder / CONFIG).read_text())
    content["config"]["model"]["codebook_size"] = 130
    (folder / CONFIG).write_text(json.dumps(sealed(content)))
    saved = model_reader.load(folder)
    _, params, _ = model_reader.structure(saved, saved.sizes, None)
    with pytest.raises(InputError, match=r"params\.quantizer\.rows is of shape \[120, 16\].*calls for \[130, 16\]"):
        model_reader.fill(params, saved.variables, "params")
    saved.config.model.graph_encoder_type = "other"
    with pytest.raises(InputError, match="describes no model"):
        model_reader.structure(saved, saved.sizes, None)
