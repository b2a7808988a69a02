"""Write, read and check a tokenizer directory. No JAX here.

    tokens.parquet            key, system, code, description, split, ids [4K] int32, weights [4K] float32, has_text,
                              has_graph; one row a code, sorted by key; numbers are uncompressed, to be memory-mapped
    codebook.safetensors      `codebook` [N, d] float32, rows as they are searched
    embeddings.safetensors    optional: `embeddings` [codes, 4, d] float16 before quantization, rows as in the table
    tokenizer_config.json     metadata of the tokenizer, and size and sha256 of every other file

It may hold more files, which look-up does not need. The metadata of each file listed above holds the same `identity`,
a digest of the tokens, by which a file of another tokenizer is recognized without reading all of it.
"""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from medtok_jax.lookup.config import (
    CODEBOOK,
    CONFIG,
    TOKENS,
    TokenizerConfig,
    check_files,
    damaged,
    foreign,
    read_config,
    special_token_ids,
)
from medtok_jax.regions import EMBEDDINGS
from preprocessing.common.atomic import whole_folder
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError

EMBEDDING_FILE = "embeddings.safetensors"
IDENTITY = "identity"
STRINGS = ("key", "system", "code", "description", "split")
FLAGS = ("has_text", "has_graph")


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Hold the arrays that a tokenizer directory is written from.

    Attributes:
        strings: `key`, `system`, `code`, `description`, `split`: `[codes]` arrays of str.
        ids, weights: `[codes, 4K]` int32 and float32.
        has_text, has_graph: `[codes]` bool, whether the code has a description and a subgraph.
        codebook: `[N, d]` float32.
        embeddings: `[codes, 4, d]` before quantization, or None.
    """

    strings: dict[str, np.ndarray]
    ids: np.ndarray
    weights: np.ndarray
    has_text: np.ndarray
    has_graph: np.ndarray
    codebook: np.ndarray
    embeddings: np.ndarray | None = None

    def sorted(self) -> "Tokens":
        """Return the same codes in the order of their keys."""
        order = np.argsort(self.strings["key"].astype(str), kind="stable")
        rows = {name: getattr(self, name)[order] for name in ("ids", "weights", *FLAGS)}
        strings = {name: self.strings[name][order] for name in STRINGS}
        embeddings = None if self.embeddings is None else self.embeddings[order]
        return Tokens(strings=strings, codebook=self.codebook, embeddings=embeddings, **rows)

    def identity(self) -> str:
        """Return the sha256 of keys, descriptions, ids, weights and codebook, in hexadecimal."""
        digest = hashlib.sha256()
        for name in ("key", "description"):
            digest.update("\n".join(self.strings[name]).encode() + b"\0")
        for array in (self.ids, self.weights, self.codebook):
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
        metadata: the fields of `TokenizerConfig` that do not follow from `tokens`: `regions`, `num_top_k_tokens`,
            `quantizer_kind`, `prefer`, `data_set`, `text_encoder`, `training`.
        add: called with the unfinished directory; may write more files into it.

    Raises:
        InputError: `path` cannot be written, or exists and is not a tokenizer directory.
    """
    tokens = tokens.sorted()
    identity = tokens.identity()
    with replacing(Path(path)) as folder:
        pq.write_table(
            _to_table(tokens).replace_schema_metadata({IDENTITY: identity}),
            folder / TOKENS,
            compression={name: "zstd" for name in STRINGS} | {name: "none" for name in ("ids", "weights", *FLAGS)},
            use_dictionary=["system", "split"],
            write_statistics=False,
        )
        (folder / CODEBOOK).write_bytes(save({"codebook": tokens.codebook}, {IDENTITY: identity}))
        if tokens.embeddings is not None:
            half = {"embeddings": tokens.embeddings.astype(np.float16)}
            (folder / EMBEDDING_FILE).write_bytes(save(half, {IDENTITY: identity}))
        if add:
            add(folder)
        systems, counts = np.unique(tokens.strings["system"].astype(str), return_counts=True)
        config = TokenizerConfig(
            identity=identity,
            codes=len(tokens.ids),
            systems=dict(zip(systems.tolist(), counts.tolist(), strict=True)),
            embedding_dim=tokens.codebook.shape[1],
            special_tokens=special_token_ids(len(tokens.codebook)),
            files={name: {"size": size, "sha256": digest} for name, size, digest in _describe_files(folder)},
            **metadata,
        )
        (folder / CONFIG).write_text(config.to_json())
    return config


def _to_table(tokens: Tokens) -> pa.Table:
    width = tokens.ids.shape[1]
    lists = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(getattr(tokens, name).astype(dtype).reshape(-1)), width)
        for name, dtype in (("ids", np.int32), ("weights", np.float32))
    }
    flags = {name: pa.array(getattr(tokens, name).astype(bool)) for name in FLAGS}
    return pa.table({name: pa.array(tokens.strings[name], pa.string()) for name in STRINGS} | lists | flags)


