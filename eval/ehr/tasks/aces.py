"""Run the windows of a task by ACES (es-aces, https://eventstreamaces.readthedocs.io), file by file of a data set.

ACES finds the stays that fit the windows of a task file, their prediction times, and their labels if they are true or
false. Only the events that a predicate names are given to it, so that memory holds few of a file's events.
"""

import copy
import logging
from pathlib import Path

from preprocessing.common.extras import load

pl = load("polars")


def read_configuration(task: Path, predicates: Path):
    """Return the `aces.config.TaskExtractorConfig` of a task file with the predicates of a data set.

    Raises:
        InputError: the package es-aces is not installed.
    """
    config = load("aces.config")
    # It tells each step, with numbers of patients, and warns where all labels are the same.
    logging.getLogger("aces").setLevel(logging.ERROR)
    return config.TaskExtractorConfig.load(task, predicates)


def extract(events: "pl.DataFrame", configuration) -> "pl.DataFrame":
    """Return what fits the windows of a task, among the events of whole patients.

    Args:
        events: columns `subject_id`, `time`, `code`, `numeric_value` and `text_value`.
        configuration: the result of `read_configuration`.

    Returns:
        Columns `subject_id`, `trigger` (the time of the event that the task counts from), `prediction_time`, null if
        the task file names none, and `value`, bool, null if it has no label. Sorted by patient and time.
    """
    # ACES adds the offsets of windows to its configuration at each query (0.7.3), so that a second one would be wrong.
    configuration = copy.deepcopy(configuration)
    predicates = _predicates(events, configuration)
    found = load("aces.query").query(configuration, predicates) if len(predicates) else pl.DataFrame()
    schema = {
        "subject_id": pl.Int64,
        "trigger": pl.Datetime("us"),
        "prediction_time": pl.Datetime("us"),
        "value": pl.Boolean,
    }
    if not len(found):
        return pl.DataFrame(schema=schema)
    found = found.rename({"index_timestamp": "prediction_time", "label": "value"}, strict=False)
    absent = [pl.lit(None).alias(name) for name in schema if name not in found.columns]
    return found.with_columns(absent).select(pl.col(n).cast(kind) for n, kind in schema.items()).sort(*list(schema)[:2])


def _predicates(events: "pl.DataFrame", configuration) -> "pl.DataFrame":
    """Return how often each predicate is met at each time of each patient, as `aces.predicates` does for files."""
    plain = {name: one.MEDS_eval_expr() for name, one in configuration.plain_predicates.items()}
    met = events.with_columns(one.fill_null(False).alias(f"is {name}") for name, one in plain.items())
    met = met.filter(pl.any_horizontal(f"is {name}" for name in plain) & pl.col("time").is_not_null())
    counts = met.group_by("subject_id", timestamp="time").agg(
        pl.col(f"is {name}").sum().cast(pl.Int64).alias(name) for name in plain
    )
    counts = counts.sort("subject_id", "timestamp")
    for name, one in configuration.derived_predicates.items():
        counts = counts.with_columns(one.eval_expr().cast(pl.Int64).alias(name))
    return counts
