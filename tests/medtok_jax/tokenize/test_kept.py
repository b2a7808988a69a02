"""The other columns of a file are in the output too, with their types, under names that nothing else has."""

import csv
import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtok_jax import MedTokTokenizer
from medtok_jax.tokenize import files
from medtok_jax.tokenize.kept import JsonTypes, as_array, as_json, as_text, choose_columns
from medtok_jax.tokenize.readers import read_codes
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import write

KINDS = ("csv", "json", "jsonl", "parquet")
HEADER = ["row", "code", "key", "source", "ids", "weights"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok"))


def tokenize(tokenizer, source, output, **options) -> tuple[list[dict], list[str]]:
    """Return the rows that were written and the sentences of the summary."""
    told = []
    files.tokenize_file(tokenizer, source, output, columns={}, progress=False, tell=told.append, **options)
    if output.suffix == ".csv":
        with open(output, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file)), told
    if output.suffix == ".json":
        return json.loads(output.read_text()), told
    if output.suffix == ".jsonl":
        return [json.loads(line) for line in output.read_text().splitlines()], told
    return pq.read_table(output).to_pylist(), told


VALUES = {"id": [7, 8], "score": [0.5, None], "old": [True, False], "note": ['é, "x"\ny', None]}


def write_values(path, values: dict) -> None:
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.table(values), path)
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(values)
            lines.writerows(["" if value is None else value for value in row.values()] for row in rows)


@pytest.mark.parametrize("output", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_columns_and_types_are_kept(tokenizer, tmp_path, source, output):
    path = tmp_path / f"codes.{source}"
    write_values(
        path, {"id": VALUES["id"], "code": ["E11.9", "E11"], **{n: VALUES[n] for n in ("score", "old", "note")}}
    )
    rows, told = tokenize(tokenizer, path, tmp_path / f"tokens.{output}")
    assert told == []
    assert [list(row) for row in rows] == [[*HEADER, *VALUES]] * 2
    found = {name: [row[name] for row in rows] for name in VALUES}
    if output == "csv" or source == "csv":
        assert found["id"] == ["7", "8"]
        assert found["score"] == ["0.5", ""]
        assert [text.lower() for text in found["old"]] == ["true", "false"]
        assert found["note"] == ['é, "x"\ny', ""]
    else:
        assert found == VALUES
    rows, _ = tokenize(tokenizer, path, tmp_path / f"tokens.{output}", keep_columns=False)
    assert [list(row) for row in rows] == [HEADER] * 2


def test_rows_with_tokens_keep_their_own_values(tokenizer, tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text("id,code\n1,E11\n2,nonsense\n3,E11.9\n4,\n5,E11.65\n")
    rows, _ = tokenize(tokenizer, path, tmp_path / "t.jsonl")
    assert [(row["row"], row["id"], row["code"]) for row in rows] == [
        (1, "1", "E11"),
        (3, "3", "E11.9"),
        (5, "5", "E11.65"),
    ]


@pytest.mark.parametrize("output", KINDS)
def test_a_name_of_the_output_is_not_used_twice(tokenizer, tmp_path, output):
    path = tmp_path / "codes.csv"
    path.write_text("key,input_key,row,icd_code,system,code\na,b,c,E10.9,ICD10CM,E11\n")
    rows, told = tokenize(tokenizer, path, tmp_path / f"t.{output}")
    assert list(rows[0]) == [*HEADER, "input_key_2", "input_key", "input_row", "icd_code", "system"]
    assert list(rows[0].values())[6:] == ["a", "b", "c", "E10.9", "ICD10CM"]
    assert "The column 'key' of the input is called 'input_key_2' in the output." in told
    assert "The column 'row' of the input is called 'input_row' in the output." in told
    assert any("'icd_code' may hold codes too" in sentence for sentence in told)


COLUMNS_OF_PARQUET = {
    "day": pa.array([datetime.date(2020, 1, 2), None]),
    "time": pa.array([1_600_000_000_123_456_789, None], pa.timestamp("ns", "UTC")),
    "span": pa.array([1, None], pa.duration("ns")),
    "clock": pa.array([1, None], pa.time64("ns")),
    "price": pa.array([decimal.Decimal("1.50"), None]),
    "raw": pa.array([b"\xff\x00", None]),
    "list": pa.array([[1, 2], None]),
    "struct": pa.array([{"a": 1, "b": "x"}, None]),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int32())),
    "level": pa.array(["high", None]).dictionary_encode(),
    "large": pa.array(["x", None], pa.large_string()),
    "small": pa.array([1, None], pa.int8()),
    "unsigned": pa.array([2**64 - 1, None], pa.uint64()),
    "half": pa.array([0.5, None], pa.float32()).cast(pa.float16()),
    "nothing": pa.array([None, None], pa.null()),
}


