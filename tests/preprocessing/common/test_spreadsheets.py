"""No text of a table is run by a spreadsheet, and readers of the house see the text that was written."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.common.rejects import Rejects
from preprocessing.common.spreadsheets import TableWriter, neutral, plain
from preprocessing.common.text_tables import table

TEXTS = st.text(st.sampled_from("=+-@\t\r'a1. e"), max_size=6)


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-caine", "'=1", "''@a"])
def test_what_begins_like_a_formula_is_text(text):
    assert neutral(text) == f"'{text}"
    assert plain(neutral(text)) == text


@pytest.mark.parametrize("text", ["", "-", "-1", "+1.5e-3", "-0.5 0.25 -1", "E11.9", "it's", "'", "'a", "1+1"])
def test_other_texts_and_numbers_stay(text):
    assert neutral(text) == plain(text) == text


@given(TEXTS)
def test_every_text_comes_back(text):
    assert plain(neutral(text)) == text
    assert neutral(text).startswith("'") or neutral(text)[:1] not in "=@\t\r" or len(text) < 2


def test_a_table_is_read_as_it_was_written(tmp_path):
    rows = [("NDC", "=1+1"), ("'@b", "it's"), ("+", 'say "-x"')]
    with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as file:
        writer = TableWriter(file)
        writer.row(("a", "b"))
        writer.rows(rows)
    cells = list(csv.reader((tmp_path / "t.csv").open(newline="")))[1:]
    assert [cells[0][1], cells[1][0]] == ["'=1+1", "''@b"]
    found = table(tmp_path / "t.csv", Rejects(None), columns={"a": (), "b": ()}, separators=",", quoted=True)
    assert [row.values for row in found] == rows


def test_rejected_rows_are_no_formulas(tmp_path):
    with Rejects(tmp_path / "rejects.csv") as rejects:
        rejects.add("=a.csv", 1, "kind", "@reason", '=HYPERLINK("x")')
    (cells,) = list(csv.reader((tmp_path / "rejects.csv").open(newline="")))[1:]
    assert cells == ["'=a.csv", "1", "kind", "'@reason", '\'=HYPERLINK("x")']
