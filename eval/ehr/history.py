"""Store the events of a data set that a model may see, so that the history of each sample is a slice of them.

Events are sorted by patient and by the time from which they are known, so that what is known at a prediction time is
always the beginning of a patient's events (see `inputs` and `tasks.coding`). No JAX here.

What gives an outcome away is left out for every task: deaths, discharges and where they lead, and the diagnosis-related
groups that are billed. Events without time are left out too; sex and birth are columns of their own.
"""

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np

from eval.ehr.tasks.coding import with_coding
from eval.ehr.tasks.spelling import Spelling
from medtok_jax.records.visits import PRESCRIPTION, kind_of
from preprocessing.common.atomic import recover, whole_folder
from preprocessing.common.checksums import sha256_of_files
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.hashing import hash_strings
from preprocessing.common.progress import Bar
from preprocessing.meds.dataset import MedsDataset, read_parquet
from preprocessing.meds.layout import BIRTH, METADATA
from preprocessing.meds.sources.writer import PERSONS

pl = load("polars")

FILE = "histories.json"
# Of the arrays; those of another number are made anew.
FORMAT_VERSION = 2
# Outcomes, and what is decided with them. A transfer of MIMIC-IV whose kind is `discharge` is the discharge.
FORBIDDEN = (
    r"^(?:MEDS_DEATH|MEDS_BIRTH|DRG|HOSPITAL_DISCHARGE|ICU_DISCHARGE|GENDER|RACE|ETHNICITY)(?:/|$)"
    r"|^TRANSFER_TO//discharge(?:/|$)|^(?:Gender|Sex|Race|Ethnicity|Death Type|Discharge)/"
)
_SEX = r"^(?i:gender|sex)/+([FM])"
_OF_EVENTS = {"code": np.int32, "time": np.int64, "visit": np.int32, "coded": np.bool_}
_CHUNK = 1 << 24


@dataclasses.dataclass(frozen=True)
class Histories:
    """Hold all events that a model may see, memory-mapped.

    Attributes:
        subject: `[subjects]` int64, in the order of the data set.
        offsets: `[subjects + 1]` int64, the events of subject s are `offsets[s]` to `offsets[s + 1]`.
        code: `[events]` int32, indices into `codes`.
        time: `[events]` datetime64[us].
        visit: `[events]` int32, number of the visit (stay, or day outside of stays) within its subject, in the order
            of the visits' first events.
        coded: `[events]` bool, True for diagnoses and procedures from the discharge of their stay on, coded after it.
        codes: `[codes]` str, distinct codes as the data set spells them, sorted.
        is_drug: `[codes]` bool.
        birth: `[subjects]` datetime64[us], NaT where it is unknown.
        sex: `[subjects]` str, `F`, `M`, or empty where it is unknown.
        person: `[subjects]` int64, the same for all subjects that are one person.
        coding: how long the rule `bedside` does not see what stands at a discharge or after it.
        identity: of the events and of the rules by which they are read.
        translation: `[codes]` int32, the code of the other vocabulary that stands for each code, or itself; None where
            there is none, see `eval.ehr.tokenizers.translation`.
    """

    subject: np.ndarray
    offsets: np.ndarray
    code: np.ndarray
    time: np.ndarray
    visit: np.ndarray
    coded: np.ndarray
    codes: np.ndarray
    is_drug: np.ndarray
    birth: np.ndarray
    sex: np.ndarray
    person: np.ndarray
    coding: np.timedelta64
    identity: str = ""
    translation: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.subject)

    def rows_of(self, subjects: np.ndarray) -> np.ndarray:
        """Return the row of each subject id, `[n]` int64.

        Raises:
            InputError: the data set has no event of a subject.
        """
        order = np.argsort(self.subject)
        place = np.minimum(np.searchsorted(self.subject, subjects, sorter=order), max(len(order) - 1, 0))
        rows = order[place] if len(order) else np.zeros(len(subjects), np.int64)
        absent = int((self.subject[rows] != subjects).sum()) if len(order) else len(subjects)
        if absent:
            raise InputError(f"{absent:,} of {len(subjects):,} labels are of patients without events; check both.")
        return rows


def open_histories(dataset: MedsDataset, spelling: Spelling, folder: Path, *, progress: bool = True) -> Histories:
    """Return the histories of a data set, made in `folder` unless they lie there already.

    Files are read one at a time. A killed run leaves nothing behind, and the next one makes the same bytes.

    Args:
        dataset: the events.
        spelling: how the data set spells stays, which says when codes are known.
        folder: where the arrays are kept, for files of the same content.
        progress: whether to show a progress bar.

    Raises:
        InputError: the data set has no event that a model may see, or the folder cannot be written.
    """
    recover(folder)
    persons = [path for path in (dataset.root / METADATA / PERSONS,) if path.is_file()]
    files = [*dataset.shards, *persons, spelling.path]
    stamp = {"format_version": FORMAT_VERSION, "source": sha256_of_files(files)}
    if _is_of(folder, stamp):
        # Damaged arrays are made anew.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError):
            return _read(folder, spelling)
    with whole_folder(folder) as provisional:
        _write(dataset, spelling, provisional, progress)
        (provisional / FILE).write_text(json.dumps(stamp) + "\n", encoding="utf-8")
    return _read(folder, spelling)


def _is_of(folder: Path, stamp: dict) -> bool:
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8")) == stamp
    except (OSError, ValueError):
        return False


