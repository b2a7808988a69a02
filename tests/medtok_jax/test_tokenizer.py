"""The Python API on a hand-made directory: tokens, embeddings, neighbors, and round trips."""

import pickle
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

import medtok_jax
from medtok_jax import MedTokTokenizer, UnknownCodeError
from medtok_jax.lookup.code_names import PAPER_ORDER
from medtok_jax.lookup.config import CONFIG
from medtok_jax.regions import EMBEDDINGS, REGION_OF_EMBEDDING
from preprocessing.common.errors import InputError
from tests.helpers.paths import ROOT
from tests.helpers.small_tokenizer import KEYS, REGIONS, K, make_tokens, write

ROW = {key: row for row, key in enumerate(KEYS)}


@pytest.fixture(scope="module")
def tokens():
    return make_tokens(embeddings=True)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, tokens) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok", tokens))


def test_every_code_has_its_own_tokens(tokenizer, tokens):
    for row, key in enumerate(KEYS):
        np.testing.assert_array_equal(tokenizer.encode(key), tokens.ids[row])
        found = tokenizer.look_up(key)
        assert (found.key, found.source, found.notes) == (key, "table", ())
        np.testing.assert_array_equal(found.weights, tokens.weights[row])
        assert (found.has_text, found.has_graph) == (tokens.has_text[row], tokens.has_graph[row])
    np.testing.assert_array_equal(tokenizer.encode_many(KEYS), tokens.ids)
    assert len(tokenizer) == len(KEYS)
    assert "e119" in tokenizer
    assert "E11.8" not in tokenizer
    assert None not in tokenizer


def test_tokens_are_written_with_their_region(tokenizer, tokens):
    written = tokenizer.tokenize("E11.9")
    for place, (token, number) in enumerate(zip(written, tokens.ids[ROW["ICD10CM/E11.9"]], strict=True)):
        assert token == f"<{REGION_OF_EMBEDDING[EMBEDDINGS[place // K]]}_{number}>"


def test_the_vocabulary(tokenizer):
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(tokenizer.vocab_size)) == list(range(REGIONS.size + 5))
    assert vocabulary["<text_0>"] == 0
    assert vocabulary["<graph_12>"] == 12
    assert vocabulary["<shared_35>"] == 35
    assert [vocabulary[f"[{name}]"] for name in ("PAD", "UNK", "CLS", "SEP", "MASK")] == [36, 37, 38, 39, 40]
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (36, 37, 40)
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id) == (38, 39)


