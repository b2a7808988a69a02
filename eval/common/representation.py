"""Read and write representations: the tokens and vectors of a vocabulary of codes, made by any method.

A representation is a tokenizer directory of MedTok, or a folder that `Representation.save` wrote:

    table.parquet         key, description; one row for each code, sorted by key
    tokens.npy            [n, T] int32, optional; weights.npy [n, T] float32, optional
    vectors.npy           [n, D] float32, optional; unquantized.npy likewise
    codebook.npy          [N, d] float32, optional; projection.npy [D', d] float32, optional
    representation.json   name, regions, names of the embeddings, and provenance
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medtok_jax.lookup import hub
from medtok_jax.lookup.config import CONFIG
from medtok_jax.lookup.directory import EMBEDDING_FILE, TokenizerDirectory
from medtok_jax.lookup.similarity import quantize, scales
from medtok_jax.regions import REGIONS
from preprocessing.common.atomic import recover, whole_folder
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

FILE = "representation.json"
TABLE = "table.parquet"
FORMAT_VERSION = 1
ARRAYS = ("tokens", "weights", "vectors", "unquantized", "codebook", "projection")
_CHUNK = 8192


@dataclasses.dataclass(frozen=True)
class Representation:
    """Hold the tokens and vectors of n codes; one of the two may be None.

    Attributes:
        name: title in tables and plots.
        keys: `[n]` str, `SYSTEM/code`, sorted and distinct.
        descriptions: `[n]` str.
        tokens: `[n, T]` int32 global ids, padded with -1 behind the last token; None without tokens.
        weights: `[n, T]` float32 weight of each token, 0 for padding; None where all tokens count equally.
        vectors: `[n, D]` float32 input of a downstream model: the concatenated quantized embeddings, for MedTok.
        unquantized: `[n, D]` float32, the vectors before quantization; None where they are unknown.
        codebook: `[N, d]` float32, rows by global id.
        projection: `[D', d]` float32, matrix that takes a frozen text vector to what was quantized; None for none.
        regions: name -> (first id, one past the last id) of each region of the codebook; empty for a single region.
        embeddings: names of the embeddings of a code, in the order of the columns of `tokens` and `vectors`, of which
            each has an equal share; empty for a single embedding.
        token_bounds: the first and one past the last column of `tokens` of each embedding; empty for equal shares.
        region_of_embedding: name of each embedding -> its region.
        about: provenance, for the report. `data_set` (name and fingerprint) identifies the graph that was read; `graph`
            is False where none was read, so that no figure is marked as given by the graph. `trained_on` lists the
            relations whose pairs were in the training loss.
        source: folder that the representation was loaded from, None if it was made in memory; not saved.
    """

    name: str
    keys: np.ndarray
    descriptions: np.ndarray
    tokens: np.ndarray | None = None
    weights: np.ndarray | None = None
    vectors: np.ndarray | None = None
    unquantized: np.ndarray | None = None
    codebook: np.ndarray | None = None
    projection: np.ndarray | None = None
    regions: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    embeddings: tuple[str, ...] = ()
    token_bounds: tuple[tuple[int, int], ...] = ()
    region_of_embedding: dict[str, str] = dataclasses.field(default_factory=dict)
    about: dict = dataclasses.field(default_factory=dict)
    source: Path | None = None

    def __post_init__(self):
        """Raise InputError unless the fields fit together."""
        if len(self.keys) == 0 or (self.keys[:-1] >= self.keys[1:]).any():
            raise InputError(f"the codes of {self.name} must be sorted and distinct, and there must be at least one.")
        for name in ("descriptions", "tokens", "weights", "vectors", "unquantized"):
            array = getattr(self, name)
            if array is not None and len(array) != len(self.keys):
                raise InputError(f"{self.name} has {len(self.keys)} codes, but {len(array)} rows of {name}.")
        if self.tokens is None and self.vectors is None:
            raise InputError(f"{self.name} has neither tokens nor vectors, so there is nothing to evaluate.")
        if self.weights is not None and (self.tokens is None or self.weights.shape != self.tokens.shape):
            raise InputError(f"the weights of {self.name} must have the shape of its tokens, one for each token.")
        if self.token_bounds and (
            self.tokens is None
            or len(self.token_bounds) != len(self.embeddings)
            or self.token_bounds[-1][1] != self.tokens.shape[1]
        ):
            raise InputError(f"the tokens of {self.name} are not those of the columns {self.token_bounds}.")
        for name in ("tokens", "vectors"):
            array = getattr(self, name)
            if name == "tokens" and self.token_bounds:
                continue
            if array is not None and self.embeddings and array.shape[1] % len(self.embeddings):
                raise InputError(
                    f"{self.name} has {array.shape[1]} columns of {name}, which cannot be split into equal shares of"
                    f" {self.embeddings}."
                )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def num_ids(self) -> int:
        """Return the number of token ids: N with a codebook, otherwise one more than the largest id in use."""
        if self.codebook is not None:
            return len(self.codebook)
        return max([int(self.tokens.max()) + 1, *(stop for _, stop in self.regions.values())])

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Return the first and one past the last column of `tokens` of each embedding."""
        return self.token_bounds or self._equal_shares(self.tokens)

    def _equal_shares(self, array: np.ndarray) -> tuple[tuple[int, int], ...]:
        share = array.shape[1] // len(self.embeddings)
        return tuple((start, start + share) for start in range(0, array.shape[1], share))

    def reading_order(self) -> np.ndarray:
        """Return the columns of `tokens` in the order in which they are read: int64 `[T]`.

        The first token of each embedding comes first, then the second of each, and so on, so that the first tokens are
        shared evenly by the embeddings.
        """
        bounds = self.bounds if self.embeddings else ((0, self.tokens.shape[1]),)
        places = [(level, start) for start, stop in bounds for level in range(stop - start)]
        return np.array([start + level for level, start in sorted(places)], np.int64)

    def part(self, name: str, embedding: str) -> np.ndarray:
        """Return the columns of the array `name` that belong to one embedding: `[n, share]`."""
        array = getattr(self, name)
        bounds = self.bounds if name in ("tokens", "weights") else self._equal_shares(array)
        start, stop = bounds[self.embeddings.index(embedding)]
        return array[:, start:stop]

    def scaled(self, name: str) -> np.ndarray:
        """Return the array `name`, `vectors` or `unquantized`, with each embedding scaled by its number of tokens.

        So codes are compared, see `medtok_jax.lookup.similarity.scales`; without tokens nothing is scaled.
        """
        array = getattr(self, name)
        if self.tokens is None or len(self.embeddings) < 2:
            return array
        parts = array.reshape(len(array), len(self.embeddings), -1) * scales(self.bounds)[:, None]
        return parts.reshape(array.shape)

    def take(self, rows: np.ndarray) -> "Representation":
        """Return the representation of some rows, which must be in ascending order."""
        names = ("keys", "descriptions", "tokens", "weights", "vectors", "unquantized")
        arrays = {name: getattr(self, name) for name in names}
        return dataclasses.replace(self, **{name: a if a is None else a[rows] for name, a in arrays.items()})

    def save(self, directory: str | Path) -> Path:
        """Write the folder atomically and return its path.

        Raises:
            InputError: the folder cannot be written.
        """
        directory = Path(directory).expanduser()
        with whole_folder(directory) as folder:
            columns = {name: pa.array(getattr(self, f"{name}s").astype(object)) for name in ("key", "description")}
            pq.write_table(pa.table(columns), folder / TABLE, compression="zstd")
            for name in ARRAYS:
                if getattr(self, name) is not None:
                    np.save(folder / f"{name}.npy", getattr(self, name))
            fields = ("name", "regions", "embeddings", "token_bounds", "region_of_embedding", "about")
            content = {"format_version": FORMAT_VERSION} | {name: getattr(self, name) for name in fields}
            (folder / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return directory


def load(path: str | Path, name: str | None = None) -> Representation:
    """Open a tokenizer directory, a work directory, a tokenizer on the hub, or a saved representation.

    Args:
        path: a path, or a name on the hub.
        name: name of the representation; None for the saved name, or the name of the directory.

    Raises:
        InputError: the path is neither, or the files are damaged.
    """
    recover(Path(path).expanduser())
    if (Path(path).expanduser() / FILE).is_file():
        return _load_saved(Path(path).expanduser(), name)
    found = hub.resolve_tokenizer(path)
    if not (found / CONFIG).is_file():
        raise InputError(
            f"{path} is neither a tokenizer directory ({CONFIG}) nor a saved representation ({FILE}); train with "
            "python -m medtok_jax.main, or make a baseline with python -m eval.baselines."
        )
    return from_tokenizer(TokenizerDirectory.read(found), name or name_of(found))


def name_of(path: Path) -> str:
    """Return the name of a tokenizer directory; one in a work directory is named after the work directory."""
    path = path.resolve()
    return path.parent.name if path.name == "tokenizer" else path.name


def from_tokenizer(directory: TokenizerDirectory, name: str, rows: np.ndarray | None = None) -> Representation:
    """Return the representation of some rows of a tokenizer, with `unquantized` where the directory has embeddings.

    Args:
        directory: the tokenizer.
        name: name of the representation.
        rows: ascending rows of its table; None for the codes of its data set, which leaves out categories and codes of
            earlier editions.
    """
    config, rows = directory.config, directory.codes if rows is None else rows
    table = directory.table.take(rows)
    codebook, ids, weights = np.array(directory.codebook), directory.ids[rows], directory.weights[rows]
    vectors = np.empty((len(rows), len(config.embeddings) * config.embedding_dim), np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        quantized = quantize(codebook, ids[part], weights[part], config.bounds)
        vectors[part] = quantized.reshape(len(quantized), -1)
    unquantized = None
    if EMBEDDING_FILE in config.files:
        with directory.open_safetensors(EMBEDDING_FILE) as file:
            unquantized = file.get_tensor("embeddings")[rows].astype(np.float32).reshape(vectors.shape)
    training = {name: config.training.get(name) for name in ("step", "seed")}
    training["trained_on"] = list((config.training.get("loss") or {}).get("positive_relations") or ())
    return Representation(
        name=name,
        keys=table["key"].to_numpy().astype(str),
        descriptions=table["description"].to_numpy(),
        tokens=ids,
        weights=weights,
        vectors=vectors,
        unquantized=unquantized,
        codebook=codebook,
        regions={region: config.regions.bounds(region) for region in REGIONS},
        embeddings=config.embeddings,
        token_bounds=config.bounds,
        region_of_embedding={
            place.embedding: "shared" if place.region == "all" else place.region for place in config.positions
        },
        about={"kind": "medtok", "identity": config.identity, "data_set": config.data_set} | training,
        source=directory.path,
    )


def _load_saved(path: Path, name: str | None) -> Representation:
    with reading(path, "a representation", "make it again"):
        content = json.loads((path / FILE).read_text(encoding="utf-8"))
        if content.pop("format_version") != FORMAT_VERSION:
            raise InputError(f"{path} has another format version than {FORMAT_VERSION}; make it again.")
        table = pq.read_table(path / TABLE)
        files = {key: path / f"{key}.npy" for key in ARRAYS}
        arrays = {key: np.load(file, allow_pickle=False) for key, file in files.items() if file.is_file()}
        return Representation(
            name=name or content["name"],
            keys=table["key"].to_numpy().astype(str),
            descriptions=table["description"].to_numpy(),
            regions={region: tuple(bounds) for region, bounds in content["regions"].items()},
            embeddings=tuple(content["embeddings"]),
            token_bounds=tuple(tuple(bounds) for bounds in content["token_bounds"]),
            region_of_embedding=content["region_of_embedding"],
            about=content["about"],
            source=path,
            **arrays,
        )
