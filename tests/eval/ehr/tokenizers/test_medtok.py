"""Tokens and vectors of a tokenizer: by hand, in the order of a data set, and the controls made of them."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

from eval.common.representation import Representation
from eval.ehr.tokenizers.controls import cooccurrence, one_cycle
from eval.ehr.tokenizers.make import make
from eval.ehr.tokenizers.medtok import open_tokenizer
from eval.ehr.tokenizers.spelling import EventCodes
from medtok_jax.lookup.directory import TokenizerDirectory
from preprocessing.common.errors import InputError
from tests.eval.ehr.tokenizers.conftest import CODES, MEDICAL
from tests.helpers import small_tokenizer

# The key of each code in the small tokenizer.
KEYS = {
    0: "ICD9CM/250.00",
    1: "ICD10CM/E10.9",
    2: "ICD10CM/E11",
    3: "ICD10CM/E11.9",
    4: "ICD10CM/E11.65",
    10: "NDC/00002143380",
}
# Two other events, then three codes that it lacks.
OWN = {8: 0, 9: 1, 5: 2, 6: 3, 7: 4}


def by_hand(directory: TokenizerDirectory, *, weighted: bool) -> np.ndarray:
    """Return the weights of the tokens of all codes, `[codes, N]`, by loops."""
    row_of = {key: row for row, key in enumerate(directory.table["key"].to_pylist())}
    wanted = np.zeros((len(CODES), len(directory.codebook)))
    for code, key in KEYS.items():
        ids, weights = directory.ids[row_of[key]], directory.weights[row_of[key]].astype(np.float64)
        for start in range(0, 8, 2):
            part = weights[start : start + 2] if weighted else np.ones(2)
            for token, weight in zip(ids[start : start + 2], part / part.sum(), strict=True):
                wanted[code, token] += weight / 4
    return wanted


@pytest.mark.parametrize("suffix", ["", ":unweighted", ":expanded"])
def test_pooled_tokens_by_hand(small_dir, context, suffix):
    directory = TokenizerDirectory.read(small_dir)
    matrix = make(f"{small_dir}{suffix}", CODES, context)
    wanted = by_hand(directory, weighted=suffix != ":unweighted")
    used = np.flatnonzero(wanted.any(0))
    np.testing.assert_allclose(matrix.weights[:, 5:].toarray(), wanted[:, used], atol=1e-6)
    np.testing.assert_array_equal(matrix.initial[5:], directory.codebook[used])
    own = np.zeros((len(CODES), 5))
    for code, column in OWN.items():
        own[code, column] = 1
    np.testing.assert_array_equal(matrix.weights[:, :5].toarray(), own)
    assert matrix.mapped.tolist() == [code in KEYS for code in range(len(CODES))]
    assert matrix.expanded == (suffix == ":expanded")
    assert matrix.name == f"small{suffix}"
    assert matrix.about["identity"] == directory.config.identity


def test_embeddings_are_weighted_sums_of_rows(small_dir, context):
    directory = TokenizerDirectory.read(small_dir)
    matrix = make(f"{small_dir}:embeddings", CODES, context)
    row_of = {key: row for row, key in enumerate(directory.table["key"].to_pylist())}
    for code, key in KEYS.items():
        ids, weights = directory.ids[row_of[key]], directory.weights[row_of[key]]
        rows = (directory.codebook[ids] * weights[:, None]).reshape(4, 2, -1).sum(1)
        np.testing.assert_allclose(matrix.vectors[code], rows.ravel(), atol=1e-6)
    assert not matrix.vectors[list(OWN)].any()
    assert matrix.own_rows.shape == (len(CODES), 5)


def test_shuffled_codes_have_tokens_of_others(small_dir, context):
    kept = make(str(small_dir), CODES, context)
    dealt = [make("shuffled", CODES, type(context)(**{**vars(context), "seed": seed})) for seed in range(3)]
    for matrix in dealt:
        assert matrix.own == kept.own
        np.testing.assert_array_equal(matrix.mapped, kept.mapped)
        assert sorted(map(tuple, matrix.weights.toarray())) == sorted(map(tuple, kept.weights.toarray()))
        same = abs(matrix.weights - kept.weights).sum(1).A1 == 0
        assert not same[kept.mapped].any()
    assert len({matrix.identity() for matrix in dealt}) > 1
    assert make("shuffled", CODES, context).identity() == dealt[0].identity()


def test_where_vectors_are_judged_they_are_dealt(small_dir, context):
    judged = f"{small_dir}:embeddings"
    kept = make(judged, CODES, context)
    dealt = make("shuffled", CODES, dataclasses.replace(context, first=judged))
    assert dealt.vectors is not None
    assert sorted(map(tuple, dealt.vectors)) == sorted(map(tuple, kept.vectors))
    assert (dealt.vectors != kept.vectors).any(1)[kept.mapped].all()
    unweighted = dataclasses.replace(context, first=f"{small_dir}:unweighted")
    same_bags = make(f"{small_dir}:unweighted", CODES, context).weights.toarray()
    assert sorted(map(tuple, make("shuffled", CODES, unweighted).weights.toarray())) == sorted(map(tuple, same_bags))


def test_one_cycle_moves_everything():
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 50):
        order = one_cycle(count, rng)
        place, length = order[0], 1
        while place != 0:
            place, length = order[place], length + 1
        assert length == count


def test_random_tokens(context):
    first, again = (make("random", CODES, context) for _ in range(2))
    assert first.identity() == again.identity()
    assert (np.diff(first.weights.indptr)[MEDICAL] == 8).all()
    assert first.about["tokens"] == small_tokenizer.REGIONS.size
    spelled = make("random", np.array(["ICD10CM/E119", "ICD10CM/E11.9", "ICD10CM/E10.9"]), context).weights.toarray()
    np.testing.assert_array_equal(spelled[0], spelled[1])
    assert (spelled[0] != spelled[2]).any()


def test_a_category_that_a_representation_lacks_is_the_mean_of_its_codes(tmp_path, context):
    keys = ["ICD10CM/E10.9", "ICD10CM/E11.65", "ICD10CM/E11.9", "RxNorm/123"]
    tokens = np.array([[0, 1], [1, 2], [2, 3], [4, -1]], np.int32)
    Representation(
        name="saved",
        keys=np.array(keys),
        descriptions=np.array(keys),
        tokens=tokens,
        vectors=np.eye(4, dtype=np.float32),
    ).save(tmp_path / "saved")
    codes = np.array(["ICD10CM/E11", "ICD10CM/E11.65", "ICD10CM/E12", "RxNorm/12"])
    matrix = make(str(tmp_path / "saved"), codes, context)
    assert matrix.mapped.tolist() == [True, True, False, False]
    np.testing.assert_allclose(matrix.weights[:2, 2:].toarray(), [[1 / 4, 1 / 2, 1 / 4], [1 / 2, 1 / 2, 0]])
    vectors = make(f"{tmp_path / 'saved'}:embeddings", codes, context).vectors
    np.testing.assert_allclose(vectors[0], [0, 1 / 2, 1 / 2, 0])


def test_a_tokenizer_of_other_codes_is_refused(small_dir):
    with pytest.raises(InputError, match="maps none of the 2 codes of the data set"):
        open_tokenizer(small_dir, EventCodes.read(np.array(["LAB//1", "ICD10CM/I50.9"])))
    with pytest.raises(InputError, match="neither a tokenizer directory"):
        open_tokenizer(small_dir.parent, EventCodes.read(CODES))


def test_cooccurrence_brings_together_what_stands_together():
    """Codes of two groups that never meet: a code is nearer to its group; unseen codes have a row of their own."""
    keys = np.array([f"ICD10CM/A{number:02}" for number in range(9)] + ["LAB//1"])
    rng = np.random.default_rng(0)
    bags = np.zeros((200, 10))
    for row in bags:
        group = 4 * rng.integers(2)
        row[rng.choice(np.arange(group, group + 4), 2, replace=False)] = rng.integers(1, 5)
        row[9] = 1
    codes = EventCodes.read(keys)
    matrix = cooccurrence(codes, sp.csr_matrix(bags), seed=0, width=2)
    assert matrix.mapped.tolist() == [True] * 8 + [False] * 2
    unit = matrix.vectors[:8] / np.linalg.norm(matrix.vectors[:8], axis=1, keepdims=True)
    cosine = unit @ unit.T
    together = np.kron(np.eye(2), np.ones((4, 4))) > 0
    assert cosine[together].min() > cosine[~together].max() + 0.5
    assert cooccurrence(codes, sp.csr_matrix(bags), seed=0, width=2).identity() == matrix.identity()
    with pytest.raises(InputError, match="made of training samples"):
        cooccurrence(codes, None, seed=0)
    with pytest.raises(InputError, match="at least two codes"):
        cooccurrence(codes, sp.csr_matrix(0 * bags), seed=0)
