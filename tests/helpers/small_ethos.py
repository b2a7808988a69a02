"""Write invented patients as MEDS and in the tokenized format of ETHOS."""

import datetime
from pathlib import Path

import numpy as np
import polars as pl

from medtok_jax.convert.ethos import directory
from medtok_jax.convert.ethos import vocabulary as ethos_vocabulary
from medtok_jax.convert.ethos.directory import Timelines

DAY, HOUR, MINUTE = 86_400_000_000, 3_600_000_000, 60_000_000
SCHEMA = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
    "text_value": pl.String,
    "hadm_id": pl.Int64,
    "icustay_id": pl.Int64,
    "insurance": pl.String,
    "marital_status": pl.String,
    "race": pl.String,
}


def at(day: int, hour: int = 0, minute: int = 0) -> datetime.datetime:
    """Return a time in the year of all events."""
    return datetime.datetime(2150, 1, 1) + datetime.timedelta(days=day, hours=hour, minutes=minute)


def frame(rows: list[dict]) -> pl.DataFrame:
    """Return events with all columns of `SCHEMA`."""
    return pl.DataFrame([{name: row.get(name) for name in SCHEMA} for row in rows], schema=SCHEMA)


def patient(subject: int) -> list[dict]:
    """Return a birth, an admission with a stay in intensive care, laboratory values, a drug, codes and a discharge."""
    stay = {"subject_id": subject, "hadm_id": subject * 10}
    about = {"insurance": "Medicare", "marital_status": "MARRIED", "race": "BLACK/AFRICAN AMERICAN"}
    codes = ["ICD9CM/250.00", "ICD10CM/E11.9", "ICD9CM/999.99"] if subject % 2 else ["ICD10CM/E11.65"]
    events = [
        (None, "GENDER//F", {"hadm_id": None}),
        (datetime.datetime(2100, 5, 1), "MEDS_BIRTH", {"hadm_id": None}),
        (at(0, 8), "HOSPITAL_ADMISSION//EW EMER.//UNK", about),
        (at(0, 8, 30), "ICU_ADMISSION//MICU", {"icustay_id": subject * 100}),
        (at(0, 9), "LAB//50912//mg/dL", {"numeric_value": float(subject)}),
        (at(1), "NDC/00002143380", {"numeric_value": 5.0, "text_value": "Insulin"}),
        (at(2), "ICU_DISCHARGE//MICU", {"icustay_id": subject * 100}),
        (at(5), "HOSPITAL_DISCHARGE//SKILLED NURSING FACILITY", {}),
        *((at(5), code, {}) for code in codes),
    ]
    return [{**stay, "time": time, "code": code, **more} for time, code, more in events]


def write_meds(root: Path, splits: dict[str, range] | None = None) -> Path:
    """Write a MEDS data set of patients 1 to 30 and return its folder."""
    splits = splits or {"train": range(1, 21), "tuning": range(21, 26), "held_out": range(26, 31)}
    for split, subjects in splits.items():
        (root / "data" / split).mkdir(parents=True)
        rows = [row for subject in subjects for row in patient(subject)]
        frame(rows).write_parquet(root / "data" / split / "0.parquet")
    (root / "metadata").mkdir()
    table = [(subject, split) for split, subjects in splits.items() for subject in subjects]
    pl.DataFrame(table, schema=["subject_id", "split"], orient="row").write_parquet(
        root / "metadata" / "subject_splits.parquet"
    )
    return root


def timelines(patients: list[list[tuple[str, int]]], vocabulary: list[str]) -> Timelines:
    """Return the timelines (tokens and microseconds) of patients 1, 2, ..."""
    ids = {token: number for number, token in enumerate(vocabulary)}
    events = [event for rows in patients for event in rows]
    lengths = [len(rows) for rows in patients]
    return Timelines(
        tokens=np.array([ids[token] for token, _ in events], np.int64),
        times=np.array([time for _, time in events], np.int64),
        patient_ids=np.arange(1, len(patients) + 1),
        patient_offsets=np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64),
        stays={name: np.arange(len(events), dtype=np.float64) for name in directory.STAYS},
    )


def write_tokenized(folder: Path, patients: list[list[tuple[str, int]]], extra: list[str] = ()) -> list[str]:
    """Write a data set in the format of ETHOS and return its vocabulary."""
    folder.mkdir(parents=True)
    tokens = ["GENDER//F", "RACE//WHITE", *(token for rows in patients for token, _ in rows), *extra]
    vocabulary = list(dict.fromkeys([*tokens, *(f"Q{number}" for number in range(1, 11))]))
    ethos_vocabulary.write(folder, vocabulary)
    directory.write_shard(folder / "0.safetensors", timelines(patients, vocabulary))
    about = {
        "GENDER": {"code": ["GENDER//F"], "time": [None]},
        "MEDS_BIRTH": {"code": ["MEDS_BIRTH"], "time": [-DAY]},
        "RACE": {"code": ["RACE//UNKNOWN"], "time": None},
    }
    directory.write_static(folder, {number: about for number in range(1, len(patients) + 1)})
    statistics = {key: {"1d-2d": DAY * 1.5} for key in ("min", "q1", "mean", "median", "q3", "max")}
    directory.write_json(folder / directory.INTERVALS, statistics)
    directory.write_json(folder / directory.QUANTILES, {"LAB//Q//50912": [1.0, 2.0]})
    return vocabulary
