"""Cells and foreign predictions: what is written comes back, in the schema of MEDS, and damage is told."""

import dataclasses
import math
import stat

import numpy as np
import polars as pl
import pytest

from eval.ehr.cells import ABOUT, PREDICTIONS, Cell, Cells, Predicted, digest_of
from eval.ehr.external import parse, read
from eval.ehr.results import BINARY, MULTICLASS, MULTILABEL
from medtok_jax.records.samples import Labels
from preprocessing.common.errors import InputError
from tests.helpers.permissions import readable_by_others

SUBJECT = np.array([7, 3, 7, 9])
TIME = np.array(["2020-01-01", "2020-01-02", "2020-02-01", "2021-01-01"], "datetime64[us]")
FOLD = np.array([0, 1, 0, 2])
THRESHOLDS = np.array([0.5, 0.5, 0.3])
PERSON_OF = {3: 0, 7: 1, 9: 0}
VALUES = {
    BINARY: (np.array([True, False, False, True]), np.array([0.9, 0.5, 0.2, 0.4], np.float32)),
    MULTICLASS: (np.array([0, 2, 1, 1]), np.eye(3, dtype=np.float32)[[0, 2, 1, 0]]),
    MULTILABEL: (np.eye(4, 3).astype(bool), np.full((4, 3), 0.25, np.float32)),
}


def cell_of(kind: str, **changes) -> Cell:
    cell = Cell("mortality", "codes", "logistic", "full", "", "bedside", 0, kind, {"samples": "abc", "trials": 6})
    return dataclasses.replace(cell, **changes)


@pytest.mark.parametrize("kind", list(VALUES))
def test_a_cell_comes_back(tmp_path, kind):
    value, p = VALUES[kind]
    cells, cell = Cells(tmp_path / "cells"), cell_of(kind)
    assert cell not in cells
    thresholds = np.array([0.5, 0.4, math.nan])
    cells.save(cell, Predicted(Labels(SUBJECT, TIME, value), p, thresholds, {"seconds": 1.5}, FOLD))
    assert cell in Cells(tmp_path / "cells")
    result = cells.load(cell, PERSON_OF)
    np.testing.assert_array_equal(result.y, value)
    np.testing.assert_array_equal(result.p, p)
    assert result.person.tolist() == [1, 0, 1, 0]
    assert result.kind == kind
    assert result.fold.tolist() == FOLD.tolist()
    assert result.about == {"seconds": 1.5}
    np.testing.assert_array_equal(result.p_threshold, [0.5, 0.4, 0.5, math.nan])


def test_predictions_are_in_the_schema_of_meds_and_private(tmp_path):
    schema = pytest.importorskip("meds_evaluation.schema")
    cell = cell_of(BINARY)
    Cells(tmp_path).save(
        cell, Predicted(Labels(SUBJECT, TIME, VALUES[BINARY][0]), VALUES[BINARY][1], THRESHOLDS, {}, FOLD)
    )
    path = tmp_path / cell.identity / PREDICTIONS
    schema.PredictionSchema.validate(pl.read_parquet(path).to_arrow())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert readable_by_others(tmp_path / cell.identity) == []
    assert pl.read_parquet(path)["predicted_boolean_value"].to_list() == [True, True, False, True]


def test_everything_that_a_cell_depends_on_gives_another_identity():
    cell = cell_of(BINARY)
    changes = {"task": "x", "tokenizer": "x", "model": "x", "regime": "x", "setting": "x", "input": "x", "seed": 1}
    others = [cell_of(BINARY, **{name: value}) for name, value in changes.items()]
    others.append(cell_of(BINARY, depends_on={"samples": "abd", "trials": 6}))
    assert len({one.identity for one in (cell, *others)}) == len(changes) + 2
    assert cell_of(BINARY).identity == cell.identity


@pytest.mark.parametrize("name", [ABOUT, PREDICTIONS])
@pytest.mark.parametrize("damage", [b"", b"x" * 40])
def test_a_damaged_cell_is_told(tmp_path, name, damage):
    cell = cell_of(BINARY)
    cells = Cells(tmp_path)
    cells.save(cell, Predicted(Labels(SUBJECT, TIME, VALUES[BINARY][0]), VALUES[BINARY][1], THRESHOLDS, {}, FOLD))
    (tmp_path / cell.identity / name).write_bytes(damage)
    with pytest.raises(InputError, match=r"cannot be read .*; delete it, and run again"):
        cells.load(cell, PERSON_OF)


def test_digests_tell_arrays_apart():
    arrays = [np.array([1, 2]), np.array([1.0, 2.0]), np.array([[1, 2]]), np.array(["1", "2"]), np.array(["12", ""])]
    assert len({digest_of(array) for array in arrays}) == len(arrays)
    assert digest_of(np.arange(6)[::2]) == digest_of(np.array([0, 2, 4]))
    assert digest_of(np.array(["a", "b"], object)) == digest_of(np.array(["a", "b"]))


def write_predictions(path, rows):
    names = ("subject_id", "prediction_time", "predicted_boolean_probability")
    pl.DataFrame(dict(zip(names, zip(*rows, strict=True), strict=True))).write_parquet(path)
    return parse(f"mortality=ETHOS={path}")


def test_foreign_predictions_are_joined_in_any_order(tmp_path):
    times = TIME.astype(object)
    rows = [(9, times[3], 0.1), (7, times[2], 0.2), (3, times[1], 0.3), (7, times[0], 0.4), (8, times[0], 0.5)]
    external = write_predictions(tmp_path / "p.parquet", rows)
    assert (external.task, external.name) == ("mortality", "ETHOS")
    labels = Labels(SUBJECT, TIME, VALUES[BINARY][0])
    assert read(external, labels).tolist() == [0.4, 0.3, 0.2, 0.1]
    write_predictions(tmp_path / "p.parquet", rows[1:])
    with pytest.raises(InputError, match="lacks < 11 of the test samples of mortality"):
        read(external, labels)
    write_predictions(tmp_path / "p.parquet", [*rows, rows[0]])
    with pytest.raises(InputError, match="predicts < 11 samples more than once"):
        read(external, labels)
    pl.DataFrame({"subject_id": [1]}).write_parquet(tmp_path / "p.parquet")
    with pytest.raises(InputError, match="no column prediction_time"):
        read(external, labels)
    write_predictions(tmp_path / "p.parquet", [(f"patient {subject}", time, p) for subject, time, p in rows])
    with pytest.raises(InputError, match="a column subject_id that is no Int64") as refused:
        read(external, labels)
    assert "patient" not in str(refused.value)
    (tmp_path / "p.parquet").write_text("x")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        read(external, labels)


@pytest.mark.parametrize("given", ["mortality", "mortality=ETHOS", "=a=b", "a==b", "a=b="])
def test_predictions_of_another_form(given):
    with pytest.raises(InputError, match="must have the form TASK=NAME=PATH"):
        parse(given)


def test_no_file_of_predictions(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        parse(f"a=b={tmp_path / 'none.parquet'}")
