"""What is judged: the tokens and vectors of a vocabulary of codes, whoever made them.

A representation is a tokenizer directory of ours, or a folder that `Representation.save` wrote:

    table.parquet         key, description; one row a code, sorted by key
    tokens.npy            [n, T] int32, optional; weights.npy [n, T] float32, optional
    vectors.npy           [n, D] float32, optional; unquantized.npy likewise
    codebook.npy          [N, d] float32, optional
    representation.json   name, regions, names of the embeddings, and what made it
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
from medtok_jax.lookup.similarity import quantize
from medtok_jax.regions import EMBEDDINGS, REGION_OF_EMBEDDING, REGIONS
from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import InputError

FILE = "representation.json"
TABLE = "table.parquet"
FORMAT_VERSION = 1
ARRAYS = ("tokens", "weights", "vectors", "unquantized", "codebook")
_CHUNK = 8192


@dataclasses.dataclass(frozen=True)
class Representation:
    """Tokens and vectors of n codes; a family that lacks one of the two leaves it None.

    Attributes:
        name: what tables and plots call it.
        keys: `[n]` str, `SYSTEM/code`, sorted and distinct.
        descriptions: `[n]` str.
        tokens: `[n, T]` int32 global ids, -1 behind the last of a code that has fewer; None for pure vectors.
        weights: `[n, T]` float32, the share of each token, 0 where there is none; None where all count alike.
        vectors: `[n, D]` float32, what a model would be fed: quantized embeddings end to end, or a family's own.
        unquantized: `[n, D]` float32, the same before quantization, where it is known.
        codebook: `[N, d]` float32, rows by global id.
        regions: name -> (first id, one past the last) of the regions of the codebook; empty for one region of all ids.
        embeddings: names of the embeddings of which a code has several, in the order of `tokens` and `vectors`, each
            with an equal share of both; empty where a code is one piece.
        region_of_embedding: name of each embedding -> its region.
        about: what made it, for the report. `data_set` (name and fingerprint) tells from which graph it was made, and
            `graph` False that none was read: what a graph gives away is then not said of it.
    """

    name: str
    keys: np.ndarray
    descriptions: np.ndarray
    tokens: np.ndarray | None = None
    weights: np.ndarray | None = None
    vectors: np.ndarray | None = None
    unquantized: np.ndarray | None = None
    codebook: np.ndarray | None = None
    regions: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    embeddings: tuple[str, ...] = ()
    region_of_embedding: dict[str, str] = dataclasses.field(default_factory=dict)
    about: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Raises InputError where the parts do not fit together."""
        if len(self.keys) == 0 or (self.keys[:-1] >= self.keys[1:]).any():
            raise InputError(f"the codes of {self.name} are none, or not sorted and distinct.")
        for name in ("descriptions", "tokens", "weights", "vectors", "unquantized"):
            array = getattr(self, name)
            if array is not None and len(array) != len(self.keys):
                raise InputError(f"{self.name} has {len(self.keys)} codes, but {len(array)} rows of {name}.")
        if self.tokens is None and self.vectors is None:
            raise InputError(f"{self.name} has neither tokens nor vectors; there is nothing to judge.")
        if self.weights is not None and (self.tokens is None or self.weights.shape != self.tokens.shape):
            raise InputError(f"{self.name} has weights that are not one for each token.")
        for name in ("tokens", "vectors"):
            array = getattr(self, name)
            if array is not None and self.embeddings and array.shape[1] % len(self.embeddings):
                raise InputError(f"{self.name}: {array.shape[1]} {name} are no equal shares of {self.embeddings}.")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def num_ids(self) -> int:
        """Number of token ids that there are: N, or one more than the largest in use."""
        if self.codebook is not None:
            return len(self.codebook)
        return max([int(self.tokens.max()) + 1, *(stop for _, stop in self.regions.values())])

    def part(self, name: str, embedding: str) -> np.ndarray:
        """Columns of the array `name` that belong to one embedding: `[n, share]`."""
        array = getattr(self, name)
        share = array.shape[1] // len(self.embeddings)
        start = self.embeddings.index(embedding) * share
        return array[:, start : start + share]

    def take(self, rows: np.ndarray) -> "Representation":
        """The codes of some rows, which must be rising."""
        names = ("keys", "descriptions", "tokens", "weights", "vectors", "unquantized")
        arrays = {name: getattr(self, name) for name in names}
        return dataclasses.replace(self, **{name: a if a is None else a[rows] for name, a in arrays.items()})

    def save(self, directory: str | Path) -> Path:
        """Writes the folder, which appears when it is whole, and returns it.

        Raises:
            InputError: it cannot be written.
        """
        directory = Path(directory).expanduser()
        with whole_folder(directory) as folder:
            columns = {name: pa.array(getattr(self, f"{name}s").astype(object)) for name in ("key", "description")}
            pq.write_table(pa.table(columns), folder / TABLE, compression="zstd")
            for name in ARRAYS:
                if getattr(self, name) is not None:
                    np.save(folder / f"{name}.npy", getattr(self, name))
            fields = ("name", "regions", "embeddings", "region_of_embedding", "about")
            content = {"format_version": FORMAT_VERSION} | {name: getattr(self, name) for name in fields}
            (folder / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return directory


def load(path: str | Path, name: str | None = None) -> Representation:
    """Opens a tokenizer directory (also a work directory, or a name on the hub) or a saved representation.

    Args:
        path: what to open.
        name: what to call it; that of the saved one, or of the directory, where it is None.

    Raises:
        InputError: it is neither, or damaged.
    """
    if (Path(path).expanduser() / FILE).is_file():
        return _load_saved(Path(path).expanduser(), name)
    found = hub.resolve_tokenizer(path)
    if not (found / CONFIG).is_file():
        raise InputError(
            f"{path} is neither a tokenizer directory ({CONFIG}) nor a saved representation ({FILE}); train with "
            "python -m medtok_jax.main, or make a baseline with python -m eval.baselines."
        )
    return from_tokenizer(TokenizerDirectory.read(found), name or _name_of(found))


def _name_of(path: Path) -> str:
    """A tokenizer in a work directory is named after that."""
    path = path.resolve()
    return path.parent.name if path.name == "tokenizer" else path.name


def from_tokenizer(directory: TokenizerDirectory, name: str) -> Representation:
    """The representation that a tokenizer directory holds; before quantization where it was written with that."""
    config, table = directory.config, directory.table
    codebook = np.array(directory.codebook)
    vectors = np.empty((config.codes, len(EMBEDDINGS) * config.embedding_dim), np.float32)
    for start in range(0, config.codes, _CHUNK):
        part = slice(start, start + _CHUNK)
        quantized = quantize(codebook, directory.ids[part], directory.weights[part])
        vectors[part] = quantized.reshape(len(quantized), -1)
    unquantized = None
    if EMBEDDING_FILE in config.files:
        with directory.open_safetensors(EMBEDDING_FILE) as file:
            unquantized = file.get_tensor("embeddings").astype(np.float32).reshape(vectors.shape)
    training = {name: config.training.get(name) for name in ("step", "seed")}
    return Representation(
        name=name,
        keys=table["key"].to_numpy().astype(str),
        descriptions=table["description"].to_numpy(),
        tokens=np.array(directory.ids),
        weights=np.array(directory.weights),
        vectors=vectors,
        unquantized=unquantized,
        codebook=codebook,
        regions={region: config.regions.bounds(region) for region in REGIONS},
        embeddings=EMBEDDINGS,
        region_of_embedding=dict(REGION_OF_EMBEDDING),
        about={"kind": "medtok", "identity": config.identity, "data_set": config.data_set} | training,
    )


def _load_saved(path: Path, name: str | None) -> Representation:
    try:
        content = json.loads((path / FILE).read_text(encoding="utf-8"))
        if content.pop("format_version") != FORMAT_VERSION:
            raise InputError(f"{path} is of another format version than {FORMAT_VERSION}; make it again.")
        table = pq.read_table(path / TABLE)
        arrays = {key: np.load(path / f"{key}.npy") for key in ARRAYS if (path / f"{key}.npy").is_file()}
        return Representation(
            name=name or content["name"],
            keys=table["key"].to_numpy().astype(str),
            descriptions=table["description"].to_numpy(),
            regions={region: tuple(bounds) for region, bounds in content["regions"].items()},
            embeddings=tuple(content["embeddings"]),
            region_of_embedding=content["region_of_embedding"],
            about=content["about"],
            **arrays,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is no readable representation ({reason}); make it again.") from error
