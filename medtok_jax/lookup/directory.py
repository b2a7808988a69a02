"""Write and read a tokenizer directory, which this library and transformers' `AutoTokenizer` open alike. No JAX here.

    tokens.safetensors        codes with their tokens, weights and codebook, and the index of all known codes: see
                              `token_table`
    medtok.json               description of the tokenizer, and size and sha256 of every other file: see `config`
    tokenizer_config.json     configuration that transformers reads first, and writes when a tokenizer is saved
    tokenization_medtok.py    the tokenizer, and the files that it imports; run by `trust_remote_code=True` alone
    embeddings.safetensors    optional: `embeddings` [rows, E, d] float16 before quantization, rows as in the table

It may hold more files, which look-up does not need. The metadata of each safetensors file above hold the same
`identity`, a digest of the tokens, by which a file of another tokenizer is recognized without reading all of it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from medtok_jax.lookup import code_files
from medtok_jax.lookup.config import CODE_FILE, CONFIG, TokenizerConfig, special_token_ids
from medtok_jax.lookup.directory_check import UNLISTED_JSON, check_files, damaged, foreign, read_config
from medtok_jax.lookup.token_table import KINDS, SPLITS, TABLE, Strings, TokenTable, index_arrays
from preprocessing.common.atomic import whole_folder
from preprocessing.common.checksums import sha256_of, sha256_once
from preprocessing.common.errors import InputError

EMBEDDING_FILE = "embeddings.safetensors"
TRANSFORMERS_CONFIG = "tokenizer_config.json"
# Written by whoever saves or publishes a tokenizer, so that their contents are not checked.
UNCHECKED = (*UNLISTED_JSON, "README.md", ".gitattributes")
IDENTITY = "identity"
STRINGS = ("key", "description", "split", "kind")
FLAGS = ("has_text", "has_graph")


@dataclasses.dataclass(frozen=True)
class KnownCode:
    """Hold a code that a system knows although the directory has no tokens for it: its key and kind."""

    key: str
    kind: str


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Hold the arrays that a tokenizer directory is written from.

    Attributes:
        strings: `key`, `description`, `split` and `kind` (see `token_table.KINDS`): `[rows]` arrays of str.
        ids, weights: `[rows, T]` int32 and float32.
        has_text, has_graph: `[rows]` bool, whether the code has a description and a subgraph.
        codebook: `[N, d]` float32.
        embeddings: `[rows, E, d]` before quantization, or None.
        others: codes that the systems know beside these.
    """

    strings: dict[str, np.ndarray]
    ids: np.ndarray
    weights: np.ndarray
    has_text: np.ndarray
    has_graph: np.ndarray
    codebook: np.ndarray
    embeddings: np.ndarray | None = None
    others: Sequence[KnownCode] = ()

    def sorted(self) -> "Tokens":
        """Return the same codes in the order of their keys."""
        order = np.argsort(self.strings["key"].astype(str), kind="stable")
        rows = {name: getattr(self, name)[order] for name in ("ids", "weights", *FLAGS)}
        strings = {name: self.strings[name][order] for name in STRINGS}
        embeddings = None if self.embeddings is None else self.embeddings[order]
        others = sorted(self.others, key=lambda code: code.key)
        return Tokens(strings=strings, codebook=self.codebook, embeddings=embeddings, others=others, **rows)

    def identity(self) -> str:
        """Return the sha256 of keys, descriptions, ids, weights and codebook, in hexadecimal."""
        digest = hashlib.sha256()
        for name in ("key", "description"):
            digest.update("\n".join(self.strings[name]).encode() + b"\0")
        for array in (self.ids, self.weights.astype(np.float16), self.codebook):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def check_replaceable(path: Path) -> None:
    """Refuse to replace anything but a tokenizer directory or an empty directory.

    Raises:
        InputError: `path` exists and is something else.
    """
    if path.exists() and not (path / CONFIG).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path} exists and is not a tokenizer directory; choose another directory.")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of the tokenizer at `path`, see `whole_folder`.

    Raises:
        InputError: something else than a tokenizer lies there, or it cannot be written.
    """
    check_replaceable(path)
    with whole_folder(path, advice="choose another directory") as folder:
        yield folder


def write(path: Path, tokens: Tokens, metadata: dict, add: Callable[[Path], object] | None = None) -> TokenizerConfig:
    """Write a tokenizer directory, which appears (or replaces an older one) only when it is complete.

    Args:
        path: the directory.
        tokens: codes in any order.
        metadata: the fields of `TokenizerConfig` that do not follow from `tokens`: `regions`, `positions`,
            `quantizer_kind`, `prefer`, `data_set`, `text_encoder`, `training`.
        add: called with the unfinished directory; may write more files into it.

    Raises:
        InputError: `path` cannot be written, or exists and is not a tokenizer directory.
    """
    tokens = tokens.sorted()
    identity = tokens.identity()
    with replacing(Path(path)) as folder:
        arrays, systems = _to_arrays(tokens)
        header = json.dumps({"format_version": 1, IDENTITY: identity, "systems": systems})
        # One entry only, as several are written in an order that changes from time to time.
        (folder / TABLE).write_bytes(save(arrays, {"medtok": header}))
        if tokens.embeddings is not None:
            half = {"embeddings": tokens.embeddings.astype(np.float16)}
            (folder / EMBEDDING_FILE).write_bytes(save(half, {IDENTITY: identity}))
        code_files.write(folder)
        (folder / TRANSFORMERS_CONFIG).write_text(_transformers_config(), encoding="utf-8")
        if add:
            add(folder)
        is_code = tokens.strings["kind"] == "code"
        of_codes = [key.split("/", 1)[0] for key in tokens.strings["key"][is_code]]
        names, counts = np.unique(of_codes, return_counts=True)
        config = TokenizerConfig(
            identity=identity,
            rows=len(tokens.ids),
            codes=int(is_code.sum()),
            known_codes=int(is_code.sum()) + sum(code.kind == "code" for code in tokens.others),
            systems=dict(zip(names.tolist(), counts.tolist(), strict=True)),
            embedding_dim=tokens.codebook.shape[1],
            special_tokens=special_token_ids(len(tokens.codebook)),
            files={name: {"size": size, "sha256": digest} for name, size, digest in describe_files(folder)},
            **metadata,
        )
        (folder / CONFIG).write_text(config.to_json(), encoding="utf-8")
    return config


def _transformers_config() -> str:
    """Return the configuration by which `AutoTokenizer` finds the class."""
    module = Path(CODE_FILE).stem
    config = {
        "tokenizer_class": "MedTokTokenizer",
        "auto_map": {"AutoTokenizer": [f"{module}.MedTokTokenizer", None]},
        "clean_up_tokenization_spaces": False,
    }
    return json.dumps(config, indent=1) + "\n"


def _to_arrays(tokens: Tokens) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays of the table, and the names of the code systems."""
    arrays, systems = index_arrays(tokens.strings["key"].tolist(), [code.key for code in tokens.others])
    kinds = [*tokens.strings["kind"], *(code.kind for code in tokens.others)]
    narrow = np.uint16 if len(tokens.codebook) <= 1 << 16 else np.uint32
    arrays |= {
        "ids": tokens.ids.astype(narrow),
        "weights": tokens.weights.astype(np.float16),
        "codebook": tokens.codebook.astype(np.float32),
        "kind": np.array([KINDS.index(kind) for kind in kinds], np.uint8),
        "split": np.array([SPLITS.index(split) for split in tokens.strings["split"]], np.uint8),
    }
    arrays |= {name: getattr(tokens, name).astype(np.uint8) for name in FLAGS}
    arrays |= Strings.of(tokens.strings["description"]).arrays("description")
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, systems


