"""Whatever is damaged in records in MEDS, no message of a conversion for another model holds a value of a patient."""

import polars as pl
import pytest

from medtok_jax.convert.__main__ import CONVERTERS, convert
from medtok_jax.convert.request import make_request
from preprocessing.meds.dataset import MedsDataset
from tests.helpers import hidden_values, small_visits
from tests.helpers.permissions import readable_by_others

pytestmark = pytest.mark.integration
TARGETS = ("behrt", "gt_behrt", "transformehr", "mult_ehr", "ethos")
_OFFSET = 70_000_000
ID = pl.col("subject_id").cast(pl.String)


def replaced(**columns):
    """Damage columns of the events, which lie in one file."""
    return lambda root: write(root, events(root).with_columns(**columns))


def events(root):
    return pl.read_parquet(root / "data" / "0.parquet")


def write(root, frame, name="0"):
    frame.write_parquet(root / "data" / f"{name}.parquet")


def unheaded(root):
    frame = events(root)
    row = [f"{value}#{place}" if value is None else str(value) for place, value in enumerate(frame.row(5))]
    write(root, frame.rename(dict(zip(frame.columns, row, strict=True))))


def cut(root):
    path = root / "data" / "0.parquet"
    path.write_bytes(path.read_bytes()[:-40])


def beside(name, frame):
    def damage(root):
        (root / "metadata").mkdir(exist_ok=True)
        frame(events(root)).write_parquet(root / "metadata" / name)

    return damage


def about(text):
    def damage(root):
        (root / "metadata").mkdir()
        (root / "metadata" / "dataset.json").write_text(text)

    return damage


SPLITS = "subject_splits.parquet"
DAMAGES = {
    "nothing": lambda root: None,
    "the first row as names": unheaded,
    "a file that is cut": cut,
    "no parquet": lambda root: (root / "data" / "0.parquet").write_text("70000001,2020-01-01 08:00:00,A"),
    "a subject in two files": lambda root: write(root, events(root).head(20), "1"),
    "no events": lambda root: write(root, events(root).clear()),
    "ids of text": replaced(subject_id=ID + "x"),
    "ids of text, some numbers": replaced(subject_id=pl.when(ID.str.ends_with("1")).then(ID + "x").otherwise(ID)),
    "ids among few": replaced(
        subject_id=(ID + "x").cast(pl.Categorical).cast(pl.Enum([f"7000000{n}x" for n in range(9)]))
    ),
    "ids that are no whole numbers": replaced(subject_id=pl.col("subject_id") + 0.5),
    "ids beyond int64": replaced(subject_id=pl.col("subject_id").cast(pl.Float64) * 1e30),
    "subjects without an id": replaced(subject_id=pl.when(ID.str.ends_with("1")).then(None).otherwise("subject_id")),
    "times of text": replaced(time=pl.col("time").cast(pl.String)),
    "no times": replaced(time=pl.lit(None, pl.Datetime("us"))),
    "times by numbers": replaced(time=pl.col("time").cast(pl.Int64)),
    "times before 1970": replaced(time=pl.col("time").dt.offset_by("-130y")),
    "ids in place of codes": replaced(code=ID),
    "ids behind a system": replaced(code="ICD10CM/" + ID),
    "dates behind a system": replaced(code="DIAGNOSIS//ICD//10//" + pl.col("time").dt.to_string("%Y-%m-%d")),
    "codes with a line of another": replaced(code=pl.col("code") + "\n" + ID),
    "codes with an id": replaced(code=pl.col("code") + "//" + ID),
    "codes that are null": replaced(code=pl.when(ID.str.ends_with("1")).then(None).otherwise("code")),
    "codes by numbers": replaced(code=pl.col("subject_id")),
    "codes in lists": replaced(code=pl.concat_list("code", ID)),
    "stays of text": replaced(hadm_id=pl.when(ID.str.ends_with("1")).then(pl.lit("x")).otherwise(ID)),
    "stays of two patients": replaced(hadm_id=pl.lit(70000041)),
    "values of text": replaced(numeric_value=pl.lit("7.0 of ") + ID),
    "texts in lists": replaced(text_value=pl.concat_list("code", ID)),
    "splits of text": beside(SPLITS, lambda frame: frame.select(subject_id=ID + "x", split=pl.lit("train"))),
    "splits in lists": beside(SPLITS, lambda frame: frame.select("subject_id", split=pl.concat_list(ID))),
    "splits without split": beside(SPLITS, lambda frame: frame.select(ID.alias("70000001"))),
    "splits that are ids": beside(SPLITS, lambda frame: frame.select("subject_id", split=ID)),
    "metadata that are no JSON": about('{"70000001": 2020-01-01}'),
    "metadata that are a date": about('{"meds_version": "2020-01-01"}'),
    "codes without parents": beside("codes.parquet", lambda frame: frame.select(ID.alias("70000001"))),
}


@pytest.mark.parametrize("target", TARGETS)
def test_nobody_else_reads_an_export_of_records(target, small_tokenizer_dir, tmp_path):
    root = small_visits.write(tmp_path / "meds")
    options = {"n_positions": 8, "width": 60} if target == "ethos" else {}
    output = tmp_path / target
    given = {"output": output, "tokenizer": small_tokenizer_dir, "events": root, "unmapped": "keep", "options": options}
    convert(target, make_request(**given))
    assert readable_by_others(output) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_message_of_a_conversion_holds_a_value(damage, small_tokenizer_dir, tmp_path, capfd, caplog):
    shifted = [
        (subject + _OFFSET, time, code, None if stay is None else stay + _OFFSET)
        for subject, time, code, stay in small_visits.EVENTS
    ]
    root = small_visits.write(tmp_path / "meds", shifted)
    frame = events(root)
    values = {str(value) for name in ("subject_id", "hadm_id") for value in frame[name].drop_nulls().unique()}
    values |= {part for time in frame["time"].drop_nulls() for part in (str(time), str(time.date()), str(time.time()))}
    assert {"70000001", "70000011", "2020-01-05 16:00:00", "2020-01-05"} < values
    values |= {f"{value}x" for value in values} | {f"{value}.5" for value in values}
    DAMAGES[damage](root)
    with hidden_values.heard(capfd, caplog) as said:
        dataset = MedsDataset.open(root)
        dataset.parent_codes()
        pl.concat(dataset.frames())
    text = said()
    for target in TARGETS:
        assert target in CONVERTERS
        options = {"n_positions": 8, "width": 60} if target == "ethos" else {}
        request = make_request(
            output=tmp_path / target,
            tokenizer=small_tokenizer_dir,
            events=root,
            unmapped="nearest" if "parents" in damage else "keep",
            options=options,
        )
        with hidden_values.heard(capfd, caplog) as said:
            convert(target, request)
        text += f"\n--- {target}\n{said()}"
    found = hidden_values.in_text(values, text)
    assert not found, (found, text)
    assert text.count("Error: ") >= len(TARGETS) or "events are mapped" in text
