"""Give models the history of each sample: what is known of a patient at a prediction time. No JAX here.

Each sample sees the beginning of its patient's events, up to its prediction time, under one of three rules:

    coded     what happened at or before the prediction time
    bedside   the same without diagnoses and procedures that stand at the discharge of their stay or after it, which are
              not seen for a day, as they are coded after it
    before    what happened before the prediction time
"""

import dataclasses
import weakref

import numpy as np

from eval.ehr.history import Histories
from medtok_jax.records.choices import BEDSIDE, CODED
from medtok_jax.records.samples import Labels
from medtok_jax.records.visits import DAYS_A_YEAR, age_days
from preprocessing.common.extras import load

sparse = load("scipy.sparse")

INPUT_RULES = CODED, BEDSIDE, BEFORE = (CODED, BEDSIDE, "before")
# Number of events that are read at once.
_CHUNK = 1 << 22
_DAY = np.timedelta64(1, "D")
# Samples -> days of a window -> counts of codes.
_BAGS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """Hold samples as slices of the events of their patients; the same samples are the same object.

    Attributes:
        histories: all events.
        row: `[n]` int64, the row of each sample's subject in `histories`.
        start, stop: `[n]` int64, the sample sees the events `start` to `stop`.
        time: `[n]` datetime64[us], the prediction times.
        seen: `[codes]` bool, the codes that these samples may see.
        hidden: `[n]` datetime64[us], time from which on the sample does not see drugs; NaT for none.
        at_bedside: whether they do not see what stands at a discharge or after it for `histories.coding`.
        codes_alone: whether models are told codes and nothing else: neither age and sex nor the number of codes.
        is_translated: whether they see each code as its translation, see `Histories.translation`.
    """

    histories: Histories
    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    time: np.ndarray
    seen: np.ndarray
    hidden: np.ndarray
    at_bedside: bool = False
    codes_alone: bool = False
    is_translated: bool = False

    def __len__(self) -> int:
        return len(self.row)

    def take(self, samples: np.ndarray) -> "Inputs":
        """Return some of the samples: `samples` are indices or a mask."""
        names = ("row", "start", "stop", "time", "hidden")
        return dataclasses.replace(self, **{name: getattr(self, name)[samples] for name in names})

    def masked(self, seen: np.ndarray) -> "Inputs":
        """Return the samples without the codes that are False in `seen`, `[codes]` bool."""
        return dataclasses.replace(self, seen=self.seen & seen)

    def code_of(self, event: np.ndarray) -> np.ndarray:
        """Return the code of each event as the samples see it, int32."""
        code = self.histories.code[event]
        return self.histories.translation[code] if self.is_translated else code

    @property
    def person(self) -> np.ndarray:
        """Return the person of each sample, `[n]` int64."""
        return self.histories.person[self.row]

    @property
    def subject(self) -> np.ndarray:
        """Return the subject of each sample, `[n]` int64."""
        return self.histories.subject[self.row]


def make_inputs(histories: Histories, labels: Labels, rule: str, *, hide_drugs_of_visit: bool = False) -> Inputs:
    """Return what each label's sample sees, in the order of the labels.

    Args:
        histories: all events.
        labels: patients and prediction times.
        rule: one of `INPUT_RULES`.
        hide_drugs_of_visit: whether to hide drugs from the beginning of the visit of the last event on, whether they
            are of that visit or of none.

    Raises:
        InputError: a label's patient has no events.
    """
    row = histories.rows_of(labels.subject)
    start, end = histories.offsets[row], histories.offsets[row + 1]
    stop = np.empty(len(row), np.int64)
    time = histories.time
    for sample, (first, last, moment) in enumerate(zip(start, end, labels.time, strict=True)):
        events = time[first:last]
        stop[sample] = first + np.searchsorted(events, moment, side="left" if rule == BEFORE else "right")
    hidden = np.full(len(row), np.datetime64("NaT"), "datetime64[us]")
    for sample in np.flatnonzero(stop > start) if hide_drugs_of_visit else ():
        part = slice(start[sample], stop[sample])
        of_last = histories.visit[part] == histories.visit[stop[sample] - 1]
        hidden[sample] = time[part][of_last].min()
    seen = np.ones(len(histories.codes), bool)
    return Inputs(histories, row, start, stop, labels.time, seen, hidden, at_bedside=rule != CODED)


def bags(inputs: Inputs, days: float | None = None) -> "sparse.csr_matrix":
    """Return how often each sample sees each code, `[n, codes]` float32, which must not be changed.

    Every tokenizer and model reads the same counts, so they are kept for as long as the samples are.

    Args:
        inputs: the samples.
        days: only of the last days before the prediction time; None for all.
    """
    kept = _BAGS.setdefault(inputs, {})
    if days not in kept:
        kept[days] = _count(inputs, days)
    return kept[days]


def _count(inputs: Inputs, days: float | None) -> "sparse.csr_matrix":
    parts = []
    width = len(inputs.histories.codes)
    for samples in _chunks(inputs):
        sample, event = _events(inputs, samples)
        if days is not None:
            kept = inputs.histories.time[event] >= (inputs.time[sample] - np.timedelta64(round(days * 86400e6), "us"))
            sample, event = sample[kept], event[kept]
        code = inputs.code_of(event)
        one = np.ones(len(code), np.float32)
        shape = (samples.stop - samples.start, width)
        part = sparse.coo_matrix((one, (sample - samples.start, code)), shape=shape).tocsr()
        parts.append(part)
    return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix((0, width), dtype=np.float32)


