"""NDCs that a tokenizer lacks get the tokens of the RxNorm or ATC code that a user's map names."""

import csv
import json

import pytest

from medtok_jax import MedTokTokenizer
from medtok_jax.tokenize import files
from medtok_jax.tokenize.ndc_map import NdcMap
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import write


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok"))


MAP = "ndc,rxcui,atc\n0002-1434-80,860975,\n000021435,,A10BA02\n00002143699,1,\nnonsense,860975,\n00002143799,,\n"


@pytest.fixture
def ndc_map(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text(MAP)
    return path


def test_rows_by_source(tokenizer, ndc_map, tmp_path):
    rows = ["00002143380", "00002143480", "0002-1435-61", "00002143699", "00002143799", "00009999999"]
    (tmp_path / "drugs.csv").write_text("ndc\n" + "\n".join(rows) + "\n")
    output = tmp_path / "tokens.json"
    options = {"columns": {}, "progress": False, "tell": lambda _: None}
    counts = files.tokenize_file(tokenizer, tmp_path / "drugs.csv", output, ndc_map=ndc_map, **options)
    assert counts == {"table": 1, "parent": 2, "rejected": 3}
    found = {row["code"]: (row["key"], row["source"]) for row in json.loads(output.read_text())}
    assert found == {
        "00002143380": ("NDC/00002143380", "table"),
        "00002143480": ("NDC/00002143480", "parent RxNorm/860975"),
        "0002-1435-61": ("NDC/00002143561", "parent ATC/A10BA02"),
    }
    with open(f"{output}.rejects.csv", newline="") as file:
        reasons = {row["code"]: row["reason"] for row in csv.DictReader(file)}
    assert "tried: the table, its parent codes" in reasons["00002143699"]
    assert set(reasons) == {"00002143699", "00002143799", "00009999999"}


def test_what_a_map_holds(ndc_map, tmp_path):
    found = NdcMap(ndc_map)
    assert (len(found), found.rejected) == (3, 2)
    assert found.codes_of("NDC/0002-1434-80") == ("RxNorm/860975",)
    assert found.codes_of("000021435") == found.codes_of("00002143511") == ("ATC/A10BA02",)
    assert found.codes_of("E11.9") == found.codes_of("00009999999") == ()
    (tmp_path / "keys.tsv").write_text("key\tNDC11\nRxNorm/1\t00002143480\nATC/A10BA02\t00002143480\n")
    assert NdcMap(tmp_path / "keys.tsv").codes_of("00002143480") == ("RxNorm/1", "ATC/A10BA02")


@pytest.mark.parametrize("text", ["ndc,drug\n00002143480,aspirin\n", "rxnorm,atc\n1,A10\n", "ndc,rxnorm\nx,1\n"])
def test_a_map_of_nothing_is_refused(tmp_path, text):
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(InputError, match=r"map\.csv"):
        NdcMap(tmp_path / "map.csv")
