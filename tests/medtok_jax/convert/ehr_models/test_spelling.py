"""The words that stand for a code equal those of plain loops over the tokenizer's own table."""

import numpy as np
import pytest

from medtok_jax.convert.ehr_models import spelling
from medtok_jax.records.event_codes import CodeMapper
from medtok_jax.records.token_rows import TokenRows
from medtok_jax.records.visits import read_visits
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset
from tests.helpers import small_tokenizer
from tests.helpers.small_tokenizer import K

SPECIAL = ["PAD", "UNK"]


@pytest.fixture(scope="module")
def tokenizer(small_tokenizer_dir):
    return MedTokTokenizer.from_pretrained(small_tokenizer_dir)


@pytest.fixture(scope="module")
def visits(small_meds, tokenizer):
    mapper = CodeMapper(tokenizer.directory.table["key"])
    return read_visits(MedsDataset.open(small_meds), mapper, progress=False)


def spelled(of, key):
    return [of.tokens[token] for token in of.of(int(np.flatnonzero(key)[0]))]


@pytest.mark.parametrize("per_code", [0, 1, 3, 4, 99])
def test_tokens_come_by_rank_then_embedding_and_once(tokenizer, visits, per_code):
    found = spelling.by_tokens(
        TokenRows.of(tokenizer.directory), visits, special=SPECIAL, unknown=None, per_code=per_code
    )
    for key, row in zip(visits.key, visits.row, strict=True):
        if row < 0:
            assert spelled(found, visits.key == key) == [key]
            continue
        ids = tokenizer.encode(str(key))
        order = [ids[embedding * K + rank] for rank in range(K) for embedding in range(4)]
        wanted = list(dict.fromkeys(order))[: per_code or None]
        assert spelled(found, visits.key == key) == [f"MEDTOK//{number}" for number in wanted]


def test_the_vocabulary_holds_all_tokens_and_unmapped_codes(tokenizer, visits):
    found = spelling.by_tokens(TokenRows.of(tokenizer.directory), visits, special=SPECIAL, unknown=None, per_code=0)
    own = ["ICD9CM/999.99", "NDC/99999999999"]
    assert found.tokens == [*SPECIAL, *(f"MEDTOK//{i}" for i in range(small_tokenizer.REGIONS.size)), *own]
    np.testing.assert_array_equal(found.vectors[2:-2], tokenizer.directory.codebook)
    assert found.has_vector.tolist() == [False] * 2 + [True] * small_tokenizer.REGIONS.size + [False] * 2


@pytest.mark.parametrize("write", ["tokens", "codes"])
def test_unknown_stands_for_every_unmapped_code(tokenizer, visits, write):
    options = {"per_code": 0} if write == "tokens" else {}
    of = getattr(spelling, f"by_{write}")
    found = of(TokenRows.of(tokenizer.directory), visits, special=SPECIAL, unknown="UNK", **options)
    assert all(spelled(found, visits.key == key) == ["UNK"] for key in visits.key[visits.row < 0])
    assert not {"ICD9CM/999.99", "NDC/99999999999"} & set(found.tokens)


def test_a_code_of_its_own_begins_as_the_mean_of_its_embeddings(tokenizer, visits):
    found = spelling.by_codes(TokenRows.of(tokenizer.directory), visits, special=SPECIAL, unknown=None)
    assert sorted(found.tokens[2:]) == sorted(visits.key.tolist())
    for token, vector in zip(found.tokens, found.vectors, strict=True):
        if token in small_tokenizer.KEYS:
            np.testing.assert_allclose(vector, tokenizer.embed(token, pooled=True), atol=1e-6)
        else:
            assert np.isnan(vector).all()
    assert all(spelled(found, visits.key == key) == [key] for key in visits.key)


def test_the_initial_matrix_keeps_angles_and_has_the_spread_of_the_model(tokenizer, visits):
    found = spelling.by_tokens(TokenRows.of(tokenizer.directory), visits, special=SPECIAL, unknown=None, per_code=0)
    matrix, share = found.initial_matrix(24, std=0.02)
    assert share == 1.0
    assert matrix.shape == (len(found.tokens), 24)
    assert matrix.dtype == np.float32
    ours, theirs = matrix[found.has_vector], tokenizer.directory.codebook

    def cosine(x):
        return (x @ x.T) / np.outer(*[np.linalg.norm(x, axis=1)] * 2)

    np.testing.assert_allclose(cosine(ours), cosine(theirs), atol=1e-5)
    assert ours.std() == pytest.approx(0.02, rel=1e-4)
    assert 0.01 < matrix[~found.has_vector].std() < 0.03
    np.testing.assert_array_equal(matrix, found.initial_matrix(24, std=0.02).vectors)
    narrow, share = found.initial_matrix(small_tokenizer.DIM - 1, std=0.02)
    assert narrow.shape == (len(found.tokens), small_tokenizer.DIM - 1)
    variances = np.linalg.svd(theirs - theirs.mean(0), compute_uv=False) ** 2
    assert share == pytest.approx(variances[:-1].sum() / variances.sum(), rel=1e-5)


def test_a_code_that_is_called_like_a_special_token_is_refused(tokenizer, visits):
    with pytest.raises(InputError, match=r"ICD9CM/999\.99"):
        spelling.by_tokens(
            TokenRows.of(tokenizer.directory), visits, special=["ICD9CM/999.99"], unknown=None, per_code=0
        )