def statics(inputs: Inputs) -> np.ndarray:
    """Return what every model is told beside codes, `[n, 4]` float32.

    The columns are the age in centuries (0 where unknown), whether the patient is female, whether male, and the
    logarithm of one plus the number of distinct codes that are seen. All are 0 for samples with `codes_alone`.
    """
    if inputs.codes_alone:
        return np.zeros((len(inputs), 4), np.float32)
    age = np.nan_to_num(_age_years(inputs, inputs.row, inputs.time)) / 100
    sex = inputs.histories.sex[inputs.row]
    number = np.diff(bags(inputs).indptr)
    return np.stack([age, sex == "F", sex == "M", np.log1p(number)], axis=1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Hold the latest events of samples, each distinct code once a visit, in the order of its first event.

    Attributes:
        code: `[n, length]` int32, indices into `Histories.codes`; 0 where `mask` is False.
        mask: `[n, length]` bool, True for events; these stand at the beginning of each row.
        age: `[n, length]` float32, years at the event, 0 where unknown or not told.
        days: `[n, length]` float32, days from the event to the prediction time.
        visit: `[n, length]` int32, number of the visit among those of the row, from 0.
    """

    code: np.ndarray
    mask: np.ndarray
    age: np.ndarray
    days: np.ndarray
    visit: np.ndarray


def sequences(inputs: Inputs, length: int = 256) -> Sequences:
    """Return the latest `length` codes of each sample.

    Args:
        inputs: the samples.
        length: number of codes of a row.
    """
    shape = (len(inputs), length)
    made = Sequences(
        code=np.zeros(shape, np.int32),
        mask=np.zeros(shape, bool),
        age=np.zeros(shape, np.float32),
        days=np.zeros(shape, np.float32),
        visit=np.zeros(shape, np.int32),
    )
    for samples in _chunks(inputs):
        sample, event = _first_of_visits(inputs, *_events(inputs, samples))
        from_end = np.searchsorted(sample, sample, side="right") - np.arange(len(sample)) - 1
        latest = from_end < length
        sample, event = sample[latest], event[latest]
        place = np.arange(len(sample)) - np.searchsorted(sample, sample, side="left")
        made.code[sample, place] = inputs.code_of(event)
        made.mask[sample, place] = True
        time = inputs.histories.time[event]
        if not inputs.codes_alone:
            made.age[sample, place] = np.nan_to_num(_age_years(inputs, inputs.row[sample], time))
        made.days[sample, place] = (inputs.time[sample] - time) / _DAY
        visit = inputs.histories.visit[event]
        # Visits that overlap take turns; each keeps the number that it gets when it first appears in the row.
        pairs, inverse = np.unique(sample * (1 << 32) + visit, return_inverse=True)
        first = np.full(len(pairs), len(sample))
        np.minimum.at(first, inverse, np.arange(len(sample)))
        rank = np.empty(len(pairs), np.int64)
        rank[np.argsort(first)] = np.arange(len(pairs))
        number = rank[inverse]
        made.visit[sample, place] = number - number[np.searchsorted(sample, sample, side="left")]
    return made


def _first_of_visits(inputs: Inputs, sample: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of the events of one sample, visit and code, in their order."""
    histories = inputs.histories
    visits = int(histories.visit[event].max(initial=0)) + 1
    pair = sample * visits + histories.visit[event]
    code = inputs.code_of(event)
    order = np.lexsort((event, code, pair))
    pair, code = pair[order], code[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (pair[1:] != pair[:-1]) | (code[1:] != code[:-1])
    kept = np.sort(order[is_first])
    return sample[kept], event[kept]


def _events(inputs: Inputs, samples: slice) -> tuple[np.ndarray, np.ndarray]:
    """Return sample and event of everything that some samples see, sample after sample."""
    start, stop = inputs.start[samples], inputs.stop[samples]
    place = np.repeat(np.arange(len(start)), stop - start)
    begun = np.cumsum(stop - start) - (stop - start)
    event = np.arange(len(place)) - np.repeat(begun - start, stop - start)
    sample = place + samples.start
    histories = inputs.histories
    code = inputs.code_of(event)
    kept = inputs.seen[code]
    if inputs.at_bedside:
        uncoded_from = inputs.time[sample] - histories.coding
        kept &= ~(histories.coded[event] & (histories.time[event] >= uncoded_from))
    if not np.isnat(inputs.hidden[samples]).all():
        # Nothing is after a time that is none.
        kept &= ~(histories.is_drug[code] & (histories.time[event] >= inputs.hidden[sample]))
    return sample[kept], event[kept]


def _chunks(inputs: Inputs) -> list[slice]:
    """Return consecutive samples that see at most `_CHUNK` events together, or are one."""
    total = np.cumsum(inputs.stop - inputs.start)
    found, first = [], 0
    while first < len(inputs):
        before = total[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(total, before + _CHUNK, side="right")))
        found.append(slice(first, last))
        first = last
    return found


def _age_years(inputs: Inputs, row: np.ndarray, time: np.ndarray) -> np.ndarray:
    return age_days(inputs.histories.birth[row], time) / DAYS_A_YEAR
