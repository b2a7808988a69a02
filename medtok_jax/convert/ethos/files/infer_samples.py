"""Let `ethos_infer` continue the timelines of given samples, in place of those that ETHOS chooses for a task.

    python ethos_stage/infer_samples.py +dataset_kwargs.labels=LABELS task=hospital_mortality model_fp=MODEL \\
        input_dir=ethos_medtok/test output_dir=results rep_num=20

LABELS is a file of labels in the form of MEDS, or a folder of such files; all other arguments are those of
`ethos_infer`. A timeline ends with the last token at or before the prediction time of its label; tokens that stop a
continuation, and its time limit, are those of the task. Results name `patient_id` and `prediction_time` as the label
does. The module needs only ETHOS.
"""

from pathlib import Path

import ethos.inference.inference as worker
import polars as pl
import torch as th
from ethos.datasets.base import InferenceDataset
from ethos.inference import run_inference
from ethos.inference.utils import get_dataset_cls
from loguru import logger


def read_labels(path: str | Path) -> pl.DataFrame:
    """Return `subject_id`, `prediction_time` (microseconds) and `value` (as text) of the labels in a file or folder."""
    path = Path(path)
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    frame = pl.concat([pl.read_parquet(file) for file in files], how="diagonal")
    values = [pl.col(name).cast(pl.String) for name in frame.columns if name.endswith("_value")]
    return frame.select(
        pl.col("subject_id").cast(pl.Int64),
        pl.col("prediction_time").cast(pl.Datetime("us")).cast(pl.Int64),
        value=pl.coalesce(values),
    ).sort("subject_id", "prediction_time")


def at_samples(dataset: type[InferenceDataset]) -> type[InferenceDataset]:
    """Return a class like the data set of a task, whose timelines end at the prediction times of labels."""

    class AtSamples(dataset):
        def __init__(self, input_dir: str | Path, labels: str | Path, **kwargs):
            super().__init__(input_dir=input_dir, **kwargs)
            given = read_labels(labels)
            offsets = self.patient_offsets.tolist()
            parts = zip(offsets, [*offsets[1:], len(self.tokens)], strict=True)
            spans = dict(zip(self.patient_ids.tolist(), parts, strict=True))
            here = given.filter(pl.col("subject_id").is_in(list(spans)))
            self.samples = []
            for subject, time, value in here.iter_rows():
                first, end = spans[subject]
                seen = int(th.searchsorted(self.times[first:end], th.tensor(time), right=True))
                if seen:
                    self.samples.append((first + seen - 1, subject, time, value))
            logger.info(
                f"Of {len(given):,} labels, {len(here):,} are of patients in {input_dir}; {len(self.samples):,} of them"
                f" have a token at or before the prediction time and are predicted."
            )

        def __len__(self) -> int:
            return len(self.samples)

        def __getitem__(self, idx: int) -> tuple[th.Tensor, dict]:
            start, subject, time, value = self.samples[idx]
            about = {
                "expected": value,
                **dict.fromkeys(("true_token_dist", "true_token_time")),  # Not known.
                "patient_id": subject,
                "prediction_time": time,
                "data_idx": start,
            }
            return InferenceDataset.__getitem__(self, th.tensor(start)), about

    return AtSamples


def dataset_at_samples(task: str) -> type[InferenceDataset]:
    """Return the class of a task, as ETHOS's own function of the same use does."""
    return at_samples(get_dataset_cls(task))


# ETHOS starts its workers with this module as their main one, so they look the class up here too.
run_inference.get_dataset_cls = worker.get_dataset_cls = dataset_at_samples

if __name__ == "__main__":
    run_inference.main()
