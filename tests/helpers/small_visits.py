"""Write a few invented patients as MEDS, with every case of visits and the codes of `small_tokenizer`."""

import datetime
from pathlib import Path

import polars as pl

SCHEMA = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "hadm_id": pl.Int64}


def at(day: str, hour: int = 0) -> datetime.datetime:
    """Return the time of an hour of a day such as 2020-01-31."""
    return datetime.datetime.fromisoformat(day).replace(hour=hour)


def stay(subject: int, hadm_id: int, start: str, end: str, *codes: str, kind: str = "URGENT", to: str = "HOME") -> list:
    """Return the events of one stay, with codes at its end."""
    return [
        (subject, at(start, 8), f"HOSPITAL_ADMISSION//{kind}//EMERGENCY ROOM", hadm_id),
        *((subject, at(end, 16), code, hadm_id) for code in codes),
        (subject, at(end, 16), f"HOSPITAL_DISCHARGE//{to}", hadm_id),
    ]


ALL_KINDS = ("ICD10CM/E11.9", "ICD10PCS/0016070", "NDC/00002143380")
# Patient 1: three stays, the last two 10 days apart; dies in the last. 2: a code in two spellings; a stay without
# codes; two unmapped codes. 3: days without a stay; age unknown. 4: a stay begins before the other ends; hidden age.
# 5: no medical code.
EVENTS = [
    (1, None, "GENDER//F", None),
    (1, at("1950-06-15"), "MEDS_BIRTH", None),
    *stay(1, 11, "2020-01-01", "2020-01-05", *ALL_KINDS, "ICD9CM/250.00"),
    *stay(1, 12, "2020-03-01", "2020-03-21", *ALL_KINDS, "ICD10CM/E10.9", kind="ELECTIVE"),
    *stay(1, 13, "2020-03-31", "2020-04-02", *ALL_KINDS, "SNOMED/44054006", to="DIED"),
    (1, at("2020-04-02", 16), "MEDS_DEATH", None),
    (2, at("2000-01-01"), "MEDS_BIRTH", None),
    *stay(2, 21, "2021-05-01", "2021-05-01", "ICD10CM/E11.9", "DIAGNOSIS//ICD//10//E119", "ICD9CM/999.99", "LAB//1"),
    *stay(2, 22, "2021-06-01", "2021-06-03"),
    *stay(2, 23, "2021-07-01", "2021-07-02", "ATC/A10BA02", "ICD9Proc/00.10", "ICD9CM/001.0", "NDC/99999999999"),
    (3, at("2022-02-02", 9), "RxNorm/860975", None),
    (3, at("2022-02-02", 11), "CPT4/99213", None),
    (3, at("2022-02-03", 9), "LAB//1", None),
    (3, at("2022-02-05", 9), "ICD10CM/S72.001A", None),
    (4, at("1800-01-01"), "MEDS_BIRTH", None),
    *stay(4, 41, "2100-01-01", "2100-01-03", *ALL_KINDS),
    *stay(4, 42, "2100-01-03", "2100-01-03", *ALL_KINDS, "ICD10CM/E11"),
    (5, at("2000-01-01"), "MEDS_BIRTH", None),
    *stay(5, 51, "2021-06-01", "2021-06-03", "LAB//1"),
]


def write(root: Path, events: list = EVENTS, *, files: int = 1, splits: dict[int, str] | None = None) -> Path:
    """Write a MEDS data set to `root`, with its subjects spread over several files."""
    frame = pl.DataFrame(events, schema=SCHEMA, orient="row").sort("subject_id", "time", maintain_order=True)
    (root / "data").mkdir(parents=True)
    for number in range(files):
        part = frame.filter(pl.col("subject_id") % files == number)
        part.write_parquet(root / "data" / f"{number}.parquet")
    if splits:
        (root / "metadata").mkdir()
        columns = {"subject_id": list(splits), "split": list(splits.values())}
        pl.DataFrame(columns).write_parquet(root / "metadata" / "subject_splits.parquet")
    return root


def write_labels(path: Path) -> Path:
    """Write two labels, one of each value, at whose times the codes of an earlier stay are seen."""
    rows = [(1, at("2020-03-01", 12), True), (2, at("2021-06-01", 12), False)]
    path.parent.mkdir(parents=True)
    pl.DataFrame(rows, schema=["subject_id", "prediction_time", "boolean_value"], orient="row").write_parquet(path)
    return path
