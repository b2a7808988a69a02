"""Generated MIMIC-IV: what truth.json states, recounted from the files; blocks, kills, and the conversion to MEDS."""

import csv
import gzip
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from preprocessing import codes
from preprocessing.common.errors import InputError
from preprocessing.meds import convert
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.generated import draw, tables, vocabularies
from preprocessing.meds.generated.write import GenerateRequest, generate
from preprocessing.meds.mimic_tables import MIMIC4, table_of
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def known():
    return vocabularies.read_vocabularies()


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """300 patients with faults 300 times as frequent, so that there are some of each, and their truth."""
    folder = tmp_path_factory.mktemp("generated") / "mimic4"
    request = GenerateRequest(folder, 300, 1, lab_share=0.02, faults=300, block=128, progress=False)
    return folder, generate(request)


def table(folder, name):
    """Rows of a table as text."""
    return pl.read_csv(next(folder.rglob(f"{name}.csv*")), infer_schema=False)


def content(folder):
    """Return the decompressed content of all files, by name."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: gzip.decompress(data) if name.endswith(".gz") else data for name, data in found.items()}


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_proportions_are_those_of_mimic(known):
    """Rows for each patient, within four standard errors or 3 %, and most patients have one stay, some dozens."""
    patients = draw.draw(0, known, 0, 20 * draw.UNIT)
    stays = len(patients.stays["person"])
    rows = {name: len(getattr(patients, name)["person"]) for name in patients._fields}
    assert stays / rows["people"] == pytest.approx(546_000 / 364_000, rel=0.04)
    assert rows["diagnoses"] / stays == pytest.approx(6.4e6 / 546_000, rel=0.03)
    assert rows["procedures"] / stays == pytest.approx(0.86e6 / 546_000, rel=0.03)
    assert rows["prescriptions"] / stays == pytest.approx(20e6 / 546_000, rel=0.03)
    counts = patients.people["stays"]
    assert np.mean(counts[counts > 0] == 1) == pytest.approx(0.56, abs=0.03)
    assert 24 < counts.max() <= 60
    assert patients.stays["expired"].mean() == pytest.approx(draw.RATES["died_in_hospital_of_stays"], rel=0.2)
    share = patients.stays["evening_death"].sum() / patients.stays["expired"].sum()
    assert share == pytest.approx(0.25, abs=0.06)


def test_without_faults_there_are_none(known):
    """The discharge at midnight before an evening death is one too; more faults do not make it more frequent."""
    rates = draw.rates_of(0)
    assert not any(rates[name] for name in (*draw.FAULTS, "discharged_at_midnight_before_an_evening_death_of_deaths"))
    assert draw.rates_of(20)["discharged_at_midnight_before_an_evening_death_of_deaths"] == 0.25
    stays = draw.draw(0, known, 0, 4 * draw.UNIT, faults=0).stays
    assert stays["expired"].sum() > 20
    assert (stays["discharge"] >= stays["death"]).all()
    assert (stays["discharge"] >= stays["start"]).all()


def test_chronic_codes_come_back_and_groups_are_a_patients_own(known):
    """Codes of a stay recur in the patient's next stay far more often than in that of another patient."""
    patients = draw.draw(0, known, 0, 2 * draw.UNIT)
    found = patients.diagnoses
    sets = {}
    for stay, edition, code in zip(found["stay"], found["edition"], found["code"], strict=True):
        sets.setdefault(int(stay), set()).add((int(edition), int(code)))
    person = dict(zip(patients.stays["stay"].tolist(), patients.stays["person"].tolist(), strict=True))
    numbers = sorted(sets)
    mine, others = [], []
    for one, other in itertools.pairwise(numbers):
        if {edition for edition, _ in sets[one]} == {edition for edition, _ in sets[other]}:
            (mine if person[one] == person[other] else others).append(len(sets[one] & sets[other]) / len(sets[one]))
    assert np.mean(mine) > 0.2
    assert np.mean(mine) > 4 * np.mean(others)


def test_severity_is_planted(known):
    """Severity makes stays longer, codes more, and death more frequent."""
    patients = draw.draw(0, known, 0, 8 * draw.UNIT)
    stays = patients.stays
    hard, easy = stays["severity"] > 1, stays["severity"] < -1
    assert stays["length"][hard].mean() > 1.5 * stays["length"][easy].mean()
    assert stays["expired"][hard].mean() > 2 * stays["expired"][easy].mean()
    counts = np.bincount(patients.diagnoses["stay"])
    assert counts[stays["stay"][hard]].mean() > 1.3 * counts[stays["stay"][easy]].mean()


def test_a_patient_is_the_same_in_any_range(known):
    """Ranges across and within units, put together, are the draw of the whole; another seed is another draw."""
    whole = draw.draw(3, known, 0, 2500)
    parts = [draw.draw(3, known, first, stop) for first, stop in ((0, 700), (700, 1024), (1024, 1030), (1030, 2500))]
    for position, one in enumerate(whole):
        assert same(one, {name: np.concatenate([part[position][name] for part in parts]) for name in one})
    assert not np.array_equal(draw.draw(4, known, 0, 10).people["severity"], whole.people["severity"][:10])


