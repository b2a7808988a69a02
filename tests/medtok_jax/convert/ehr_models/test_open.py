"""Codes that stand above those of a data set: used where the user asks for them, and never otherwise."""

import json
import shutil

import polars as pl
import pytest

from medtok_jax.convert.ehr_models.open import UNMAPPED_FILE, open_records
from medtok_jax.convert.request import make_request
from preprocessing.common.errors import InputError

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
    records = opened(small_tokenizer_dir, with_parents, tmp_path, parent_codes=True)
    assert LACKED not in records.visits.key
    keys = [records.visits.key[records.visits.codes_of(v)].tolist() for v in range(len(records.visits))]
    (visit,) = [found for found, name in zip(keys, records.visits.name, strict=True) if name == "23"]
    assert visit[-1] == "RxNorm/860975"
    records.write_report(tmp_path)
    assert "of them to their parent codes" in capsys.readouterr().out
    systems = {system["name"]: system for system in json.loads((tmp_path / UNMAPPED_FILE).read_text())["systems"]}
    assert systems["NDC"]["codes_of_parents"] == [{"code": LACKED, "events": 1, "parent": "RxNorm/860975"}]


def test_nobody_gets_tokens_of_a_parent_unasked(small_tokenizer_dir, with_parents, tmp_path):
    assert LACKED in opened(small_tokenizer_dir, with_parents, tmp_path).visits.key


def test_a_data_set_without_parents_is_refused(small_tokenizer_dir, small_meds, tmp_path):
    with pytest.raises(InputError, match=r"codes\.parquet has no column parent_codes"):
        opened(small_tokenizer_dir, small_meds, tmp_path, parent_codes=True)
