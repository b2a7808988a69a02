"""Open the tokenizer and the patient records of a conversion, and report unmapped codes."""

import dataclasses
from pathlib import Path

from medtok_jax.convert.record_codes import RecordCodes
from medtok_jax.convert.request import Request
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.records.choices import BEDSIDE, CODED
from medtok_jax.records.event_codes import CodeMapper
from medtok_jax.records.samples import Labels, Samples, make_samples, read_labels, task_labels
from medtok_jax.records.token_rows import TokenRows
from medtok_jax.records.visits import Visits, read_visits
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.open import open_events

UNMAPPED_FILE = "unmapped_codes.json"


def print_size(visits: Visits, size: float) -> None:
    """Print, before anything is written, about how many bytes the files of all visits will have."""
    print(f"{len(visits):,} visits with {len(visits.code):,} codes; the files will have about {size / 1e6:,.1f} MB.")


@dataclasses.dataclass(frozen=True)
class Records:
    """Hold the inputs of a conversion: the tokens of rows, the events, the mapper of their codes, and the visits."""

    rows: TokenRows
    dataset: MedsDataset
    mapper: CodeMapper
    visits: Visits

    def write_report(self, folder: Path) -> None:
        """Write the unmapped codes with reasons into `folder`, and print a line for each code system and warnings."""
        self.mapper.write(folder / UNMAPPED_FILE)
        print(self.mapper.summary())
        if warning := self.mapper.warning():
            print(warning)
        if self.visits.without_codes:
            print(f"{self.visits.without_codes:,} stays are left out, as they have no medical code.")


def open_records(request: Request) -> Records:
    """Open the tokenizer and the events of a request, and read the visits.

    Raises:
        InputError: one of them is missing or cannot be used.
    """
    if request.events is None:
        raise InputError("--events is missing; give a MEDS data set, or a directory of MIMIC or another source.")
    directory = TokenizerDirectory.read(request.tokenizer)
    dataset = open_events(request.events, meds_directory(request))
    mapper, rows = RecordCodes.of(directory, request.unmapped, dataset)
    return Records(rows, dataset, mapper, read_visits(dataset, mapper))


def samples_of(request: Request, visits: Visits, labels: Labels) -> Samples:
    """Return the samples of labels, by the option `inputs` of a request: `bedside` or `coded`.

    By default labels of a file see what was known at the bedside, and labels of the next visit, as in the paper, what
    was coded after the discharge too.

    Raises:
        InputError: no label has a code before it.
    """
    inputs = request.options.get("inputs", BEDSIDE if request.options.get("labels") else CODED)
    return make_samples(visits, labels, coded=inputs == CODED)


def chosen_labels(request: Request, visits: Visits, task: str) -> Labels:
    """Return the labels that the options of a request name: those of the file `labels`, or of `task`.

    Args:
        request: the request.
        visits: all visits.
        task: the task where the request names none.

    Raises:
        InputError: both are given, or the labels cannot be used.
    """
    given = request.options
    if given.get("labels") and given.get("task"):
        raise InputError("--labels and --task are both given; give one of them.")
    if given.get("labels"):
        return read_labels(Path(given["labels"]).expanduser())
    return task_labels(visits, given.get("task", task))


def told_left_out(samples: Samples) -> str:
    """Return a line on the labels that make no sample; empty if all do."""
    return f"{samples.left_out:,} labels are left out, as no code is seen at their time." if samples.left_out else ""


def meds_directory(request: Request) -> Path:
    """Return the folder of records converted to MEDS: beside the output, where further conversions to it find it."""
    return request.output.parent / f"{request.events.resolve().name}-meds"