def _read(folder: Path, spelling: Spelling) -> Histories:
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    time, birth = (arrays.pop(name).view("datetime64[us]") for name in ("time", "birth"))
    table = pl.read_parquet(folder / "codes.parquet")
    return Histories(
        **arrays,
        time=time,
        birth=birth,
        codes=table["code"].to_numpy().astype(str),
        is_drug=table["is_drug"].to_numpy(),
        coding=np.timedelta64(round(spelling.coding_days * 86400e6), "us"),
        identity=json.loads((folder / FILE).read_text(encoding="utf-8"))["source"],
    )


def _write(dataset: MedsDataset, spelling: Spelling, folder: Path, progress: bool) -> None:
    further = [name for name in (spelling.discharge_from,) if name in dataset.further]
    number: dict[str, int] = {}
    subjects = []
    raw = {name: folder / f"{name}.raw" for name in _OF_EVENTS}
    files = {name: path.open("wb") for name, path in raw.items()}
    try:
        bar = Bar(total=len(dataset.shards), desc="Reading histories", unit=" files", show=progress)
        with bar:
            for frame in dataset.frames(columns=("hadm_id", *further)):
                events, about = _of_shard(frame, spelling)
                for name, kind in _OF_EVENTS.items():
                    column = _numbers(events["code"], number) if name == "code" else events[name].to_numpy()
                    column.astype(kind).tofile(files[name])
                subjects.append(about)
                bar.update()
    finally:
        for file in files.values():
            file.close()
    if not number:
        raise InputError(f"{dataset.root} has no event with a time that a model may see; convert the records again.")
    codes = np.array(list(number), object)
    order = np.argsort(codes.astype(str), kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    for name, kind in _OF_EVENTS.items():
        _as_npy(raw[name], folder / f"{name}.npy", kind, rank if name == "code" else None)
    table = pl.concat(subjects)
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(table["events"].to_numpy())]).astype(np.int64))
    ids = table["subject_id"].to_numpy()
    np.save(folder / "subject.npy", ids)
    np.save(folder / "birth.npy", table["birth"].to_numpy().astype("datetime64[us]").view(np.int64))
    np.save(folder / "sex.npy", table["sex"].to_numpy().astype("U1"))
    np.save(folder / "person.npy", _persons(dataset, ids))
    drugs = [kind_of(code) == PRESCRIPTION or code.startswith("MEDICATION") for code in codes[order]]
    pl.DataFrame({"code": codes[order].tolist(), "is_drug": drugs}).write_parquet(folder / "codes.parquet")


def _numbers(spellings: "pl.Series", number: dict[str, int]) -> np.ndarray:
    """Return the number of each code, and number new ones in the order of their appearance."""
    for code in spellings.unique(maintain_order=True):
        number.setdefault(code, len(number))
    unique = spellings.unique()
    return spellings.replace_strict(unique, [number[code] for code in unique], return_dtype=pl.Int32).to_numpy()


def _as_npy(raw: Path, path: Path, kind: type, rank: np.ndarray | None) -> None:
    """Write the numbers of a file without header as an array, through the renumbering `rank` where there is one."""
    source = np.memmap(raw, kind, "r")
    target = np.lib.format.open_memmap(path, "w+", kind, source.shape)
    for start in range(0, len(source), _CHUNK):
        part = source[start : start + _CHUNK]
        target[start : start + _CHUNK] = part if rank is None else rank[part]
    target.flush()
    raw.unlink()


def _of_shard(frame: "pl.DataFrame", spelling: Spelling) -> tuple["pl.DataFrame", "pl.DataFrame"]:
    """Return the events of one file that a model may see, and a row for each of its subjects."""
    time, code = pl.col("time"), pl.col("code")
    timed = frame.filter(time.is_not_null())
    births = timed.filter(code == BIRTH).group_by("subject_id").agg(birth=time.min())
    sexes = frame.select("subject_id", sex=code.str.extract(_SEX, 1)).drop_nulls()
    sexes = sexes.group_by("subject_id", maintain_order=True).agg(pl.col("sex").first())
    day = pl.when(pl.col("hadm_id").is_null()).then(time.dt.date()).otherwise(None)
    events = with_coding(timed.with_columns(day=day), spelling).filter(~code.str.contains(FORBIDDEN))
    # The number of an event in this order stands for its place in the order of time.
    events = events.with_row_index("first").with_columns(pl.col("first").min().over("subject_id", "hadm_id", "day"))
    events = events.with_columns(visit=(pl.col("first").rank("dense").over("subject_id") - 1).cast(pl.Int32))
    counts = events.group_by("subject_id").agg(events=pl.len())
    about = (
        frame.select(pl.col("subject_id").unique(maintain_order=True))
        .sort("subject_id")
        .join(births, on="subject_id", how="left", maintain_order="left")
        .join(sexes, on="subject_id", how="left", maintain_order="left")
        .join(counts, on="subject_id", how="left", maintain_order="left")
        .with_columns(pl.col("sex").fill_null(""), pl.col("events").fill_null(0).cast(pl.Int64))
    )
    return events.with_columns(time.cast(pl.Int64)), about


def _persons(dataset: MedsDataset, subjects: np.ndarray) -> np.ndarray:
    """Return a number for the person of each subject: int64 `[subjects]`."""
    path = dataset.root / METADATA / PERSONS
    if not path.is_file():
        return subjects
    table = read_parquet(path)
    known = dict(zip(table["subject_id"], table["person"].cast(pl.String), strict=True))
    names = [known.get(int(subject), f"subject {subject}") for subject in subjects]
    return hash_strings("person", names).view(np.int64)
