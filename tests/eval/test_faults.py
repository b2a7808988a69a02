"""The table of the fault suite: made from a small result file, and from small suites."""

import json

import pytest

from eval import faults
from preprocessing.common.errors import InputError, UserError

RESULTS = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" tests="6">
<testcase classname="tests.faults.test_kills" name="test_a" time="2.5"><properties>
<property name="what" value="kills" /><property name="tried" value="1" /><property name="held" value="1" />
<property name="what" value="kills" /><property name="tried" value="20" /><property name="held" value="20" />
</properties></testcase>
<testcase classname="tests.faults.test_kills" name="test_b" time="1.5"><properties>
<property name="what" value="kills" /><property name="tried" value="4" /><property name="held" value="3" />
</properties><failure message="AssertionError: other&#10;arrays">long</failure></testcase>
<testcase classname="tests.faults.test_damage" name="test_c[x]" time="1"><properties>
<property name="what" value="damaged files" /><property name="tried" value="9" /><property name="held" value="9" />
</properties><failure message="late">long</failure></testcase>
<testcase classname="tests.faults.test_full_disk" name="test_d[x]" time="0.25" />
<testcase classname="tests.faults.test_full_disk" name="test_d[y]" time="0.25"><error message="">no
disk</error></testcase>
<testcase classname="tests.faults.test_two_runs" name="test_e" time="0"><skipped message="no encoder" /></testcase>
</testsuite></testsuites>
"""


def test_a_row_for_each_kind(tmp_path):
    (tmp_path / "results.xml").write_text(RESULTS)
    rows = faults.rows_of(tmp_path / "results.xml")
    assert [(row["what"], row["tried"], row["held"], row["seconds"]) for row in rows] == [
        ("kills", 24, 23, 4.0),
        ("damaged files", 9, 8, 1.0),
        ("full disk", 2, 1, 0.5),
        ("two runs", 0, 0, 0.0),
    ]
    assert [row["else"] for row in rows] == [
        ["test_b: AssertionError: other arrays"],
        ["test_c[x]: late"],
        ["test_d[y]: no disk"],
        ["test_e: skipped: no encoder"],
    ]
    faults.write(tmp_path, rows, long=True, seconds=5.5)
    assert json.loads((tmp_path / "faults.json").read_text())["rows"] == rows
    lines = (tmp_path / "faults.md").read_text().splitlines()
    assert lines[0].startswith("Faults, the long form, on ")
    assert "| kills | 1 x AssertionError: other arrays | 24 | 23 | 4 |" in lines
    assert lines[-1] == "| all |  | 35 | 32 | 5 |"


SUITE = """
import pytest

def test_held(record_property):
    for name, value in (("what", "kills"), ("tried", 3), ("held", 3)):
        record_property(name, value)

@pytest.mark.thorough
def test_long():
    assert 1 == 2
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with a suite of two tests, of which the thorough one fails."""
    folder = tmp_path / "checkout" / faults.SUITE
    folder.mkdir(parents=True)
    (folder / "test_small.py").write_text(SUITE)
    (tmp_path / "checkout" / "pytest.ini").write_text("[pytest]\nmarkers = thorough\n")
    return tmp_path / "checkout"


@pytest.mark.integration
def test_the_long_form_runs_thorough_tests_too(checkout, tmp_path):
    short, long = (faults.run_suite(tmp_path, long=long, root=checkout) for long in (False, True))
    assert [(row["what"], row["tried"], row["held"], row["else"]) for row in short] == [("kills", 3, 3, [])]
    assert [(row["what"], row["tried"], row["held"]) for row in long] == [("kills", 3, 3), ("small", 1, 0)]
    assert "assert 1 == 2" in long[1]["else"][0]
    assert "1 failed, 1 passed" in (tmp_path / "faults.log").read_text()


@pytest.mark.integration
def test_a_suite_that_does_not_come_to_an_end(checkout, tmp_path):
    (checkout / faults.SUITE / "test_small.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(UserError, match=r"ended with status 2 before its end; \S+faults\.log says why\.$"):
        faults.run_suite(tmp_path, long=False, root=checkout)


def test_without_a_checkout(tmp_path):
    with pytest.raises(InputError, match=r"holds no tests/faults, as it is no checkout of the project; clone"):
        faults.run_suite(tmp_path, long=False, root=tmp_path)
