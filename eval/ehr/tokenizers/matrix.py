"""Hold what a model reads of each code of a data set: weights over features, or a fixed vector.

A code that a tokenizer maps is a weighted mean of features (tokens, words, categories), or a vector. Every other code
has a feature of its own, as in code-as-token, so that no tokenizer drops a code. These features come first: those of
events outside of all code systems (laboratory values, drugs by a name), which are the same for every tokenizer, and
behind them those of codes that this tokenizer lacks.
"""

import dataclasses
import hashlib

import numpy as np

from preprocessing.common.errors import InputError
from preprocessing.common.extras import load

sparse = load("scipy.sparse")

# Largest deviation of the sum of a row from one.
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class CodeMatrix:
    """Hold what a model reads of each of n codes; either `weights` or `vectors` is None.

    Attributes:
        name: name of the tokenizer in tables and plots.
        mapped: `[codes]` bool, codes that have tokens (or a vector) of the tokenizer.
        own: number of codes that have a feature of their own, at most one for each code.
        weights: `[codes, features]` float32 csr; the first `own` features are those of single codes. The absolute
            values of each row sum to one.
        initial: `[features, d]` float32, rows from which a trainable table of the features starts (the codebook, and
            random rows for single codes); None for a table that starts at random.
        vectors: `[codes, D]` float32, fixed, 0 for codes that are not mapped.
        own_rows: with `vectors`, `[codes, own]` float32 csr: the single feature of each code that is not mapped.
        expanded: whether sequence models read each token of a code as a position instead of their weighted mean.
        about: provenance for the report.
    """

    name: str
    mapped: np.ndarray
    own: int
    weights: "sparse.csr_matrix | None" = None
    initial: np.ndarray | None = None
    vectors: np.ndarray | None = None
    own_rows: "sparse.csr_matrix | None" = None
    expanded: bool = False
    about: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Raise InputError unless the fields fit together and every code can be read."""
        if (self.weights is None) == (self.vectors is None):
            raise InputError(f"the tokenizer {self.name} must have either weights over features or vectors.")
        if (self.vectors is None) != (self.own_rows is None):
            raise InputError(f"the tokenizer {self.name} must have rows of single codes with vectors, and only then.")
        if self.vectors is not None and (self.expanded or self.initial is not None):
            raise InputError(f"the tokenizer {self.name} has vectors, and so neither tokens to expand nor a table.")
        for name in ("weights", "vectors", "own_rows"):
            array = getattr(self, name)
            if array is not None and array.shape[0] != len(self.mapped):
                raise InputError(f"{self.name} has {len(self.mapped)} codes, but {array.shape[0]} rows of {name}.")
        if self.own_rows is not None and self.own_rows.shape[1] != self.own:
            raise InputError(f"{self.name} has {self.own} single codes, but {self.own_rows.shape[1]} rows of them.")
        if self.initial is not None and len(self.initial) != self.num_features:
            raise InputError(f"{self.name} has {self.num_features} features, but a table of {len(self.initial)} rows.")
        if not np.isfinite(self.weights.data if self.vectors is None else self.vectors).all():
            raise InputError(f"the tokenizer {self.name} has NaN or infinite values; make it again.")
        read = abs(self.weights if self.vectors is None else self.own_rows).sum(axis=1).A1
        expected = np.ones(len(read)) if self.vectors is None else ~self.mapped
        if (abs(read - expected) > _TOLERANCE).any():
            raise InputError(f"the tokenizer {self.name} has codes whose weights do not sum to one.")

    def __len__(self) -> int:
        return len(self.mapped)

    @property
    def num_features(self) -> int:
        """Return the number of features, those of single codes included; with vectors, of these alone."""
        return self.own if self.weights is None else self.weights.shape[1]

    def parameters(self, width: int) -> int:
        """Return the number of parameters of a model of this width that depend on the tokenizer.

        These are a row for each feature, and with vectors the matrix that projects them to the width.
        """
        return width * (self.num_features + (0 if self.vectors is None else self.vectors.shape[1]))

    def identity(self) -> str:
        """Return the sha256, in hexadecimal, of all that a model reads."""
        digest = hashlib.sha256(f"{self.own} {self.expanded}".encode())
        for matrix in (self.weights, self.own_rows):
            if matrix is not None:
                for part in (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data):
                    digest.update(np.ascontiguousarray(part).tobytes())
        for array in (self.initial, self.vectors):
            if array is not None:
                digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def from_tokens(
    name: str,
    tokens: "sparse.csr_matrix",
    *,
    medical: np.ndarray,
    initial: np.ndarray | None = None,
    expanded: bool = False,
    seed: int = 0,
    about: dict | None = None,
) -> CodeMatrix:
    """Return the matrix of codes with tokens; a code without tokens gets a feature of its own.

    Tokens that no code has are left out, as a model could not learn them.

    Args:
        name: name of the tokenizer.
        tokens: `[codes, N]` weights of tokens, which are scaled to a sum of one; an empty row for a code without.
        medical: `[codes]` bool, codes that name a code system, see `own_columns`.
        initial: `[N, d]` rows of the tokens, None to start at random.
        expanded: see `CodeMatrix`.
        seed: seed of the first rows of single codes.
        about: provenance to which the counts are added.
    """
    tokens = sparse.csr_matrix(tokens, dtype=np.float32, copy=True)
    tokens.sum_duplicates()
    tokens.eliminate_zeros()
    sums = abs(tokens).sum(axis=1).A1
    mapped = sums > 0
    tokens.data /= np.repeat(sums, np.diff(tokens.indptr)).astype(np.float32)
    used = np.flatnonzero(np.bincount(tokens.indices, minlength=tokens.shape[1]))
    own = own_columns(mapped, medical)
    weights = sparse.csr_matrix(sparse.hstack([own, tokens[:, used]], format="csr"), dtype=np.float32)
    weights.sort_indices()
    if initial is not None:
        initial = np.concatenate([_random_rows(own.shape[1], initial[used], seed), initial[used]]).astype(np.float32)
    counts = {"tokens_in_use": len(used), "tokens": tokens.shape[1]}
    counts |= {"tokens_of_a_code": float(np.diff(tokens.indptr)[mapped].mean()) if mapped.any() else 0.0}
    return CodeMatrix(
        name=name,
        mapped=mapped,
        own=own.shape[1],
        weights=weights,
        initial=initial,
        expanded=expanded,
        about=(about or {}) | counts | shares(mapped, medical),
    )


def from_vectors(
    name: str, vectors: np.ndarray, mapped: np.ndarray, *, medical: np.ndarray, about: dict | None = None
) -> CodeMatrix:
    """Return the matrix of codes with vectors; a code that is not mapped gets a feature of its own.

    Args:
        name: name of the tokenizer.
        vectors: `[codes, D]`; rows of codes that are not mapped are not read.
        mapped: `[codes]` bool.
        medical: `[codes]` bool, codes that name a code system, see `own_columns`.
        about: provenance to which the counts are added.
    """
    vectors = np.where(mapped[:, None], vectors, 0).astype(np.float32)
    own = own_columns(mapped, medical)
    about = (about or {}) | {"width": vectors.shape[1]} | shares(mapped, medical)
    return CodeMatrix(name=name, mapped=mapped, own=own.shape[1], vectors=vectors, own_rows=own, about=about)


def own_columns(mapped: np.ndarray, medical: np.ndarray) -> "sparse.csr_matrix":
    """Return the `[codes, own]` csr matrix with a one in the column of each code that has a feature of its own.

    The first columns are those of codes that are not medical, in their order, also where a tokenizer maps some: they
    are the same for every tokenizer. Behind them are those of the medical codes that are not mapped.

    Args:
        mapped: `[codes]` bool, codes that have tokens or a vector.
        medical: `[codes]` bool, codes that name a code system.
    """
    columns = np.concatenate([np.flatnonzero(~medical), np.flatnonzero(medical & ~mapped)])
    single = ~mapped[columns]
    places = (columns[single], np.flatnonzero(single))
    return sparse.csr_matrix((np.ones(single.sum(), np.float32), places), shape=(len(mapped), len(columns)))


def _random_rows(count: int, like: np.ndarray, seed: int) -> np.ndarray:
    """Draw `[count, d]` rows whose length is that of an average row of `like`."""
    rows = np.random.default_rng(seed).normal(size=(count, like.shape[1]))
    length = np.linalg.norm(like, axis=1).mean() if len(like) else 1.0
    return rows * (length / np.sqrt(max(like.shape[1], 1)))


def shares(mapped: np.ndarray, medical: np.ndarray) -> dict[str, int | float]:
    """Return the numbers of codes, of those that name a code system and of those that are mapped, and their share."""
    counts = {"codes": len(mapped), "medical_codes": int(medical.sum()), "mapped_codes": int(mapped.sum())}
    return counts | {"mapped_share": float(mapped[medical].mean()) if medical.any() else 0.0}


def side_by_side(name: str, first: CodeMatrix, second: CodeMatrix, *, medical: np.ndarray, seed: int = 0) -> CodeMatrix:
    """Return the features of two tokenizers, each with half of the weight of a code that both map.

    A code that only one of them maps is read by that one, and a code that neither maps has a feature of its own. The
    table starts from the rows of the tokenizers that have some of the same width, and else from random ones.

    Args:
        name: name of the result.
        first, second: tokenizers of the same codes, with weights.
        medical: `[codes]` bool, codes that name a code system.
        seed: seed of the rows where a tokenizer has none.

    Raises:
        InputError: one of the tokenizers has vectors.
    """
    for part in (first, second):
        if part.weights is None:
            raise InputError(
                f"{name}: {part.name} has vectors, which cannot stand beside tokens; choose two with tokens."
            )
    tokens = sparse.hstack([part.weights[:, part.own :] for part in (first, second)], format="csr")
    rows = [None if part.initial is None else part.initial[part.own :] for part in (first, second)]
    widths = {array.shape[1] for array in rows if array is not None}
    initial = None
    if len(widths) == 1:
        like = next(array for array in rows if array is not None)
        sizes = [part.num_features - part.own for part in (first, second)]
        drawn = [_random_rows(size, like, seed + 1) if a is None else a for a, size in zip(rows, sizes, strict=True)]
        initial = np.concatenate(drawn)
    about = {"of": [first.name, second.name]}
    expanded = first.expanded or second.expanded
    return from_tokens(name, tokens, medical=medical, initial=initial, expanded=expanded, seed=seed, about=about)