def test_files_are_the_same_for_any_block(tmp_path, known):
    """Only the compressed form and the block in truth.json differ."""
    one = GenerateRequest(tmp_path / "one", 200, lab_share=0.01, block=200, progress=False)
    other = GenerateRequest(tmp_path / "other", 200, lab_share=0.01, block=7, is_gzipped=False, progress=False)
    first, second = generate(one), generate(other)
    assert first | {"request": None} == second | {"request": None}
    texts = {name.removesuffix(".gz"): data for name, data in content(one.output).items() if name != "truth.json"}
    assert texts == {name: data for name, data in content(other.output).items() if name != "truth.json"}


def test_columns_are_those_of_the_release(faulty):
    """Every column that the conversion reads is there, and identifiers are unique where MIMIC's are."""
    folder, _ = faulty
    for path in folder.rglob("*.csv.gz"):
        with gzip.open(path, "rt") as file:
            header = next(csv.reader(file))
        wanted = table_of(MIMIC4, path.name.removesuffix(".csv.gz"))
        assert set(wanted.columns) <= set(header), path
    for name, column in (("patients", "subject_id"), ("icustays", "stay_id"), ("transfers", "transfer_id")):
        assert table(folder, name)[column].is_unique().all()
    assert table(folder, "labevents")["labevent_id"].is_unique().all()


def test_truth_is_what_the_files_hold(faulty):
    """Every count of truth.json, recounted from the text of the files."""
    folder, truth = faulty
    rows, counts = truth["rows"], truth["counts"]
    for name, count in rows.items():
        assert len(table(folder, name.rpartition("/")[2])) == count, name
    people, admissions, drugs = (table(folder, name) for name in ("patients", "admissions", "prescriptions"))
    stays = admissions.unique("hadm_id", maintain_order=True)
    assert len(admissions) - len(stays) == counts["repeated_admissions"] > 0
    assert len(stays) == counts["stays"]
    assert stays["subject_id"].n_unique() == counts["patients_with_stays"]
    assert people["gender"].null_count() == counts["missing_gender"]
    assert people["dod"].count() == counts["dod"]
    assert stays["dischtime"].null_count() == counts["missing_dischtime"] > 0
    assert (stays["dischtime"] < stays["admittime"]).sum() == counts["discharge_before_admission"] > 0
    assert (stays["hospital_expire_flag"] == "1").sum() == counts["deaths_in_hospital"] > 0
    assert stays["deathtime"].count() == counts["deathtimes"]
    midnight = stays["dischtime"].str.ends_with(" 00:00:00") & (stays["deathtime"].str.slice(11, 2) >= "17")
    midnight &= stays["dischtime"].str.slice(0, 10) == stays["deathtime"].str.slice(0, 10)
    assert midnight.sum() == counts["discharged_at_midnight_before_an_evening_death"]
    died = stays.filter(pl.col("deathtime").is_not_null()).select("subject_id", died="deathtime")
    later = stays.join(died, on="subject_id").filter(pl.col("admittime") > pl.col("died"))
    assert len(later) <= counts["stays_after_death"]
    assert drugs["ndc"].null_count() > 0
    assert (drugs["ndc"].drop_nulls().str.len_chars() < 10).sum() > 0
    for name in ("diagnoses", "procedures"):
        frame = table(folder, f"{name}_icd")
        unknown = ~frame["hadm_id"].is_in(stays["hadm_id"].to_list())
        assert unknown.sum() == counts[f"{name}_unknown_stay"] > 0
        assert frame["icd_code"].str.ends_with("?").sum() == counts[f"{name}_malformed"] > 0
        assert frame.height - frame.unique().height == counts[f"repeated_{name}"]


def test_codes_are_real_and_of_the_edition_of_their_year(faulty, known):
    """ICD-10 from October 2015 on: a patient's years are known within the three of anchor_year_group."""
    folder, _ = faulty
    frame = table(folder, "diagnoses_icd").filter(~pl.col("icd_code").str.ends_with("?"))
    for edition, system in (("9", codes.ICD9CM), ("10", codes.ICD10CM)):
        mine = frame.filter(pl.col("icd_version") == edition)["icd_code"].unique()
        assert len(mine) > 100
        assert set(mine) <= set(known.diagnoses[int(edition)].code)
        assert all(codes.is_wellformed(system, code) for code in mine)
    people = table(folder, "patients").select("subject_id", "anchor_year", "anchor_year_group")
    joined = frame.join(table(folder, "admissions").unique("hadm_id"), on=["hadm_id", "subject_id"])
    joined = joined.join(people, on="subject_id").with_columns(
        earliest=pl.col("admittime").str.slice(0, 4).cast(pl.Int64)
        - pl.col("anchor_year").cast(pl.Int64)
        + pl.col("anchor_year_group").str.slice(0, 4).cast(pl.Int64)
    )
    nine = joined["icd_version"] == "9"
    # A shifted date may fall into the year beside its own.
    assert joined.filter(nine)["earliest"].max() <= 2016
    assert joined.filter(~nine)["earliest"].min() >= 2012


