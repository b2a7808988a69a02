"""The tokenizer directory: what is written is what is read, and a directory that is not whole is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from medtok_jax import MedTokTokenizer
from medtok_jax.lookup import code_files, directory
from medtok_jax.lookup.config import CODE_FILE, CONFIG
from medtok_jax.lookup.directory import EMBEDDING_FILE, TRANSFORMERS_CONFIG, KnownCode, TokenizerDirectory
from medtok_jax.lookup.token_table import TABLE
from medtok_jax.regions import EMBEDDINGS, Regions
from preprocessing.common.checksums import sealed, sha256_of
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import KEYS, REGIONS, K, about, make_tokens, positions, write, write_uneven


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "tok", make_tokens(embeddings=True))


def test_what_is_written_is_read(folder):
    tokens, read = make_tokens(embeddings=True), TokenizerDirectory.read(folder, verify=True)
    order = sorted(range(len(KEYS)), key=lambda row: KEYS[row])
    assert read.table["key"].to_pylist() == sorted(KEYS)
    assert [f"{row['system']}/{row['code']}" for row in read.table.to_pylist()] == sorted(KEYS)
    for name, array in tokens.strings.items():
        assert read.table[name].to_pylist() == array[order].tolist()
    for name in ("has_text", "has_graph"):
        assert read.table[name].to_pylist() == getattr(tokens, name)[order].tolist()
    assert (read.ids.dtype, read.weights.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(read.ids, tokens.ids[order])
    np.testing.assert_array_equal(read.weights, tokens.weights[order].astype(np.float16))
    np.testing.assert_array_equal(read.codebook, tokens.codebook)
    np.testing.assert_array_equal(
        read.embeddings(np.arange(len(KEYS))), tokens.embeddings[order].astype(np.float16).astype(np.float32)
    )
    for array in (read.ids, read.weights, read.codebook):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert (read.config.rows, read.config.codes, read.config.known_codes) == (len(KEYS), len(KEYS), len(KEYS))
    assert read.config.systems["ICD10CM"] == 5
    assert read.config.special_tokens == {"[PAD]": 36, "[UNK]": 37, "[CLS]": 38, "[SEP]": 39, "[MASK]": 40}
    assert set(read.config.files) == {TABLE, EMBEDDING_FILE, *code_files.names()}


def test_one_table_in_narrow_numbers(folder, tmp_path):
    """It is a safetensors file, and the only one of the tokens."""
    with safe_open(folder / TABLE, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {name: arrays[name].dtype for name in ("ids", "weights", "codebook")} == {
        "ids": np.uint16,
        "weights": np.float16,
        "codebook": np.float32,
    }
    wanted = [TABLE, EMBEDDING_FILE, CONFIG, TRANSFORMERS_CONFIG, *code_files.names()]
    assert sorted(path.name for path in folder.iterdir()) == sorted(wanted)
    regions = Regions(text=40_000, graph=20_000, shared=10_000)
    tokens = dataclasses.replace(make_tokens(), codebook=np.zeros((regions.size, 4), np.float32))
    tokens.ids[:] = np.repeat([39_999, 59_999, 69_999, 60_000], K)
    directory.write(tmp_path / "large", tokens, about() | {"regions": regions})
    read = TokenizerDirectory.read(tmp_path / "large")
    assert read.tokens.ids.dtype == np.uint32
    assert read.ids[0].tolist() == np.repeat([39_999, 59_999, 69_999, 60_000], K).tolist()
    opened = MedTokTokenizer.from_pretrained(tmp_path / "large")
    assert opened.encode("E11.9") == read.ids[0].tolist()
    assert opened.pad_token_id == 70_000


def test_the_directory_states_what_a_position_means(folder):
    """T, and the embedding, region and level of every position; K is nowhere."""
    config = TokenizerDirectory.read(folder).config
    written = json.loads((folder / CONFIG).read_text())
    assert written["positions"] == [
        *(["text_specific", "text", 0], ["text_specific", "text", 1], ["graph_specific", "graph", 0]),
        *(["graph_specific", "graph", 1], ["text_cross", "shared", 0], ["text_cross", "shared", 1]),
        *(["graph_cross", "shared", 0], ["graph_cross", "shared", 1]),
    ]
    assert "num_top_k_tokens" not in written
    assert config.tokens_per_code == 8
    assert config.embeddings == EMBEDDINGS
    assert config.bounds == ((0, 2), (2, 4), (4, 6), (6, 8))
    assert config.levels == (0, 1) * 4
    assert [config.searched(position) for position in (0, 3, 7)] == [(0, 12), (12, 22), (22, 36)]


def test_another_quantizer_changes_no_reader(tmp_path):
    """Embeddings of 1, 3 and 2 tokens, each from another region: look-up, batches, neighbors and decoding work."""
    tokenizer = MedTokTokenizer.from_pretrained(write_uneven(tmp_path / "tok"))
    ids, codebook = tokenizer.directory.ids, tokenizer.codebook
    assert tokenizer.tokens_per_code == 6
    assert tokenizer.config.bounds == ((0, 1), (1, 4), (4, 6))
    row = sorted(KEYS).index("ICD10CM/E11.9")
    assert tokenizer.encode("E11.9") == ids[row].tolist()
    assert [name.split("_")[0] for name in tokenizer.tokenize("E11.9")] == ["<text", *["<shared"] * 3, *["<graph"] * 2]
    wanted = [codebook[ids[row, start:stop]].sum(0) for start, stop in ((0, 1), (1, 4), (4, 6))]
    np.testing.assert_allclose(tokenizer.embed("E11.9"), wanted, rtol=1e-6)
    assert tokenizer.embed(KEYS, pooled=True).shape == (len(KEYS), 4)
    assert tokenizer.nearest(ids[row].tolist())[0].score == pytest.approx(1.0)
    assert len(tokenizer.neighbors("E11.9", 99, by="embedding")) == len(KEYS) - 1
    padded = tokenizer.encode_patients([[["E11.9"], ["E11"]], [["E11"]]], padding=True, return_tensors="np")
    assert padded.input_ids.shape == (2, 15)
    assert tokenizer.decode(padded.input_ids[0], skip_special_tokens=True) == "ICD10CM/E11.9 ICD10CM/E11"


def test_kinds_of_rows_and_codes_that_are_known(tmp_path):
    """Categories and codes of earlier editions have rows, which are not counted as codes of the data set."""
    tokens = make_tokens(embeddings=True)
    tokens.strings["kind"] = np.array(["code"] * len(KEYS), object)
    for key, kind in (("ICD10CM/E11", "category"), ("ICD9CM/001.0", "retired")):
        tokens.strings["kind"][KEYS.index(key)] = kind
    others = [KnownCode("ICD9CM/780.6", "retired"), KnownCode("ICD10CM/I10", "code"), KnownCode("X/y", "category")]
    tokens = dataclasses.replace(tokens, others=others)
    read = TokenizerDirectory.read(write(tmp_path / "tok", tokens), verify=True)
    assert (read.config.rows, read.config.codes, read.config.known_codes) == (19, 17, 18)
    assert (read.config.systems["ICD10CM"], read.config.systems["ICD9CM"]) == (4, 2)
    keys = read.table["key"].to_pylist()
    assert [keys[row] for row in read.codes] == [key for key in sorted(KEYS) if key not in keys_of(read, "code")]
    again = read.to_tokens()
    assert again.others == sorted(others, key=lambda code: code.key)
    wanted = tokens.sorted()
    for name in ("ids", "has_text", "has_graph", "codebook"):
        np.testing.assert_array_equal(getattr(again, name), getattr(wanted, name))
    np.testing.assert_array_equal(again.weights, wanted.weights.astype(np.float16))
    for name, strings in wanted.strings.items():
        assert again.strings[name].tolist() == strings.tolist()
    tokenizer = MedTokTokenizer.from_pretrained(tmp_path / "tok")
    sources = {key: tokenizer.look_up(key).source for key in ("E11", "001.0", "E11.9")}
    assert sources == {"E11": "category", "001.0": "retired", "E11.9": "table"}


def keys_of(read, kind) -> set[str]:
    """Return the keys of the rows of another kind."""
    return {row["key"] for row in read.table.to_pylist() if row["kind"] != kind}


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
    assert (folder / TABLE).read_bytes() != before[TABLE]


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


@pytest.mark.parametrize("name", [TABLE, EMBEDDING_FILE, CONFIG, CODE_FILE])
@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_a_truncated_or_missing_file(folder, name, damage):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:-20] if damage == "cut" else b"")
    refused(folder, name)


@pytest.mark.parametrize("name", [TABLE, EMBEDDING_FILE, CONFIG])
@pytest.mark.parametrize("sized", [False, True])
def test_a_file_of_another_tokenizer(folder, tmp_path, monkeypatch, name, sized):
    """Told by its size or its digest while small, and by its identity however large it is."""
    other = write(tmp_path / "other", make_tokens(seed=1, embeddings=True))
    shutil.copy(other / name, folder / name)
    if sized and name != CONFIG:
        monkeypatch.setattr("medtok_jax.lookup.directory_check.SMALL", -1)
        config = json.loads((folder / CONFIG).read_text())
        config["files"][name]["size"] = (folder / name).stat().st_size
        (folder / CONFIG).write_text(json.dumps(sealed(config)))
    refused(folder, r"safetensors is damaged" if name == CONFIG else name)


@pytest.mark.parametrize("name", [TABLE, EMBEDDING_FILE])
def test_changed_bytes_are_found_by_verifying(folder, monkeypatch, name):
    monkeypatch.setattr("medtok_jax.lookup.directory_check.SMALL", -1)
    content = bytearray((folder / name).read_bytes())
    with safe_open(folder / name, "numpy") as file:
        codebook = file.get_tensor("codebook") if name == TABLE else file.get_tensor("embeddings")
    content[bytes(content).index(codebook.tobytes())] ^= 1
    (folder / name).write_bytes(bytes(content))
    refused(folder, f"{name} is damaged", verify=True)
    if name == TABLE:
        refused(folder, r"tokens\.safetensors is not a readable table of MedTok tokens \(its sha256")
    else:
        with pytest.raises(InputError, match=r"embeddings\.safetensors is damaged \(its sha256"):
            TokenizerDirectory.read(folder).embeddings(np.array([0]))


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_damaged_configuration_of_transformers(folder, text):
    (folder / TRANSFORMERS_CONFIG).write_text(text, errors="surrogateescape")
    refused(folder, r"tokenizer_config\.json is damaged \(it is no JSON object\)")


@pytest.mark.parametrize(
    ("words", "others"),
    [('"step": 1', '"step": 3'), ('"name": "none"', '"name": "nond"'), ('"prefer"', '"pref\u00e5r"')],
)
def test_a_configuration_in_which_anything_changed(folder, words, others):
    text = (folder / CONFIG).read_text()
    assert words in text
    (folder / CONFIG).write_text(text.replace(words, others))
    refused(folder, r"medtok\.json is damaged \(it does not have the checksum")


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_a_wrong_version(folder, version):
    edit(folder, format_version=version)
    refused(folder, r"is of format version .*, but this release reads version 1")


def edit(folder, **fields):
    config = json.loads((folder / CONFIG).read_text()) | fields
    (folder / CONFIG).write_text(json.dumps(sealed(config)))


@pytest.mark.parametrize(
    "fields",
    [
        {"regions": {"text": 12, "graph": 10}},
        {"regions": {"text": 12, "graph": 10, "shared": -14}},
        {"regions": {"text": 13, "graph": 9, "shared": 14}},
        {"regions": {"text": 12, "graph": 10, "shared": 15}},
        {"positions": []},
        {"positions": [["text_specific", "text", 0]] * (4 * K + 1)},
        {"positions": [["text_specific", "nowhere", 0]] * 4 * K},
        {"positions": [["a", "all", 0], ["b", "all", 0]] * 2 * K},
        {"positions": [["text_specific", "text"]] * 4 * K},
        {"positions": [["text_specific", "text", "0"]] * 4 * K},
        {"positions": 8},
        {"rows": 3},
        {"embedding_dim": 5},
        {"codes": 3},
        {"codes": "many"},
        {"known_codes": 20},
        {"systems": {"ICD10CM": 4}},
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
    refused(tmp_path, r"holds no readable medtok\.json")


def rewrite(folder, change):
    """Change the arrays as someone would who keeps the table's identity and corrects size and digest."""
    with safe_open(folder / TABLE, "numpy") as file:
        arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(change(arrays), folder / TABLE, metadata)
    config = json.loads((folder / CONFIG).read_text())
    config["files"][TABLE] = {"size": (folder / TABLE).stat().st_size, "sha256": sha256_of(folder / TABLE)}
    (folder / CONFIG).write_text(json.dumps(sealed(config)))


