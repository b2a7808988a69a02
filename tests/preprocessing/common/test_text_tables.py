import pytest

from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import lines, rows, table


def write(tmp_path, content):
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    return path


def kinds(rejects):
    return {kind: count for (_, kind), count in rejects.counts.items()}


def notes(rejects):
    return {kind: count for (_, kind), count in rejects.notes.items()}


def read(function, path, **options):
    rejects = Rejects(None)
    return list(function(path, rejects, **options)), rejects


def test_lines_clean_what_can_be_cleaned(tmp_path):
    path = write(tmp_path, b"\xef\xbb\xbffirst\r\n\r\n  \t\nM\xc3\xa9ni\xc3\xa8re\r\nlast\n\x1a")
    found, rejects = read(lines, path)
    assert [tuple(line) for line in found] == [(1, "first"), (4, "M\u00e9ni\u00e8re"), (5, "last")]
    assert kinds(rejects) == {}
    assert notes(rejects) == {"byte order mark": 1, "Windows line ends": 1, "end-of-file mark": 1}


def test_a_bad_line_costs_no_other(tmp_path):
    path = write(tmp_path, b"a\nb\0b\nc\rc\nM\xe9n\nodd \x81\nlast")
    found, rejects = read(lines, path)
    assert [tuple(line) for line in found] == [(1, "a"), (4, "M\u00e9n"), (5, "odd \ufffd"), (6, "last")]
    assert kinds(rejects) == {"NUL byte": 1, "stray carriage return": 1, "bad encoding": 2}


def test_cp1252_is_no_fault_where_the_publisher_writes_it(tmp_path):
    found, rejects = read(lines, write(tmp_path, b"M\xe9n\nM\xc3\xa9n\nodd \x81\n"), cp1252=True)
    assert [line.text for line in found] == ["M\u00e9n", "M\u00e9n", "odd \ufffd"]
    assert kinds(rejects) == {"bad encoding": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"file\.txt is empty"),
        (b"\xef\xbb\xbf\r\n \n", r"file\.txt is empty"),
        ("code".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04...", "Excel"),
        (b"\x1f\x8b...", "compressed"),
    ],
)
def test_files_that_hold_no_text(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read(lines, write(tmp_path, content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.txt cannot be read"):
        read(lines, tmp_path / "gone.txt")


def test_rows_of_a_fixed_width(tmp_path):
    found, rejects = read(rows, write(tmp_path, b'a|"b|\nc|\nd|e|f|\ng|h|\n'), separator="|", width=3)
    assert [(row.line, row.values) for row in found] == [(1, ("a", '"b', "")), (4, ("g", "h", ""))]
    assert kinds(rejects) == {"wrong column count": 2}


COLUMNS = {"code": ("cpt code",), "description": ("long",)}


@pytest.mark.parametrize("separator", list(",;\t|"))
def test_the_header_decides_separator_names_and_order(tmp_path, separator):
    text = "A notice, of three; parts\nLONG|x|CPT_Code\n one |2|00100\n".replace("|", separator)
    found, rejects = read(table, write(tmp_path, text.encode()), columns=COLUMNS, separators=",;\t|", quoted=True)
    assert [(row.line, row.values) for row in found] == [(3, ("00100", " one "))]
    assert notes(rejects) == {"header below the first line": 1}


def test_quoted_values_and_optional_columns(tmp_path):
    path = write(tmp_path, b'code,description\n1,"a, ""b"""\n2,5" tube\n3,"open\n4,plain\n5,too,many\n6\n7,"x"y\n')
    found, rejects = read(table, path, columns=COLUMNS, optional={"more": ()}, separators=",", quoted=True)
    assert [row.values for row in found] == [("1", 'a, "b"', ""), ("2", '5" tube', ""), ("4", "plain", "")]
    assert kinds(rejects) == {"unbalanced quotation mark": 2, "wrong column count": 2}


def test_unquoted_tables_take_quotation_marks_as_they_are(tmp_path):
    found, rejects = read(table, write(tmp_path, b'code\tdescription\n1\t"open\n'), columns=COLUMNS)
    assert [row.values for row in found] == [("1", '"open')]
    assert not rejects.counts


def test_a_missing_column_is_one_sentence(tmp_path):
    path = write(tmp_path, b"code,title\n1,2\n")
    with pytest.raises(
        InputError, match=r"file\.txt has no column 'description' \(or long\) in .*line 1 \(its 2 cells name code\)"
    ) as told:
        read(table, path, columns=COLUMNS, separators=",")
    assert "title" not in str(told.value)
