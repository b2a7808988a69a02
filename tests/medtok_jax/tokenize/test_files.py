"""Files of codes in, files of tokens out: the same rows from every kind of file, in order, and reasons for the rest."""

import csv
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtok_jax import MedTokTokenizer
from medtok_jax.tokenize import files
from medtok_jax.tokenize.readers import read_codes
from preprocessing.common.errors import InputError
from tests.helpers.permissions import readable_by_others
from tests.helpers.small_tokenizer import KEYS, write

ANY = {"code": None, "system": None, "description": None}
KINDS = ("csv", "json", "jsonl", "parquet")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok"))


def write_rows(path, rows: list[dict]) -> None:
    """Rows of text, None for what is missing, in any of the kinds of file."""
    names = list(rows[0])
    if path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            lines = csv.DictWriter(file, names)
            lines.writeheader()
            lines.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names}), path)


def read_rows(path) -> list[dict]:
    """Return the rows of a written file, the same from every kind of file."""
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            row["row"] = int(row["row"])
            row["ids"] = [int(number) for number in row["ids"].split()]
            row["weights"] = [float(number) for number in row["weights"].split()]
    elif path.suffix == ".json":
        rows = json.loads(path.read_text())
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        rows = pq.read_table(path).to_pylist()
    return rows


def rejects(path) -> list[list[str]]:
    with open(f"{path}.rejects.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["row", "code", "system", "reason"]
    return rows


def run(tokenizer, source, output, **options):
    return files.tokenize_file(
        tokenizer, source, output, **{"columns": ANY, "progress": False, "batch_size": 7} | options
    )


@pytest.mark.parametrize("source_kind", KINDS)
@pytest.mark.parametrize("output_kind", KINDS)
def test_every_kind_of_file_gives_the_same(tokenizer, tmp_path, source_kind, output_kind):
    rng = random.Random(0)
    rows = [dict(zip(("system", "code"), rng.choice(KEYS).split("/"), strict=True)) for _ in range(40)]
    rows += [{"system": None, "code": "e11.9"}, {"system": "icd10", "code": "E119"}, {"system": None, "code": "0010"}]
    rows += [{"system": None, "code": "nonsense"}, {"system": "FOO", "code": "E11.9"}, {"system": None, "code": None}]
    rows += [{"system": "ICD10CM", "code": 'E11.9, "quoted"\nand broken'}, {"system": None, "code": "E11.9XYZ"}]
    source, output = tmp_path / f"codes.{source_kind}", tmp_path / f"tokens.{output_kind}"
    write_rows(source, rows)
    counts = run(tokenizer, source, output, fallback="ancestors")
    found = read_rows(output)
    assert [row["row"] for row in found] == [*range(1, 43), 48]
    for row in found:
        given = rows[row["row"] - 1]
        tokens = tokenizer.look_up(given["code"], given["system"] or None, fallback="ancestors")
        assert (row["code"], row["key"], row["source"]) == (given["code"], tokens.key, tokens.source)
        assert row["ids"] == tokens.ids.tolist()
        assert np.array_equal(np.array(row["weights"], np.float32), tokens.weights)
    refused = rejects(output)
    assert [int(row[0]) for row in refused] == [43, 44, 45, 46, 47]
    for row, reason in zip(
        refused, ["several systems", "nonsense", "'FOO' is not a code", "it has no code", "not"], strict=True
    ):
        assert reason in row[3]
    assert counts == {"table": 42, "ancestor": 1, "rejected": 5}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [source.name, output.name, f"{output.name}.rejects.csv"]
    )


def test_bad_lines_of_csv(tokenizer, tmp_path):
    source = tmp_path / "codes.csv"
    lines = [
        b"\xef\xbb\xbfid,ICD_CODE",
        b"a,E11.9",
        b"b",
        b"",
        b"c,E11.9,d",
        b"\xff,E11",
        b"e,\xff",
        b"f, E11 ",
        b"g,",
    ]
    source.write_bytes(b"\r\n".join([*lines, b"h," + b"9" * 200_000, b'"i",250.00', b'j,"E11.9']))
    output = tmp_path / "tokens.csv"
    run(tokenizer, source, output, columns=ANY)
    assert [(row["row"], row["key"]) for row in read_rows(output)] == [
        (1, "ICD10CM/E11.9"),
        (4, "ICD10CM/E11"),
        (6, "ICD10CM/E11"),
        (9, "ICD9CM/250.00"),
        (10, "ICD10CM/E11.9"),
    ]
    reasons = {int(row[0]): row[3] for row in rejects(output)}
    assert reasons[2] == "the row has 1 cells where the header has 2"
    assert reasons[3] == "the row has 3 cells where the header has 2"
    assert reasons[5] == "its code is not UTF-8"
    assert reasons[7] == "it has no code"
    assert "field larger than field limit" in reasons[8]


