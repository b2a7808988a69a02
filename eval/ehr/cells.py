"""Keep the predictions of each cell of a benchmark on disk, so that a stopped run goes on where it was.

A cell is a folder `cells/<identity>` with `cell.json`, what it is and how it was fitted, and `predictions.parquet`, a
row for each test sample in the prediction schema of MEDS: `subject_id`, `prediction_time`, and

    boolean_value, predicted_boolean_value, predicted_boolean_probability      of a binary task
    integer_value, probabilities                                              of classes that exclude one another
    values, probabilities                                                     of classes that do not

and `folds.npy`, the fold in which each of them was tested. It is written as a whole, and only its owner can read it.
The identity is a hash of everything that the predictions depend on: samples, outcomes, what the tokenizer says of each
code, model, settings and seed.
"""

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np

from eval.ehr.results import BINARY, MULTICLASS, CellResult
from medtok_jax.records.samples import Labels
from preprocessing.common.atomic import private, recover, whole_folder
from preprocessing.common.extras import load
from preprocessing.common.foreign_files import reading

pl = load("polars")

ABOUT, PREDICTIONS, FOLDS = "cell.json", "predictions.parquet", "folds.npy"
FORMAT_VERSION = 3


@dataclasses.dataclass(frozen=True)
class Cell:
    """Name a cell.

    Attributes:
        task, tokenizer, model, regime, setting, input, seed: see `CellResult`.
        kind: kind of the task, see `results`.
        depends_on: names and hashes of what else the predictions depend on.
    """

    task: str
    tokenizer: str
    model: str
    regime: str
    setting: str
    input: str
    seed: int
    kind: str
    depends_on: dict[str, str | int | float | bool]

    @property
    def identity(self) -> str:
        """Return the name of the cell's folder."""
        content = {"format_version": FORMAT_VERSION} | dataclasses.asdict(self)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]

    @property
    def title(self) -> str:
        """Return how messages name the cell."""
        parts = (self.task, self.input, self.regime, self.setting, self.tokenizer, self.model, f"seed {self.seed}")
        return ", ".join(part for part in parts if part)


@dataclasses.dataclass(frozen=True)
class Predicted:
    """Hold the predictions of a cell.

    Attributes:
        labels: the test samples and their outcomes; of classes that do not exclude one another `[n, classes]` bool.
        probabilities: `[n]` or `[n, classes]` float32.
        thresholds: `[folds]` float, probability from which on an outcome counts as positive in a fold; NaN for none.
        about: facts about the fit.
        fold: `[n]` int, the fold that each sample was tested in.
    """

    labels: Labels
    probabilities: np.ndarray
    thresholds: np.ndarray
    about: dict
    fold: np.ndarray


class Cells:
    """Hold the cells in a folder.

    Args:
        folder: the folder of the cells.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def __contains__(self, cell: Cell) -> bool:
        recover(self.folder / cell.identity)
        return (self.folder / cell.identity / ABOUT).is_file()

    def save(self, cell: Cell, predicted: Predicted) -> None:
        """Write a cell.

        Raises:
            InputError: it cannot be written.
        """
        with private(), whole_folder(self.folder / cell.identity) as folder:
            _table(cell, predicted).write_parquet(folder / PREDICTIONS)
            np.save(folder / FOLDS, np.asarray(predicted.fold, np.int32))
            content = {"cell": dataclasses.asdict(cell), "thresholds": [*map(_or_none, predicted.thresholds.tolist())]}
            content |= {"about": predicted.about}
            (folder / ABOUT).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def load(self, cell: Cell, person_of: dict[int, int]) -> CellResult:
        """Return the result of a cell.

        Args:
            cell: one that was saved.
            person_of: anonymous number of the person of each subject.

        Raises:
            InputError: the files are damaged.
        """
        folder = self.folder / cell.identity
        with reading(folder, "a cell", "delete it, and run again"):
            content = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            table = pl.read_parquet(folder / PREDICTIONS)
            if cell.kind == BINARY:
                y, p = table["boolean_value"].to_numpy(), table["predicted_boolean_probability"].to_numpy()
            else:
                y = table["integer_value"].to_numpy() if cell.kind == MULTICLASS else _stacked(table["values"])
                p = _stacked(table["probabilities"])
            fold = np.load(folder / FOLDS, allow_pickle=False)
            person = table["subject_id"].replace_strict(person_of, return_dtype=pl.Int64).to_numpy()
            thresholds = np.array([math.nan if one is None else float(one) for one in content["thresholds"]])[fold]
            about = content["about"]
        return CellResult(
            task=cell.task,
            tokenizer=cell.tokenizer,
            model=cell.model,
            regime=cell.regime,
            setting=cell.setting,
            input=cell.input,
            seed=cell.seed,
            y=y,
            p=p,
            person=person,
            p_threshold=thresholds,
            about=about,
            fold=fold,
        )


def _table(cell: Cell, predicted: Predicted) -> "pl.DataFrame":
    labels, p = predicted.labels, np.asarray(predicted.probabilities, np.float32)
    columns = {
        "subject_id": pl.Series(labels.subject, dtype=pl.Int64),
        "prediction_time": pl.Series(labels.time.astype("datetime64[us]")),
    }
    if cell.kind == BINARY:
        columns["boolean_value"] = pl.Series(labels.value, dtype=pl.Boolean)
        columns["predicted_boolean_value"] = pl.Series(p >= predicted.thresholds[predicted.fold], dtype=pl.Boolean)
        columns["predicted_boolean_probability"] = pl.Series(p, dtype=pl.Float32)
    else:
        exclusive = cell.kind == MULTICLASS
        kind = pl.Int64 if exclusive else pl.List(pl.Boolean)
        values = labels.value if exclusive else labels.value.astype(bool).tolist()
        columns["integer_value" if exclusive else "values"] = pl.Series(values, dtype=kind)
        columns["probabilities"] = pl.Series(p.tolist(), dtype=pl.List(pl.Float32))
    return pl.DataFrame(columns)


def _stacked(lists: "pl.Series") -> np.ndarray:
    return np.array(lists.to_list())


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def digest_of(*arrays: np.ndarray) -> str:
    """Return a hash of the content of arrays, in hexadecimal."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        text = array.dtype.kind in "UO"
        digest.update(f"{array.shape} {'text' if text else array.dtype}".encode())
        digest.update("\0".join(array.astype(str).ravel().tolist()).encode() if text else array.tobytes())
    return digest.hexdigest()
