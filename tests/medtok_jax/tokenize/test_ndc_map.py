"""NDCs that a tokenizer lacks get the tokens of the RxNorm or ATC code that a user's map names."""

import csv
import json

import pytest

from medtok_jax import MedTokTokenizer
from medtok_jax.tokenize import files
from tests.helpers.ndc_map import MAP
from tests.helpers.small_tokenizer import write


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok"))


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
