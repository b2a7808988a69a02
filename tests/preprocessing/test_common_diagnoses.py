"""The list of the commonest diagnoses: from hand-made tables, and from the open demos where they are at hand."""

import gzip
import json

import pytest

from preprocessing.common.errors import InputError
from preprocessing.common_diagnoses import common_diagnoses, keys_of
from preprocessing.dataset.sample import HELD_FILE
from tests.helpers.forked import run_module
from tests.helpers.paths import SHARED

# Stay 1 names hypertension twice, which counts once; 25000 is in two stays; 7806 is a category, not a code.
MIMIC = 'row_id,subject_id,hadm_id,seq_num,icd9_code\n1,1,1,1,4019\n2,1,1,2,4019\n3,1,1,3,25000\n4,2,2,1,"25000"\n'
MIMIC += "5,2,2,2,7806\n6,2,2,3,\n7,3,3,1,0010\n"
EICU = "diagnosisid,patientunitstayid,diagnosisoffset,diagnosisstring,icd9code,diagnosispriority\n"
EICU += '1,7,0,sepsis,"038.9, A41.9",Major\n2,8,0,sepsis,"038.9, A41.9",Other\n3,8,0,hypertension,"401.9, I10",Other\n'
EICU += "4,9,0,unknown,,Other\n5,9,0,sepsis,A41.9,Primary\n"


@pytest.fixture
def demos(tmp_path):
    """Return the folders of two small demos."""
    for name in ("mimic3", "eicu"):
        (tmp_path / name).mkdir()
    (tmp_path / "mimic3" / "DIAGNOSES_ICD.csv").write_text(MIMIC)
    (tmp_path / "eicu" / "diagnosis.csv.gz").write_bytes(gzip.compress(EICU.encode()))
    return tmp_path / "mimic3", tmp_path / "eicu"


def test_both_demos_in_turn_by_the_number_of_stays(demos):
    ranked = ["ICD9CM/250.00", "ICD10CM/A41.9", "ICD9CM/001.0", "ICD9CM/038.9", "ICD9CM/401.9", "ICD10CM/I10"]
    assert common_diagnoses(*demos) == ranked
    assert common_diagnoses(*demos, count=2) == ranked[:2]


def test_codes_of_a_text():
    known = {"ICD9CM/401.9", "ICD10CM/I10", "ICD9CM/V58.61", "ICD10CM/V58.61"}
    systems = ("ICD9CM", "ICD10CM")
    assert keys_of("401.9, I10", systems, known) == ["ICD9CM/401.9", "ICD10CM/I10"]
    assert keys_of("4019,i10 ,780.6,?", systems, known) == ["ICD9CM/401.9", "ICD10CM/I10"]
    assert keys_of("V58.61", systems, known) == []
    assert keys_of("V58.61", systems[:1], known) == ["ICD9CM/V58.61"]


def test_a_folder_without_its_table(demos):
    mimic3, eicu = demos
    with pytest.raises(InputError, match=r"holds neither DIAGNOSES_ICD\.csv nor DIAGNOSES_ICD\.csv\.gz"):
        common_diagnoses(eicu, eicu)
    (mimic3 / "DIAGNOSES_ICD.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="cannot be read as a table with the columns hadm_id, icd9_code"):
        common_diagnoses(mimic3, eicu)


@pytest.mark.integration
def test_the_command_keeps_the_other_codes(demos, tmp_path):
    output = tmp_path / "held.json"
    output.write_text('{"documented": ["ICD10CM/E11.9"], "common_diagnoses": {}}')
    flags = (f"--mimic3={demos[0]}", f"--eicu={demos[1]}", f"--output={output}")
    done = run_module("preprocessing.common_diagnoses", *flags)
    assert done.returncode == 0, done.stderr
    assert "6 diagnoses, 4 ICD9CM, 2 ICD10CM" in done.stdout
    content = json.loads(output.read_text())
    assert content["documented"] == ["ICD10CM/E11.9"]
    assert len(content["common_diagnoses"]["keys"]) == 6
    assert len(content["common_diagnoses"]["sources"]) == 2


@pytest.mark.skipif(not (SHARED / "data" / "eicu_demo").exists(), reason="the open demos are not at hand")
def test_the_list_of_the_package_is_that_of_the_demos():
    listed = json.loads(HELD_FILE.read_text(encoding="utf-8"))["common_diagnoses"]["keys"]
    assert listed == common_diagnoses(SHARED / "data" / "mimic3demo", SHARED / "data" / "eicu_demo")
