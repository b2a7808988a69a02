"""Read a code by its description: words, wordpieces, the frozen text vector, or its quantization.

A code without a description has a row of its own. Descriptions are those of `descriptions.describe`, which do not
depend on any tokenizer.
"""

import itertools
import re

import numpy as np

from configs import default
from eval.baselines.pursuit import tokens_of_texts
from eval.common.representation import Representation
from eval.common.tf_idf import tf_idf
from eval.ehr.tokenizers.matrix import CodeMatrix, from_tokens, from_vectors
from eval.ehr.tokenizers.medtok import CodesOfTokenizer
from medtok_jax.models.bert import load_bert
from medtok_jax.text.encode import TextStates
from medtok_jax.text.encoder_files import TextTokenizer, resolve_text_encoder
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load

sparse = load("scipy.sparse")

# Wordpieces that a description is cut at, as in training.
MAX_LENGTH = default.get_config().data.max_length
_WORD = re.compile(r"[a-z0-9]+")


def words(texts: np.ndarray, *, medical: np.ndarray) -> CodeMatrix:
    """Return the matrix of the words and pairs of neighboring words of descriptions, weighted by tf-idf.

    Words are runs of letters and digits in lower case. How rare a word is (idf) is counted over the distinct
    descriptions of the data set's codes.

    Args:
        texts: `[codes]` str, empty for none.
        medical: `[codes]` bool, codes that name a code system.
    """
    distinct, of_code = np.unique(texts, return_inverse=True)
    terms: dict[str, int] = {}
    owner, term = [], []
    for row, text in enumerate(distinct.tolist()):
        found = _WORD.findall(text.lower())
        for one in (*found, *map(" ".join, itertools.pairwise(found))):
            owner.append(row)
            term.append(terms.setdefault(one, len(terms)))
    bags = tf_idf(np.array(owner, np.int64), np.array(term, np.int64), texts=len(distinct), terms=len(terms))
    return from_tokens("words", sparse.csr_matrix(bags)[of_code], medical=medical)


def wordpieces(texts: np.ndarray, text_encoder: str, *, medical: np.ndarray, seed: int = 0) -> CodeMatrix:
    """Return the matrix of the wordpieces of descriptions, weighted by tf-idf: the tokens of a language model.

    The table starts from the input word embeddings of the text encoder.

    Args:
        texts: `[codes]` str, empty for none.
        text_encoder: value of `model.text_encoder_model`.
        medical: `[codes]` bool, codes that name a code system.
        seed: seed of the first rows of single codes.

    Raises:
        InputError: the text encoder cannot be read.
    """
    directory = resolve_text_encoder(text_encoder)
    distinct, of_code = np.unique(texts, return_inverse=True)
    ids, offsets, _ = TextTokenizer(directory, MAX_LENGTH)(distinct.tolist())
    # The first and the last wordpiece of each text are [CLS] and [SEP].
    inside = np.ones(len(ids), bool)
    inside[np.concatenate([offsets[:-1], offsets[1:] - 1])] = False
    owner = np.repeat(np.arange(len(distinct)), np.diff(offsets))[inside]
    table = np.asarray(load_bert(directory).words.embedding[...], np.float32)
    bags = tf_idf(owner, ids[inside].astype(np.int64), texts=len(distinct), terms=len(table))
    return from_tokens("wordpieces", sparse.csr_matrix(bags)[of_code], medical=medical, initial=table, seed=seed)


def text_vectors(texts: np.ndarray, text_encoder: str) -> np.ndarray:
    """Return the mean of the frozen token states of each text at unit length: `[codes, hidden]` float32, 0 for none.

    Raises:
        InputError: the text encoder cannot be read.
    """
    encoder = TextStates(resolve_text_encoder(text_encoder), max_length=MAX_LENGTH, dtype=np.float32)
    distinct, of_code = np.unique(texts, return_inverse=True)
    vectors = encoder((), distinct.tolist())[1]
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    vectors[distinct == ""] = 0
    return vectors[of_code]


def raw_text(texts: np.ndarray, text_encoder: str, *, medical: np.ndarray) -> CodeMatrix:
    """Return the matrix of the frozen text vectors of descriptions.

    Args:
        texts: `[codes]` str, empty for none.
        text_encoder: value of `model.text_encoder_model`.
        medical: `[codes]` bool, codes that name a code system.

    Raises:
        InputError: the text encoder cannot be read.
    """
    return from_vectors("raw_text", text_vectors(texts, text_encoder), texts != "", medical=medical)


def quantized_texts(representation: Representation, texts: np.ndarray, text_encoder: str) -> CodesOfTokenizer:
    """Return the tokens of descriptions by the rows of `text_pursuit`.

    Every description is quantized, also those of categories and codes that the data set of the rows lacks.

    Args:
        representation: what `eval.baselines.text_pursuit` made.
        texts: `[codes]` str, empty for none.
        text_encoder: value of `model.text_encoder_model`, the one that `representation` was made with.

    Raises:
        InputError: the text encoder cannot be read, or no code has a description.
    """
    described = texts != ""
    if not described.any():
        raise InputError(
            f"{representation.name} reads descriptions, and no code of the data set has one; leave it out."
        )
    distinct, of_code = np.unique(texts[described], return_inverse=True)
    found = tokens_of_texts(representation, text_vectors(distinct, text_encoder))
    place = (np.flatnonzero(described), of_code)
    share = sparse.csr_matrix((np.ones(len(of_code), np.float32), place), shape=(len(texts), len(distinct)))
    of_texts = Representation(
        name=representation.name,
        keys=distinct,
        descriptions=distinct,
        codebook=representation.codebook,
        about=representation.about,
        **found,
    )
    return CodesOfTokenizer(of_texts, share)
