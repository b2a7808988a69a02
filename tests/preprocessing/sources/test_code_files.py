"""The readers of official files, each on a few rows in the true format of its publisher."""

import json

import pytest

from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.sources.atc import read_atc
from preprocessing.sources.cpt import read_cpt
from preprocessing.sources.hcpcs import read_hcpcs
from preprocessing.sources.icd_files import official_count, read_icd9, read_icd10
from preprocessing.sources.ndc import read_ndc
from preprocessing.sources.rxnorm import read_rxnorm
from preprocessing.sources.snomed import read_snomed
from tests.helpers import official_files as files


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return files.write_files(tmp_path_factory.mktemp("medical_codes"))


@pytest.fixture
def rejects():
    return Rejects(None)


def texts(entries):
    return {code: description for code, description, _ in entries}


def attributes(entries):
    return {code: json.loads(known) for code, _, known in entries if known}


def kinds(rejects):
    return {kind: count for (_, kind), count in rejects.counts.items()}


def put(folder, name, content):
    return files.write_files(folder, {name: content if isinstance(content, bytes) else content.encode()})


def test_icd9(root, rejects):
    diagnoses = read_icd9("ICD9CM", root / "ICD9CM", rejects)
    procedures = read_icd9("ICD9Proc", root / "ICD9CM", rejects)
    assert texts(diagnoses) == {
        "001.0": "Cholera due to vibrio cholerae",
        "386.00": "M\u00e9ni\u00e8re's disease, unspecified",
        "E849.0": "Home accidents",
    }
    assert texts(procedures) == {"00.10": "Implantation of chemotherapeutic agent", "64.0": "Circumcision"}
    assert not rejects.counts
    assert official_count("ICD9CM", diagnoses.files[0]) == 14_567


def test_icd10_order_files(root, rejects):
    diagnoses = read_icd10("ICD10CM", root / "ICD10CM", rejects)
    assert texts(diagnoses) == {
        "E11.9": "Type 2 diabetes mellitus without complications",
        "S52.501A": "Unspecified fracture of right radius, initial",
    }
    assert diagnoses.counts == {"headers": 1}
    procedures = read_icd10("ICD10PCS", root / "ICD10PCS", rejects)
    assert texts(procedures) == {"0016070": "Bypass Cerebral Ventricle to Nasopharynx, Open"}
    assert not rejects.counts
    assert official_count("ICD10CM", diagnoses.files[0]) is None


def test_the_newest_edition_is_taken_and_told(tmp_path, rejects):
    for name, code in (
        ("icd10cm-order-2024.txt", "A000"),
        ("icd10cm-order-April-2025.txt", "A001"),
        ("icd10cm-order-2025.txt", "A009"),
        ("icd10cm-order-addenda-2026.txt", "A010"),
        ("icd10cm-codes-April-2025.txt", "A011"),
    ):
        line = f"{code}   text\n" if "codes" in name else files.order_line(1, code, 1, "short", "text")
        put(tmp_path, name, line)
    entries = read_icd10("ICD10CM", tmp_path, rejects)
    assert list(texts(entries)) == ["A00.1"]
    assert entries.remarks == [
        "ICD10CM: took icd10cm-order-April-2025.txt and left icd10cm-codes-April-2025.txt, icd10cm-order-2024.txt, "
        "icd10cm-order-2025.txt"
    ]


def test_icd10_code_list_and_its_published_count(tmp_path, rejects):
    entries = read_icd10("ICD10CM", put(tmp_path, "icd10cm-codes-2024.txt", "A000    Cholera\n"), rejects)
    assert texts(entries) == {"A00.0": "Cholera"}
    assert official_count("ICD10CM", entries.files[0]) == 74_044


def test_faults_of_lists_are_rejected_one_by_one(tmp_path, rejects):
    content = "0010  Cholera\n0010  Cholera\n0010  Other\nE11.9x bad\n0011\n0019  \n0019  Text\n0020 Typhoid\n"
    entries = read_icd9("ICD9CM", put(tmp_path, "CMS32_DESC_LONG_DX.txt", content), rejects)
    assert texts(entries) == {"001.0": "Cholera", "001.1": "", "001.9": "Text", "002.0": "Typhoid"}
    assert kinds(rejects) == {"duplicate code": 1, "malformed code": 1, "empty description": 2}
    assert entries.counts == {"duplicates": 1}
    assert entries.without_description == 1


def test_a_line_that_is_none_of_an_order_file(tmp_path, rejects):
    content = files.ICD10CM_ORDER + "E119 no number\n" + files.order_line(9, "A000", 1, "Only short", "")
    entries = read_icd10("ICD10CM", put(tmp_path, "icd10cm_order_2020.txt", content), rejects)
    assert texts(entries)["A00.0"] == "Only short"
    assert kinds(rejects) == {"malformed line": 1}


def test_rxnorm_takes_the_name_that_identifies(root, rejects):
    entries = read_rxnorm(root / "RxNorm", rejects)
    assert texts(entries) == {"6809": "metformin", "860975": "metformin hydrochloride 500 MG Oral Tablet"}
    assert attributes(entries) == {"6809": {"tty": "IN"}, "860975": {"tty": "SCD"}}
    assert entries.counts == {"rows of other sources": 4, "suppressed": 1, "synonyms": 2}
    assert not rejects.counts