def put(name, place, value):
    """Return a change that puts a value into an array."""

    def change(arrays):
        arrays[name].reshape(-1)[place] = value
        return arrays

    return change


def replaced(name, of):
    """Return a change that puts `of(array)` in place of an array."""
    return lambda arrays: arrays | {name: np.ascontiguousarray(of(arrays[name]))}


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: {name: array for name, array in arrays.items() if name != "weights"},
        lambda arrays: {name: array for name, array in arrays.items() if name != "key_text"},
        replaced("ids", lambda ids: ids[1:]),
        replaced("ids", lambda ids: ids[:, :-1]),
        replaced("ids", lambda ids: ids.astype(np.int64)),
        replaced("ids", lambda ids: ids.reshape(-1)),
        replaced("weights", lambda weights: weights[:, :-1]),
        replaced("codebook", lambda codebook: codebook[:, :-1]),
        replaced("codebook", lambda codebook: codebook[:-1]),
        replaced("key_offsets", lambda offsets: offsets[::-1]),
        replaced("key_offsets", lambda offsets: offsets + 9),
        replaced("key_text", lambda text: text[:-3]),
        replaced("key_text", lambda text: text[::-1]),
        replaced("description_text", lambda text: np.full_like(text, 0xFF)),
        replaced("description_offsets", lambda offsets: offsets[1:]),
        replaced("compact_offsets", lambda offsets: offsets[:-1]),
        replaced("system", lambda system: system[1:]),
        put("compact_entry", 3, 99),
        put("compact_entry", 3, -1),
        put("system", 3, 99),
        put("kind", 3, 3),
        put("split", 3, 4),
        put("ids", 3, 30),
        put("ids", 3, 36),
    ],
)
def test_a_table_that_does_not_fit(folder, change):
    rewrite(folder, lambda arrays: arrays)
    TokenizerDirectory.read(folder)
    rewrite(folder, change)
    refused(folder, r"tokens\.safetensors is (damaged|not a readable table)")


def test_no_embeddings(tmp_path):
    read = TokenizerDirectory.read(write(tmp_path / "tok"))
    with pytest.raises(InputError, match="holds no embeddings before quantization"):
        read.embeddings(np.array([0]))


def test_tokens_of_a_whole_book_search(tmp_path):
    """Cross-modal tokens may then lie in any region; without it the same table is refused."""
    tokens = make_tokens()
    tokens.ids[0, 2 * K] = 0
    directory.write(tmp_path / "book", tokens, about() | {"positions": positions(K, searches_all=True)})
    config = TokenizerDirectory.read(tmp_path / "book").config
    assert [config.searched(place) for place in (0, 2 * K)] == [(0, 12), (0, REGIONS.size)]
    directory.write(tmp_path / "region", tokens, about())
    with pytest.raises(InputError, match="tokens of text_cross lie outside"):
        TokenizerDirectory.read(tmp_path / "region")
