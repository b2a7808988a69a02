"""Exports of records that are not MIMIC, straight from their files; what needs times that they lack is refused."""

import json
import pickle

import polars as pl
import pytest

from medtok_jax.convert.__main__ import CONVERTERS
from medtok_jax.convert.request import make_request
from preprocessing.common.errors import InputError
from tests.helpers import source_copies


@pytest.fixture
def export(small_tokenizer_dir, tmp_path):
    def run(target, events, unmapped="keep", **options):
        output = tmp_path / target
        request = make_request(
            output=output, tokenizer=small_tokenizer_dir, events=events, unmapped=unmapped, options=options
        )
        CONVERTERS[target](request)
        return output

    return run


def unmapped(output):
    report = json.loads((output / "unmapped_codes.json").read_text())
    return {system["name"]: system["events"] for system in report["systems"]}


def test_stays_of_eicu_are_exported_from_its_files(export, tmp_path, capsys):
    """The records are converted beside the output; codes of both editions of ICD are found in one stay."""
    output = export("transformehr", source_copies.eicu(tmp_path / "eicu"), width=12)
    assert (tmp_path / "eicu-meds" / "metadata" / "persons.parquet").is_file()
    assert unmapped(output) == {"ICD9CM": 5, "ICD9Proc": 1, "ICD10CM": 4}
    keys = [line for path in output.glob("*/key.txt") for line in path.read_text().split()]
    assert sorted(map(int, keys)) == [800, 900]
    assert "no next visit to learn from" in capsys.readouterr().out


def test_what_mult_ehr_lacks_in_eicu_is_said_at_once(export, tmp_path):
    source = source_copies.eicu(tmp_path / "eicu")
    drugs = pl.concat(
        map(pl.read_parquet, (export("transformehr", source, width=12).parent / "eicu-meds").rglob("data/*/*"))
    )
    count = drugs["code"].str.starts_with("MEDICATION//").sum()
    with pytest.raises(InputError) as refusal:
        export("mult_ehr", source)
    assert f"it has no prescription code, as its {count} events of drugs name them in no code system" in str(
        refusal.value
    )
    assert "no patient in it has two visits" in str(refusal.value)
    assert count > 0


def test_encounters_of_diabetes130_are_exported_in_their_order(export, tmp_path):
    source = source_copies.diabetes130(tmp_path / "diabetes")
    output = export("transformehr", source, width=12)
    with open(output / "train" / "dates.pickle", "rb") as file:
        dates = [pickle.load(file) for _ in range(2)]
    assert dates == [["2000-01-01", "2000-01-02", "2000-01-03"], ["2000-01-01"]]


@pytest.mark.parametrize(
    ("target", "options", "refusal"),
    [
        ("ethos", {}, "ETHOS learns the time between events"),
        ("gt_behrt", {"task": "readmission", "nodes": "codes"}, "Readmission needs the time between visits"),
        ("mult_ehr", {}, r"MulT-EHR.s task of readmission needs the time between visits.*; choose another --to\.$"),
    ],
)
def test_what_needs_times_refuses_records_that_give_only_an_order(export, tmp_path, target, options, refusal):
    source = source_copies.diabetes130(tmp_path / "diabetes")
    with pytest.raises(InputError, match=refusal):
        export(target, source, **options)
    assert not (tmp_path / target).exists()