def test_zipf(known):
    """The most frequent hundredth of the codes makes most of the draws, and kinds have the stated shares."""
    ranked = known.diagnoses[10]
    drawn = ranked.draw(np.random.default_rng(0), np.full(200_000, -1))
    counts = np.sort(np.bincount(drawn, minlength=len(ranked.code)))[::-1]
    assert 0.4 < counts[: len(counts) // 100].sum() / counts.sum() < 0.8
    assert (counts > 0).sum() > 20_000
    kinds = np.bincount(ranked.kind[drawn], minlength=3) / len(drawn)
    assert kinds[1] == pytest.approx(vocabularies.CATEGORY_SHARE, rel=0.1)
    assert kinds[2] == pytest.approx(vocabularies.RETIRED_SHARE, rel=0.1)
    group = ranked.draw(np.random.default_rng(0), np.full(1000, 4))
    assert all(code.startswith("E") for code in ranked.code[group])


def test_categories_have_the_form_of_their_system(known):
    """External causes of ICD-9-CM have categories of four characters, such as E849."""
    for edition, system in ((9, codes.ICD9CM), (10, codes.ICD10CM)):
        ranked = known.diagnoses[edition]
        categories = ranked.code[ranked.kind == vocabularies.CATEGORY]
        assert len(categories) > 100
        assert all(codes.is_wellformed(system, code) for code in categories)
    assert "E849" in known.diagnoses[9].code
    assert "E84" not in known.diagnoses[9].code


def test_identifiers_are_distinct():
    """Stays of all units, and those in no table, have identifiers of their own in MIMIC's range."""
    units = tables.MOST_SUBJECTS // draw.UNIT + 1
    numbers = np.arange(2 * units * draw.STAYS_OF_A_UNIT)
    ids = tables.stay_ids(numbers)
    assert len(np.unique(ids)) == len(ids)
    assert ids.min() >= 20_000_000
    assert ids.max() < 30_000_000


def test_every_rejected_row_is_explained(faulty, tmp_path):
    """The whole conversion: rows of no stay and stays named twice are rejected, and nothing else; events add up."""
    folder, truth = faulty
    counts, rows = truth["counts"], truth["rows"]
    about = convert.convert(convert.MedsRequest(folder, tmp_path / "meds", progress=False)).about
    expected = {"admissions": counts["repeated_admissions"], "diagnoses_icd": counts["diagnoses_unknown_stay"]}
    expected["procedures_icd"] = counts["procedures_unknown_stay"]
    assert {name: entry["rejected"] for name, entry in about["tables"].items() if entry["rejected"]} == expected
    events = pl.concat(MedsDataset.open(tmp_path / "meds").frames())
    code = events["code"]
    assert code.str.starts_with("HOSPITAL_ADMISSION//").sum() == counts["stays"]
    assert (code == "MEDS_BIRTH").sum() == 300
    diagnoses = code.str.contains(r"^ICD(?:9|10)CM/|^DIAGNOSIS//").sum()
    assert diagnoses == rows["hosp/diagnoses_icd"] - counts["diagnoses_unknown_stay"]
    assert code.str.starts_with("DIAGNOSIS//ICD//").sum() <= counts["diagnoses_malformed"]
    drugs = code.str.contains("^NDC/|^MEDICATION//").sum()
    assert drugs == rows["hosp/prescriptions"]
    assert code.str.starts_with("LAB//").sum() == rows["hosp/labevents"]


@pytest.mark.thorough
@pytest.mark.integration
def test_a_killed_run_goes_on_and_writes_the_same_bytes(tmp_path):
    """The command is killed three times, each time later; what stands in the end is what one run writes."""
    options = [*("--subjects=3000", "--seed=5"), "--block=100"]
    command = [sys.executable, "-m", "preprocessing.meds.generated", f"--output={tmp_path / 'killed'}", *options]
    state = tmp_path / ".generating-killed" / "progress.json"
    rng = random.Random(0)
    for number in range(1, 4):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not state.is_file() or json.loads(state.read_text())["next"] < 600 * number:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(0.1 * rng.random())
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "killed").exists()
    # What a kill left unrecorded at the end of a file is cut off.
    with (state.parent / "hosp" / "patients.csv.gz").open("ab") as file:
        file.write(b"half a block")
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    generate(GenerateRequest(tmp_path / "whole", 3000, 5, block=100, progress=False))
    files = {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    for name in files:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_refusals(tmp_path, faulty):
    """Other options, a folder with other files, and numbers out of range."""
    folder, truth = faulty
    request = GenerateRequest(folder, 300, 1, lab_share=0.02, faults=300, block=128, progress=False)
    assert generate(request) == truth
    with pytest.raises(InputError, match="other options"):
        generate(GenerateRequest(folder, 301, progress=False))
    (tmp_path / "mine").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        generate(GenerateRequest(tmp_path, 3, progress=False))
    with pytest.raises(InputError, match="--subjects must be from 1 to 370,000"):
        generate(GenerateRequest(tmp_path / "new", 400_000, progress=False))
