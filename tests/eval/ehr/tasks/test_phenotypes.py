"""Phenotypes are groups of CCS, of ICD-9-CM codes and of the ICD-10-CM codes that are mapped to these."""

import polars as pl

from eval.ehr.tasks.phenotypes import PHENOTYPES, count_ungrouped, diagnoses, with_phenotypes
from preprocessing.sources import icd

NAMES = list(PHENOTYPES)


def of(*codes: str) -> list[tuple[str, str]]:
    found = with_phenotypes(diagnoses(pl.DataFrame({"code": list(codes)})))
    return [(code, NAMES[place]) for code, place in found.select("code", "phenotype").iter_rows()]


def test_there_are_25_and_ccs_calls_its_groups_the_same():
    titles = {int(number): label.casefold() for _, number, label in icd.read_ccs()}
    assert len(PHENOTYPES) == len(set(PHENOTYPES.values())) == 25
    assert {titles[number] for number in PHENOTYPES.values()} == set(PHENOTYPES)


def test_codes_of_both_editions():
    assert of("ICD9CM/584.9", "ICD10CM/N17.9", "ICD9CM/401.9", "ICD10CM/I10") == [
        ("ICD9CM/584.9", "acute and unspecified renal failure"),
        ("ICD10CM/N17.9", "acute and unspecified renal failure"),
        ("ICD9CM/401.9", "essential hypertension"),
        ("ICD10CM/I10", "essential hypertension"),
    ]


def test_a_code_of_another_group_is_grouped_and_has_no_phenotype():
    frame = pl.DataFrame({"code": ["ICD9CM/V70.0", "ICD10CM/Z99.9X", "DIAGNOSIS//sepsis", "NDC/1"]})
    assert len(with_phenotypes(frame)) == 0
    assert diagnoses(frame)["code"].to_list() == frame["code"].to_list()[:3]
    assert count_ungrouped(diagnoses(frame)) == 2


def test_of_alternatives_those_groups_count_in_which_half_of_them_are():
    """I10 is 401.0 (with complications), 401.1 or 401.9 (both essential)."""
    pairs = [(pair.icd9, pair.is_part) for pair in icd.read_backward_gem() if pair.icd10 == "I10"]
    assert sorted(pairs) == [("401.0", False), ("401.1", False), ("401.9", False)]
    assert of("ICD9CM/401.0") == [("ICD9CM/401.0", "hypertension with complications and secondary hypertension")]
    assert len(of("ICD10CM/I10")) == 1


def test_a_code_that_two_together_stand_for_is_in_the_groups_of_both():
    """R65.21, severe sepsis with septic shock, is 995.92 together with 785.52."""
    assert all(pair.is_part for pair in icd.read_backward_gem() if pair.icd10 == "R65.21")
    assert {name for _, name in of("ICD10CM/R65.21")} == {"septicemia (except in labor)", "shock"}
