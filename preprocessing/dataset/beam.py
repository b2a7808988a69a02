"""Build a data set with Apache Beam, on this machine or on a cluster."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from preprocessing.common import extras
from preprocessing.common.errors import InputError
from preprocessing.dataset.examples import examples


@dataclasses.dataclass(frozen=True)
class BeamPipeline:
    """Hold the options of a Beam pipeline.

    Attributes:
        options: options in the form of Beam's command lines, such as `--runner=FlinkRunner`; none means the direct
            runner. Options that Beam does not know are passed on, because some runners define their own.

    Raises:
        InputError: Apache Beam is not installed, or an option does not begin with `--`.
    """

    options: tuple[str, ...] = ()

    def __post_init__(self):
        for option in self.options:
            if not option.startswith("--"):
                raise InputError(
                    f"a Beam option is written like --runner=FlinkRunner, not {option!r}; "
                    f"give all of them as --beam_pipeline_options='--runner=FlinkRunner --flink_master=host:8081'."
                )
        if not extras.installed("apache_beam"):
            raise extras.missing("apache_beam")

    def configure(self, config: tfds.download.DownloadConfig) -> tfds.download.DownloadConfig:
        """Return a copy of `config` with these options."""
        from apache_beam.options.pipeline_options import PipelineOptions

        return config.replace(beam_options=PipelineOptions(list(self.options)))


def beam_examples(plan_dir: Path, split: str, ranges: int):
    """Return a `beam.PTransform` that makes the `(key, example)` pairs of a split, `examples.RANGE` codes at a time.

    Workers receive only the numbers of ranges: each maps the plan into its memory and holds the codes of one range.
    """
    import apache_beam as beam

    return (
        "Ranges" >> beam.Create(range(ranges), reshuffle=False)
        | "Scatter" >> beam.Reshuffle()
        | "MakeExamples" >> beam.FlatMap(functools.partial(_range, str(plan_dir), split))
    )


def _range(plan_dir: str, split: str, position: int) -> Iterator[tuple[str, dict]]:
    return examples(Path(plan_dir), split, position)
