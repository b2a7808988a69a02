"""Two tokenizers compared: against sets and loops over their rows."""

import csv
import dataclasses

import numpy as np
import pytest

from medtok_jax.lookup import difference, directory
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.regions import Regions
from medtok_jax.tokenize.__main__ import main
from tests.helpers.small_tokenizer import KEYS, K, about, make_tokens, write_uneven, write_wide

STARTS = [0, K, 2 * K, 3 * K]


@pytest.fixture
def earlier(tmp_path):
    directory.write(tmp_path / "earlier", make_tokens(), about())
    return tmp_path / "earlier"


@pytest.fixture
def later(tmp_path):
    """The same codes but the first two and one new, with some tokens, one description and a row changed."""
    tokens = make_tokens([*KEYS[2:], "ICD10CM/Z99.9"])
    old = make_tokens()
    ids = tokens.ids.copy()
    ids[:-1] = old.ids[2:]
    ids[0, 0], ids[0, 1] = old.ids[2, 1], old.ids[2, 0]  # the first two tokens of one code change places
    ids[1, K + 1] = next(row for row in range(12, 22) if row not in old.ids[3])  # not a first token
    descriptions = tokens.strings["description"].copy()
    descriptions[4] = "something else"
    codebook = old.codebook.copy()
    codebook[0] = -codebook[0]
    strings = tokens.strings | {"description": descriptions}
    changed = dataclasses.replace(tokens, ids=ids, strings=strings, codebook=codebook)
    directory.write(tmp_path / "later", changed, about())
    return tmp_path / "later"


def rows_of(path) -> dict[str, tuple[str, tuple[int, ...]]]:
    read = TokenizerDirectory.read(path)
    columns = read.table["key"].to_pylist(), read.table["description"].to_pylist(), map(tuple, read.ids.tolist())
    return {key: (text, ids) for key, text, ids in zip(*columns, strict=True)}


def test_what_changed(earlier, later):
    found = difference.compare(TokenizerDirectory.read(earlier), TokenizerDirectory.read(later))
    before, after = rows_of(earlier), rows_of(later)
    assert found.removed == sorted(set(before) - set(after)) == sorted(KEYS[:2])
    assert found.added == sorted(set(after) - set(before)) == ["ICD10CM/Z99.9"]
    common = sorted(set(before) & set(after))
    assert found.renamed.tolist() == [before[key][0] != after[key][0] for key in common]
    assert found.same_all.tolist() == [before[key][1] == after[key][1] for key in common]
    firsts = [[before[key][1][start] == after[key][1][start] for start in STARTS] for key in common]
    assert found.same_first.tolist() == firsts
    assert [int(found.renamed.sum()), int((~found.same_all).sum()), int((~found.same_first).sum())] == [1, 2, 1]
    rows = len(make_tokens().codebook)
    assert found.row_cosine == pytest.approx((rows - 2) / rows)


def test_the_file_names_every_code_that_changed(earlier, later, tmp_path, capsys):
    main(["tokenize", "diff", str(earlier), str(later)], Given(str(tmp_path / "changes.csv")))
    printed = capsys.readouterr().out
    with open(tmp_path / "changes.csv", newline="", encoding="utf-8") as file:
        listed = {row["key"]: row for row in csv.DictReader(file)}
    before, after = rows_of(earlier), rows_of(later)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert listed.keys() == changed
    for key, row in listed.items():
        for column, rows in (("tokens_before", before), ("tokens_after", after)):
            assert row[column] == (" ".join(map(str, rows[key][1])) if key in rows else "")
    assert {row["change"] for row in listed.values()} == {"removed", "added", "tokens", "description"}
    assert "17 codes are in both" in printed
    assert "88.2% of them have the same tokens" in printed
    assert "text_specific 94.1%" in printed
    assert "the ids keep their meaning" in printed
    assert f"{len(changed)} codes that changed" in printed


@dataclasses.dataclass
class Given:
    """The flags of the command."""

    output: str | None


def test_a_tokenizer_does_not_differ_from_itself(earlier, capsys):
    main(["tokenize", "diff", str(earlier), str(earlier)], Given(None))
    printed = capsys.readouterr().out
    assert "The " not in printed.split("19 codes are in both")[0]
    assert "100.0% of them have the same tokens" in printed
    assert "cosine of 1.000" in printed


def test_tokenizers_of_other_sizes_say_what_differs(earlier, tmp_path, capsys):
    wide, uneven = write_wide(tmp_path / "wide", make_tokens(), 3000), write_uneven(tmp_path / "uneven")
    main(["tokenize", "diff", str(earlier), str(wide)], Given(None))
    printed = capsys.readouterr().out
    assert "The number of codebook rows is 36 (12 text, 10 graph, 14 shared) in the first, 3000 (1000" in printed
    assert "are not compared" in printed
    main(["tokenize", "diff", str(earlier), str(uneven)], Given(str(tmp_path / "changes.csv")))
    printed = capsys.readouterr().out
    assert "6 (1 text_specific, 3 shared_first, 2 graph_specific) in the second" in printed
    assert "The quantizer is top_k in the first, residual in the second." in printed


def test_tokenizers_without_a_common_code(earlier, tmp_path, capsys):
    other = make_tokens(["ICD10CM/Q1", "SNOMED/1"])
    directory.write(tmp_path / "other", other, about())
    main(["tokenize", "diff", str(earlier), str(tmp_path / "other")], Given(None))
    printed = capsys.readouterr().out
    assert "0 codes are in both" in printed
    assert "2 codes are only in the second (ICD10CM 1, SNOMED 1)" in printed


def test_rows_drawn_anew_are_told(earlier, tmp_path):
    other = dataclasses.replace(make_tokens(), codebook=make_tokens(seed=9).codebook)
    directory.write(tmp_path / "other", other, about())
    found = difference.compare(TokenizerDirectory.read(earlier), TokenizerDirectory.read(tmp_path / "other"))
    assert any("the same id means another row" in sentence for sentence in found.sentences())
    assert isinstance(found.after.config.regions, Regions)
    assert np.all(found.same_all)