def test_every_type_of_parquet_is_kept(tokenizer, tmp_path):
    path = tmp_path / "codes.parquet"
    given_table = pa.table({"code": ["E11.9", "E11"], **COLUMNS_OF_PARQUET})
    pq.write_table(given_table, path)
    tokenize_to = tmp_path / "tokens.parquet"
    files.tokenize_file(tokenizer, path, tokenize_to, columns={}, progress=False)
    kept = pq.read_table(tokenize_to).select(list(COLUMNS_OF_PARQUET))
    assert kept.schema.equals(pq.read_table(path).select(list(COLUMNS_OF_PARQUET)).schema)
    assert kept.equals(pq.read_table(path).select(list(COLUMNS_OF_PARQUET)))
    (first, second), _ = tokenize(tokenizer, path, tmp_path / "tokens.json")
    assert {name: second[name] for name in COLUMNS_OF_PARQUET} == dict.fromkeys(COLUMNS_OF_PARQUET)
    assert (first["day"], first["price"], first["raw"], first["list"]) == ("2020-01-02", "1.50", "ff00", [1, 2])
    assert first["time"].startswith("2020-09-13 12:26:40.123456789")
    assert (first["struct"], first["level"], first["half"]) == ({"a": 1, "b": "x"}, "high", 0.5)
    assert first["unsigned"] == 2**64 - 1
    (first, second), _ = tokenize(tokenizer, path, tmp_path / "tokens.csv")
    assert (first["day"], first["list"], first["level"]) == ("2020-01-02", "[1, 2]", "high")
    assert {second[name] for name in COLUMNS_OF_PARQUET} == {""}


def test_objects_may_differ(tokenizer, tmp_path):
    rows = [
        {"code": "E11", "a": 1, "b": [1, {"c": None}]},
        "E11.9",
        {"icd_code": "E11", "a": "x", "d": 1.5, "e": 2**70},
    ]
    path = tmp_path / "codes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _ = tokenize(tokenizer, path, tmp_path / "t.jsonl")
    assert [{name: row[name] for name in "abde"} for row in found] == [
        {"a": 1, "b": [1, {"c": None}], "d": None, "e": None},
        {"a": None, "b": None, "d": None, "e": None},
        {"a": "x", "b": None, "d": 1.5, "e": 2**70},
    ]
    found, _ = tokenize(tokenizer, path, tmp_path / "t.parquet")
    assert found[0]["b"] == '[1, {"c": null}]'
    assert [row["a"] for row in found] == ["1", None, "x"]
    assert [row["d"] for row in found] == [None, None, 1.5]
    assert found[2]["e"] == str(2**70)


@pytest.mark.parametrize("kind", ["json", "jsonl", "json.gz", "jsonl.gz"])
def test_nan_of_python_is_missing(tokenizer, tmp_path, kind):
    import gzip

    rows = [{"code": float("nan")}, {"code": "E11.9", "NaN": 'a "NaN", -Infinity', "x": float("nan")}] * 3000
    text = json.dumps(rows) if "jsonl" not in kind else "".join(json.dumps(row) + "\n" for row in rows)
    path = tmp_path / f"codes.{kind}"
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode("utf-16"))
    found, told = tokenize(tokenizer, path, tmp_path / "t.jsonl")
    assert [row["row"] for row in found] == list(range(2, 6001, 2))
    assert {row["NaN"] for row in found} == {'a "NaN", -Infinity'}
    assert {row["x"] for row in found} == {None}
    assert told == ["Rejected rows by reason: no code (0, NaN, null or empty): 3,000."]


def test_two_columns_of_one_name_in_parquet(tokenizer, tmp_path):
    table = pa.Table.from_arrays([pa.array(["E11"])] * 2, names=["code", "code"])
    pq.write_table(table, tmp_path / "codes.parquet")
    with pytest.raises(InputError, match="has two columns of one name"):
        tokenize(tokenizer, tmp_path / "codes.parquet", tmp_path / "t.csv")


def test_a_file_that_grows_meanwhile_is_told(tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "codes.csv"
    path.write_text("code\nE11\n")
    real = files.survey

    def survey(*args, **options):
        found = real(*args, **options)
        path.write_text("code\nE11\nE11\n")
        return found

    monkeypatch.setattr(files, "survey", survey)
    with pytest.raises(InputError, match="had 1 rows when it was read first and 2 the second time"):
        tokenize(tokenizer, path, tmp_path / "t.csv")
    assert {entry.name for entry in tmp_path.iterdir()} == {"codes.csv"}


def test_numbers_that_a_report_cannot_use(tmp_path):
    pq.write_table(pa.table({"code": [4280]}), tmp_path / "codes.parquet")
    with pytest.raises(InputError, match="holds int64, but a code must be text"):
        list(read_codes(tmp_path / "codes.parquet", {}, progress=False))
    pq.write_table(pa.table({"code": ["4280"], "system": [9]}), tmp_path / "codes.parquet")
    with pytest.raises(InputError, match=r"Column 'system' of .* holds int64, but a system must be text"):
        list(read_codes(tmp_path / "codes.parquet", {}, progress=False))


@given(
    st.lists(st.text(max_size=3), unique=True),
    st.lists(st.sampled_from([*HEADER, "input_row", "input_row_2"]), unique=True),
)
def test_names_are_unique_and_order_is_kept(names, more):
    fields = [pa.field(name, pa.string()) for name in dict.fromkeys([*names, *more])]
    kept = choose_columns(fields, HEADER)
    assert [column.name for column in kept] == [field.name for field in fields]
    written = [*HEADER, *(column.written for column in kept)]
    assert len(set(written)) == len(written)
    assert all(column.written == column.name for column in kept if column.name not in HEADER)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@settings(deadline=None)
@given(st.lists(JSON, min_size=1, max_size=5))
def test_any_json_value_can_be_written(values):
    types = JsonTypes()
    for value in values:
        types.add({"x": value})
        json.loads(as_json(value), parse_constant=pytest.fail)
        as_text(value).encode()
    (field,) = types.fields()
    array = as_array(values, field.type)
    assert len(array) == len(values)
    for value, cell in zip(values, array.to_pylist(), strict=True):
        if type(value) in (bool, int) and field.type != pa.string():
            assert cell == value
