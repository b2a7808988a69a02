"""Reading MEDS data sets of other sources: what versions and ETLs name and type differently comes in one form."""

from datetime import UTC, datetime

import polars as pl
import pytest

from preprocessing.common.errors import InputError
from preprocessing.meds import splits as subject_splits
from preprocessing.meds.dataset import MedsDataset, is_meds
from preprocessing.meds.layout import COLUMNS
from preprocessing.meds.open import open_events

NOON, NEXT = datetime(2020, 1, 1, 12), datetime(2020, 1, 2, 12)


def write(root, shards, splits=None, about=None):
    for name, frame in shards.items():
        path = root / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)
    (root / "metadata").mkdir(exist_ok=True)
    if splits is not None:
        splits.write_parquet(root / "metadata" / "subject_splits.parquet")
    if about is not None:
        (root / "metadata" / "dataset.json").write_text(about)
    return root


def frame(**columns):
    return pl.DataFrame(columns)


def test_ehrshot_and_older_versions(tmp_path):
    """patient_id and visit_id, categorical codes, nanoseconds, float64, the birth code of the first versions."""
    old = frame(
        patient_id=pl.Series([3, 3], dtype=pl.Int32),
        time=pl.Series([NOON, None], dtype=pl.Datetime("ns")),
        code=pl.Series(["SNOMED/44054006", "SNOMED/184099003"], dtype=pl.Categorical),
        numeric_value=[1.5, None],
        visit_id=pl.Series([7.0, None]),
        omop_table=["condition", "person"],
    )
    new = frame(subject_id=[5], time=[NOON.replace(tzinfo=UTC)], code=["ICD10CM/E11.9"], unit=["mg"])
    dataset = MedsDataset.open(write(tmp_path, {"a/0": old, "1": new}, about='{"meds_version": "0.3.3"}'))
    assert dataset.version == "0.3.3"
    assert dataset.splits is None
    whole = pl.concat(dataset.frames()).sort("subject_id", maintain_order=True)
    assert dict(whole.schema) == COLUMNS | {"omop_table": pl.String, "unit": pl.String}
    assert whole.drop("numeric_value", "text_value").rows() == [
        (3, None, "MEDS_BIRTH", None, None, "person"),
        (3, NOON, "SNOMED/44054006", 7, None, "condition"),
        (5, NOON, "ICD10CM/E11.9", None, "mg", None),
    ]


def test_stays_without_numbers_are_numbered_alike_in_every_file(tmp_path):
    stays = {"0": ["adm-a", "adm-b", None], "1": ["adm-b", "adm-b", "12"]}
    shards = {
        name: frame(subject_id=[int(name)] * 3, time=[NOON] * 3, code=["A"] * 3, hadm_id=ids)
        for name, ids in stays.items()
    }
    a, b, missing, *others = pl.concat(MedsDataset.open(write(tmp_path, shards)).frames())["hadm_id"]
    assert missing is None
    assert a != b
    assert others[:2] == [b, b]


def test_events_are_sorted_and_ties_keep_their_order(tmp_path):
    shard = frame(
        subject_id=[2, 1, *[2] * 4000, 1],
        time=[NEXT, NOON, *[NOON] * 4000, None],
        code=["later", "x", *map(str, range(4000)), "static"],
    )
    (only,) = MedsDataset.open(write(tmp_path, {"0": shard})).frames()
    assert only["code"].to_list() == ["static", "x", *map(str, range(4000)), "later"]


def test_splits_of_the_data_set_go_before_those_by_hash(tmp_path):
    ids = list(range(20))
    shards = {str(i): frame(subject_id=ids[i::2], time=[NOON] * 10, code=["A"] * 10) for i in range(2)}
    own = {i: "held_out" for i in range(5)}
    splits = frame(subject_id=list(own), split=list(own.values()))
    dataset = MedsDataset.open(write(tmp_path, shards, splits))
    expected = {i: own.get(i, subject_splits.SUBJECT_SPLITS[subject_splits.split_of([i])[0]]) for i in ids}
    for split in subject_splits.SUBJECT_SPLITS:
        found = [i for part in dataset.frames(split) for i in part["subject_id"]]
        assert sorted(found) == [i for i in ids if expected[i] == split]


