import csv

import pytest

from preprocessing.common.errors import InputError, UserError
from preprocessing.common.rejects import COLUMNS, Rejects


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_rows_are_counted_and_written_in_order(tmp_path):
    path = tmp_path / "out" / "rejects.csv"
    with Rejects(path, root=tmp_path) as rejects:
        rejects.add(tmp_path / "in" / "a.txt", 3, "wrong column count", "2 columns, not 5", 'x,"y"')
        rejects.add(tmp_path / "in" / "a.txt", 4, "wrong column count", "1 column, not 5", "x")
        rejects.add("kg.csv", 9, "self-loop", "both ends are 7")
        rejects.note(tmp_path / "in" / "a.txt", 1, "byte order mark")
        rejects.note("b.txt", 1, "Windows line end")
        rejects.note("b.txt", 2, "Windows line end")
        assert not path.exists()
    assert rejects.counts == {("in/a.txt", "wrong column count"): 2, ("kg.csv", "self-loop"): 1}
    assert rejects.notes == {("in/a.txt", "byte order mark"): 1, ("b.txt", "Windows line end"): 2}
    assert rows_of(path) == [
        list(COLUMNS),
        ["in/a.txt", "3", "wrong column count", "2 columns, not 5", 'x,"y"'],
        ["in/a.txt", "4", "wrong column count", "1 column, not 5", "x"],
        ["kg.csv", "9", "self-loop", "both ends are 7", ""],
        ["in/a.txt", "1", "byte order mark", "repaired", ""],
        ["b.txt", "1", "Windows line end", "repaired", ""],
    ]
    assert rejects.summary()[0] == ("b.txt", "Windows line end", "repaired", 2)
    assert rejects.table().row_count == 4
    assert [entry.name for entry in path.parent.iterdir()] == ["rejects.csv"]


def test_a_row_keeps_to_one_printable_line(tmp_path):
    path = tmp_path / "rejects.csv"
    with Rejects(path) as rejects:
        rejects.add("a", 1, "k", "r", "a\nb\x00c\ud800\\n \ufeffé")
        rejects.add("a", 2, "k", "r", b"M\xe9n\xc3\xa9\r")
        rejects.add("a", 3, "k", "r", "x" * 5000)
    assert len(path.read_bytes().splitlines()) == 4
    first, second, third = (row[4] for row in rows_of(path)[1:])
    assert first == "a\\nb\\x00c\\ud800\\\\n \\ufeffé"
    assert second == "M\\xe9né\\r"
    assert third == "x" * 2000 + "..."


def test_strict_fails_after_the_file_is_complete(tmp_path):
    path = tmp_path / "rejects.csv"
    with Rejects(path) as rejects:
        for file in ("a.txt", "b.txt", "b.txt"):
            rejects.add(file, 1, "k", "r")
        with pytest.raises(UserError, match=r"3 rows were rejected, most of all 2 of b\.txt \(k\)") as failure:
            rejects.finish(strict=True)
        assert path.exists()
    assert failure.value.exit_status == 1
    assert len(rows_of(path)) == 4


def test_strict_minds_neither_repairs_nor_nothing(tmp_path):
    with Rejects(tmp_path / "rejects.csv") as rejects:
        rejects.note("a.txt", 1, "byte order mark")
        rejects.finish(strict=True)
    assert len(rows_of(tmp_path / "rejects.csv")) == 2


def test_an_error_leaves_no_file(tmp_path):
    with pytest.raises(InputError, match="broken"), Rejects(tmp_path / "rejects.csv"):
        raise InputError("broken")
    assert list(tmp_path.iterdir()) == []


def test_without_a_path_rows_are_only_counted():
    with Rejects(None) as rejects:
        rejects.add("a.txt", 1, "k", "r")
        with pytest.raises(UserError, match="--strict"):
            rejects.finish(strict=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"rejects\.csv"):
        Rejects(tmp_path / "file" / "rejects.csv")


def test_rejects_of_records_hold_no_rows(tmp_path):
    with Rejects(tmp_path / "rejects.csv", with_rows=False) as rejects:
        rejects.add("a.txt", 3, "wrong column count", "2 columns, not 5", "4711,x")
        rejects.note("a.txt", 1, "byte order mark")
    assert rows_of(tmp_path / "rejects.csv") == [
        ["file", "line", "kind", "reason"],
        ["a.txt", "3", "wrong column count", "2 columns, not 5"],
        ["a.txt", "1", "byte order mark", "repaired"],
    ]
