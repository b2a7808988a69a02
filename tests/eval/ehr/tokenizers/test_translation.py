"""Records of ICD-9-CM alone are tested on the official translations, and on nothing that they say in ICD-9-CM."""

import dataclasses

import numpy as np
import pytest

from eval.ehr.inputs import bags, sequences
from eval.ehr.regimes import CROSS_VOCABULARY, splits
from eval.ehr.tokenizers.translation import translated, with_translations
from preprocessing.sources.icd import read_forward_gem
from tests.helpers.planted_patients import CODES, patients

# 414 is a category, not a code; most translations of its codes lie in I25.
NAMES = ["ICD9CM/250.00", "ICD9CM/414", "ICD9CM/496", "ICD9CM/E916", "LAB//1//mg", "NDC/00002143380"]


def coded_patients(number: int):
    """Return samples and outcomes of patients with the codes of `NAMES` and laboratory values."""
    inputs, y = patients(number, signal="code")
    names = np.array(NAMES + [f"LAB//{place}//mg" for place in range(2, 2 + CODES - len(NAMES))])
    histories = with_translations(dataclasses.replace(inputs.histories, codes=names))
    return dataclasses.replace(inputs, histories=histories, seen=np.ones(len(histories.codes), bool)), y


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("ICD9CM/001.0", "ICD10CM/A00.0"),
        ("ICD9CM/250.00", "ICD10CM/E11.9"),
        ("ICD9CM/414", "ICD10CM/I25"),
        ("ICD9CM/428", "ICD10CM/I50"),
        # Half of the codes of each become E10, half E11; the first is E11.
        ("ICD9CM/250", "ICD10CM/E11"),
        ("ICD9CM/250.6", "ICD10CM/E11"),
        ("ICD9CM/999.99x", ""),
        ("ICD10CM/A00.0", ""),
        ("", ""),
    ],
)
def test_codes_and_categories_are_translated(key, found):
    assert translated(key) == found


def test_every_translation_is_a_row_of_the_mapping_and_an_exact_one_where_there_is_one():
    rows: dict[str, dict[str, bool]] = {}
    for icd9, icd10, is_exact in read_forward_gem():
        rows.setdefault(icd9, {})[f"ICD10CM/{icd10}"] = is_exact
    for icd9, targets in rows.items():
        found = translated(f"ICD9CM/{icd9}")
        assert targets[found] or not any(targets.values())


def test_test_samples_see_the_translations_and_others_the_codes():
    inputs, y = coded_patients(60)
    roles = np.array(["train", "tuning", "held_out"])[np.arange(60) % 3]
    found = {settings["setting"]: part for settings, part in splits(CROSS_VOCABULARY, inputs, y, roles, seed=0)}
    assert set(found) == {"icd9->icd10", "icd9->icd10, codes alone", "icd9->icd10, all events", "icd9->icd9"}
    codes = inputs.histories.codes
    part = found["icd9->icd10"]
    for samples, system in ((part.train, "ICD9CM/"), (part.tuning, "ICD9CM/"), (part.test, "ICD10CM/")):
        seen = codes[np.flatnonzero(bags(samples).sum(0).A1)]
        assert len(seen)
        assert all(name.startswith(system) for name in seen)
        of_sequences = sequences(samples)
        assert set(codes[of_sequences.code[of_sequences.mask]]) == set(seen)
    # The bags of the same samples in both editions agree, code by code.
    nine = bags(found["icd9->icd9"].test)
    place = {name: column for column, name in enumerate(codes)}
    for name in ("ICD9CM/250.00", "ICD9CM/414", "ICD9CM/496"):
        ten = bags(part.test)[:, place[translated(name)]]
        assert (nine[:, place[name]] != ten).nnz == 0
    everything = codes[np.flatnonzero(bags(found["icd9->icd10, all events"].test).sum(0).A1)]
    assert any(name.startswith("LAB") for name in everything)
    assert not any(name.startswith("ICD9CM/") for name in everything)


def test_records_of_both_editions_are_left_as_they_are():
    inputs, _ = patients(12, signal="code")
    names = np.array([*NAMES, "ICD10CM/A00.0", *(f"LAB//{place}//mg" for place in range(2, 1 + CODES - len(NAMES)))])
    histories = dataclasses.replace(inputs.histories, codes=names)
    assert with_translations(histories) is histories
