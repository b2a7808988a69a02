import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from eval.reports import writer
from preprocessing.common.errors import InputError

HEADERS = ("name", "about", "value")
ROWS = [["a|b", "[bold]kept[/bold]", 0.12345], ["c", None, 1234], ["d", "", np.float64(-1234.5)]]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (99.9, "99.900"), (-100.0, "-100"), (1234567.8, "1,234,568"), (math.nan, "none")],
)
def test_numbers(value, text):
    assert writer.number(value) == text


def test_a_deviation_has_the_decimals_of_its_mean():
    assert writer.number(5.31, like=150.0) == "5"
    assert writer.number(0.071, like=0.5) == "0.071"


def test_a_table_in_markdown():
    assert writer.markdown_table(HEADERS, ROWS, texts=2).splitlines() == [
        "| name | about | value |",
        "| --- | --- | ---: |",
        "| a\\|b | [bold]kept[/bold] | 0.123 |",
        "| c |  | 1,234 |",
        "| d |  | -1,234 |",
    ]


def test_a_table_on_the_terminal_shows_the_same_cells():
    shown = io.StringIO()
    Console(file=shown, width=100).print(writer.console_table("The [title]", HEADERS, ROWS, texts=2))
    for text in ("The [title]", "a|b", "[bold]kept[/bold]", "0.123", "1,234", "-1,234"):
        assert text in shown.getvalue()


def test_a_report_is_written_as_markdown_and_json(tmp_path):
    writer.write(tmp_path / "new" / "x.md", writer.document(["# X", "text"]), {"a": 1})
    assert (tmp_path / "new" / "x.md").read_text() == "# X\n\ntext\n"
    assert json.loads((tmp_path / "new" / "x.json").read_text()) == {"a": 1}
    writer.write(tmp_path / "alone.md", "text\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.md", "new"]
    with pytest.raises(InputError, match="give another --output"):
        writer.write(tmp_path / "alone.md" / "x.md", "text\n")
