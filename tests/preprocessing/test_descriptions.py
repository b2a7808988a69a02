import csv

import pytest

from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.descriptions import Counts, compose, describe
from tests.helpers.forked import run_module

CODES = (
    "system,code,description,attributes\n"
    "ICD10CM,E11.9,Type 2 diabetes mellitus,\n"
    "ICD9CM,001.0,Cholera,\n"
    "ICD9Proc,00.10,Implantation,\n"
    'NDC,00002143380,Trulicity,"{""generic"":""Dulaglutide"",""form"":""INJECTION, SOLUTION""}"\n'
    "NDC,00002143361,,\n"
    'ATC,A10BA02,metformin,"{""within"":[""Biguanides"",""Sugar drugs""]}"\n'
    "CPT4,99213,,\n"
)


@pytest.fixture
def codes(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text(CODES)
    return path


def run(codes, own=None):
    output = codes.with_name("processed_descriptions.csv")
    with Rejects(codes.with_name("rejects.csv")) as rejects:
        counts = describe(codes, output, rejects, own, progress=False)
    with output.open(newline="") as file:
        return list(csv.reader(file)), counts, rejects


def write_own(codes, text):
    path = codes.with_name("own.csv")
    path.write_text(text)
    return path


def test_official_and_composed_texts(codes):
    rows, counts, rejects = run(codes)
    assert rows == [
        ["system", "code", "description"],
        ["ICD10CM", "E11.9", "Type 2 diabetes mellitus"],
        ["ICD9CM", "001.0", "Cholera"],
        ["ICD9Proc", "00.10", "Implantation"],
        ["NDC", "00002143380", "Trulicity (Dulaglutide), injection, solution"],
        ["NDC", "00002143361", ""],
        ["ATC", "A10BA02", "metformin; Biguanides; Sugar drugs"],
        ["CPT4", "99213", ""],
    ]
    assert counts == Counts(official=3, composed=2, own=0, without=2)
    assert not rejects.counts


@pytest.mark.parametrize(
    "own",
    [
        "key,description\nICD10CM/E11.9,my   text\nNDC/0002-1433-80,my drug\n",
        "code;description\nE119;my text\n0002-1433-80;my drug\n",
        "system\tcode\tdesc\nicd10cm\te11.9\tmy text\nNDC\t00002143380\tmy drug\n",
        "code,description,x\nICD10CM/E119,my text,1\nNDC/00002143380,my drug,2\n",
    ],
)
def test_own_texts_replace_whatever_the_spelling(codes, own):
    rows, counts, rejects = run(codes, write_own(codes, own))
    assert ["ICD10CM", "E11.9", "my text"] in rows
    assert ["NDC", "00002143380", "my drug"] in rows
    assert counts == Counts(official=2, composed=1, own=2, without=2)
    assert not rejects.counts


def test_own_texts_that_cannot_be_joined_are_told(codes):
    own = (
        "code,system,description\n"
        "0010,,ambiguous\n"
        "0010,ICD9CM,mine\n"
        "0010,ICD9CM,mine\n"
        "001.0,ICD9CM,another\n"
        "E10.9,,unknown\n"
        "hello,,malformed\n"
        "E11.9,ICD11,no such system\n"
        "E11.9,,\n"
        '99213,,"open\n'
    )
    rows, counts, rejects = run(codes, write_own(codes, own))
    assert ["ICD9CM", "001.0", "mine"] in rows
    assert ["ICD9Proc", "00.10", "Implantation"] in rows
    assert counts.own == 1
    assert rejects.counts == {
        ("own.csv", kind): 1
        for kind in (
            *("ambiguous code", "duplicate code", "unknown code", "malformed code", "unknown system"),
            *("empty description", "unbalanced quotation mark"),
        )
    }
    told = codes.with_name("rejects.csv").read_text()
    assert "own.csv,2,ambiguous code,may be ICD9CM/001.0 or ICD9Proc/00.10" in told
    assert "own.csv,6,unknown code,codes.csv holds none of ICD10CM/E10.9" in told


def test_a_dot_elsewhere_is_another_code(codes):
    _, counts, rejects = run(codes, write_own(codes, "code,system,description\n0.10,ICD9CM,lost a zero\n"))
    assert counts.own == 0
    assert rejects.counts == {("own.csv", "malformed code"): 1}


def test_faults_of_the_table_of_codes(codes):
    codes.write_text(CODES + "ICD10CM,E11.9,again,\nICD11,1A00,no system,\nATC,A10,sugar,{broken\nATC,B\n")
    rows, _, rejects = run(codes)
    assert len(rows) == 1 + 7 + 1
    assert rows[-1] == ["ATC", "A10", "sugar"]
    kinds = {kind: count for (_, kind), count in rejects.counts.items()}
    assert kinds == {"duplicate code": 1, "malformed code": 1, "malformed attributes": 1, "wrong column count": 1}


def test_missing_columns_and_files(codes):
    with pytest.raises(InputError, match=r"own\.csv has no column 'description'"):
        run(codes, write_own(codes, "code,title\nE11.9,x\n"))
    with pytest.raises(InputError, match=r"own\.csv has no column 'key' \(or code"):
        run(codes, write_own(codes, "id,description\nE11.9,x\n"))
    assert not codes.with_name("processed_descriptions.csv").exists()
    codes.write_text("system,code,description,attributes\n")
    with pytest.raises(InputError, match="holds no codes"):
        run(codes)
    codes.unlink()
    with pytest.raises(InputError, match=r"codes\.csv cannot be read"):
        run(codes)


def test_a_bare_category_of_another_system_replaces_nothing(codes):
    """7895 is ascites, the category of 789.51 in ICD-9-CM, and a fixation of a femur among the procedures."""
    lines = ["ICD9CM,789.51,Malignant ascites,", "ICD9Proc,78.95,Insertion of stimulator into femur,"]
    codes.write_text("system,code,description,attributes\n" + "\n".join(lines) + "\n")
    rows, counts, rejects = run(codes, write_own(codes, "code,description\n7895,Ascites\n789.51,mine\n"))
    assert ["ICD9Proc", "78.95", "Insertion of stimulator into femur"] in rows
    assert ["ICD9CM", "789.51", "mine"] in rows
    assert counts.own == 1
    assert rejects.counts == {("own.csv", "ambiguous code"): 1}
    assert "may be ICD9Proc/78.95 or ICD9CM/789.5" in codes.with_name("rejects.csv").read_text()


@pytest.mark.integration
def test_command_line(codes):
    output = codes.with_name("processed_descriptions.csv")
    own = write_own(codes, "code,description\nE11.9,mine\n0010,ambiguous\n")
    command = ["preprocessing.descriptions", f"--input={codes}", f"--output={output}"]
    done = run_module(*command, f"--descriptions={own}", "--strict")
    assert done.returncode == 1
    assert "1 replaced by your own" in done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith("error: 1 rows were rejected")
    assert len(output.read_text().splitlines()) == 8
    assert "ambiguous code" in codes.with_name("processed_descriptions.rejects.csv").read_text()


def test_a_drug_is_composed_of_all_that_is_known():
    attributes = {
        "generic": "aspirin and caffeine",
        "form": "TABLET",
        "route": "ORAL, BUCCAL",
        "ingredients": ["ASPIRIN 250 mg/1", "CAFFEINE 65 mg/5mL"],
        "class": ["Anti-inflammatory Drug [EPC]", "Cyclooxygenase Inhibitors [MoA]"],
        "package": "1 BOTTLE in 1 CARTON",
        "rxcui": "1",
    }
    assert compose("NDC", "Tussy", attributes) == (
        "Tussy (aspirin and caffeine), tablet, oral, buccal; aspirin 250 mg, caffeine 65 mg/5ml; "
        "Anti-inflammatory Drug; 1 BOTTLE in 1 CARTON"
    )


def test_composition_leaves_out_what_is_not_known():
    assert (
        compose("NDC", "Aspirin", {"generic": "ASPIRIN", "class": ["A [MoA]", "A [CS]", "B [PE]"]}) == "Aspirin; A, B"
    )
    assert compose("NDC", "", {"package": "1 BOX"}) == "1 BOX"
    assert compose("NDC", "", {}) == ""
    many = {"ingredients": [f"POLLEN {number}" for number in range(8)]}
    assert compose("NDC", "Mix", many) == "Mix; pollen 0, pollen 1, pollen 2, pollen 3, pollen 4 and 3 more"
    assert compose("ATC", "metformin", {}) == "metformin"
    assert compose("SNOMED", "Illness", {"semantic_tag": "disorder"}) == "Illness"
