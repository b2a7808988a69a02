"""The documented lines turn what ETHOS and GT-BEHRT write into predictions that join the report."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from eval.ehr import external
from medtok_jax.records.samples import Labels
from tests.helpers import guide_examples

ADMITTED = datetime(2150, 1, 1, 8)
# The columns of `write_results_to_parquet` in ethos/inference/utils.py, for the stop tokens of hospital_mortality.
RESULTS = {
    "expected": pl.String,
    "actual": pl.String,
    "stop_reason": pl.String,
    "actual_prob": pl.Float64,
    "HOSPITAL_DISCHARGE": pl.Float64,
    "MEDS_DEATH": pl.Float64,
    "TIMELINE_END": pl.Float64,
    "true_token_time": pl.Duration("us"),
    "token_time": pl.Duration("us"),
    "true_token_dist": pl.Null,
    "token_dist": pl.Int64,
    "patient_id": pl.Int64,
    "prediction_time": pl.Datetime("us"),
    "data_idx": pl.Int64,
}
# Continuations of each test sample; the last patient is one of whom no continuation is valid.
DRAWN = {
    11: ["MEDS_DEATH", "MEDS_DEATH", "HOSPITAL_DISCHARGE", "TIMELINE_END"],
    12: ["HOSPITAL_DISCHARGE", "late MEDS_DEATH", "7001", "MEDS_DEATH"],
    13: ["7002", "7001"],
    14: ["HOSPITAL_DISCHARGE"],
}


def _time(subject: int) -> datetime:
    return ADMITTED + timedelta(days=subject)


def _result(subject: int, actual: str) -> dict:
    reason = "key_error" if actual.isdigit() else "time_limit" if actual.startswith("late") else "token_of_interest"
    row = {"patient_id": subject, "prediction_time": _time(subject), "actual": actual.split()[-1]}
    return dict.fromkeys(RESULTS) | row | {"stop_reason": reason, "expected": "true"}


def _write(folder) -> None:
    subjects = [1, 2, 3, 4, *DRAWN]
    labels = {"subject_id": subjects, "prediction_time": [_time(s) for s in subjects]}
    for name in ("benchmark/labels/mortality", "mimic3_meds/metadata", "ethos_medtok/results_RUN", "gt_behrt"):
        (folder / name).mkdir(parents=True)
    frame = pl.DataFrame(labels | {"boolean_value": [True, False, False, False, True, True, False, False]})
    frame.write_parquet(folder / "benchmark" / "labels" / "mortality" / "labels.parquet")
    splits = pl.DataFrame({"subject_id": subjects, "split": ["train"] * 4 + ["held_out"] * 4})
    splits.write_parquet(folder / "mimic3_meds" / "metadata" / "subject_splits.parquet")
    rows = [_result(subject, actual) for subject, drawn in DRAWN.items() for actual in drawn]
    for start, stop in ((0, 5), (5, len(rows))):
        part = pl.DataFrame(rows[start:stop], schema=RESULTS)
        part.write_parquet(folder / "ethos_medtok" / "results_RUN" / f"samples_[{start}-{stop}).parquet")
    predicted = {"subject_id": [14, 11, 12, 1], "prediction_time": [_time(s) for s in (14, 11, 12, 1)]}
    predicted |= {"predicted_boolean_probability": [0.4, 0.1, 0.2, 0.9]}
    pl.DataFrame(predicted).write_parquet(folder / "gt_behrt" / "predictions.parquet")


def test_the_documented_lines_make_files_that_join(tmp_path, monkeypatch, capsys):
    _write(tmp_path)
    monkeypatch.chdir(tmp_path)
    (lines,) = guide_examples.examples("Models in their own repositories", "python", guide_examples.BENCHMARKS)
    exec(compile(lines, "the example", "exec"), {})
    assert capsys.readouterr().out.splitlines() == [
        "ethos: 3 of 4 test samples are predicted, 1 get 0.250;",
        "0 predictions are of no test sample.",
        "gt_behrt: 3 of 4 test samples are predicted, 1 get 0.250;",
        "1 predictions are of no test sample.",
    ]
    tested = Labels(np.array([*DRAWN]), np.array([_time(s) for s in DRAWN], "M8[us]"), np.array([1, 1, 0, 0], bool))
    found = {
        name: external.read(external.parse(f"mortality={name}={name}.parquet"), tested).tolist()
        for name in ("ethos", "gt_behrt")
    }
    assert found == {"ethos": [0.5, 1 / 3, 0.25, 0.0], "gt_behrt": [0.1, 0.2, 0.25, 0.4]}
