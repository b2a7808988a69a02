import json

import pytest

from medtok_jax.training import reporting
from preprocessing.common.checksums import sealed
from preprocessing.common.errors import InputError


def test_history_is_read_without_half_a_line(tmp_path):
    entries = [{"kind": "train", "step": 10, "total_loss": 1.5}, {"kind": "validation", "step": 10, "total_loss": 2.5}]
    path = tmp_path / reporting.HISTORY
    assert reporting._read_history(path) == []
    path.write_text("".join(json.dumps(sealed(entry)) + "\n" for entry in entries) + '{"kind": "tra')
    assert reporting._read_history(path) == entries


@pytest.mark.parametrize("line", ["{broken", "[]", "1", "\udcff", '{"step": 3}', '{"kind": "train", "step": 20}'])
def test_a_damaged_line_is_told_in_a_sentence(tmp_path, line):
    path = tmp_path / reporting.HISTORY
    path.write_text(json.dumps(sealed({"kind": "train", "step": 10})) + f"\n{line}\n", errors="surrogateescape")
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged in line 2; remove that line to go on\.$"):
        reporting._read_history(path)


@pytest.mark.parametrize("damaged", ["", "{", "[]", "null", '{"step": 60}'])
def test_a_damaged_summary_is_none(tmp_path, damaged):
    path = tmp_path / reporting.SUMMARY
    assert reporting.finished_summary(tmp_path, step=60, last_step=60) is None
    path.write_text(json.dumps(sealed({"step": 60})))
    assert reporting.finished_summary(tmp_path, step=60, last_step=60) == {"step": 60}
    assert reporting.finished_summary(tmp_path, step=50, last_step=60) is None
    path.write_text(damaged)
    assert reporting.finished_summary(tmp_path, step=60, last_step=60) is None
