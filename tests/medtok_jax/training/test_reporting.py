import json

import pytest

from medtok_jax.training import reporting
from preprocessing.common.errors import InputError


def test_history_is_read_without_half_a_line(tmp_path):
    entries = [{"kind": "train", "step": 10, "total_loss": 1.5}, {"kind": "validation", "step": 10, "total_loss": 2.5}]
    path = tmp_path / reporting.HISTORY
    assert reporting._read_history(path) == []
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"kind": "tra')
    assert reporting._read_history(path) == entries


@pytest.mark.parametrize("line", ["{broken", "[]", "1", '{"step": 3}'])
def test_a_damaged_line_is_told_in_a_sentence(tmp_path, line):
    path = tmp_path / reporting.HISTORY
    path.write_text('{"kind": "train", "step": 10}\n' + line + "\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged in line 2; remove that line to go on\.$"):
        reporting._read_history(path)
