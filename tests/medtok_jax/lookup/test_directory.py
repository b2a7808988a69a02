"""The tokenizer directory: what is written is what is read, and a directory that is not whole is refused."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from medtok_jax.lookup import directory
from medtok_jax.lookup.config import CODEBOOK, CONFIG, TOKENS
from medtok_jax.lookup.directory import EMBEDDING_FILE, TokenizerDirectory
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import KEYS, REGIONS, K, about, make_tokens, write


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "tok", make_tokens(embeddings=True))


def test_what_is_written_is_read(folder):
    tokens, read = make_tokens(embeddings=True), TokenizerDirectory.read(folder, verify=True)
    order = sorted(range(len(KEYS)), key=lambda row: KEYS[row])
    assert read.table["key"].to_pylist() == sorted(KEYS)
    for name, array in tokens.strings.items():
        assert read.table[name].to_pylist() == array[order].tolist()
    for name in ("has_text", "has_graph"):
        assert read.table[name].to_pylist() == getattr(tokens, name)[order].tolist()
    np.testing.assert_array_equal(read.ids, tokens.ids[order])
    np.testing.assert_array_equal(read.weights, tokens.weights[order])
    np.testing.assert_array_equal(read.codebook, tokens.codebook)
    np.testing.assert_array_equal(
        read.embeddings(np.arange(len(KEYS))), tokens.embeddings[order].astype(np.float16).astype(np.float32)
    )
    assert read.config.codes == len(KEYS)
    assert read.config.systems["ICD10CM"] == 5
    assert read.config.special_tokens == {"[PAD]": 36, "[UNK]": 37, "[CLS]": 38, "[SEP]": 39, "[MASK]": 40}
    assert set(read.config.files) == {TOKENS, CODEBOOK, EMBEDDING_FILE}


def test_the_same_tokens_give_the_same_bytes(folder, tmp_path):
    other = write(tmp_path / "other", make_tokens(embeddings=True))
    for path in folder.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_a_failing_writer_leaves_the_old_directory(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(folder, make_tokens(seed=1), add=fail)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["tok"]
    write(folder, make_tokens(seed=1))
    assert (folder / TOKENS).read_bytes() != before[TOKENS]


def test_more_files_are_listed_and_checked(tmp_path):
    def add(folder):
        (folder / "graph").mkdir()
        (folder / "graph" / "nodes").write_text("nodes")

    folder = write(tmp_path / "tok", add=add)
    assert "graph/nodes" in TokenizerDirectory.read(folder).config.files
    (folder / "graph" / "nodes").write_text("sedon")
    with pytest.raises(InputError, match="graph/nodes is damaged"):
        TokenizerDirectory.read(folder)


def refused(folder, sentence, **options):
    with pytest.raises(InputError, match=sentence) as told:
        TokenizerDirectory.read(folder, **options)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", [TOKENS, CODEBOOK, EMBEDDING_FILE, CONFIG])
@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_a_truncated_or_missing_file(folder, name, damage):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:-20] if damage == "cut" else b"")
    refused(folder, name)


@pytest.mark.parametrize("name", [TOKENS, CODEBOOK, EMBEDDING_FILE, CONFIG])
@pytest.mark.parametrize("sized", [False, True])
def test_a_file_of_another_tokenizer(folder, tmp_path, monkeypatch, name, sized):
    """Told by its size or its digest while small, and by its identity however large it is."""
    other = write(tmp_path / "other", make_tokens(seed=1, embeddings=True))
    shutil.copy(other / name, folder / name)
    if sized and name != CONFIG:
        monkeypatch.setattr("medtok_jax.lookup.config.SMALL", -1)
        config = json.loads((folder / CONFIG).read_text())
        config["files"][name]["size"] = (folder / name).stat().st_size
        (folder / CONFIG).write_text(json.dumps(config))
    refused(folder, r"(tokens\.parquet|safetensors) is damaged" if name == CONFIG else name)


@pytest.mark.parametrize("name", [TOKENS, CODEBOOK, EMBEDDING_FILE])
def test_changed_bytes_are_found_by_verifying(folder, monkeypatch, name):
    monkeypatch.setattr("medtok_jax.lookup.config.SMALL", -1)
    content = bytearray((folder / name).read_bytes())
    # The first number of the codebook and of the embeddings, a number in the middle of the table.
    place = len(content) // 2 if name == TOKENS else len(content) - 4
    content[place] ^= 1
    (folder / name).write_bytes(bytes(content))
    refused(folder, f"{name} is damaged", verify=True)


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_a_wrong_version(folder, version):
    edit(folder, format_version=version)
    refused(folder, r"is of format version .*, but this release reads version 1")


def edit(folder, **fields):
    config = json.loads((folder / CONFIG).read_text()) | fields
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize(
    "fields",
    [
        {"regions": {"text": 12, "graph": 10}},
        {"regions": {"text": 12, "graph": 10, "shared": -14}},
        {"regions": {"text": 13, "graph": 9, "shared": 14}},
        {"regions": {"text": 12, "graph": 10, "shared": 15}},
        {"num_top_k_tokens": K + 1},
        {"embedding_dim": 5},
        {"codes": 3},
        {"codes": "many"},
        {"special_tokens": {"[PAD]": 0}},
        {"files": {}},
        {"files": {"../../etc/passwd": {"size": 1, "sha256": ""}}},
        {"files": {"/etc/passwd": {"size": 1, "sha256": ""}}},
        {"files": None},
        {"unheard_of": 1},
    ],
)
def test_a_configuration_that_does_not_fit(folder, fields):
    edit(folder, **fields)
    refused(folder, "is damaged")


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100_000, '{"format_version": 1}', "{"])
def test_a_configuration_that_is_none(folder, text):
    (folder / CONFIG).write_text(text)
    refused(folder, CONFIG)


def test_no_directory(tmp_path):
    refused(tmp_path / "absent", "absent is not a directory; a tokenizer is written by training")
    refused(tmp_path, "holds no readable tokenizer_config.json")


def rewrite(folder, change):
    """Changes the table as someone would who keeps its identity and corrects size and digest."""
    table = pq.read_table(folder / TOKENS)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), folder / TOKENS)
    config = json.loads((folder / CONFIG).read_text())
    digest = sha256_of(folder / TOKENS)
    config["files"][TOKENS] = {"size": (folder / TOKENS).stat().st_size, "sha256": digest}
    (folder / CONFIG).write_text(json.dumps(config))


def _out_of_region(table):
    ids = table["ids"].combine_chunks().flatten().to_numpy().reshape(len(table), -1).copy()
    ids[3, 0] = 30
    return table.set_column(5, "ids", pa.FixedSizeListArray.from_arrays(pa.array(ids.ravel()), 4 * K))


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns("weights"),
        lambda table: table.slice(1),
        lambda table: table.take(pa.array([1, 0, *range(2, len(KEYS))])),
        lambda table: table.set_column(5, "ids", table["ids"].cast(pa.list_(pa.int32()))),
        lambda table: table.set_column(0, "key", pa.array(range(len(KEYS)))),
        _out_of_region,
    ],
)
def test_a_table_that_does_not_fit(folder, change):
    rewrite(folder, lambda table: table)
    TokenizerDirectory.read(folder)
    rewrite(folder, change)
    refused(folder, "tokens.parquet is damaged")


def test_a_codebook_that_does_not_fit(folder, monkeypatch):
    monkeypatch.setattr("medtok_jax.lookup.config.SMALL", -1)
    for tensors in ({"rows": np.zeros((36, 4))}, {"codebook": np.zeros((36, 5), np.float32)}):
        config = json.loads((folder / CONFIG).read_text())
        save_file(tensors, folder / CODEBOOK, {"identity": config["identity"]})
        config["files"][CODEBOOK]["size"] = (folder / CODEBOOK).stat().st_size
        (folder / CONFIG).write_text(json.dumps(config))
        refused(folder, "codebook.safetensors is damaged")


def test_no_embeddings(tmp_path):
    read = TokenizerDirectory.read(write(tmp_path / "tok"))
    with pytest.raises(InputError, match="holds no embeddings before quantization"):
        read.embeddings(np.array([0]))


def test_tokens_of_a_whole_book_search(tmp_path):
    """Cross-modal tokens may then lie in any region; without it the same table is refused."""
    tokens = make_tokens()
    tokens.ids[0, 2 * K] = 0
    about_it = about() | {"training": {"model": {"shared_search": "book"}}}
    directory.write(tmp_path / "book", tokens, about_it)
    assert TokenizerDirectory.read(tmp_path / "book").config.searched("text_cross") == (0, REGIONS.size)
    directory.write(tmp_path / "region", tokens, about())
    with pytest.raises(InputError, match="tokens of text_cross lie outside"):
        TokenizerDirectory.read(tmp_path / "region")