def test_rxnorm_faults(tmp_path, rejects):
    content = (
        files.conso("1", "RXNORM", "SY", "1", "only a synonym")
        + files.conso("2", "RXNORM", "IN", "2", "one")
        + files.conso("2", "RXNORM", "IN", "2", "another")
        + files.conso("x3", "RXNORM", "IN", "3", "bad")
        + files.conso("4", "RXNORM", "IN", "4", "a|pipe")
        + "5|ENG|cut"
    )
    entries = read_rxnorm(put(tmp_path, "RXNCONSO.RRF", content), rejects)
    assert texts(entries) == {"1": "only a synonym", "2": "one"}
    assert kinds(rejects) == {"duplicate code": 1, "malformed code": 1, "wrong column count": 2}


def test_ndc(root, rejects):
    entries = read_ndc(root / "NDC", rejects, root / "RxNorm")
    assert texts(entries) == {"00002143380": "Trulicity", "50242004062": "Tussy Forte", "605754112": "caf\u00e9ine"}
    assert attributes(entries) == {
        "00002143380": {
            "generic": "Dulaglutide",
            "form": "INJECTION, SOLUTION",
            "route": "SUBCUTANEOUS",
            "ingredients": ["DULAGLUTIDE .75 mg/.5mL"],
            "class": ["GLP-1 Agonist [EPC]", "Glucagon-Like Peptide 1 [CS]"],
            "package": "4 SYRINGE in 1 CARTON > .5 mL in 1 SYRINGE",
            "rxcui": "860975",
        },
        "50242004062": {
            "generic": "aspirin and caffeine",
            "form": "TABLET",
            "route": "ORAL, BUCCAL",
            "ingredients": ["ASPIRIN 250 mg/1", "CAFFEINE 65 mg/1"],
            "class": ["Cough [MoA]", 'Drops, 5" [CS]'],
            "package": "1 BOTTLE in 1 CARTON",
        },
        "605754112": {"generic": "caf\u00e9ine", "form": "PELLET", "route": "ORAL"},
    }
    assert entries.counts == {"products without package": 1, "packages with an RxNorm concept": 1}
    assert not rejects.counts


def test_ndc_faults_and_products_alone(tmp_path, rejects):
    put(tmp_path, "product.txt", files.PRODUCT.encode("cp1252"))
    packages = (
        files.PACKAGE
        + files.package("0002-1433_old", "0002-1433", "0002-1433-61", "another document of the product")
        + files.package("9999-9999_x", "9999-9999", "9999-9999-01", "no product")
        + files.package("0002-1433_a", "0002-1433", "0002-143-61", "bad code")
        + files.package("0002-1433_a", "0002-1433", "0002-1433-80", "another text")
    )
    entries = read_ndc(put(tmp_path, "package.txt", packages), rejects)
    assert texts(entries)["00002143361"] == "Trulicity"
    assert texts(entries)["09999999901"] == ""
    assert kinds(rejects) == {
        "unknown product": 1,
        "empty description": 1,
        "malformed code": 1,
        "duplicate code": 1,
    }
    (tmp_path / "package.txt").unlink()
    entries = read_ndc(tmp_path, rejects)
    assert list(texts(entries)) == ["000021433", "502420040", "605754112"]
    assert "package.txt" in entries.remarks[0]


def test_snomed(root, rejects):
    entries = read_snomed(root / "SNOMED", rejects)
    assert texts(entries) == {
        "138875005": "Root without tag",
        "22298006": "Made-up fruit (organism)",
        "44054006": "Made-up fruit (substance)",
        "73211009": 'Made-up "sweet" illness (chronic)',
    }
    assert attributes(entries)["73211009"] == {"semantic_tag": "disorder"}
    assert entries.counts == {"inactive": 1, "other descriptions": 2, "names of inactive concepts": 1}
    assert not rejects.counts


def test_snomed_faults_and_versions(tmp_path, rejects):
    old = files.CONCEPT_HEADER + files.concept("22298006")
    put(tmp_path, "sct2_Concept_Snapshot_INT_20240101.txt", old)
    new = files.CONCEPT_HEADER + files.concept("73211009") + files.concept("73211008") + files.concept("138875005")
    put(tmp_path, "sct2_Concept_Snapshot_US1000124_20250301.txt", new)
    names = (
        files.DESCRIPTION_HEADER
        + files.description("73211009", files.FULLY_SPECIFIED_NAME, "One (disorder)")
        + files.description("73211009", files.FULLY_SPECIFIED_NAME, "Two (disorder)")
    )
    put(tmp_path, "sct2_Description_Snapshot-en_US1000124_20250301.txt", names)
    entries = read_snomed(tmp_path, rejects)
    assert texts(entries) == {"73211009": "One", "138875005": ""}
    assert kinds(rejects) == {"malformed code": 1, "duplicate code": 1, "empty description": 1}
    assert entries.remarks == [
        "SNOMED: took sct2_Concept_Snapshot_US1000124_20250301.txt and left sct2_Concept_Snapshot_INT_20240101.txt"
    ]


