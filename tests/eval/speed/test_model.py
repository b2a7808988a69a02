"""The benchmarks of the model, small: what they measure adds up, and the command line writes it."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from eval.speed import dataset, memory, run, setup, tokenize, train
from eval.speed.generated_source import SYSTEMS, write_source
from eval.speed.random_text import random_states, write_encoder
from eval.speed.setup import Setting
from medtok_jax.data import code_table
from medtok_jax.models.bert import load_bert
from medtok_jax.text.encoder_files import EMBEDDED, TextTokenizer, resolve_text_encoder
from preprocessing import medtok_codes
from tests.helpers import small_run
from tests.helpers.forked import run_module
from tests.helpers.paths import ROOT

CODES = 400


@pytest.fixture(scope="module")
def setting(data_dir, tmp_path_factory):
    config = ConfigDict(small_run.small_config(data_dir).to_dict())
    made = Setting(config, "icd", tmp_path_factory.mktemp("speed"), codes=128, repeats=2, steps=2, encoder="tiny")
    return made.prepared()


@pytest.fixture(scope="module")
def opened(setting):
    return setup.open_run(setting, progress=False)


@pytest.fixture
def opened_once(opened, monkeypatch):
    """All measurements of this file share one run, compiled once."""
    for module in (train, tokenize, memory):
        monkeypatch.setattr(module, "open_run", lambda *_, **__: opened)
    return opened


def by_name(rows: list[dict]) -> dict[str, dict]:
    return {row["name"]: row for row in rows}


@pytest.mark.thorough
def test_train(setting, opened_once):
    facts, rows = train.measure(setting)
    rows = by_name(rows)
    assert rows.keys() == {"matmul", "input", "step", "training"}
    assert facts["codes"] == 128
    assert facts["text width"] == 32
    for name in ("input", "step", "training"):
        assert rows[name]["items"] == 2 * setting.config.train.batch_size
        assert rows[name]["repeats"] == 2
    step = rows["step"]
    assert step["compile_count"] == 1
    assert rows["training"]["compiled_while_timed"] == 0
    assert 0 < step["share_of_matmul"] < 1
    # The codebook alone: two views, four searches, forward and backward.
    model, batch = setting.config.model, setting.config.train.batch_size
    searched = 2 * batch * model.embedding_dim * model.codebook_size
    assert searched < step["flops"] / setting.steps < 10**10


@pytest.mark.thorough
def test_memory(setting, opened_once):
    facts, rows = memory.measure(setting)
    assert facts["parameters"] == sum(x.size for x in jax.tree.leaves(opened_once.state.params))
    held = sum(x.nbytes for x in jax.tree.leaves((opened_once.state, opened_once.inputs.tables)))
    for row in rows:
        assert row["arguments_bytes"] > held
        assert row["planned_bytes"] >= row["arguments_bytes"] + row["scratch_bytes"]
        assert row["with_batches_under_way_bytes"] > row["planned_bytes"]
    assert rows[-1]["planned_bytes"] >= rows[0]["planned_bytes"]


@pytest.mark.thorough
def test_tokenize(setting, opened_once):
    facts, rows = tokenize.measure(setting)
    rows = by_name(rows)
    assert facts["codes measured"] == 128
    parts = [rows[name]["median_seconds"] for name in ("wordpieces", "encode descriptions", "tokens of states")]
    assert rows["text to tokens"]["median_seconds"] == pytest.approx(sum(parts), rel=0.9)
    assert rows["encode node names"]["unit"] == "names"
    assert rows["encode descriptions"]["flops"] > 0


def test_states_are_as_long_as_the_texts(tmp_path):
    texts, encoder = ["type 2 diabetes mellitus", "fever"], resolve_text_encoder(EMBEDDED)
    cache = random_states(encoder, tmp_path, texts, ["a"], max_length=16, width=24, folder=tmp_path / "states")
    assert cache.states.shape == (cache.offsets[-1], 24)
    assert (cache.offsets == TextTokenizer(encoder, 16)(texts)[1]).all()
    assert np.isfinite(cache.states.astype(np.float32)).all()
    assert cache.name_embedding.shape == (2, 24)


def test_random_encoder_is_a_bert_that_can_be_read(tmp_path):
    path = write_encoder(tmp_path, "tiny")
    assert load_bert(path).config.hidden_size == 32
    assert write_encoder(tmp_path, "tiny") == path
    assert len(TextTokenizer(path, 16)(["type 2 diabetes"])[0]) == 5


@pytest.mark.integration
@pytest.mark.parametrize("scale", ["primekg", "release"])
def test_generated_data_sets(scale, tmp_path):
    """The real builder takes the files; sizes and lengths are those asked for."""
    source = write_source(scale, tmp_path / "source", codes=CODES, progress=False)
    builder = medtok_codes.prepare(f"medtok_codes/{scale}", tmp_path / "data", progress=False, source_dir=source)
    assert medtok_codes.report_of(builder)["rejected"] == 0
    table = code_table.load(builder, tmp_path / "packed", progress=False)
    share = CODES / sum(texts.codes for texts in SYSTEMS.values())
    assert len(table) == sum(int(texts.codes * share) for texts in SYSTEMS.values())
    assert 0 < (table.num_nodes == 0).mean() < 0.25
    assert table.num_nodes.max() <= 64
    lengths = np.diff(TextTokenizer(resolve_text_encoder(EMBEDDED), 512)(table.description.astype(str).tolist())[1])
    named = {name: lengths[table.system == name] for name in ("SNOMED", "ICD10CM", "NDC")}
    assert np.median(named["SNOMED"]) == pytest.approx(SYSTEMS["SNOMED"].median, abs=2)
    assert np.median(named["ICD10CM"]) == pytest.approx(SYSTEMS["ICD10CM"].median, abs=3)
    assert named["NDC"].mean() > 2 * named["ICD10CM"].mean()


@pytest.mark.thorough
def test_data_sets_are_built_packed_and_removed_again(setting, tmp_path):
    found = dataset.run(dataclasses.replace(setting, scale="primekg", codes=300, folder=tmp_path))
    rows = by_name(found["rows"])
    assert list(rows) == ["generate the source files", "build", "read and pack", "open"]
    assert rows["build"]["items"] == found["facts"]["codes"] > 280
    assert found["facts"]["bytes of data"] > found["facts"]["bytes of source"] > 10_000
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_a_whole_run(setting, tmp_path):
    found = run.run(dataclasses.replace(setting, folder=tmp_path))
    facts, rows = found["facts"], by_name(found["rows"])
    *phases, whole = rows
    assert phases == ["read and pack the data set", "encode the texts", "set up", "train", "tokens of all codes"]
    assert rows[whole]["median_seconds"] == pytest.approx(sum(rows[name]["median_seconds"] for name in phases))
    assert rows["train"]["items"] == setting.config.train.steps * setting.config.train.batch_size
    assert rows["tokens of all codes"]["items"] == facts["codes"] == 128
    assert facts["compilations"] >= 1
    assert min(facts[f"bytes of {name}"] for name in ("caches", "workdir", "the data set")) > 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["encoders"]


@pytest.mark.thorough
@pytest.mark.integration
def test_command_line_of_look_up(data_dir, tmp_path):
    command = ["eval.speed", "lookup", "--quick", f"--output={tmp_path}"]
    command += [f"--config={ROOT / 'configs/default.py'}:smoke", f"--config.data.data_dir={data_dir}"]
    command += [f"--config.data.name={small_run.DATA_SET}"]
    done = run_module(*command)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "speed_lookup_icd.json").read_text())
    rows = by_name(report["rows"])
    assert rows["keys at once"]["items"] == 10_000
    assert rows["keys at once"]["per_second"] > rows["one key after another"]["per_second"]
    assert "codes/s" in (tmp_path / "speed_lookup_icd.md").read_text()
    assert report["machine"]["cores"] >= 1


def test_a_setting_keeps_what_it_was_given(setting):
    config = setting.config.to_dict()
    dataclasses.replace(setting, encoder="").prepared()
    assert setting.config.to_dict() == config
