"""The tokens of every code in use: one pass of the trained model, and the table it leaves in the work directory."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from medtok_jax import checkpoints, sharding
from medtok_jax.code_table import SPLITS
from medtok_jax.dataset import by_length
from medtok_jax.input_pipeline import eval_batches
from medtok_jax.metrics import describe_usage
from medtok_jax.regions import EMBEDDINGS, Regions
from medtok_jax.run import Run
from preprocessing.errors import InputError

FILE = "tokens.parquet"
# From so many batches on, less padding saves more time than compiling for each length takes.
SORTED_BATCHES = 100


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Tokens of codes.

    Attributes:
        rows: `[codes]` rows of the code table.
        ids: `[codes, 4K]` int32 global token ids: text-specific, graph-specific, text cross, graph cross, K each.
        weights: `[codes, 4K]` float32, likewise.
        metrics: quantization metrics, utilisation and perplexity over these codes.
    """

    rows: np.ndarray
    ids: np.ndarray
    weights: np.ndarray
    metrics: dict[str, float]


def tokenize_all(run: Run, *, progress: bool = True) -> Tokens:
    """Tokenizes all codes in use with the run's best checkpoint (the last one where there is no best)."""
    state = checkpoints.find(run.workdir, prefer="best").restore(run.state)
    rows = run.data.selected
    if len(rows) > SORTED_BATCHES * run.config.train.batch_size:
        rows = by_length(run.data, rows)
    parts, total = [], None
    bar = tqdm(total=len(rows), desc="Tokenizing", unit=" codes", disable=not progress)
    for batch in eval_batches(run.eval_source(rows)):
        placed = sharding.place_batch(batch, run.mesh)
        *part, window = run.tokenize_step(state.params, state.fixed, placed, run.tables)
        parts.append(part)
        total = window if total is None else total.merge(window)
        bar.update(min(run.config.train.batch_size, len(rows) - bar.n))
    bar.close()
    columns = zip(*parts, strict=True)
    seen, ids, weights = (np.concatenate([np.asarray(array) for array in column]) for column in columns)
    order = np.flatnonzero(seen >= 0)
    order = order[np.argsort(seen[order])]
    metrics = total.scalars.compute() | describe_usage(total.usage.compute(), run.structure.regions)
    return Tokens(seen[order], ids[order], weights[order], metrics)


def write(tokens: Tokens, run: Run, metadata: dict[str, str]) -> Path:
    """Writes `WORKDIR/tokens.parquet`: key, system, code, description, split, ids, weights, modalities present."""
    table, rows = run.data.table, tokens.rows
    width = tokens.ids.shape[1]
    columns = {
        "key": pa.array(table.key[rows]),
        "system": pa.array(table.system[rows]),
        "code": pa.array(table.code[rows]),
        "description": pa.array(table.description[rows]),
        "split": pa.array([SPLITS[number] for number in table.split[rows]]),
        "ids": pa.FixedSizeListArray.from_arrays(pa.array(tokens.ids.reshape(-1)), width),
        "weights": pa.FixedSizeListArray.from_arrays(pa.array(tokens.weights.reshape(-1)), width),
        "has_graph": pa.array(table.num_nodes[rows] > 0),
    }
    path = run.workdir / FILE
    partial = path.with_suffix(".partial")
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), partial)
    partial.replace(path)
    return path


def metadata_of(run: Run) -> dict[str, str]:
    """What a reader of the table must know: sizes of the regions and tokens an embedding."""
    regions = run.structure.regions
    return {
        "regions": f"{regions.text},{regions.graph},{regions.shared}",
        "num_tokens": str(run.config.model.num_top_k_tokens),
    }


@dataclasses.dataclass(frozen=True)
class TokenTable:
    """A token table read back.

    Attributes:
        key, description: `[codes]` arrays of str.
        ids, weights: `[codes, 4K]`.
        regions: of the codebook.
        num_tokens: K.
    """

    key: np.ndarray
    description: np.ndarray
    ids: np.ndarray
    weights: np.ndarray
    regions: Regions
    num_tokens: int

    @classmethod
    def read(cls, workdir: Path) -> "TokenTable":
        """Reads `WORKDIR/tokens.parquet`.

        Raises:
            InputError: where there is none or it cannot be read.
        """
        path = Path(workdir) / FILE
        if not path.exists():
            raise InputError(
                f"There is no token table {path}; train first: python -m medtok_jax.main --workdir={workdir}."
            )
        try:
            table = pq.read_table(path)
            metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
            regions = Regions(*(int(size) for size in metadata["regions"].split(",")))
            num_tokens = int(metadata["num_tokens"])
            flat = {name: table[name].combine_chunks().flatten().to_numpy() for name in ("ids", "weights")}
            strings = {name: table[name].to_numpy(zero_copy_only=False) for name in ("key", "description")}
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"The token table {path} is damaged ({str(error).splitlines()[0]}); run the training command again."
            ) from error
        return cls(
            **strings,
            ids=flat["ids"].reshape(len(table), -1),
            weights=flat["weights"].reshape(len(table), -1),
            regions=regions,
            num_tokens=num_tokens,
        )

    def find(self, code: str) -> int:
        """Row of a code given as `SYSTEM/code` or bare, with or without the dot.

        Raises:
            InputError: where there is none, or several systems have it.
        """
        plain = np.char.replace(np.char.upper(self.key.astype(str)), ".", "")
        wanted = code.strip().upper().replace(".", "")
        matches = np.flatnonzero(plain == wanted if "/" in wanted else np.char.endswith(plain, "/" + wanted))
        if len(matches) > 1:
            raise InputError(f"{code} is a code of several systems: {', '.join(self.key[matches])}; give one of these.")
        if not len(matches):
            raise InputError(f"{code} is not among the {len(self.key)} tokenized codes; keys look like {self.key[0]}.")
        return int(matches[0])

    def overlap(self, row: int) -> np.ndarray:
        """Weighted Jaccard overlap `[codes]` of every code's tokens with those of one.

        A code's tokens are a bag of weights, each embedding's summing to one; the overlap is sum(min) / sum(max).
        """
        share = self.weights / self.weights.reshape(len(self.ids), 4, -1).sum(-1).repeat(self.num_tokens, axis=1)
        bag = np.zeros(self.regions.size, np.float32)
        np.add.at(bag, self.ids[row], share[row])
        # A token met twice in a code (both cross embeddings share a region) counts with the sum of its weights.
        order = np.argsort(self.ids, axis=1, kind="stable")
        ids, weights = np.take_along_axis(self.ids, order, 1), np.take_along_axis(share, order, 1)
        for place in range(ids.shape[1] - 1, 0, -1):
            same = ids[:, place] == ids[:, place - 1]
            weights[same, place - 1] += weights[same, place]
            weights[same, place] = 0.0
        both = np.minimum(weights, np.where(weights > 0, bag[ids], 0.0)).sum(1)
        return both / (weights.sum(1) + bag.sum() - both)


def embedding_names(num_tokens: int) -> list[str]:
    """Embedding of each of a code's 4K tokens, in order."""
    return [name for name in EMBEDDINGS for _ in range(num_tokens)]
