"""Codes that stand above those of a data set: used where the user asks for them, and never otherwise."""

import json
import shutil

import polars as pl
import pytest

from medtok_jax.convert.ehr_models.open import UNMAPPED_FILE, open_records
from medtok_jax.convert.request import make_request
from tests.helpers import small_visits

LACKED = "NDC/99999999999"


@pytest.fixture
def with_parents(small_meds, tmp_path):
    root = shutil.copytree(small_meds, tmp_path / "meds")
    (root / "metadata").mkdir(exist_ok=True)
    table = pl.DataFrame({"code": [LACKED, "LAB//1"], "parent_codes": [["RxNorm/1", "RxNorm/860975"], None]})
    table.write_parquet(root / "metadata" / "codes.parquet")
    return root


def opened(tokenizer, events, tmp_path, **options):
    return open_records(make_request(output=tmp_path / "out", tokenizer=tokenizer, events=events, **options))


def test_an_event_gets_the_tokens_of_its_first_parent_with_some(small_tokenizer_dir, with_parents, tmp_path, capsys):
    records = opened(small_tokenizer_dir, with_parents, tmp_path, unmapped="nearest")
    assert LACKED not in records.visits.key
    keys = [records.visits.key[records.visits.codes_of(v)].tolist() for v in range(len(records.visits))]
    (visit,) = [found for found, name in zip(keys, records.visits.name, strict=True) if name == "23"]
    assert visit[-1] == "RxNorm/860975"
    records.write_report(tmp_path)
    assert "of them to their parent codes" in capsys.readouterr().out
    systems = {system["name"]: system for system in json.loads((tmp_path / UNMAPPED_FILE).read_text())["systems"]}
    assert systems["NDC"]["replaced_codes"] == [
        {"code": LACKED, "events": 1, "nearest": "RxNorm/860975", "source": "parent"}
    ]


def test_nobody_gets_tokens_of_a_parent_unasked(small_tokenizer_dir, with_parents, tmp_path):
    assert LACKED in opened(small_tokenizer_dir, with_parents, tmp_path).visits.key


def test_a_data_set_without_parents_has_codes_above(small_tokenizer_dir, tmp_path):
    """E11.651 lies below E11.65, S72.001D below no code of the tokenizer."""
    events = small_visits.stay(1, 1, "2020-01-01", "2020-01-02", "ICD10CM/E11.651", "ICD10CM/S72.001D")
    root = small_visits.write(tmp_path / "meds", events)
    visits = opened(small_tokenizer_dir, root, tmp_path, unmapped="nearest").visits
    assert visits.key.tolist() == ["ICD10CM/E11.65", "ICD10CM/S72.001D"]
    assert (visits.row >= 0).tolist() == [True, False]


def test_few_mapped_events_are_told(small_tokenizer_dir, tmp_path, capsys):
    codes = ("ICD10CM/I10", "ICD10CM/I11.0", "ICD10CM/E11.9")
    root = small_visits.write(tmp_path / "meds", small_visits.stay(1, 1, "2020-01-01", "2020-01-02", *codes))
    opened(small_tokenizer_dir, root, tmp_path).write_report(tmp_path)
    assert "Warning: only 1 of 3 events with a code are mapped (33.3%)" in capsys.readouterr().out
