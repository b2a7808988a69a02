"""The embedding of codes against dense products, and the rows that its table starts with."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from flax import nnx

from eval.ehr.models.embedding import (
    SCALE,
    CodeEmbedding,
    first_table,
    make_lookup,
    power_of_two,
    used_features,
)
from eval.ehr.tokenizers.matrix import from_tokens
from tests.helpers.planted_patients import CODES, single_codes, some_tokens, some_vectors

ALL = np.arange(CODES)


def table_of(matrix, width=8, codes=ALL, seed=0) -> np.ndarray:
    return first_table(matrix, width, used=used_features(matrix, codes), seed=seed)


def test_a_power_of_two_holds_the_count():
    assert [power_of_two(count) for count in (0, 1, 2, 3, 4, 5, 1024, 1025)] == [1, 1, 2, 4, 4, 8, 1024, 2048]


@pytest.mark.parametrize("make", [single_codes, some_tokens])
@pytest.mark.parametrize("shape", [(2, 3), (5, 40)])
def test_a_code_is_the_weighted_sum_of_its_rows(make, shape):
    matrix = make()
    embedding = CodeEmbedding(table_of(matrix), 0, rngs=nnx.Rngs(0))
    code = np.random.default_rng(1).integers(0, CODES, shape)
    dense = matrix.weights.toarray() @ np.asarray(embedding.table[...])[: matrix.num_features]
    found = embedding(make_lookup(matrix), jnp.asarray(code))
    np.testing.assert_allclose(found, dense[code], atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3), (5, 40)])
def test_fixed_vectors_pass_through_a_linear_layer(shape):
    matrix = some_vectors()
    embedding = CodeEmbedding(table_of(matrix), 6, rngs=nnx.Rngs(0))
    lookup = make_lookup(matrix)
    vectors = np.asarray(lookup.vectors)[:CODES]
    assert (vectors[~matrix.mapped] == 0).all()
    np.testing.assert_allclose(vectors[matrix.mapped].mean(axis=0), 0, atol=1e-6)
    assert np.sqrt(np.mean(vectors[matrix.mapped] ** 2)) == pytest.approx(SCALE, rel=1e-5)
    own = matrix.own_rows.toarray() @ np.asarray(embedding.table[...])[: matrix.own]
    expected = vectors @ np.asarray(embedding.project.kernel[...]) + own
    code = np.random.default_rng(1).integers(0, CODES, shape)
    np.testing.assert_allclose(embedding(lookup, jnp.asarray(code)), expected[code], atol=1e-6)


def test_the_table_keeps_the_distances_of_the_codebook():
    matrix = some_tokens()
    rows = matrix.initial[matrix.own :]
    table = table_of(matrix)[matrix.own : matrix.num_features]
    distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (rows, table)]
    ratio = distances[1][distances[0] > 0] / distances[0][distances[0] > 0]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    pooled = matrix.weights[matrix.mapped][:, matrix.own :] @ table
    assert np.sqrt(np.mean(pooled**2)) == pytest.approx(SCALE, rel=1e-5)


def test_a_wide_codebook_keeps_the_axes_of_most_variance():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 6)) * [9, 0.1, 5, 0.1, 0.1, 0.1]
    tokens = sp.csr_matrix(rng.random((CODES, 12)))
    matrix = from_tokens("wide", tokens, medical=np.ones(CODES, bool), initial=rows)
    table = table_of(matrix, width=2)[:12]
    distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (rows, table)]
    assert np.corrcoef(distances[0].ravel(), distances[1].ravel())[0, 1] > 0.99


def test_random_rows_start_at_the_same_scale_whatever_the_number_of_tokens():
    matrix = dataclasses.replace(some_tokens(), initial=None)
    pooled = matrix.weights[matrix.mapped] @ table_of(matrix, width=256)[: matrix.num_features]
    assert np.sqrt(np.mean(pooled**2)) == pytest.approx(SCALE, rel=0.1)
    assert np.sqrt(np.mean(table_of(single_codes(), width=256)[:CODES] ** 2)) == pytest.approx(SCALE, rel=0.05)


def test_rows_that_no_training_sample_teaches_are_zero_unless_the_codebook_knows_them():
    some = np.array([3, 4])
    table = table_of(single_codes(), codes=some)
    assert np.flatnonzero(np.abs(table).sum(axis=1)).tolist() == [3, 4]
    tokens = some_tokens()
    table = table_of(tokens, codes=some)
    assert tokens.own == 1
    assert (table[0] == 0).all()
    assert (np.abs(table[1 : tokens.num_features]).sum(axis=1) > 0).all()
    assert (table[tokens.num_features :] == 0).all()


def test_single_codes_have_the_same_rows_with_every_tokenizer():
    medical = ALL >= 6
    tokens = sp.csr_matrix(np.where(medical[:, None], 1.0, 0.0))
    one = from_tokens("one", tokens, medical=medical)
    other = from_tokens("other", sp.csr_matrix(np.diag(medical.astype(float))), medical=medical)
    np.testing.assert_array_equal(table_of(one)[:6], table_of(other)[:6])
