"""Make the baselines without training: raw text, wordpieces, k-means of texts, random tokens, a token for each code."""

import numpy as np

from eval.baselines.data import Codes
from eval.baselines.nearest_rows import fit_rows, nearest_rows, residual_rows
from eval.baselines.pursuit import TOP_K
from eval.common.representation import Representation
from eval.common.tf_idf import tf_idf
from medtok_jax.models.bert import load_bert
from medtok_jax.text.encoder_files import resolve_text_encoder
from preprocessing.common.ragged import positions


def raw_text(codes: Codes, *, progress: bool = True) -> Representation:
    """Return the frozen text embedding, without quantization and tokens: the reference for text alone."""
    return codes.representation("raw_text", {"graph": False}, vectors=codes.text_vectors(progress))


def random_tokens(codes: Codes, *, size: int, num_tokens: int, seed: int) -> Representation:
    """Draw distinct tokens for each code at random, with random rows: the chance level."""
    rng = np.random.default_rng(seed)
    tokens = np.empty((len(codes), num_tokens), np.int32)
    for row in range(len(codes)):
        tokens[row] = rng.choice(size, num_tokens, replace=False, shuffle=False)
    weights = np.full(tokens.shape, 1 / num_tokens, np.float32)
    codebook = rng.normal(size=(size, 64)).astype(np.float32)
    codebook /= np.linalg.norm(codebook, axis=1, keepdims=True)
    vectors = codebook[tokens].mean(1)
    about = {"size": size, "num_tokens": num_tokens, "seed": seed, "graph": False}
    return codes.representation("random", about, tokens=tokens, weights=weights, vectors=vectors, codebook=codebook)


def one_token(codes: Codes) -> Representation:
    """Return a separate token for each code, as in EHR models without a tokenizer: no two codes share anything."""
    tokens = np.arange(len(codes), dtype=np.int32)[:, None]
    return codes.representation("one_token", {"size": len(codes), "graph": False}, tokens=tokens)


def wordpieces(codes: Codes) -> Representation:
    """Return the wordpieces of the description of each code as its tokens.

    Each code is a bag of all wordpieces of its description except [CLS] and [SEP], weighted by `tf_idf`; with equal
    weights, `of` and `without` would make all codes similar. The vector is the mean of the input word embeddings of the
    text encoder by these weights, at unit length.
    """
    cache = codes.data.cache
    text = codes.data.text_id[codes.rows]
    where, counts = positions(cache.offsets, text)
    ends = np.cumsum(counts)
    inside = np.ones(len(where), bool)
    inside[np.concatenate([ends - counts, ends - 1])] = False
    piece, owner = cache.token_ids[where][inside], np.repeat(np.arange(len(text)), counts)[inside]
    table = word_embeddings(codes)
    bags = tf_idf(owner, piece, texts=len(text), terms=len(table))
    distinct = np.diff(bags.indptr)
    tokens = np.full((len(text), max(int(distinct.max(initial=1)), 1)), -1, np.int32)
    owner = np.repeat(np.arange(len(text)), distinct)
    column = np.arange(bags.nnz) - np.repeat(bags.indptr[:-1], distinct)
    tokens[owner, column] = bags.indices
    weights = np.zeros(tokens.shape, np.float32)
    weights[owner, column] = bags.data
    vectors = bags @ table
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    about = {"size": len(table), "num_tokens": "of the description", "weights": "tf-idf", "graph": False}
    return codes.representation("wordpieces", about, tokens=tokens, weights=weights, vectors=vectors, codebook=table)


def word_embeddings(codes: Codes) -> np.ndarray:
    """Return the input word embeddings of the text encoder: float32 `[vocabulary, hidden]`."""
    bert = load_bert(resolve_text_encoder(codes.config.model.text_encoder_model))
    return np.asarray(bert.words.embedding[...], np.float32)


def kmeans_text(codes: Codes, *, size: int, num_tokens: int, seed: int, residual: bool) -> Representation:
    """Tokenize codes by the nearest centers of k-means of the frozen text embeddings of the training codes.

    Args:
        codes: codes of a data set.
        size: number of centers.
        num_tokens: number of tokens of each code.
        seed: seed of the first centers.
        residual: whether each token comes from a separate k-means of the residual of the tokens before it.
    """
    points = codes.text_vectors(progress=False)
    train = codes.is_train()
    about = {"size": size, "num_tokens": num_tokens, "seed": seed, "graph": False}
    if residual:
        return codes.representation("kmeans_residual", about, **residual_rows(points, train, size, num_tokens, seed))
    rows = fit_rows(points[train], size, seed=seed)
    arrays = nearest_rows(points, rows, num_tokens) | {"projection": np.eye(points.shape[1], dtype=np.float32)}
    return codes.representation("kmeans_text", about | {"quantizer": TOP_K}, **arrays)