def test_columns_are_chosen(tmp_path):
    shards = {
        "0": frame(subject_id=[1], time=[NOON], code=["A"], unit=["mg"], other=[1]),
        "1": frame(subject_id=[2], time=[NOON], code=["A"]),
    }
    dataset = MedsDataset.open(write(tmp_path, shards))
    frames = list(dataset.frames(columns=["unit", "hadm_id"]))
    assert [part.columns for part in frames] == [["subject_id", "time", "code", "hadm_id", "unit"]] * 2
    assert frames[0].schema == frames[1].schema
    assert dataset.subjects().tolist() == [1, 2]
    with pytest.raises(InputError, match=r"has no column 'los'; it has subject_id, .*hadm_id and 2 others"):
        next(dataset.frames(columns=["los"]))


@pytest.mark.parametrize(
    ("shard", "words"),
    [
        (frame(subject_id=[1], code=["A"]), "has no column 'time'"),
        (frame(patient_id=[1], events=[[NOON]]), "nests events like MEDS before 0.3"),
        (frame(subject_id=[1], time=["noon"], code=["A"]), "has the type String, not a date and time"),
        (
            frame(subject_id=["x"], time=[NOON], code=["A"]),
            "subject_id of .* has the type String, which cannot become Int64",
        ),
        (frame(subject_id=[1], time=[NOON], code=[None]), "has 1 events without a code"),
    ],
)
def test_a_damaged_data_set_is_refused(shard, words, tmp_path):
    root = write(tmp_path, {"0": shard})
    with pytest.raises(InputError, match=words):
        list(MedsDataset.open(root).frames())


def test_one_patient_in_two_files_is_refused(tmp_path):
    one = frame(subject_id=[1], time=[NOON], code=["A"])
    dataset = MedsDataset.open(write(tmp_path, {"0": one, "1": one}))
    with pytest.raises(InputError, match="repeats 1 of its 1 subjects"):
        list(dataset.frames())


def test_damaged_and_absent_files(tmp_path):
    assert not is_meds(tmp_path)
    with pytest.raises(InputError, match="is not a MEDS data set"):
        MedsDataset.open(tmp_path)
    with pytest.raises(InputError, match="holds no table of patients"):
        open_events(tmp_path, tmp_path / "out")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        MedsDataset.open(tmp_path)


def test_ids_among_few_texts_are_read_as_their_numbers(tmp_path):
    texts = pl.Series(["12", "7", "12"], dtype=pl.Enum(["7", "12"]))
    root = write(tmp_path, {"0": frame(subject_id=texts, time=[NOON] * 3, code=["A", "B", "C"])})
    assert MedsDataset.open(root).subjects().tolist() == [7, 12]


def test_ids_between_whole_numbers_are_refused(tmp_path):
    root = write(tmp_path, {"0": frame(subject_id=[1.0, 2.0], time=[NOON] * 2, code=["A", "B"])})
    assert MedsDataset.open(root).subjects().tolist() == [1, 2]
    frame(subject_id=[1.0, 2.5], time=[NOON] * 2, code=["A", "B"]).write_parquet(root / "data" / "0.parquet")
    with pytest.raises(InputError, match="has the type Float64, which cannot become Int64"):
        MedsDataset.open(root).subjects()


def test_a_split_that_nothing_reads_is_refused(tmp_path):
    """Its subjects would be in no file of any export, and nobody would be told."""
    events = frame(subject_id=[1, 2, 3], time=[NOON] * 3, code=["A"] * 3)
    splits = frame(subject_id=[1, 2, 3], split=["train", "validation", None])
    with pytest.raises(InputError, match="gives 2 subjects a split other than train, tuning, held_out"):
        MedsDataset.open(write(tmp_path, {"0": events}, splits))
    twice = frame(subject_id=[1, 2, 2, 3, 3], split=["train", "train", "held_out", "tuning", "tuning"])
    with pytest.raises(InputError, match="gives 1 subjects several splits"):
        MedsDataset.open(write(tmp_path, {"0": events}, twice))
