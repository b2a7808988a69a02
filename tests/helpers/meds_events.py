"""Read the events of a MEDS data set for comparison."""

from pathlib import Path

import polars as pl

from preprocessing.meds.dataset import MedsDataset


def events_of(root: Path) -> pl.DataFrame:
    """Return all events, sorted by patient; those of a patient as they stand."""
    return pl.concat(MedsDataset.open(root).frames()).sort("subject_id", maintain_order=True)


def story(frame: pl.DataFrame, subject: int) -> list[tuple[str, str]]:
    """Return time (empty where there is none) and code of all events of a patient."""
    rows = frame.filter(pl.col("subject_id") == subject).select("time", "code")
    return [(str(time) if time else "", code) for time, code in rows.iter_rows()]