def describe_files(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Yield name, size and sha256 of the files that `medtok.json` lists."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in (*UNCHECKED, CONFIG):
            yield name, path.stat().st_size, sha256_of(path)


@dataclasses.dataclass(frozen=True)
class TokenizerDirectory:
    """Hold a tokenizer directory that has been read and checked.

    Attributes:
        path: the directory.
        config: its `medtok.json`.
        tokens: its `tokens.safetensors`.
    """

    path: Path
    config: TokenizerConfig
    tokens: TokenTable

    @classmethod
    def read(cls, path: str | Path, *, verify: bool = False) -> "TokenizerDirectory":
        """Read a directory and check sizes, identities, shapes and ranges; large files by sha256 only with `verify`.

        Raises:
            InputError: a file is missing, damaged, or of another tokenizer.
        """
        path = Path(path)
        config = read_config(path)
        check_files(path, config, verify=verify)
        tokens = TokenTable(path / TABLE, config.files[TABLE]["sha256"])
        try:
            _check_table(tokens, config)
        except ValueError as error:
            raise damaged(path / TABLE, error) from error
        directory = cls(path, config, tokens)
        if EMBEDDING_FILE in config.files:
            with directory.open_safetensors(EMBEDDING_FILE):
                pass
        return directory

    def open_safetensors(self, name: str):
        """Open a safetensors file of this directory, memory-mapped, as a context manager with `get_tensor`.

        Raises:
            InputError: the file cannot be read, or belongs to another tokenizer.
        """
        path = self.path / name
        try:
            file = safe_open(path, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise damaged(path, error) from error
        if (file.metadata() or {}).get(IDENTITY) != self.config.identity:
            raise foreign(path)
        return file

    @property
    def has_model(self) -> bool:
        """Return True if the directory holds the model, so that new codes can be encoded."""
        return "model.safetensors" in self.config.files

    @functools.cached_property
    def table(self) -> pa.Table:
        """Return `key`, `system`, `code`, `description`, `split`, `kind`, `has_text`, `has_graph` of all rows."""
        arrays, rows = self.tokens.arrays, len(self.tokens)
        key = _arrow_strings(self.tokens.key, rows)
        system = pa.DictionaryArray.from_arrays(pa.array(arrays["system"][:rows]), self.tokens.metadata["systems"])
        columns = {
            "key": key,
            "system": system.cast(pa.string()),
            "code": pa.array([text.split("/", 1)[1] for text in key.to_pylist()], pa.string()),
            "description": _arrow_strings(self.tokens.description, rows),
        }
        for name, names in (("split", SPLITS), ("kind", KINDS)):
            columns[name] = pa.DictionaryArray.from_arrays(pa.array(arrays[name][:rows]), names).cast(pa.string())
        return pa.table(columns | {name: pa.array(arrays[name].astype(bool)) for name in FLAGS})

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """Return the token ids of all rows, `[rows, T]` int32, read-only."""
        return _read_only(self.tokens.ids.astype(np.int32))

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """Return the weights of the tokens of all rows, `[rows, T]` float32, read-only."""
        return _read_only(self.tokens.weights.astype(np.float32))

    @functools.cached_property
    def codes(self) -> np.ndarray:
        """Return the rows of the codes of the data set, without categories and codes of earlier editions."""
        return np.flatnonzero(self.tokens.arrays["kind"][: len(self.tokens)] == KINDS.index("code"))

    def to_tokens(self) -> Tokens:
        """Return the arrays that the directory was written from, without embeddings before quantization."""
        strings = {name: np.array(self.table[name].to_pylist(), object) for name in STRINGS}
        flags = {name: np.array(self.table[name].to_pylist()) for name in FLAGS}
        rows = len(self.tokens)
        kinds = self.tokens.arrays["kind"][rows:].tolist()
        others = [KnownCode(self.tokens.key_at(rows + place), KINDS[kind]) for place, kind in enumerate(kinds)]
        return Tokens(strings, self.ids, self.weights, **flags, codebook=self.codebook, others=others)

    @property
    def codebook(self) -> np.ndarray:
        """Return the codebook, `[N, d]` float32, rows as they are searched, read-only."""
        return self.tokens.codebook

    def embeddings(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings before quantization, `[rows, E, d]` float32.

        Raises:
            InputError: the directory was written without them.
        """
        if EMBEDDING_FILE not in self.config.files:
            raise InputError(
                f"{self.path} holds no embeddings before quantization; write it with"
                " `python -m medtok_jax.tokenize vocabulary --embeddings`."
            )
        if sha256_once(self.path / EMBEDDING_FILE) != self.config.files[EMBEDDING_FILE]["sha256"]:
            raise damaged(self.path / EMBEDDING_FILE, f"its sha256 is not the one in {CONFIG}")
        with self.open_safetensors(EMBEDDING_FILE) as file:
            embeddings = file.get_slice("embeddings")
            found = [embeddings[int(row) : int(row) + 1] for row in rows]
        empty = np.zeros((0, len(self.config.embeddings), self.config.embedding_dim))
        return np.concatenate(found or [empty]).astype(np.float32)


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _arrow_strings(strings: Strings, count: int) -> pa.StringArray:
    offsets = np.ascontiguousarray(strings.offsets[: count + 1], np.int32)
    content = np.ascontiguousarray(strings.content)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(content))


def _check_table(tokens: TokenTable, config: TokenizerConfig) -> None:
    """Raise ValueError unless the table is the one that the configuration describes."""
    if tokens.metadata.get(IDENTITY) != config.identity:
        raise ValueError(f"it belongs to another tokenizer than {CONFIG}")
    if len(tokens) != config.rows:
        raise ValueError(f"it holds {len(tokens):,} rows where {CONFIG} lists {config.rows:,}")
    is_code = tokens.arrays["kind"] == KINDS.index("code")
    if (int(is_code[: len(tokens)].sum()), int(is_code.sum())) != (config.codes, config.known_codes):
        raise ValueError(f"it does not hold the {config.codes:,} of {config.known_codes:,} codes that {CONFIG} lists")
    if sum(config.systems.values()) != config.codes:
        raise ValueError(f"{CONFIG} lists {config.systems} for {config.codes:,} codes")
    if tokens.ids.shape[1] != config.tokens_per_code:
        raise ValueError(f"it holds {tokens.ids.shape[1]} tokens a code where {CONFIG} lists {config.tokens_per_code}")
    if tokens.codebook.shape != (config.codebook_size, config.embedding_dim):
        raise ValueError(f"the codebook has the shape {tokens.codebook.shape}")
    keys = _arrow_strings(tokens.key, len(tokens))
    try:
        keys.validate(full=True)
        _arrow_strings(tokens.description, len(tokens)).validate(full=True)
    except pa.ArrowException as error:
        raise ValueError("its text is not UTF-8") from error
    if len(keys) > 1 and not pc.all(pc.less(keys[:-1], keys[1:])).as_py():
        raise ValueError("its keys are not sorted and distinct")
    for position, place in enumerate(config.positions):
        start, stop = config.searched(position)
        part = tokens.ids[:, position]
        if part.min() < start or part.max() >= stop:
            raise ValueError(f"tokens of {place.embedding} lie outside the region that it searches")
