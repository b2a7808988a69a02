"""Read a code by the tokens or the embeddings of a tokenizer directory or of a saved representation."""

import bisect
import dataclasses
from pathlib import Path

import numpy as np

from eval.common.representation import FILE, Representation, from_tokenizer, load, name_of
from eval.ehr.tokenizers.matrix import CodeMatrix, from_tokens, from_vectors
from eval.ehr.tokenizers.spelling import EventCodes
from eval.quality.bags import bags_of
from medtok_jax.lookup import hub
from medtok_jax.lookup.config import CONFIG
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.records.event_codes import CodeMapper
from preprocessing.codes import ATC, ICD_SYSTEMS, NDC, compact_code
from preprocessing.common import extras
from preprocessing.common.errors import InputError
from preprocessing.common.ragged import offsets_of

sparse = extras.load("scipy.sparse")

# Systems in which the codes under a category begin with its spelling.
_SPELLED_TREES = (*ICD_SYSTEMS, ATC, NDC)


@dataclasses.dataclass(frozen=True)
class CodesOfTokenizer:
    """Hold the rows of a tokenizer that stand for the codes of a data set.

    Attributes:
        representation: tokens and vectors of the rows in use.
        share: `[codes, rows]` float32 csr, share of each row in a code: one row, or for a category that the tokenizer
            lacks the mean of the codes under it; an empty row for a code that is not mapped.
    """

    representation: Representation
    share: "sparse.csr_matrix"


def open_tokenizer(path: str | Path, codes: EventCodes) -> CodesOfTokenizer:
    """Open a tokenizer directory, a work directory, a tokenizer on the hub or a saved representation, for some codes.

    Args:
        path: a path, or a name on the hub.
        codes: codes of a data set.

    Raises:
        InputError: the path is neither, its files are damaged, or it maps none of the codes.
    """
    found = _opened(path)
    if isinstance(found, Representation):
        rows_of = _rows_and_below(codes, found.keys)
    else:
        rows_of = [[row] if row >= 0 else [] for row in CodeMapper.of(found).rows(codes.spelled).tolist()]
    used, of_code = np.unique(np.array([row for part in rows_of for row in part], np.int64), return_inverse=True)
    if not len(used):
        raise InputError(
            f"{path} maps none of the {len(codes):,} codes of the data set; take a tokenizer of its code systems."
        )
    representation = found.take(used) if isinstance(found, Representation) else _representation(found, used)
    share = np.concatenate([np.full(len(part), 1 / len(part), np.float32) for part in rows_of if part])
    shape = (len(codes), len(used))
    offsets = offsets_of([len(part) for part in rows_of])
    return CodesOfTokenizer(representation, sparse.csr_matrix((share, of_code, offsets), shape=shape))


def some_codes(path: str | Path) -> Representation:
    """Return the representation of some codes of a tokenizer, at least one, for its sizes and provenance.

    Raises:
        InputError: the path is no tokenizer, or its files are damaged.
    """
    found = _opened(path)
    return found if isinstance(found, Representation) else _representation(found, np.arange(1))


def _opened(path: str | Path) -> Representation | TokenizerDirectory:
    if (Path(path).expanduser() / FILE).is_file():
        return load(path)
    found = hub.resolve_tokenizer(path)
    if not (found / CONFIG).is_file():
        raise InputError(f"{path} is neither a tokenizer directory ({CONFIG}) nor a saved representation ({FILE}).")
    return TokenizerDirectory.read(found)


def _representation(directory: TokenizerDirectory, rows: np.ndarray) -> Representation:
    return from_tokenizer(directory, name_of(directory.path), rows)


def _rows_and_below(codes: EventCodes, keys: np.ndarray) -> list[list[int]]:
    """Return the row of each code, or else the rows of the codes of its system whose spelling begins with its own."""
    found = CodeMapper(keys).rows(codes.spelled).tolist()
    compact = [_compact(key) for key in keys.tolist()]
    order = sorted(range(len(compact)), key=compact.__getitem__)
    ordered = [compact[row] for row in order]
    rows = []
    for row, key in zip(found, codes.keys.tolist(), strict=True):
        if row >= 0 or key.partition("/")[0] not in _SPELLED_TREES:
            rows.append([row] if row >= 0 else [])
            continue
        start, stop = (bisect.bisect_left(ordered, f"{_compact(key)}{end}") for end in ("", "\uffff"))
        rows.append(sorted(order[start:stop]))
    return rows


def _compact(key: str) -> str:
    system, _, code = key.partition("/")
    return f"{system}/{compact_code(code)}"


def pooled(
    opened: CodesOfTokenizer,
    name: str,
    *,
    medical: np.ndarray,
    order: np.ndarray | None = None,
    weighted: bool = True,
    expanded: bool = False,
    seed: int = 0,
) -> CodeMatrix:
    """Return the matrix of the tokens of codes; each embedding has as large a share of its weight as of its tokens.

    The table of a model starts as the codebook.

    Args:
        opened: codes with their rows.
        name: name of the result.
        medical: `[codes]` bool, codes that name a code system.
        order: `[rows]` permutation of the tokens among the rows in use; None for none.
        weighted: whether tokens count by their weights within an embedding; else all equally.
        expanded: see `CodeMatrix`.
        seed: seed of the first rows of single codes.

    Raises:
        InputError: the tokenizer has no tokens.
    """
    representation = opened.representation
    if representation.tokens is None:
        raise InputError(f"{name} has vectors but no tokens; give {representation.name}:embeddings.")
    bags = sparse.csr_matrix(bags_of(representation, weighted=weighted))
    return from_tokens(
        name,
        opened.share @ (bags if order is None else bags[order]),
        medical=medical,
        initial=representation.codebook,
        expanded=expanded,
        seed=seed,
        about=representation.about,
    )


def embedded(
    opened: CodesOfTokenizer, name: str, *, medical: np.ndarray, order: np.ndarray | None = None
) -> CodeMatrix:
    """Return the matrix of the frozen vectors of codes: of MedTok the quantized embeddings, side by side.

    Args:
        opened: codes with their rows.
        name: name of the result.
        medical: `[codes]` bool, codes that name a code system.
        order: `[rows]` ints, the row whose vector each row gets; None leaves them.

    Raises:
        InputError: the tokenizer has no vectors.
    """
    representation = opened.representation
    if representation.vectors is None:
        raise InputError(f"{name} cannot be made: {representation.name} has tokens but no vectors.")
    mapped = np.diff(opened.share.indptr) > 0
    vectors = representation.vectors if order is None else representation.vectors[order]
    return from_vectors(name, opened.share @ vectors, mapped, medical=medical, about=dict(representation.about))
