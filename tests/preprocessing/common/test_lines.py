import json

import pytest

from preprocessing.common import lines
from preprocessing.common.errors import InputError


def refused(sentence):
    """Expect one sentence."""
    return pytest.raises(InputError, match=sentence)


def test_lines_are_appended_and_read(tmp_path):
    path = tmp_path / "lines"
    assert lines.read_lines(path) == []
    for number in range(3):
        lines.append_line(path, json.dumps({"ü": number}))
    assert [json.loads(line) for line in lines.read_lines(path)] == [{"ü": number} for number in range(3)]


def test_lines_end_only_at_line_ends(tmp_path):
    lines.append_line(tmp_path / "lines", "one\u2028line")
    lines.append_line(tmp_path / "lines", "another")
    assert lines.read_lines(tmp_path / "lines") == ["one\u2028line", "another"]


@pytest.mark.parametrize("half", [b'{"half', b"\xc3", b"x" * 5000])
def test_half_a_line_is_passed_over_and_removed(tmp_path, half):
    path = tmp_path / "lines"
    for before in (b"", b"1\n2\n"):
        path.write_bytes(before + half)
        assert lines.read_lines(path) == before.decode().splitlines()
        lines.append_line(path, "3")
        assert path.read_bytes() == before + b"3\n"


@pytest.mark.usefixtures("small_disk")
def test_a_line_that_finds_no_room_leaves_the_lines_before(tmp_path):
    path = tmp_path / "lines"
    lines.append_line(path, "x" * 9000)
    with refused(r"lines cannot be written \(File too large\); make room"):
        lines.append_line(path, "y" * 9000)
    assert lines.read_lines(path) == ["x" * 9000]
    lines.append_line(path, "z")
    assert lines.read_lines(path) == ["x" * 9000, "z"]


def test_a_place_that_is_no_folder_is_refused():
    with refused(r"/dev/null/x cannot be written \(Not a directory\)"):
        lines.append_line("/dev/null/x", "")
