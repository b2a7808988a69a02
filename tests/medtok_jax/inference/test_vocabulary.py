"""The tokens of a whole vocabulary, from a run that was trained: against the model, interrupted, and of a sample."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from medtok_jax import MedTokTokenizer
from medtok_jax.devices import sharding
from medtok_jax.inference import vocabulary
from medtok_jax.inference.trained import TrainedModel, open_trained
from medtok_jax.lookup import code_files
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.regions import REGIONS, parts_of, positions_of
from medtok_jax.tokenize import commands
from medtok_jax.training import checkpoints

LOOK_UP = ("tokens.safetensors", "tokenizer_config.json", *code_files.names())


@pytest.fixture(scope="module")
def opened(finished_run) -> TrainedModel:
    """The finished run, opened to be used."""
    return open_trained(finished_run[0], progress=False)


@pytest.fixture(scope="module")
def trained(finished_run) -> TokenizerDirectory:
    """The tokenizer that training left."""
    return TokenizerDirectory.read(finished_run[0] / "tokenizer", verify=True)


def test_the_table_equals_the_model_on_the_spot(opened, trained):
    """In other company than when the table was written: codes at random, and the last batch half empty.

    Codes that were separated from others of the same tokens differ in one of those that refine, and are counted.
    """
    inputs, state = opened.inputs, opened.state
    table = inputs.data.table
    keys = trained.table["key"].to_pylist()
    row_of = {keys[row]: row for row in trained.codes}
    order, size = np.random.default_rng(0).permutation(len(table)), inputs.batch_size
    seen, separated = 0, 0
    refining = [position.level == count_of(trained, position.embedding) - 1 for position in trained.config.positions]
    for start in range(0, len(order), size):
        rows = np.resize(order[start : start + size], size)
        valid = np.arange(size) < len(order) - start
        batch = sharding.place_batch(inputs.unmasked_builder(rows, valid, np.full(size, -1)), inputs.mesh)
        index, tokens, _ = opened.programs.tokenize_step(state.params, state.fixed, batch, inputs.tables)
        index = np.asarray(index)
        kept = np.flatnonzero(index >= 0)
        places = [row_of[key] for key in table.key[index[kept]]]
        same = np.asarray(tokens.ids)[kept] == trained.ids[places]
        assert (~same).sum(axis=1).max() <= 1
        assert not (~same & ~np.array(refining)).any()
        separated += int((~same).sum())
        # With a token, the weights of its embedding change. Half precision rounds weights by up to 2**-11 of them.
        names = [position.embedding for position in trained.config.positions]
        touched = (~same).astype(int) @ np.equal.outer(names, names).astype(int) > 0
        weights = np.where(touched, trained.weights[places], np.asarray(tokens.weights)[kept])
        np.testing.assert_allclose(weights, trained.weights[places], rtol=2**-11, atol=1e-4)
        seen += len(kept)
    assert seen == len(row_of) == trained.config.codes
    # Categories and codes of earlier editions, which are not encoded here, are among those that were separated.
    others = len(trained.ids) - len(row_of)
    assert 0 < separated <= trained.config.training["separated"] <= separated + others


def count_of(trained: TokenizerDirectory, embedding: str) -> int:
    """The number of tokens of an embedding."""
    return sum(position.embedding == embedding for position in trained.config.positions)


def test_codes_of_different_descriptions_have_different_tokens(trained):
    """But for those that could not be separated, of which the directory says how many there are."""
    descriptions = trained.table["description"].to_numpy()
    _, group = np.unique(trained.ids, axis=0, return_inverse=True)
    first: dict[int, str] = {}
    shared = {
        number
        for number, text in zip(group.reshape(-1), descriptions, strict=True)
        if first.setdefault(number, text) != text
    }
    assert np.isin(group.reshape(-1), list(shared)).sum() == trained.config.training["not_separated"]


def test_the_directory_says_what_it_is(opened, trained):
    table, config = opened.inputs.data.table, trained.config
    rows, written = np.argsort(table.key), trained.table.take(trained.codes)
    for name in ("key", "system", "code", "description"):
        assert written[name].to_pylist() == getattr(table, name)[rows].tolist()
    assert written["has_graph"].to_pylist() == (table.num_nodes[rows] > 0).tolist()
    assert sum(written["has_text"].to_pylist()) == len(rows) - without_text(table)
    splits = dict(zip(table.key, table.split, strict=True))
    assert [("train", "validation", "test").index(s) for s in written["split"].to_pylist()] == [
        splits[key] for key in written["key"].to_pylist()
    ]
    assert set(written["kind"].to_pylist()) == {"code"}
    assert config.positions == positions_of(parts_of(opened.config.model))
    assert config.tokens_per_code == trained.ids.shape[1]
    np.testing.assert_array_equal(trained.codebook, opened.codebook())
    assert config.data_set == {"name": opened.config.data.name, "fingerprint": table.fingerprint}
    assert config.training["step"] == checkpoints.find(opened.workdir, prefer="best").step
    assert {"model.safetensors", "model_config.json"} < set(config.files)


def without_text(table) -> int:
    return sum(f"{s} {c}" == d for s, c, d in zip(table.system, table.code, table.description, strict=True))


# Nothing but transformers and numpy may be needed.
OPEN_ALONE = """
import sys
for name in ("jax", "jaxlib", "flax", "medtok_jax", "preprocessing", "pyarrow", "torch"):
    sys.modules[name] = None  # As if it were not installed.
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
keys = [tokenizer.key_at(row) for row in range(0, tokenizer.num_codes, 20)]
print(tokenizer.encode_many(keys).tolist())
print(tokenizer.embed(keys[0]).shape, tokenizer.encode_patient([keys[:2], keys[2:3]]).visit_ids[-1])
"""


def test_transformers_opens_the_very_directory_that_training_writes(trained, tmp_path):
    before = {path: path.read_bytes() for path in trained.path.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-I", "-c", OPEN_ALONE, str(trained.path)],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ids, shown = done.stdout.splitlines()
    assert json.loads(ids) == trained.ids[::20].tolist()
    assert shown == f"({len(trained.config.embeddings)}, {trained.config.embedding_dim}) 2"
    assert {path: path.read_bytes() for path in trained.path.rglob("*") if path.is_file()} == before


def test_embeddings_are_those_that_were_quantized(opened, tmp_path):
    vocabulary.write_tokenizer(opened, tmp_path / "tok", embeddings=True, progress=False)
    tokenizer = MedTokTokenizer.from_pretrained(tmp_path / "tok")
    codes = tokenizer.directory.table["key"].to_pylist()
    before, after = (tokenizer.embed(codes, quantized=quantized) for quantized in (False, True))
    np.testing.assert_allclose(np.linalg.norm(before, axis=-1), 1.0, atol=2e-3)
    regions = tokenizer.config.regions
    for place, (region, (first, end)) in enumerate(zip(REGIONS, tokenizer.config.bounds, strict=True)):
        start, stop = regions.bounds(region)
        k = end - first
        similarity = before[:, place] @ tokenizer.codebook[start:stop].T
        # Half of the tokens are of as many of the rows: the nearest, then others of the k nearest that add something.
        few = max(1, k // 2)
        nearest = start + np.argsort(-similarity[:, : (stop - start) * few // k], axis=1)[:, :k]
        ids = tokenizer.directory.ids[:, first : first + few]
        # Half precision may swap rows that are equally near.
        assert np.mean(nearest[:, 0] == ids[:, 0]) > 0.98
        assert np.mean([len(set(a) & set(b)) for a, b in zip(nearest, ids, strict=True)]) > 0.98 * few
    cosine = (before * after).sum(-1) / np.linalg.norm(after, axis=-1) / np.linalg.norm(before, axis=-1)
    assert cosine.mean() > 0.5


def test_interrupted_and_gone_on_it_is_the_same_bytes(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "PART", 2)
    calls, tokenize_rows = [], vocabulary._tokenize_rows

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return tokenize_rows(*arguments)

    monkeypatch.setattr(vocabulary, "_tokenize_rows", interrupted)
    output = tmp_path / "tok"
    with pytest.raises(KeyboardInterrupt):
        vocabulary.write_tokenizer(opened, output, progress=False)
    assert not output.exists()
    assert len(list((tmp_path / "tok.parts").glob("*.npz"))) == 2
    metrics = vocabulary.write_tokenizer(opened, output, progress=False)
    written = TokenizerDirectory.read(output).config
    assert written.rows > written.codes == len(opened.inputs.data.selected)
    passes = (written.codes, written.rows - written.codes)
    in_all = sum(-(-codes // (2 * opened.inputs.batch_size)) for codes in passes)
    assert len(calls) == in_all + 1
    assert [path.name for path in tmp_path.iterdir()] == ["tok"]
    whole = tmp_path / "whole"
    assert vocabulary.write_tokenizer(opened, whole, progress=False) == metrics
    for path in whole.iterdir():
        assert path.read_bytes() == (output / path.name).read_bytes()


def test_parts_of_another_plan_are_thrown_away(opened, tmp_path, monkeypatch):
    folder = tmp_path / "tok.parts"
    folder.mkdir()
    (folder / "plan.json").write_text("{}")
    (folder / "000000.npz").write_text("of another run")
    vocabulary.write_tokenizer(opened, tmp_path / "tok", progress=False)
    assert TokenizerDirectory.read(tmp_path / "tok").config.codes == len(opened.inputs.data.selected)


def test_the_whole_vocabulary_of_a_run_on_a_sample(finished_run, trained, tmp_path, monkeypatch, capsys):
    """The command tokenizes the whole data set although the run was, it believes, trained on 100 codes."""
    metadata = checkpoints.Checkpoint.metadata

    def of_a_sample(found):
        saved = metadata(found)
        saved["config"]["data"]["sample_size"] = 100
        return saved

    monkeypatch.setattr(checkpoints.Checkpoint, "metadata", of_a_sample)
    assert len(open_trained(finished_run[0], progress=False).inputs.data.selected) == 100
    commands.write_vocabulary(finished_run[0], tmp_path / "tok")
    assert f"{trained.config.codes} codes; codebook in use: text" in capsys.readouterr().out
    for name in LOOK_UP:
        assert (tmp_path / "tok" / name).read_bytes() == (trained.path / name).read_bytes()
    commands.verify(str(tmp_path / "tok"))
    rows, files = TokenizerDirectory.read(tmp_path / "tok").config.rows, len(code_files.names()) + 1
    assert f"{rows:,} codes in {files} files, all as they were written." in capsys.readouterr().out
