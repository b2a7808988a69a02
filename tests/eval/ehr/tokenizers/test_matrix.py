"""The matrix of codes: every code is read, rows of single codes come first, and what does not fit is refused."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

from eval.ehr.tokenizers.matrix import CodeMatrix, from_tokens, from_vectors, own_columns, side_by_side
from preprocessing.common.errors import InputError

# Six codes: a laboratory value, three codes with tokens, a code without, and another event.
MEDICAL = np.array([False, True, True, True, True, False])
TOKENS = np.array(
    [
        [0, 0, 0, 0],
        [2, 0, 2, 0],
        [0, 0, 1, 3],
        [0, 0, 0, 5],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
)
ROWS = np.arange(8, dtype=np.float32).reshape(4, 2)


@pytest.fixture
def matrix() -> CodeMatrix:
    return from_tokens("tokens", sp.csr_matrix(TOKENS), medical=MEDICAL, initial=ROWS)


def test_weights_by_hand(matrix):
    wanted = [
        # The two events, then the code without tokens; token 1 has no code.
        [1, 0, 0, 0, 0, 0],
        [0, 0, 0, 1 / 2, 1 / 2, 0],
        [0, 0, 0, 0, 1 / 4, 3 / 4],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(matrix.weights.toarray(), wanted)
    assert matrix.own == 3
    assert matrix.mapped.tolist() == [False, True, True, True, False, False]
    np.testing.assert_array_equal(matrix.initial[3:], ROWS[[0, 2, 3]])
    assert matrix.about == {
        "tokens": 4,
        "tokens_in_use": 3,
        "tokens_of_a_code": 5 / 3,
        "codes": 6,
        "medical_codes": 4,
        "mapped_codes": 3,
        "mapped_share": 0.75,
    }


def test_vectors_by_hand():
    vectors = np.arange(12.0).reshape(6, 2)
    mapped = np.array([False, True, True, True, False, False])
    matrix = from_vectors("vectors", vectors, mapped, medical=MEDICAL)
    np.testing.assert_array_equal(matrix.vectors, np.where(mapped[:, None], vectors, 0))
    wanted = np.zeros((6, 3))
    wanted[0, 0] = wanted[5, 1] = wanted[4, 2] = 1
    np.testing.assert_array_equal(matrix.own_rows.toarray(), wanted)


def test_rows_of_other_events_are_the_same_for_every_tokenizer():
    """Whatever a tokenizer maps, the laboratory value has column 0 and the other event column 1, unless mapped."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        mapped = rng.random(6) < 0.5
        own = own_columns(mapped, MEDICAL).toarray()
        assert (own.sum(1) == ~mapped).all()
        assert not own[0, 1:].any()
        assert not own[5, [0, *range(2, own.shape[1])]].any()
        assert own.shape[1] == 2 + (MEDICAL & ~mapped).sum()


def test_parameters(matrix):
    assert matrix.parameters(64) == 64 * 6
    vectors = from_vectors("vectors", np.ones((6, 5)), matrix.mapped, medical=MEDICAL)
    assert vectors.parameters(64) == 64 * (5 + 3)


def test_two_side_by_side(matrix):
    others = sp.csr_matrix(np.array([[0], [1], [0], [1], [1], [0]]))
    words = from_tokens("words", others, medical=MEDICAL)
    both = side_by_side("tokens+words", matrix, words, medical=MEDICAL)
    wanted = [
        [1, 0, 0, 0, 0, 0],
        [0, 0, 1 / 4, 1 / 4, 0, 1 / 2],
        [0, 0, 0, 1 / 4, 3 / 4, 0],
        [0, 0, 0, 0, 1 / 2, 1 / 2],
        [0, 0, 0, 0, 0, 1],
        [0, 1, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(both.weights.toarray(), wanted)
    np.testing.assert_array_equal(both.initial[2:5], ROWS[[0, 2, 3]])
    vectors = from_vectors("vectors", np.ones((6, 5)), matrix.mapped, medical=MEDICAL)
    with pytest.raises(InputError, match="tokens and vectors: vectors has vectors, which cannot stand beside tokens"):
        side_by_side("tokens and vectors", matrix, vectors, medical=MEDICAL)


def test_identity_says_what_a_model_reads(matrix):
    again = from_tokens("another name", sp.csr_matrix(2 * TOKENS), medical=MEDICAL, initial=ROWS)
    assert again.identity() == matrix.identity()
    others = [
        from_tokens("tokens", sp.csr_matrix(TOKENS), medical=MEDICAL),
        from_tokens("tokens", sp.csr_matrix(TOKENS > 0), medical=MEDICAL, initial=ROWS),
        from_tokens("tokens", sp.csr_matrix(TOKENS), medical=MEDICAL, initial=ROWS + 1),
        dataclasses.replace(matrix, expanded=True),
    ]
    assert len({matrix.identity(), *(other.identity() for other in others)}) == 5


def test_what_does_not_fit_is_refused(matrix):
    faults = {
        "must have either weights": {"weights": None},
        "6 codes, but 5 rows of weights": {"weights": matrix.weights[:5]},
        "6 features, but a table of 5 rows": {"initial": matrix.initial[:5]},
        "do not sum to one": {"weights": 2 * matrix.weights},
        "NaN or infinite": {"weights": matrix.weights * np.nan},
        "rows of single codes with vectors": {"own_rows": matrix.weights},
    }
    for sentence, change in faults.items():
        with pytest.raises(InputError, match=sentence):
            dataclasses.replace(matrix, **change)
