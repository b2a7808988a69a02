"""Encode new descriptions as a tokenizer or a baseline encodes those of its codes."""

from collections.abc import Sequence

import numpy as np

from eval.baselines import defaults
from eval.baselines.pursuit import reads_texts, tokens_of_texts
from eval.common.representation import Representation
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.text.cache import DTYPES
from medtok_jax.text.encode import TextStates
from medtok_jax.text.encoder_files import resolve_text_encoder


def encode(representation: Representation, texts: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Return `tokens`, `weights` and `vectors` of new descriptions, as far as the representation has them.

    A MedTok encodes them with the model of its directory, as `MedTokTokenizer` encodes a code that its table lacks.
    `vectors` are what is quantized, not mixtures of rows, as `MedTokTokenizer.search` compares a text with codes.

    Args:
        representation: a MedTok, or a baseline.
        texts: at least one description.

    Returns:
        The arrays by name, with a row for each text; None if the representation cannot encode a description.
    """
    kind = representation.about.get("kind")
    if kind == "medtok":
        return _by_model(representation, texts)
    if kind != "raw_text" and not reads_texts(representation):
        return None
    vectors = text_vectors(representation.about["text_encoder"], texts)
    if kind == "raw_text":
        return {"vectors": vectors}
    return tokens_of_texts(representation, vectors) | {"vectors": vectors @ representation.projection}


def text_vectors(text_encoder: str, texts: Sequence[str]) -> np.ndarray:
    """Return the mean of the frozen token states of each text at unit length: float32 `[n, hidden]`.

    Texts are cut, and states rounded, as those of the codes that a baseline is made of (`Codes.text_vectors`).

    Args:
        text_encoder: value of `model.text_encoder_model`.
        texts: at least one text.
    """
    data = defaults.DEFAULT_CONFIG.data
    directory = resolve_text_encoder(text_encoder)
    encoder = TextStates(directory, max_length=data.max_length, dtype=DTYPES[data.cache_dtype])
    states, _ = encoder(texts, [])
    found = np.stack([np.asarray(one, np.float32).sum(0) for one in states])
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def _by_model(representation: Representation, texts: Sequence[str]) -> dict[str, np.ndarray] | None:
    if representation.source is None or not TokenizerDirectory.read(representation.source).has_model:
        return None
    from medtok_jax.tokenizer import MedTokTokenizer

    tokenizer = MedTokTokenizer.from_pretrained(representation.source)
    found = tokenizer.new_code_encoder.encode_texts(texts)
    return {"tokens": found.ids, "weights": found.weights, "vectors": found.queries.reshape(len(texts), -1)}
