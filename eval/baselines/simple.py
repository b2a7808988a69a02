"""Baselines that nothing is trained for: raw text, wordpieces, k-means of texts, random tokens, one token a code."""

import numpy as np
import scipy.sparse as sp

from eval.baselines.data import Codes
from eval.baselines.nearest_rows import fit_rows, nearest_rows, residual_rows
from eval.common.representation import Representation
from medtok_jax.models.bert import load_bert
from medtok_jax.text.encoder_files import resolve_text_encoder
from preprocessing.common.ragged import positions


def raw_text(codes: Codes, *, progress: bool = True) -> Representation:
    """The frozen text embedding, not quantized: what text alone can give, and no tokens."""
    return codes.representation("raw_text", {}, vectors=codes.text_vectors(progress))


def random_tokens(codes: Codes, *, size: int, num_tokens: int, seed: int) -> Representation:
    """Different tokens drawn at random for every code, of random rows: chance."""
    rng = np.random.default_rng(seed)
    tokens = np.empty((len(codes), num_tokens), np.int32)
    for row in range(len(codes)):
        tokens[row] = rng.choice(size, num_tokens, replace=False, shuffle=False)
    weights = np.full(tokens.shape, 1 / num_tokens, np.float32)
    codebook = rng.normal(size=(size, 64)).astype(np.float32)
    codebook /= np.linalg.norm(codebook, axis=1, keepdims=True)
    vectors = codebook[tokens].mean(1)
    about = {"size": size, "num_tokens": num_tokens, "seed": seed}
    return codes.representation("random", about, tokens=tokens, weights=weights, vectors=vectors, codebook=codebook)


def one_token(codes: Codes) -> Representation:
    """A token of its own for every code, as EHR models have without a tokenizer: no two codes share anything."""
    tokens = np.arange(len(codes), dtype=np.int32)[:, None]
    return codes.representation("one_token", {"size": len(codes)}, tokens=tokens)


def wordpieces(codes: Codes) -> Representation:
    """The wordpieces of a code's description as its tokens: what a BERT tokenizer makes of it.

    A bag without [CLS] and [SEP], of as many wordpieces as the description has. A wordpiece weighs tf x idf, with
    idf = ln((1 + n) / (1 + df)) + 1 over the n codes, scaled to a sum of one; counted alike, `of` and `without` would
    make everything similar. The vector is the mean of the encoder's input word embeddings by these weights, of unit
    length.
    """
    cache, text = codes.data.cache, codes.data.text_id[codes.rows]
    where, counts = positions(cache.offsets, text)
    ends = np.cumsum(counts)
    inside = np.ones(len(where), bool)
    inside[np.concatenate([ends - counts, ends - 1])] = False
    piece, owner = cache.token_ids[where][inside], np.repeat(np.arange(len(text)), counts)[inside]
    table = word_embeddings(codes)
    # A wordpiece of a code once, with the times it occurs.
    pair, times = np.unique(owner * np.int64(len(table)) + piece, return_counts=True)
    owner, piece = pair // len(table), (pair % len(table)).astype(np.int32)
    frequency = np.bincount(piece, minlength=len(table))
    weight = times * (np.log((1 + len(text)) / (1 + frequency[piece])) + 1)
    weight = (weight / np.bincount(owner, weight, minlength=len(text))[owner]).astype(np.float32)
    distinct = np.bincount(owner, minlength=len(text))
    tokens = np.full((len(text), max(int(distinct.max(initial=1)), 1)), -1, np.int32)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(distinct) - distinct, distinct)
    tokens[owner, place] = piece
    weights = np.zeros(tokens.shape, np.float32)
    weights[owner, place] = weight
    vectors = sp.csr_array((weight, (owner, piece)), shape=(len(text), len(table))) @ table
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    about = {"size": len(table), "num_tokens": "of the description", "weights": "tf-idf"}
    return codes.representation("wordpieces", about, tokens=tokens, weights=weights, vectors=vectors, codebook=table)


def word_embeddings(codes: Codes) -> np.ndarray:
    """`[vocabulary, hidden]` float32: the text encoder's embeddings of wordpieces, before any layer."""
    bert = load_bert(resolve_text_encoder(codes.config.model.text_encoder_model))
    return np.asarray(bert.words.embedding[...], np.float32)


def kmeans_text(codes: Codes, *, size: int, num_tokens: int, seed: int, residual: bool) -> Representation:
    """k-means of the frozen text embeddings of the training codes; the nearest centers are a code's tokens.

    Args:
        codes: of a data set.
        size: centers. num_tokens: tokens a code. seed: of the first centers.
        residual: whether each token is of a k-means of its own, fitted to what those before leave over.
    """
    points, train = codes.text_vectors(progress=False), codes.is_train()
    about = {"size": size, "num_tokens": num_tokens, "seed": seed}
    if residual:
        return codes.representation("kmeans_residual", about, **residual_rows(points, train, size, num_tokens, seed))
    rows = fit_rows(points[train], size, seed=seed)
    return codes.representation("kmeans_text", about, **nearest_rows(points, rows, num_tokens))