@pytest.mark.parametrize("kind", ["top_k", "residual"])
def test_embeddings(tmp_path, kind):
    tokens = make_tokens(kind=kind, embeddings=True)
    tokenizer = MedTokTokenizer.from_pretrained(write(tmp_path / "tok", tokens, kind=kind))
    for row, key in enumerate(KEYS):
        pairs = zip(tokens.ids[row], tokens.weights[row], strict=True)
        wanted = np.zeros((4, tokens.codebook.shape[1]))
        for place, (number, weight) in enumerate(pairs):
            wanted[place // K] += weight * tokens.codebook[number]
        np.testing.assert_allclose(tokenizer.embed(key), wanted, atol=1e-6)
        np.testing.assert_allclose(tokenizer.embed(key, pooled=True), wanted.mean(0), atol=1e-6)
        np.testing.assert_allclose(tokenizer.embed(key, quantized=False), tokens.embeddings[row], atol=2e-3)
    assert tokenizer.embed(KEYS).shape == (len(KEYS), 4, tokens.codebook.shape[1])
    assert tokenizer.embed(KEYS, pooled=True).shape == (len(KEYS), tokens.codebook.shape[1])
    assert tokenizer.embed([]).shape[0] == 0


def bag(ids, weights) -> Counter:
    """Weight of each token, those of an embedding summing to one."""
    found = Counter()
    for start in range(0, 4 * K, K):
        for number, weight in zip(ids[start : start + K], weights[start : start + K], strict=True):
            found[int(number)] += weight / weights[start : start + K].sum()
    return found


def jaccard(one: Counter, other: Counter) -> float:
    return sum((one & other).values()) / sum((one | other).values())


@pytest.mark.parametrize("kind", ["top_k", "residual"])
def test_neighbors_by_tokens(tmp_path, kind):
    tokens = make_tokens(kind=kind)
    if kind == "residual":
        # A token may come twice in an embedding there.
        tokens.ids[:, 1] = tokens.ids[:, 0]
        tokens.ids[2] = tokens.ids[0]
    tokenizer = MedTokTokenizer.from_pretrained(write(tmp_path / "tok", tokens, kind=kind))
    bags = [bag(*pair) for pair in zip(tokens.ids, tokens.weights, strict=True)]
    assert any(len(one) < 4 * K for one in bags), "some token comes twice in a code"
    for row, key in enumerate(KEYS):
        scores = {KEYS[other]: jaccard(bags[row], bags[other]) for other in range(len(KEYS)) if other != row}
        wanted = sorted((key for key, score in scores.items() if score > 0), key=lambda key: (-scores[key], key))
        found = tokenizer.neighbors(key, len(KEYS))
        assert {neighbor.key for neighbor in found} == set(wanted)
        np.testing.assert_allclose([n.score for n in found], [scores[key] for key in wanted], atol=1e-6)
        assert [n.key for n in tokenizer.neighbors(key, 3)] == [n.key for n in found[:3]]
        assert all(n.description == f"what {n.key} means" for n in found)
    assert {n.key for n in tokenizer.neighbors("E11.9", 99, within="icd9cm")} <= {k for k in KEYS if "ICD9CM" in k}


def test_neighbors_by_embedding(tokenizer):
    vectors = tokenizer.embed(KEYS).reshape(len(KEYS), -1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    for row, key in enumerate(KEYS):
        others = [other for other in np.argsort(-cosine[row]) if other != row]
        found = tokenizer.neighbors(key, 5, by="embedding")
        np.testing.assert_allclose([n.score for n in found], cosine[row][others[:5]], atol=1e-5)
        assert [n.key for n in found] == [KEYS[other] for other in others[:5]]
    assert len(tokenizer.neighbors("E11.9", 99, by="embedding")) == len(KEYS) - 1
    assert tokenizer.neighbors("E11.9", 0) == []


def test_decode_gives_the_code_back(tokenizer):
    for key in KEYS:
        found = tokenizer.decode(tokenizer.encode(key))
        assert [(n.key, n.score) for n in found] == [(key, pytest.approx(1.0))]
        weighted = tokenizer.decode(tokenizer.encode(key), tokenizer.look_up(key).weights, k=2)
        assert (weighted[0].key, weighted[0].score) == (key, pytest.approx(1.0))
    history = tokenizer([["E11.9", "nonsense"], ["250.00"]])
    decoded = tokenizer.decode(history.input_ids)
    assert [[n.key for n in code] for code in decoded] == [["ICD10CM/E11.9"], [], ["ICD9CM/250.00"]]
    one = tokenizer.encode("E11.9")[:1]
    holders = {key for key in KEYS if one[0] in tokenizer.encode(key)}
    assert {n.key for n in tokenizer.decode(one, k=99)} == holders
    assert tokenizer.decode([tokenizer.cls_token_id, tokenizer.pad_token_id]) == []
    assert tokenizer.decode([]) == []


@pytest.mark.parametrize(
    "ids", [[-1], [41], [1.5], ["<text_1>"], [[1, 2]], None, [[1], [2, 3]], list(range(9)), [True]]
)
def test_what_cannot_be_decoded(tokenizer, ids):
    with pytest.raises(InputError, match="oken"):
        tokenizer.decode(ids)


def test_fallback_and_roads(tokenizer, tokens):
    found = tokenizer.look_up("E11.9XYZ", fallback="ancestors")
    assert (found.key, found.source) == ("ICD10CM/E11.9XYZ", "ancestor ICD10CM/E11.9")
    np.testing.assert_array_equal(found.ids, tokens.ids[ROW["ICD10CM/E11.9"]])
    assert tokenizer.tokenize("E11.8", fallback="ancestors") == tokenizer.tokenize("E11")
    np.testing.assert_array_equal(
        tokenizer.encode_many(["E11.8", "E11.9"], fallback="ancestors"),
        tokens.ids[[ROW["ICD10CM/E11"], ROW["ICD10CM/E11.9"]]],
    )
    given = tokenizer.look_up("E11.9", description="something else")
    assert given.source == "table"
    assert "was not used" in given.notes[0]
    for ask in (lambda: tokenizer.look_up("Z99"), lambda: tokenizer.look_up("Z99", fallback="ancestors")):
        with pytest.raises(UnknownCodeError):
            ask()
    with pytest.raises(InputError, match="fallback is 'parents'"):
        tokenizer.look_up("E11.9", fallback="parents")
    with pytest.raises(InputError, match="holds no model"):
        tokenizer.look_up("E11.8", description="Type 2 diabetes mellitus with unspecified complications")


def test_saved_and_opened_again_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "copy")
    copy = MedTokTokenizer.from_pretrained(tmp_path / "copy", verify=True)
    source = tokenizer.directory.path
    assert {path.name: path.read_bytes() for path in source.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()
    }
    assert copy.config == tokenizer.config
    np.testing.assert_array_equal(copy.encode_many(KEYS), tokenizer.encode_many(KEYS))
    copy.save_pretrained(tmp_path / "copy")
    tokenizer.save_pretrained(tmp_path / "copy")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    with pytest.raises(InputError, match="is not a tokenizer directory"):
        tokenizer.save_pretrained(tmp_path / "other")
    assert (tmp_path / "other" / "precious").exists()


def test_a_work_directory_is_its_tokenizer(tmp_path):
    write(tmp_path / "tokenizer")
    assert len(MedTokTokenizer.from_pretrained(tmp_path)) == len(KEYS)


def test_orders_of_preference(tokenizer, tmp_path):
    path = tokenizer.directory.path
    assert MedTokTokenizer.from_pretrained(path, prefer="paper").look_up("10021").key == "SNOMED/10021"
    assert MedTokTokenizer.from_pretrained(path, prefer="cpt").look_up("10021").key == "CPT4/10021"
    stored = write(tmp_path / "stored", prefer=["CPT4"])
    assert MedTokTokenizer.from_pretrained(stored).look_up("10021").key == "CPT4/10021"
    assert MedTokTokenizer.from_pretrained(stored, prefer=["SNOMED"]).look_up("10021").key == "SNOMED/10021"
    with pytest.raises(InputError, match="several systems"):
        MedTokTokenizer.from_pretrained(stored, prefer=[]).look_up("10021")
    with pytest.raises(InputError, match="'ICD11' is not a code system"):
        MedTokTokenizer.from_pretrained(path, prefer=["ICD11"])
    assert set(PAPER_ORDER) >= {key.split("/")[0] for key in KEYS}


def test_a_worker_process_opens_it_itself(tokenizer):
    sent = pickle.dumps(tokenizer)
    assert len(sent) < 1000
    assert pickle.loads(sent).tokenize("E11.9") == tokenizer.tokenize("E11.9")


@pytest.mark.integration
def test_look_up_imports_no_jax(tokenizer):
    """Nor anything else that takes long to start."""
    code = f"""
import sys, medtok_jax
from medtok_jax import MedTokTokenizer
tokenizer = MedTokTokenizer.from_pretrained({str(tokenizer.directory.path)!r}, verify=True)
tokenizer([["E11.9"], ["250.00"]], padding=True)
tokenizer.neighbors("E11.9"), tokenizer.neighbors("E11.9", by="embedding"), tokenizer.decode([1])
heavy = {{"jax", "jaxlib", "flax", "torch", "tensorflow", "transformers", "huggingface_hub", "matplotlib", "absl"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_public_names():
    for name in medtok_jax.__all__:
        assert getattr(medtok_jax, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Absent'"):
        _ = medtok_jax.Absent


def test_nothing_of_the_directory_is_run(tokenizer, tmp_path):
    """Python files and pickles beside the tokenizer are left alone, and are not copied either."""
    path = write(tmp_path / "tok")
    for name in ("tokenizer.py", "__init__.py", "model.pkl", "conftest.py"):
        (path / name).write_text("raise SystemExit('run')")
    MedTokTokenizer.from_pretrained(path, verify=True).save_pretrained(tmp_path / "copy")
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == ["codebook.safetensors", CONFIG, "tokens.parquet"]


@pytest.mark.parametrize("name", ["", "absent", "./a/b", "/absent/x", "a/b/c", "~", 3, None, b"x", "\0", "x" * 5000])
def test_no_tokenizer(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError):
        MedTokTokenizer.from_pretrained(name)
