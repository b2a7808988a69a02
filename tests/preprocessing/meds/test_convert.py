"""MIMIC as MEDS: against expectations worked out by hand, the published schema, and the real demo."""

import csv
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime

import meds as standard
import polars as pl
import pyarrow.parquet as pq
import pytest

from preprocessing.common.errors import InputError
from preprocessing.meds import convert as converter
from preprocessing.meds import shards, table_files
from preprocessing.meds import splits as subject_splits
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.open import open_events
from tests.helpers import mimic_copies
from tests.helpers.forked import run_module
from tests.helpers.meds_events import events_of, story
from tests.helpers.paths import SHARED
from tests.helpers.permissions import readable_by_others

DEMO = SHARED / "data" / "mimic3demo"


def run(source, output, **options):
    return converter.convert(converter.MedsRequest(source, output, progress=False, **options))


@pytest.fixture(scope="module", params=["mimic3", "mimic4"])
def version(request):
    return request.param


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mimic")
    return {name: mimic_copies.write(folder / name, name) for name in mimic_copies.ROWS}


@pytest.fixture(scope="module")
def converted(copies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("meds")
    return {name: run(source, folder / name, also=("chartevents",)) for name, source in copies.items()}


def test_the_story_of_a_patient_of_mimic3(converted):
    """Leading zeros and dots; days put at their end, or that of the stay; a death in hospital; order at one time."""
    assert story(events_of(converted["mimic3"].output), 11) == [
        ("", "GENDER//F"),
        ("2100-02-03 00:00:00", "MEDS_BIRTH"),
        ("2160-01-10 15:00:00", "ED_REGISTRATION"),
        ("2160-01-10 20:30:00", "HOSPITAL_ADMISSION//EMERGENCY//EMERGENCY ROOM ADMIT"),
        ("2160-01-10 20:30:00", "TRANSFER_TO//admit//UNK"),
        ("2160-01-10 21:00:00", "ED_OUT"),
        ("2160-01-10 23:59:59", "MEDICATION//START//Insulin"),
        ("2160-01-11 23:59:59", "CPT4/99232"),
        ("2160-01-15 12:00:00", "NDC/00002143380"),
        ("2160-01-15 12:00:00", "ICD9Proc/00.10"),
        ("2160-01-15 12:00:00", "HCPCS/G0378"),
        ("2160-01-15 12:00:00", "HOSPITAL_DISCHARGE//HOME"),
        ("2160-01-15 12:00:00", "ICD9CM/250.00"),
        ("2160-01-15 12:00:00", "ICD9CM/001.0"),
        ("2160-05-01 08:00:00", "HOSPITAL_ADMISSION//ELECTIVE//UNK"),
        ("2160-05-02 23:59:59", "NDC/00904516561"),
        ("2160-05-03 00:00:00", "TRANSFER_TO//transfer//MICU"),
        ("2160-05-03 00:00:00", "ICU_ADMISSION//MICU"),
        ("2160-05-03 01:00:00", "CHART//211//BPM"),
        ("2160-05-08 23:00:00", "ICU_DISCHARGE//SICU"),
        ("2160-05-09 03:20:00", "MEDICATION//NDC//2143380"),
        ("2160-05-09 03:20:00", "MEDS_DEATH"),
        ("2160-05-09 03:20:00", "HOSPITAL_DISCHARGE//DEAD/EXPIRED"),
        ("2160-05-09 03:20:00", "ICD9CM/E849.0"),
        ("2160-05-09 03:20:00", "ICD9CM/V30.01"),
        ("2160-05-09 03:20:00", "DRG//APR//1334//RESPIRATORY FAILURE"),
    ]


def test_the_story_of_a_patient_of_mimic4(converted):
    assert story(events_of(converted["mimic4"].output), 10000022) == [
        ("", "GENDER//M"),
        ("2059-01-01 00:00:00", "MEDS_BIRTH"),
        ("2150-03-01 10:00:00", "HOSPITAL_ADMISSION//EW EMER.//UNK"),
        ("2150-03-01 11:00:00", "MEDICATION//START//NS"),
        ("2150-03-01 12:00:00", "ICU_ADMISSION//MICU"),
        ("2150-03-01 13:00:00", "CHART//220045//bpm"),
        ("2150-03-02 23:59:59", "ICD10PCS/0016070"),
        ("2150-03-02 23:59:59", "HCPCS/G0378"),
        ("2150-03-02 23:59:59", "HCPCS//??"),
        ("2150-03-03 10:00:00", "ICU_DISCHARGE//MICU"),
        ("2150-03-03 10:45:00", "MEDS_DEATH"),
        ("2150-03-03 11:00:00", "HOSPITAL_DISCHARGE//DIED"),
        ("2150-03-03 11:00:00", "ICD10CM/S72.001A"),
        ("2150-03-03 11:00:00", "DIAGNOSIS//ICD//10//NOCODE??"),
        ("2150-03-03 18:30:00", "MEDICATION//START//NS"),
    ]
    assert ("2180-05-06 23:30:00", "LAB//50912//mg/dL") in story(events_of(converted["mimic4"].output), 10000021)


def test_nobody_else_reads_the_records(converted):
    assert [readable_by_others(made.output) for made in converted.values()] == [[], []]


def test_a_patient_older_than_89_is_not_born_300_years_ago(converted):
    births = dict(story(events_of(converted["mimic3"].output), 12))
    assert births["2059-07-01 00:00:00"] == "MEDS_BIRTH"
    assert converted["mimic3"].about["births_moved_from_300_years_ago"] == 1
    assert births["2151-01-01 23:59:59"] == "MEDS_DEATH"


def test_what_stands_beside_the_code(converted):
    frame = events_of(converted["mimic3"].output)

    def row(code, subject=11):
        found = frame.filter((pl.col("code") == code) & (pl.col("subject_id") == subject)).to_dicts()
        return {name: value for name, value in found[0].items() if value is not None}

    admission = row("HOSPITAL_ADMISSION//EMERGENCY//EMERGENCY ROOM ADMIT")
    about = {"hadm_id": 101, "insurance": "Medicare", "marital_status": "SINGLE", "race": "WHITE"}
    assert about.items() <= admission.items()
    assert "hospital_expire_flag" not in admission  # The outcome is not told at the admission.
    assert row("HOSPITAL_DISCHARGE//DEAD/EXPIRED")["hospital_expire_flag"] == 1
    assert row("ICD9CM/001.0")["seq_num"] == 2
    drug = {"text_value": "Aspirin", "numeric_value": 1325.5, "unit": "mg", "hadm_id": 101}
    assert drug.items() <= row("NDC/00002143380").items()
    assert row("MEDICATION//START//Insulin")["numeric_value"] == 3  # 2-4 units
    lab = row("LAB//50912//mg/dL", 12)
    assert (lab["numeric_value"], lab["text_value"], "hadm_id" in lab) == (pytest.approx(1.3), "1.3", False)
    assert row("ICU_DISCHARGE//SICU")["icustay_id"] == 201
    assert row("DRG//APR//1334//RESPIRATORY FAILURE")["drg_severity"] == 4


def test_files_have_the_published_schema(converted, version):
    root = converted[version].output
    subjects = []
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        standard.DataSchema.validate(table)
        rows = [
            (i, t or datetime.min) for i, t in zip(*(table[n].to_pylist() for n in ("subject_id", "time")), strict=True)
        ]
        assert rows == sorted(rows)
        subjects += sorted(set(table["subject_id"].to_pylist()))
    assert len(subjects) == len(set(subjects))
    splits = pq.read_table(root / standard.subject_splits_filepath)
    standard.SubjectSplitSchema.validate(splits)
    assert sorted(subjects) == splits["subject_id"].to_pylist()
    codes = pq.read_table(root / standard.code_metadata_filepath)
    standard.CodeMetadataSchema.validate(codes)
    counts = events_of(root)["code"].value_counts()
    assert dict(zip(*(codes[n].to_pylist() for n in ("code", "events")), strict=True)) == dict(counts.iter_rows())
    about = json.loads((root / standard.dataset_metadata_filepath).read_text())
    standard.DatasetMetadataSchema.validate(about)
    assert about["dataset_name"] == {"mimic3": "MIMIC-III", "mimic4": "MIMIC-IV"}[version]
    assert about["meds_version"] == standard.__version__.split(".post")[0]


def test_codes_are_described_by_the_dictionaries(converted):
    third, fourth = (
        {row["code"]: row for row in MedsDataset.open(done.output).codes().to_dicts()} for done in converted.values()
    )
    assert third["ICD9CM/250.00"]["description"] == "Invented title of diabetes, one"
    assert third["ICD9CM/250.00"]["parent_codes"] == ["ICD9CM/250.0"]
    assert third["LAB//50912//mg/dL"]["description"] == "Creatinine, Blood, Chemistry"
    assert third["LAB//50912//mg/dL"]["parent_codes"] == ["LOINC/2160-0"]
    assert third["NDC/00002143380"]["description"] == "Aspirin"
    assert third["NDC/00002143380"]["parent_codes"] == ["NDC/000021433"]
    # The same digits are a diagnosis and a procedure, of ICD-9 and ICD-10.
    assert fourth["ICD9CM/001.0"]["description"] == "Invented title of cholera"
    assert fourth["ICD9Proc/00.10"]["description"] == "Invented title of an implant"
    assert fourth["ICD10CM/E11.9"]["description"] == "Invented title of diabetes, two"
    assert fourth["HCPCS/G0378"]["description"] == "Invented text, per hour"


def test_codes_that_stand_for_an_ndc_are_its_parents(copies, tmp_path):
    path = tmp_path / "map.csv"
    path.write_text("ndc,rxnorm,atc\n0002-1433-80,860975,A10BA02\n00009999999,1,\n")
    output = tmp_path / "meds"
    dataset = MedsDataset.open(run(copies["mimic3"], output, ndc_map=path).output)
    parents = dataset.parent_codes()
    assert parents["NDC/00002143380"] == ["RxNorm/860975", "ATC/A10BA02", "NDC/000021433"]
    assert "GENDER//F" not in parents
    assert run(copies["mimic3"], output, ndc_map=path).done_already
    path.write_text("ndc,rxnorm\n0002-1433-80,860976\n")
    assert not run(copies["mimic3"], output, ndc_map=path).done_already
    assert MedsDataset.open(output).parent_codes()["NDC/00002143380"][0] == "RxNorm/860976"
    (output / "metadata" / "codes.parquet").unlink()
    assert dataset.parent_codes() == {}
    pl.DataFrame({"code": ["A"], "parent_codes": ["B"]}).write_parquet(output / "metadata" / "codes.parquet")
    with pytest.raises(InputError, match=r"parent_codes of .*codes\.parquet is String; write lists"):
        dataset.parent_codes()


def test_codes_of_a_wrong_shape_are_kept_counted_and_listed(converted):
    with (converted["mimic3"].output / "metadata" / "malformed_codes.csv").open() as file:
        assert list(csv.reader(file))[1:] == [
            ["ICD9CM", "2500X", "DIAGNOSIS//ICD//9//2500X", "1"],
            ["NDC", "2143380", "MEDICATION//NDC//2143380", "1"],
        ]
    assert converted["mimic3"].about["events_with_malformed_codes"] == {"ICD9CM": 1, "NDC": 1}


def test_spelling_and_compression_of_the_files_change_nothing(converted, version, tmp_path):
    source = mimic_copies.write(tmp_path / "in" / "files", version, capitals=False, gzipped=True)
    done = run(source.parent, tmp_path / "out", also=("chartevents",))
    assert events_of(done.output).equals(events_of(converted[version].output))


def test_values_that_went_through_other_programs_read_alike(converted, version, tmp_path):
    """Dates without time or with a T and fractions, whole numbers with a point, Windows line ends."""
    source = mimic_copies.write(tmp_path / "in", version)
    for path in source.rglob("*.csv"):
        text = re.sub(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)", r"\1T\2.000", path.read_text())
        if path.stem in ("PRESCRIPTIONS", "CPTEVENTS", "PATIENTS"):
            text = text.replace("T00:00:00.000", "")
        text = re.sub(r"(?<=,)(10[123]|200001\d\d)(?=,)", r"\1.0", text)
        path.write_text(text, newline="\r\n")
    done = run(source, tmp_path / "out", also=("chartevents",))
    assert events_of(done.output).equals(events_of(converted[version].output))


def test_the_first_versions_of_mimic4_call_race_ethnicity(converted, tmp_path):
    source = mimic_copies.write(tmp_path / "in", "mimic4")
    (source / "core").mkdir()
    for name in ("patients", "admissions", "transfers"):
        path = (source / "hosp" / f"{name}.csv").rename(source / "core" / f"{name}.csv")
        path.write_text(path.read_text().replace(",race,", ",ethnicity,"))
    done = run(source, tmp_path / "out", also=("chartevents",))
    assert events_of(done.output).equals(events_of(converted["mimic4"].output))


def test_pieces_of_any_size_make_the_same(converted, version, copies, tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "_BLOCK_BYTES", 300)
    done = run(copies[version], tmp_path / "out", also=("chartevents",), subjects_per_shard=1)
    assert len(MedsDataset.open(done.output).shards) == done.about["patients"]
    assert events_of(done.output).equals(events_of(converted[version].output))


def append(folder, table, line):
    with (folder / f"{table}.csv").open("a") as file:
        file.write(line + "\n")


@pytest.mark.parametrize(
    ("table", "line", "kind"),
    [
        ("LABEVENTS", "1,11,,50912,2160-01-01 00:00:00,1,1,mg/dL", "wrong column count"),
        ("LABEVENTS", "1,11,,50912,yesterday,1,1,mg/dL,", "bad value of charttime"),
        ("LABEVENTS", "1,11,,50912,,1,1,mg/dL,", "no time"),
        ("LABEVENTS", "1,11,,50912,2160-01-01 00:00:00,1,one,mg/dL,", "bad value of valuenum"),
        ("LABEVENTS", "1,,,50912,2160-01-01 00:00:00,1,1,mg/dL,", "no subject_id"),
        ("LABEVENTS", "1,99,,50912,2160-01-01 00:00:00,1,1,mg/dL,", "no such patient"),
        ("LABEVENTS", '1,11,,50912,2160-01-01 00:00:00,"1,1,mg/dL,', "unbalanced quotation mark"),
        ("DIAGNOSES_ICD", "1,11,999,1,25000", "no such stay"),
        ("DIAGNOSES_ICD", "1,11,103,1,25000", "another patient's stay"),
        ("PATIENTS", "1,11,F,2100-02-03 00:00:00,,,,", "repeated"),
    ],
)
def test_a_row_that_cannot_be_used_is_listed_with_its_line(table, line, kind, converted, tmp_path):
    source = mimic_copies.write(tmp_path / "in", "mimic3", without=("CHARTEVENTS",))
    number = len((source / f"{table}.csv").read_text().splitlines()) + 1
    append(source, table, line)
    done = run(source, tmp_path / "out")
    with (done.output / "metadata" / "rejects.csv").open() as file:
        listed = [(row["file"], int(row["line"]), row["kind"]) for row in csv.DictReader(file)]
    assert (f"{table}.csv", number, kind) in listed
    assert done.about["rejected"] == len(listed) == 2  # The other is a diagnosis without a code.
    counts = done.about["tables"][table.lower()]
    assert counts["rows"] == number - 1
    assert counts["rejected"] == number - 1 - counts["with_events"] == (2 if table == "DIAGNOSES_ICD" else 1)
    assert all(counts["unaccounted"] == counts["absorbed"] == 0 for counts in done.about["tables"].values())
    kept = events_of(converted["mimic3"].output).filter(~pl.col("code").str.starts_with("CHART//"))
    assert events_of(done.output).equals(kept)


def test_an_output_that_is_there_is_recognized(tmp_path):
    source = mimic_copies.write(tmp_path / "in", "mimic3")
    output = tmp_path / "out"
    assert not run(source, output).done_already
    assert run(source, output).done_already
    assert not run(source, output, subjects_per_shard=1).done_already
    append(source, "LABEVENTS", "1,11,,50912,2160-01-01 00:00:00,1,1,mg/dL,")
    assert not run(source, output, subjects_per_shard=1).done_already
    next((output / "data").rglob("*.parquet")).unlink()
    assert not run(source, output, subjects_per_shard=1).done_already


def test_a_failure_leaves_what_was_there(tmp_path):
    source = mimic_copies.write(tmp_path / "in", "mimic4", gzipped=True)
    output = tmp_path / "out"
    run(source, output)
    before = events_of(output)
    labs = source / "hosp" / "labevents.csv.gz"
    labs.write_bytes(gzip.compress(os.urandom(4000))[:2000])
    with pytest.raises(InputError, match=r"labevents\.csv\.gz"):
        run(source, output)
    assert events_of(output).equals(before)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == ["out"]


def test_what_cannot_be_converted_is_refused_in_one_sentence(copies, tmp_path):
    with pytest.raises(InputError, match="is not a directory"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no table of patients"):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="holds mimic4, as its table of patients shows, and not mimic3"):
        run(copies["mimic4"], tmp_path / "out", version="mimic3")
    with pytest.raises(InputError, match="holds several tables of patients"):
        run(copies["mimic4"].parent, tmp_path / "out")
    lacking = mimic_copies.write(tmp_path / "lacking", "mimic3", without=("DIAGNOSES_ICD", "CHARTEVENTS"))
    with pytest.raises(InputError, match=r"lacks the table DIAGNOSES_ICD\.csv"):
        run(lacking, tmp_path / "out")
    with pytest.raises(InputError, match=r"lacks the table CHARTEVENTS\.csv"):
        run(
            mimic_copies.write(tmp_path / "lacking", "mimic3", without=("CHARTEVENTS",)),
            tmp_path / "out",
            also=["chartevents"],
        )
    with pytest.raises(InputError, match="--also=notes is not known; for mimic3 give one of: chartevents"):
        run(copies["mimic3"], tmp_path / "out", also=["notes"])
    text = (lacking / "ADMISSIONS.csv").read_text()
    (lacking / "ADMISSIONS.csv").write_text(text.replace("DISCHTIME", "LEFT"))
    with pytest.raises(InputError, match=r"ADMISSIONS\.csv has no column 'dischtime'"):
        run(lacking, tmp_path / "out")
    (lacking / "ADMISSIONS.csv").write_text(text.splitlines()[0] + "\n")
    with pytest.raises(InputError, match=r"ADMISSIONS\.csv has no rows"):
        run(mimic_copies.write(lacking, "mimic3", only=("DIAGNOSES_ICD",)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_a_full_disk_and_too_many_files_are_told(copies, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MOST", 1)
    with pytest.raises(InputError, match="2 patients, 1 per file, make too many files; give --subjects_per_shard=2"):
        run(copies["mimic3"], tmp_path / "out", subjects_per_shard=1)
    script = (
        "import resource, pathlib; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "from preprocessing.meds import convert;"
        f"source, output = map(pathlib.Path, ({str(copies['mimic3'])!r}, {str(tmp_path / 'out')!r}));"
        "convert.convert(convert.MedsRequest(source, output))"
    )
    assert "InputError: " + f"{tmp_path / 'out'} cannot be written" in command(code=script).stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_is_overwritten(copies, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="was not made by this command"):
        run(copies["mimic3"], tmp_path / "mine")
    source = shutil.copytree(copies["mimic3"], tmp_path / "in" / "mimic3")
    with pytest.raises(InputError, match="would replace the input"):
        run(source, tmp_path / "in")
    assert (tmp_path / "mine" / "thesis.tex").is_file()


def test_events_of_a_mimic_directory_are_converted_on_the_way(copies, converted, tmp_path):
    dataset = open_events(copies["mimic3"], tmp_path / "meds")
    assert dataset.root == tmp_path / "meds"
    assert open_events(converted["mimic4"].output, tmp_path / "unused").root == converted["mimic4"].output
    assert not (tmp_path / "unused").exists()


def test_splits_depend_on_the_patient_alone():
    ids = list(range(10_000_000, 10_200_000))
    split = subject_splits.split_of(ids)
    shares = [(split == i).mean() for i in range(3)]
    assert shares == pytest.approx(subject_splits.FRACTIONS, abs=0.003)
    assert (subject_splits.split_of(ids[::-1])[::-1] == split).all()
    # A data set that was converted once must be split alike for ever.
    assert subject_splits.split_of([10006, 10011, 10017, 10019, 10000032]).tolist() == [0, 2, 1, 1, 0]


@pytest.mark.skipif(not DEMO.is_dir(), reason="the MIMIC-III demo is not here")
def test_the_real_demo_loses_nothing(tmp_path):
    """Every coded row becomes the event that plain Python makes of it."""
    done = run(DEMO, tmp_path / "out")
    assert done.about["rejected"] == 0
    assert done.about["patients"] == 100
    frame = events_of(done.output)

    def rows(table):
        with (DEMO / f"{table}.csv").open(newline="") as file:
            return [{name.lower(): value for name, value in row.items()} for row in csv.DictReader(file)]

    def dotted(code, stem):
        return code if len(code) <= stem else f"{code[:stem]}.{code[stem:]}"

    # One stay is dated to end a day before the death in it; times are texts of one form.
    left = {row["hadm_id"]: max(row["dischtime"], row["deathtime"]) for row in rows("ADMISSIONS")}
    assert sum(left[row["hadm_id"]] != row["dischtime"] for row in rows("ADMISSIONS")) == 1
    expected = [
        (
            row["hadm_id"],
            f"ICD9CM/{dotted(row['icd9_code'], 4 if row['icd9_code'][0] == 'E' else 3)}",
            left[row["hadm_id"]],
        )
        for row in rows("DIAGNOSES_ICD")
    ]
    expected += [
        (row["hadm_id"], f"ICD9Proc/{dotted(row['icd9_code'], 2)}", left[row["hadm_id"]])
        for row in rows("PROCEDURES_ICD")
    ]
    coded = frame.filter(pl.col("code").str.starts_with("ICD9"))
    assert sorted((str(h), c, str(t)) for h, c, t in coded.select("hadm_id", "code", "time").iter_rows()) == sorted(
        expected
    )
    drugs = [
        f"NDC/{row['ndc']}" if len(row["ndc"]) == 11 else f"MEDICATION//START//{row['drug']}"
        for row in rows("PRESCRIPTIONS")
    ]
    found = frame.filter(pl.col("code").str.contains("^(NDC/|MEDICATION//)"))["code"]
    assert sorted(found.to_list()) == sorted(drugs)
    flags = frame.filter(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE"))["hospital_expire_flag"]
    assert flags.sum() == sum(int(row["hospital_expire_flag"]) for row in rows("ADMISSIONS")) == 40
    deaths = dict(frame.filter(pl.col("code") == "MEDS_DEATH").select("subject_id", "time").iter_rows())
    flagged = frame.filter(pl.col("hospital_expire_flag") == 1).select("subject_id", "time")
    assert all(deaths[subject] <= time for subject, time in flagged.iter_rows())
    counts = {entry["kind"]: entry["count"] for entry in done.about["contradictions"]}
    assert {kind: count for kind, count in counts.items() if not kind.startswith("events ")} == {
        "deathtime after dischtime, up to 24 hours": 1
    }
    for table, counts in done.about["tables"].items():
        assert counts["rows"] == counts["with_events"] == len(rows(table.upper())), table


def command(*arguments, code="from runpy import run_module; run_module('preprocessing.meds', run_name='__main__')"):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


@pytest.mark.integration
def test_the_command(copies, tmp_path):
    done = run_module("preprocessing.meds", f"--input={copies['mimic3']}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "35 events of 2 patients" in done.stdout
    assert "Traceback" not in done.stderr
    failed = run_module("preprocessing.meds", f"--input={tmp_path}", f"--output={tmp_path / 'out2'}")
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert "--subjects_per_shard" in run_module("preprocessing.meds", "--help").stdout


@pytest.mark.integration
def test_without_the_extra_it_says_what_to_install():
    code = "import sys; sys.modules['polars'] = None; from preprocessing.meds.dataset import MedsDataset"
    assert "pip install 'medtok_jax[ehr]'" in command(code=code).stderr