def _describe_files(folder: Path) -> Iterator[tuple[str, int, str]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path)


@dataclasses.dataclass(frozen=True)
class TokenizerDirectory:
    """Hold a tokenizer directory that has been read and checked.

    Attributes:
        path: the directory.
        config: its `tokenizer_config.json`.
        table: its `tokens.parquet`.
        ids, weights: `[codes, 4K]` int32 and float32, read-only.
    """

    path: Path
    config: TokenizerConfig
    table: pa.Table
    ids: np.ndarray
    weights: np.ndarray

    @classmethod
    def read(cls, path: str | Path, *, verify: bool = False) -> "TokenizerDirectory":
        """Read a directory and check sizes, identities, shapes and ranges; large files by sha256 only with `verify`.

        Raises:
            InputError: a file is missing, damaged, or of another tokenizer.
        """
        path = Path(path)
        config = read_config(path)
        check_files(path, config, verify=verify)
        try:
            table = pq.read_table(path / TOKENS, memory_map=True).combine_chunks()
            ids, weights = (_matrix(table, name, dtype) for name, dtype in (("ids", "int32"), ("weights", "float")))
            _check_table(table, ids, weights, config)
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise damaged(path / TOKENS, str(error).splitlines()[0]) from error
        directory = cls(path, config, table, ids, weights)
        for name in {CODEBOOK, EMBEDDING_FILE} & config.files.keys():
            with directory.open_safetensors(name):
                pass
        if directory.codebook.shape != (config.codebook_size, config.embedding_dim):
            raise damaged(path / CODEBOOK, f"the codebook has the shape {directory.codebook.shape}")
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

    @functools.cached_property
    def codebook(self) -> np.ndarray:
        """Return the codebook, `[N, d]` float32, rows as they are searched."""
        with self.open_safetensors(CODEBOOK) as file:
            if "codebook" not in file.keys():  # noqa: SIM118  (the file is not a dictionary)
                raise damaged(self.path / CODEBOOK, "it holds no codebook")
            codebook = file.get_tensor("codebook")
        codebook.flags.writeable = False
        return codebook

    def embeddings(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings before quantization, `[rows, 4, d]` float32.

        Raises:
            InputError: the directory was written without them.
        """
        if EMBEDDING_FILE not in self.config.files:
            raise InputError(
                f"{self.path} holds no embeddings before quantization; write it with"
                " `python -m medtok_jax.tokenize vocabulary --embeddings`."
            )
        with self.open_safetensors(EMBEDDING_FILE) as file:
            embeddings = file.get_slice("embeddings")
            found = [embeddings[int(row) : int(row) + 1] for row in rows]
        return np.concatenate(found or [np.zeros((0, 4, self.config.embedding_dim))]).astype(np.float32)


def _matrix(table: pa.Table, name: str, dtype: str) -> np.ndarray:
    column = table[name]
    if not pa.types.is_fixed_size_list(column.type) or str(column.type.value_type) != dtype or column.null_count:
        raise ValueError(f"column {name} is {column.type}, not a list of {dtype}")
    flat = [chunk.flatten().to_numpy() for chunk in column.chunks]
    return (flat[0] if len(flat) == 1 else np.concatenate(flat)).reshape(len(table), -1)


def _check_table(table: pa.Table, ids: np.ndarray, weights: np.ndarray, config: TokenizerConfig) -> None:
    identity = (table.schema.metadata or {}).get(IDENTITY.encode(), b"").decode()
    if identity != config.identity:
        raise ValueError(f"it belongs to another tokenizer than {CONFIG}")
    for name in STRINGS:
        if not pa.types.is_string(table[name].type) or table[name].null_count:
            raise ValueError(f"column {name} is not text")
    for name in FLAGS:
        if not pa.types.is_boolean(table[name].type):
            raise ValueError(f"column {name} is not boolean")
    if not len(table) == config.codes > 0:
        raise ValueError(f"it holds {len(table):,} codes where {CONFIG} lists {config.codes:,}")
    k = config.num_top_k_tokens
    keys = table["key"].combine_chunks()
    if ids.shape[1] != 4 * k or weights.shape[1] != 4 * k:
        raise ValueError(f"it holds {ids.shape[1]} tokens a code where {CONFIG} lists 4 x {k}")
    if not pc.all(pc.less(keys[:-1], keys[1:])).as_py() and len(keys) > 1:
        raise ValueError("its keys are not sorted and distinct")
    for number, embedding in enumerate(EMBEDDINGS):
        start, stop = config.searched(embedding)
        part = ids[:, number * k : (number + 1) * k]
        if part.min() < start or part.max() >= stop:
            raise ValueError(f"tokens of {embedding} lie outside the region that it searches")
