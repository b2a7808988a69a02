"""The Python API on a hand-made directory: tokens, embeddings, neighbors, and round trips."""

from collections import Counter

import numpy as np
import pytest

import medtok_jax
from medtok_jax import MedTokTokenizer, UnknownCodeError
from medtok_jax.lookup.code_names import PAPER_ORDER
from medtok_jax.regions import EMBEDDINGS, REGION_OF_EMBEDDING
from preprocessing.common.errors import InputError
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
        assert tokenizer.encode(key) == tokens.ids[row].tolist()
        found = tokenizer.look_up(key)
        assert (found.key, found.source, found.notes) == (key, "table", ())
        assert (found.ids.dtype, found.weights.dtype) == (np.int32, np.float32)
        np.testing.assert_array_equal(found.ids, tokens.ids[row])
        np.testing.assert_array_equal(found.weights, tokens.weights[row].astype(np.float16))
        assert (found.has_text, found.has_graph) == (tokens.has_text[row], tokens.has_graph[row])
    np.testing.assert_array_equal(tokenizer.encode_many(KEYS), tokens.ids)
    assert tokenizer.num_codes == len(KEYS)
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
    assert len(tokenizer) == tokenizer.vocab_size
    ids = list(range(tokenizer.vocab_size))
    assert tokenizer.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(ids)) == ids
    assert [tokenizer.token_of(number) for number in ids] == sorted(vocabulary, key=vocabulary.get)
    assert sorted(tokenizer.all_special_ids) == ids[-5:]
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
        pairs = zip(tokens.ids[row], tokens.weights[row].astype(np.float16).astype(np.float32), strict=True)
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
    weights = tokens.weights.astype(np.float16).astype(np.float32)
    bags = [bag(*pair) for pair in zip(tokens.ids, weights, strict=True)]
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


def test_fallback_and_sources(tokenizer, tokens):
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


def test_public_names():
    for name in medtok_jax.__all__:
        assert getattr(medtok_jax, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Absent'"):
        _ = medtok_jax.Absent
