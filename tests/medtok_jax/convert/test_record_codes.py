"""Codes of records that no table holds get the tokens that the model of the tokenizer makes of their descriptions."""

import datetime

import numpy as np
import polars as pl
import pytest

from medtok_jax.convert import record_codes
from medtok_jax.convert.record_codes import RecordCodes
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset

DRUG = "Metformin hydrochloride 500 mg oral tablet"
NEW = {
    "NDC/99999999999": DRUG,
    "MEDICATION//99999999999//Administered": DRUG,
    "RxNorm/860975": "  ",
    "SNOMED/44054006": None,
    "LAB//50912//mg/dL": "Creatinine in blood",
    "ICD10CM/Jane Doe": "no code",
}


def records(folder, known, column="description", values=None):
    """Write MEDS of one patient with all codes; `known` is one that the tokenizer holds, with a description too."""
    codes = [known, *NEW]
    time = [datetime.datetime(2100, 1, 1)] * len(codes)
    events = pl.DataFrame({"subject_id": [1] * len(codes), "time": time, "code": codes})
    for name in ("data", "metadata"):
        (folder / name).mkdir(parents=True)
    events.write_parquet(folder / "data" / "0.parquet")
    described = pl.DataFrame({"code": codes, column: values or ["a description of its own", *NEW.values()]})
    described.write_parquet(folder / "metadata" / "codes.parquet")
    return MedsDataset.open(folder)


def test_a_tokenizer_without_model_encodes_nothing(small_tokenizer_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(record_codes, "_encode", None)
    directory = TokenizerDirectory.read(small_tokenizer_dir)
    known = directory.table["key"][0].as_py()
    mapper, rows = RecordCodes.of(directory, "nearest", records(tmp_path / "meds", known))
    assert mapper.rows(pl.Series([known, "NDC/99999999999"])).tolist() == [0, -1]
    np.testing.assert_array_equal(rows.ids, directory.ids)


def test_descriptions_that_are_no_text_are_refused(small_tokenizer_dir, tmp_path):
    dataset = records(tmp_path / "meds", "A", values=list(range(1 + len(NEW))))
    with pytest.raises(InputError, match=r"column description of .*codes\.parquet is Int64; write text"):
        dataset.descriptions()
    assert records(tmp_path / "other", "A", column="name").descriptions() == {}


@pytest.mark.integration
def test_the_model_encodes_what_is_described(finished_run, tmp_path, capsys):
    folder = finished_run[0] / "tokenizer"
    directory = TokenizerDirectory.read(folder)
    # An ICD code, so that neither the system nor its spelling gives any of the others a code above.
    known = next(key for key in directory.table["key"].to_pylist() if key.startswith("ICD"))
    dataset = records(tmp_path / "meds", known)
    mapper, rows = RecordCodes.of(directory, "nearest", dataset)
    assert "The model encodes 1 codes" in capsys.readouterr().out
    found = mapper.rows(pl.Series([known, *NEW]))
    count = len(directory.ids)
    assert mapper.keys[found[0]] == known
    assert found[1:].tolist() == [count, count, -1, -1, -1, -1]
    assert mapper.keys[count] == "NDC/99999999999"
    tokenizer = MedTokTokenizer.from_pretrained(folder)
    (alone,) = tokenizer.encode_new([tokenizer.new_code("99999999999", "NDC", DRUG)])
    np.testing.assert_array_equal(rows.ids[count], alone.ids)
    np.testing.assert_allclose(rows.weights[count], alone.weights, atol=1e-5)
    np.testing.assert_array_equal(rows.ids[:count], directory.ids)
    one = np.array([count // 2])
    np.testing.assert_allclose(rows.quantized(one), tokenizer.similarity.quantized(one), atol=1e-6)
    report = {row["name"]: row for row in mapper.report().to_dicts()}
    assert [report["NDC"][name] for name in ("events", "mapped", "to_model")] == [2, 2, 2]
    assert mapper.stand_ins() == dict.fromkeys(list(NEW)[:2], count)
    kept, _ = RecordCodes.of(directory, "keep", dataset)
    assert kept.rows(pl.Series(list(NEW))).tolist() == [-1] * len(NEW)