def test_atc_table(root, rejects):
    entries = read_atc(root / "ATC", rejects)
    assert texts(entries) == {
        "A": "Made-up organ",
        "A10": "Made-up group of sugar drugs",
        "A10BA": "Made-up class, of biguanides",
        "A10BA02": "metformin",
    }
    assert attributes(entries)["A10BA02"] == {
        "within": ["Made-up class, of biguanides", "Made-up group of sugar drugs", "Made-up organ"]
    }
    assert entries.counts == {"duplicates": 1}


def test_atc_from_rxnorm(root, tmp_path, rejects):
    entries = read_atc(tmp_path / "ATC", rejects, root / "RxNorm")
    assert texts(entries) == {
        "A10": "Made-up group of sugar drugs",
        "A10BA": "Made-up class of biguanides",
        "A10BA02": "metformin",
    }
    assert "RXNCONSO.RRF" in entries.remarks[0]
    prescribable = "".join(line for line in files.RXNCONSO.splitlines(True) if "|ATC|" not in line)
    assert read_atc(tmp_path / "ATC", rejects, put(tmp_path / "subset", "RXNCONSO.RRF", prescribable)) is None
    assert read_atc(tmp_path / "ATC", rejects, tmp_path / "none") is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("LONGULT.txt", files.LONGULT),
        ("LONGUF.txt", "99213 Made-up visit of an established patient\n0042T Made-up perfusion analysis\n"),
        (
            "Consolidated_Code_List.txt",
            "A notice\nConcept Id\tCPT Code\tLong\tMedium\n1\t99213\tMade-up visit of an established patient\tM\n"
            "2\t0042T\tMade-up perfusion analysis\tM\n",
        ),
        (
            "my_cpt.csv",
            'code,description\n99213,"Made-up visit of an established patient"\n0042t,Made-up perfusion analysis\n',
        ),
    ],
)
def test_cpt(tmp_path, rejects, name, content):
    entries = read_cpt(put(tmp_path, name, content), rejects)
    assert texts(entries) == {
        "0042T": "Made-up perfusion analysis",
        "99213": "Made-up visit of an established patient",
    }
    assert not rejects.counts


def test_cpt_faults(tmp_path, rejects):
    content = files.LONGULT + "J1100\tnot CPT\n99214\n"
    entries = read_cpt(put(tmp_path, "LONGULT.txt", content), rejects)
    assert len(entries) == 3
    assert kinds(rejects) == {"malformed line": 1, "empty description": 1}
    put(tmp_path / "other", "cpt.csv", "code,title\n99213,text\n")
    with pytest.raises(InputError, match="no column 'description'"):
        read_cpt(tmp_path / "other", rejects)


def test_hcpcs_joins_the_lines_of_a_description(root, rejects):
    entries = read_hcpcs(root / "HCPCS", rejects)
    assert texts(entries) == {
        "A4550": "Surgical trays",
        "J1100": "Injection, dexamethasone sodium phosphate, in a description that goes on beyond eighty columns, 1 mg",
    }
    assert attributes(entries) == {
        "A4550": {"short": "Surgical trays", "terminated": "20251231"},
        "J1100": {"short": "Dexa"},
    }
    assert entries.counts == {"lines of modifiers": 2}
    assert not rejects.counts


def test_hcpcs_table_and_faults(tmp_path, rejects):
    table = "HCPC,SEQNUM,RECID,LONG DESCRIPTION,SHORT DESCRIPTION\nJ1100,100,3,Injection,Dexa\nJ1100,200,4,1 mg,\n"
    assert texts(read_hcpcs(put(tmp_path / "csv", "HCPC2025.csv", table), rejects)) == {"J1100": "Injection 1 mg"}
    orphan = files.hcpcs_line("J9999", 200, "4", "goes on with nothing")
    content = orphan + files.HCPCS_TXT + orphan + "short\n"
    entries = read_hcpcs(put(tmp_path, "HCPC2025_ANWEB.txt", content), rejects)
    assert len(entries) == 2
    assert kinds(rejects) == {"malformed line": 3}


def test_icd9_may_lack_one_of_its_two_lists(tmp_path, rejects):
    with pytest.raises(InputError, match="holds no file named like CMS32_DESC_LONG_DX"):
        read_icd9("ICD9Proc", put(tmp_path, "readme.txt", "x"), rejects)
    assert (
        read_icd9("ICD9Proc", put(tmp_path, "CMS32_DESC_LONG_DX.txt", files.ICD9_DX.encode("cp1252")), rejects) is None
    )


@pytest.mark.parametrize("reader", [read_cpt, read_hcpcs, read_snomed, read_rxnorm, read_ndc, read_atc])
def test_a_folder_without_its_file_is_named(tmp_path, rejects, reader):
    put(tmp_path, "readme.pdf", "x")
    with pytest.raises(InputError, match=f"{tmp_path} holds no"):
        reader(tmp_path, rejects)
