"""Make the controls of the benchmark: tokens dealt to wrong codes, random tokens, and vectors of co-occurrence."""

import numpy as np

from eval.ehr.tokenizers.matrix import CodeMatrix, from_tokens, from_vectors
from eval.ehr.tokenizers.medtok import CodesOfTokenizer, embedded, pooled
from eval.ehr.tokenizers.spelling import EventCodes
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load

sparse = load("scipy.sparse")
linalg = load("scipy.sparse.linalg")

# Width of vectors of co-occurrence.
WIDTH = 64


def shuffled(
    opened: CodesOfTokenizer,
    *,
    medical: np.ndarray,
    seed: int,
    weighted: bool = True,
    expanded: bool = False,
    of_vectors: bool = False,
) -> CodeMatrix:
    """Return the matrix of a tokenizer whose tokens are dealt at random, to no code its own.

    It has the same tokens as often, and so tells what a tokenizer gains by anything but the meaning of its tokens.
    Where frozen vectors are judged, these are dealt instead.

    Args:
        opened: codes with their rows of the tokenizer.
        medical: `[codes]` bool, codes that name a code system.
        seed: seed of the permutation.
        weighted: whether tokens count by their weights.
        expanded: see `CodeMatrix`.
        of_vectors: whether to deal the frozen vectors.
    """
    order = one_cycle(opened.share.shape[1], np.random.default_rng([seed, 1]))
    if of_vectors:
        matrix = embedded(opened, "shuffled", medical=medical, order=order)
    else:
        options = {"weighted": weighted, "expanded": expanded, "order": order, "seed": seed}
        matrix = pooled(opened, "shuffled", medical=medical, **options)
    matrix.about.update(permutation=seed, of=opened.representation.name)
    return matrix


def one_cycle(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a permutation of one cycle, which moves every element: Sattolo, "An algorithm to generate a random cyclic
    permutation" (1986).
    """
    order = np.arange(count)
    for last in range(count - 1, 0, -1):
        other = rng.integers(last)
        order[[last, other]] = order[[other, last]]
    return order


def random_tokens(codes: EventCodes, *, size: int, num_tokens: int, width: int, seed: int) -> CodeMatrix:
    """Draw distinct tokens for each code of a code system at random, with random rows; spellings of a code share them.

    Args:
        codes: codes of a data set.
        size: number N of tokens.
        num_tokens: number of tokens of a code.
        width: width of the rows.
        seed: seed of the draws.
    """
    rng = np.random.default_rng([seed, 2])
    known, of_code = np.unique(codes.keys, return_inverse=True)
    drawn = np.stack([rng.choice(size, num_tokens, replace=False) for _ in known])[of_code]
    rows = np.repeat(np.flatnonzero(codes.medical), num_tokens)
    columns = drawn[codes.medical].ravel()
    tokens = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(codes), size))
    book = rng.normal(size=(size, width))
    book /= np.linalg.norm(book, axis=1, keepdims=True)
    return from_tokens("random", tokens, medical=codes.medical, initial=book, seed=seed)


def cooccurrence(codes: EventCodes, bags: "sparse.csr_matrix | None", *, seed: int, width: int = WIDTH) -> CodeMatrix:
    """Return the matrix of vectors that factorize how often two codes stand in one sample, of training samples alone.

    The matrix of positive pointwise mutual information of two codes in a sample is factorized by a truncated singular
    value decomposition, and a code is its left singular vector scaled by the square roots of the singular values
    (Levy and Goldberg, "Neural word embedding as implicit matrix factorization", 2014). A code that no training sample
    has gets a row of its own.

    Args:
        codes: codes of a data set.
        bags: `[samples, codes]` csr counts of training samples.
        seed: seed of the first vector of the decomposition.
        width: number of singular values.

    Raises:
        InputError: there are no bags, or hardly any codes in them.
    """
    if bags is None:
        raise InputError("cooccurrence is made of training samples, and none were given; leave it out.")
    present = sparse.csr_matrix(bags, dtype=np.float64, copy=True)
    present.data[:] = present.data > 0
    present = present[:, np.flatnonzero(codes.medical)]
    together = sparse.coo_matrix(present.T @ present)
    counts = together.sum(axis=1).A1
    expected = counts[together.row] * counts[together.col]
    value = np.log(np.maximum(together.data * counts.sum(), 1e-12) / np.maximum(expected, 1e-12))
    positive = sparse.csr_matrix((np.maximum(value, 0), (together.row, together.col)), shape=together.shape)
    rank = min(width, positive.shape[0] - 1)
    if rank < 1 or not positive.nnz:
        raise InputError("cooccurrence needs at least two codes that stand in one training sample; leave it out.")
    start = np.random.default_rng([seed, 3]).normal(size=positive.shape[0])
    left, values, _ = linalg.svds(positive, k=rank, v0=start)
    # The sign of a singular vector is arbitrary; its largest component decides.
    signs = np.sign(left[np.abs(left).argmax(0), np.arange(rank)])
    vectors = np.zeros((len(codes), rank), np.float32)
    vectors[codes.medical] = (left * signs * np.sqrt(values))[:, ::-1]
    mapped = np.zeros(len(codes), bool)
    mapped[codes.medical] = counts > 0
    return from_vectors("cooccurrence", vectors, mapped, medical=codes.medical)