def test_bad_lines_of_json(tokenizer, tmp_path):
    source, output = tmp_path / "codes.jsonl", tmp_path / "tokens.jsonl"
    lines = ['{"code": "E11.9"}', "{", '"E11"', "3", '{"code": 250.0}', '{"cod": "E11"}', "[" * 100_000, "null", ""]
    lines += [
        '{"code": "E11", "graph": 3}',
        '{"code": "\\ud800"}',
        '{"code": ["E11"]}',
        '{"code": "E11", "description": 1}',
    ]
    source.write_text("\n".join(lines))
    run(tokenizer, source, output)
    assert [(row["row"], row["key"]) for row in read_rows(output)] == [(1, "ICD10CM/E11.9"), (3, "ICD10CM/E11")]
    reasons = {int(row[0]): row[3] for row in rejects(output)}
    assert list(reasons) == [2, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert "is not JSON" in reasons[2]
    assert reasons[5] == "its code is 250.0, not text"
    assert "has no column 'code'" in reasons[6]
    assert reasons[11] == "its code is a list, not text"


def test_a_list_of_bare_codes(tokenizer, tmp_path):
    (tmp_path / "codes.json").write_text(' \n["E11.9", "E11"]')
    assert run(tokenizer, tmp_path / "codes.json", tmp_path / "t.json") == {"table": 2}
    assert not (tmp_path / "t.json.rejects.csv").exists()
    (tmp_path / "lines.json").write_text('{"code": "E11.9"}\n{"code": "E11"}\n')
    assert run(tokenizer, tmp_path / "lines.json", tmp_path / "t.json") == {"table": 2}
    for kind in KINDS:
        (tmp_path / "empty.json").write_text("[]")
        run(tokenizer, tmp_path / "empty.json", tmp_path / f"t.{kind}")
        assert read_rows(tmp_path / f"t.{kind}") == []


def test_several_codes_in_one_cell_are_told(tokenizer, tmp_path):
    cells = ["E11.9", "E11.9, E10.9", "E119;001.0", "E11.9|E10.9", "ICD10CM/E11.9 E10.9", "E11.9, diabetes"]
    lines = "".join(f'"{cell}"\n' for cell in cells)
    (tmp_path / "codes.csv").write_text(f"code\n{lines}")
    assert run(tokenizer, tmp_path / "codes.csv", tmp_path / "t.json") == {"table": 1, "rejected": 5}
    reasons = [reason for *_, reason in rejects(tmp_path / "t.json")]
    assert ["is 2 codes in one cell; give each a row" in reason for reason in reasons] == [True] * 4 + [False]


def test_columns(tokenizer, tmp_path):
    source = tmp_path / "codes.csv"
    source.write_text("a,b,Vocabulary_ID\n0010,x,ICD9Proc\n0010,y,\n")
    output = tmp_path / "t.json"
    assert run(tokenizer, source, output, columns=ANY | {"code": "a"}, system="ICD9CM") == {"table": 2}
    assert [row["key"] for row in read_rows(output)] == ["ICD9Proc/00.10", "ICD9CM/001.0"]
    with pytest.raises(InputError, match=r"codes.csv has no column 'code' \(it has a, b, Vocabulary_ID\); name"):
        run(tokenizer, source, output)
    with pytest.raises(InputError, match=r"codes.csv has no column 'c' .*correct --system_column"):
        run(tokenizer, source, output, columns=ANY | {"code": "a", "system": "c"})
    pq.write_table(pa.table({"code": [250.0]}), tmp_path / "codes.parquet")
    with pytest.raises(InputError, match=r"Column 'code' of .* holds double, but a code must be text"):
        run(tokenizer, tmp_path / "codes.parquet", output)
    categories = pa.table({"code": pa.array(["E11.9"]).dictionary_encode()})
    pq.write_table(categories, tmp_path / "codes.parquet")
    assert run(tokenizer, tmp_path / "codes.parquet", output) == {"table": 1}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("absent.csv", None, "absent.csv does not exist"),
        ("codes.xlsx", b"E11", "codes.xlsx ends in none of .csv, .json, .jsonl, .parquet"),
        ("codes.csv", b"", r"has no column 'code' \(it has no columns\)"),
        ("codes.json", b"", "is not a list of codes"),
        ("codes.json", b'["E11.9", ', "is broken JSON"),
        ("codes.json", b'["E11.9" "E11"]', "is broken JSON"),
        ("codes.json", b"\xff", "is not a list of codes"),
        ("codes.parquet", b"PAR1", "cannot be read as parquet"),
        ("codes.parquet", b"", "is empty"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_nothing(tokenizer, tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "old.json").write_text("old")
    with pytest.raises(InputError, match=sentence):
        run(tokenizer, tmp_path / name, tmp_path / "old.json")
    assert (tmp_path / "old.json").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} <= {name, "old.json"}


def test_an_output_that_cannot_be_written(tokenizer, tmp_path):
    (tmp_path / "codes.csv").write_text("code\nE11.9\n")
    with pytest.raises(InputError, match=r"t\.txt ends in none of .json, .jsonl, .csv, .parquet"):
        run(tokenizer, tmp_path / "codes.csv", tmp_path / "t.txt")
    with pytest.raises(InputError, match="is the input"):
        run(tokenizer, tmp_path / "codes.csv", tmp_path / "codes.csv")
    with pytest.raises(InputError, match="cannot be written"):
        run(tokenizer, tmp_path / "codes.csv", tmp_path / "codes.csv" / "t.csv")


def test_columns_are_found_by_their_usual_names(tmp_path):
    source = tmp_path / "codes.csv"
    source.write_text("id,Code,vocabulary,DESC\n1,E11.9,ICD10CM,Type 2\n")
    (row,) = read_codes(source, ANY, progress=False)
    assert (row.number, row.code, row.system, row.description) == (1, "E11.9", "ICD10CM", "Type 2")


@pytest.mark.parametrize("name", ["meaning", "description"])
def test_columns_that_may_describe_unknown_codes_are_named(tokenizer, tmp_path, monkeypatch, name):
    write_rows(tmp_path / "in.csv", [{"code": "ICD10CM/Z99.9", name: ""}, {"code": KEYS[0], name: ""}])

    def sentences():
        told = []
        files.tokenize_file(
            tokenizer, tmp_path / "in.csv", tmp_path / "out.json", columns=ANY, progress=False, tell=told.append
        )
        return [sentence for sentence in told if "--description_column" in sentence]

    assert sentences() == [], "there is no model that would encode them"
    monkeypatch.setattr(MedTokTokenizer, "has_model", True)
    found = sentences()
    assert len(found) == (name == "meaning")
    assert all("'meaning'" in sentence for sentence in found)


def test_new_codes_are_encoded_by_the_model_in_their_place(finished_run, tmp_path):
    tokenizer = MedTokTokenizer.from_pretrained(finished_run[0])
    known = tokenizer.key_at(int(tokenizer.directory.codes[7]))
    rows = [
        {"code": "Z99.XY", "system": "ICD10CM", "description": "Dependence on a machine that no list names"},
        {"code": known, "description": "something else"},
        {"code": "Z99.XZ", "system": "ICD10CM"},
        {"code": "Z99.XA", "system": "ICD10CM", "description": "With neighbors", "graph": [known]},
        {"code": "Z99.XB", "system": "ICD10CM", "graph": [known, 3]},
        {"code": "no system", "description": "Nothing tells of what system"},
        {"code": "Z99.XC", "system": "ICD10CM", "graph": "no graph"},
    ]
    (tmp_path / "codes.json").write_text(json.dumps(rows))
    counts = run(tokenizer, tmp_path / "codes.json", tmp_path / "t.json", batch_size=3)
    assert counts == {"model": 2, "table": 1, "rejected": 4}
    found = read_rows(tmp_path / "t.json")
    assert [(row["row"], row["source"]) for row in found] == [
        (1, "model: text+hierarchy"),
        (2, "table"),
        (4, "model: text+graph"),
    ]
    for row in found:
        given = rows[row["row"] - 1]
        parts = {"description": given.get("description"), "graph": given.get("graph")}
        tokens = tokenizer.look_up(given["code"], given.get("system"), **parts)
        assert row["key"] == tokens.key
        assert row["ids"] == tokens.ids.tolist()
        np.testing.assert_allclose(row["weights"], tokens.weights, atol=1e-5)
    reasons = {int(row[0]): row[3] for row in rejects(tmp_path / "t.json")}
    assert "is not among" in reasons[3]
    assert "neighbor" in reasons[5]
    assert "does not name its code system" in reasons[6]
    assert "neither an object nor a list" in reasons[7]


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_else_reads_the_tokens_of_a_file(kind, tokenizer, tmp_path):
    source, output = tmp_path / "in.csv", tmp_path / f"out.{kind}"
    write_rows(source, [{"code": "E11.9", "system": "ICD10CM"}, {"code": "Jane Doe", "system": "ICD10CM"}])
    files.tokenize_file(tokenizer, source, output, columns=ANY, progress=False)
    assert readable_by_others(output, tmp_path / f"out.{kind}.rejects.csv") == []
