"""Test whether what the samples of a task see gives their labels away: nothing after the prediction time may.

For some patients the records are changed after the prediction time of a sample, and what the sample sees is made again:
it must be equal to the last byte. The future is replaced by that of another patient, deleted, and its outcomes (deaths,
destinations of discharges) are turned into their opposites, those at the prediction time too. A leak is told by the
types of events that differ. Further tests are of splits, of keys, and of codes that say what the label says.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from eval.common.counts import shown
from eval.ehr.history import open_histories
from eval.ehr.inputs import bags, make_inputs, sequences, statics
from eval.ehr.results import BINARY
from eval.ehr.tasks.cohort import persons_of
from eval.ehr.tasks.definition import SOURCES, Task
from eval.ehr.tasks.spelling import Spelling, read_spelling
from eval.ehr.tasks.stays import FLAG, with_discharges
from medtok_jax.records.samples import Labels
from preprocessing.common.atomic import scratch_folder
from preprocessing.common.extras import load
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.layout import BIRTH, DATA, DEATH

pl = load("polars")

# What `statics` returns, in its order.
_STATICS = ("age", "is female", "is male", "number of codes")
# At most this many samples of a patient are tested, each with a future of its own.
_ROUNDS = 3
# A code is told as a proxy if that many samples of both labels are there, and it is right for this share of each.
_FEWEST, _PROXY = 20, 0.95
# Types of events and codes are named up to that many.
_LISTED = 10
InputsOf = Callable[[Sequence["pl.DataFrame"], Labels, str], "pl.DataFrame"]
Change = Callable[["pl.DataFrame", "pl.DataFrame", Spelling], "pl.DataFrame"]


def check_leaks(
    task: Task,
    dataset: MedsDataset,
    labels: Labels,
    kind_of_source: str,
    *,
    inputs_of: InputsOf,
    patients: int = 500,
    seed: int = 0,
) -> list[str]:
    """Return a sentence for each test that finds a leak; none if all pass.

    Args:
        task: the task.
        dataset: the events.
        labels: the labels of the task in the data set.
        kind_of_source: name of the data set, see `definition.SOURCES`.
        inputs_of: returns what samples see, given the events of whole patients, labels, and a rule of
            `eval.ehr.inputs`: a frame with the columns `sample` (the position of its label), `code`, and others, all of
            which are compared; `days` before the prediction time, if there, must not be negative. See `seen_by_models`.
        patients: how many patients are drawn for the tests that change records.
        seed: decides which.
    """
    rng = np.random.default_rng(seed)
    found = [*_split_leaks(dataset), *_key_leaks(task, dataset, labels)]
    if not len(labels) or _foreign(dataset, labels):
        return found
    spelling = read_spelling(SOURCES.get(kind_of_source, kind_of_source))
    frames, drawn = _drawn(dataset, labels, patients, rng, spelling)
    for rule in task.inputs:
        seen = inputs_of(frames, drawn, rule)
        found += [f"{one} (inputs: {rule})" for one in _time_leaks(seen, drawn)]
        if task.kind == BINARY:
            found += [f"{one} (inputs: {rule})" for one in _proxies(seen, drawn)]
        for name, change in CHANGES.items():
            found += [
                f"{one} (inputs: {rule})" for one in _changed(name, change, frames, drawn, rule, inputs_of, spelling)
            ]
    return found


def seen_by_models(
    scratch: Path, spelling: Spelling, *, hide_drugs_of_visit: bool = False, length: int = 256
) -> InputsOf:
    """Return the `inputs_of` of `check_leaks` for what the models of the benchmark see.

    Args:
        scratch: a folder beside which events and histories are written, and removed again.
        spelling: how the data set spells stays.
        hide_drugs_of_visit: as the task states it.
        length: number of codes of a sequence.
    """
    return functools.partial(_seen, scratch, spelling, hide_drugs_of_visit, length)


def _seen(
    scratch: Path,
    spelling: Spelling,
    hide: bool,
    length: int,
    frames: Sequence["pl.DataFrame"],
    labels: Labels,
    rule: str,
) -> "pl.DataFrame":
    with scratch_folder(scratch) as folder:
        (folder / DATA).mkdir()
        for number, frame in enumerate(frames):
            frame.write_parquet(folder / DATA / f"{number}.parquet")
        histories = open_histories(MedsDataset.open(folder), spelling, folder / "histories", progress=False)
        inputs = make_inputs(histories, labels, rule, hide_drugs_of_visit=hide)
        bag = bags(inputs).tocoo()
        sequence = sequences(inputs, length)
        sample, place = np.nonzero(sequence.mask)
        parts = [
            pl.DataFrame(
                {
                    "part": "sequence",
                    "sample": sample,
                    "code": histories.codes[sequence.code[sample, place]].tolist(),
                    "place": place,
                    "days": sequence.days[sample, place],
                    "number": sequence.age[sample, place],
                    "visit": sequence.visit[sample, place],
                },
            ),
            pl.DataFrame(
                {
                    "part": "bag",
                    "sample": bag.row.astype(np.int64),
                    "code": histories.codes[bag.col].tolist(),
                    "number": bag.data.astype(np.float32),
                },
            ),
        ]
        for name, column in zip(_STATICS, statics(inputs).T, strict=True):
            parts.append(pl.DataFrame({"part": name, "sample": np.arange(len(labels)), "number": column}))
    return pl.concat(parts, how="diagonal_relaxed")


def replaced(frame: "pl.DataFrame", times: "pl.DataFrame", spelling: Spelling) -> "pl.DataFrame":
    """Return the events with the future of each patient replaced by all events of another one, put after the time.

    Half of these events are given to the stay of the patient that goes on, as if they were of it.

    Args:
        frame: the events.
        times: `subject_id` and `prediction_time`, a row a patient.
        spelling: how the data set spells stays.
    """
    past = deleted(frame, times, spelling)
    timed = frame.filter(pl.col("time").is_not_null() & (pl.col("code") != BIRTH))
    others = times.with_columns(other=pl.col("subject_id").shift(1).fill_null(pl.col("subject_id").last()))
    stay = past.filter(pl.col("hadm_id").is_not_null()).group_by("subject_id").agg(stay=pl.col("hadm_id").last())
    donors = timed.rename({"subject_id": "other"}).join(others, on="other", how="inner", maintain_order="left")
    donors = donors.join(stay, on="subject_id", how="left", maintain_order="left")
    shift = pl.col("prediction_time") - pl.col("time").min().over("subject_id") + pl.duration(minutes=1)
    is_even = pl.int_range(pl.len()).over("subject_id") % 2 == 0
    donors = donors.with_columns(
        time=pl.col("time") + shift, hadm_id=pl.when(is_even).then(pl.coalesce("stay", "hadm_id")).otherwise("hadm_id")
    )
    return _sorted(pl.concat([past, donors.select(past.columns)]))


def deleted(frame: "pl.DataFrame", times: "pl.DataFrame", spelling: Spelling) -> "pl.DataFrame":
    """Return the events without the future of each patient, also where it is told by a column; see `replaced`."""
    joined = frame.join(times, on="subject_id", how="left", maintain_order="left")
    late = (joined["time"] > joined["prediction_time"]).fill_null(False)
    if (column := spelling.discharge_from) in frame.columns:
        told = (joined[column] <= joined["prediction_time"]).fill_null(True)
        frame = frame.with_columns(pl.when(told).then(pl.col(column)).alias(column))
    return frame.filter(~late)


def flipped(frame: "pl.DataFrame", times: "pl.DataFrame", spelling: Spelling) -> "pl.DataFrame":
    """Return the events with the outcomes of each patient from the time on turned into the opposite; see `replaced`.

    A death is removed, or one is added an hour after the last event; a discharge alive becomes one by death and the
    other way round, and so do flags of it. Discharges at the prediction time are turned too.
    """
    joined = frame.join(times, on="subject_id", how="left", maintain_order="left")
    late = (joined["time"] >= joined["prediction_time"]).fill_null(False)
    code = pl.col("code")
    dead = pl.when(code.str.contains(spelling.patterns["discharge_dead"])).then(pl.lit("HOSPITAL_DISCHARGE//HOME"))
    turned = pl.when(pl.lit(late) & code.str.contains(spelling.patterns["discharge"])).then(
        dead.otherwise(pl.lit("HOSPITAL_DISCHARGE//DIED"))
    )
    changed = frame.with_columns(code=turned.otherwise(code))
    if FLAG in frame.columns:
        changed = changed.with_columns(pl.when(pl.lit(late)).then(1 - pl.col(FLAG)).otherwise(FLAG).alias(FLAG))
    is_death = (frame["code"] == DEATH) & late
    died = frame.filter(frame["code"] == DEATH)["subject_id"].unique()
    last = frame.filter(~frame["subject_id"].is_in(died.implode()) & pl.col("time").is_not_null())
    last = last.group_by("subject_id", maintain_order=True).last()
    deaths = last.join(times.select("subject_id"), on="subject_id", how="semi").with_columns(
        time=pl.col("time") + pl.duration(hours=1), code=pl.lit(DEATH)
    )
    return _sorted(pl.concat([changed.filter(~is_death), deaths.select(frame.columns)]))


# What a test does to the records -> how.
CHANGES: dict[str, Change] = {
    "the future is replaced by that of another patient": replaced,
    "the future is deleted": deleted,
    "the outcomes are turned into their opposite": flipped,
}


def _sorted(frame: "pl.DataFrame") -> "pl.DataFrame":
    return frame.sort("subject_id", "time", nulls_last=False, maintain_order=True)


def _changed(
    name: str,
    change: Change,
    frames: Sequence["pl.DataFrame"],
    labels: Labels,
    rule: str,
    inputs_of: InputsOf,
    spelling: Spelling,
) -> Iterator[str]:
    """Yield a sentence if samples see something else when the records are changed, each patient's samples in turn."""
    differing: list[pl.DataFrame] = []
    samples = 0
    for part in _rounds(labels):
        times = pl.DataFrame({"subject_id": part.subject, "prediction_time": part.time})
        one = inputs_of(frames, part, rule)
        changed = [change(frame, times.join(frame, on="subject_id", how="semi"), spelling) for frame in frames]
        other = inputs_of(changed, part, rule)
        differing += [_without(one, other), _without(other, one)]
        samples += differing[-2].vstack(differing[-1])["sample"].n_unique()
    differences = pl.concat(differing)
    if len(differences):
        told = shown(samples, show_small=False)
        yield f"If {name}, {told} samples see something else; what differs is {_types(differences)}."


def _without(one: "pl.DataFrame", other: "pl.DataFrame") -> "pl.DataFrame":
    """Return the rows of one that the other does not have, as often as it has them."""
    names = one.columns
    one, other = (frame.group_by(names).len("rows") for frame in (one, other.select(names)))
    return one.join(other, on=[*names, "rows"], how="anti", nulls_equal=True)


def _types(rows: "pl.DataFrame") -> str:
    """Return the types of the events of some rows, the most frequent first; what has no code is named by its part."""
    kind = pl.col("code").str.extract(r"^([^/]+)", 1)
    kind = pl.coalesce(kind, "part") if "part" in rows.columns else kind.fill_null("a number")
    counts = (
        rows.select(kind=kind)["kind"]
        .value_counts(sort=True, name="rows")
        .sort("rows", "kind", descending=[True, False])
    )
    return ", ".join(counts["kind"].head(_LISTED))


def _rounds(labels: Labels) -> Iterator[Labels]:
    """Yield labels with one of each patient, for up to `_ROUNDS` of each, in their order."""
    place = pl.DataFrame({"subject": labels.subject}).select(pl.int_range(pl.len()).over("subject")).to_series()
    for number in range(min(_ROUNDS, int(place.max()) + 1) if len(labels) else 0):
        yield _taken(labels, (place == number).to_numpy())


def _taken(labels: Labels, rows: np.ndarray) -> Labels:
    return Labels(labels.subject[rows], labels.time[rows], labels.value[rows])


def _drawn(
    dataset: MedsDataset, labels: Labels, patients: int, rng: np.random.Generator, spelling: Spelling
) -> tuple[list["pl.DataFrame"], Labels]:
    """Return the events of some patients with labels, and their labels."""
    subjects = np.unique(labels.subject)
    chosen = np.sort(rng.choice(subjects, min(patients, len(subjects)), replace=False))
    frames = []
    for frame in dataset.frames():
        kept = frame.filter(pl.col("subject_id").is_in(chosen.tolist()))
        if len(kept):
            frames.append(with_discharges(kept, spelling))
    return frames, _taken(labels, np.isin(labels.subject, chosen))


def _time_leaks(seen: "pl.DataFrame", labels: Labels) -> Iterator[str]:
    """Yield a sentence if a sample sees what is after its prediction time, or if samples are of no label."""
    if "days" in seen.columns:
        late = seen.filter(pl.col("days") < 0)
        if len(late):
            yield f"{late['sample'].n_unique():,} samples see events after their prediction time: {_types(late)}."
    if len(seen) and not seen["sample"].is_between(0, len(labels) - 1).all():
        yield "Some inputs belong to no label; the rows of inputs and labels do not agree."


def _proxies(seen: "pl.DataFrame", labels: Labels) -> Iterator[str]:
    """Yield a sentence for codes that nearly all positive samples see and nearly no others do."""
    positive = int(labels.value.sum())
    if min(positive, len(labels) - positive) < _FEWEST:
        return
    pairs = seen.drop_nulls("code").select("sample", "code").unique()
    pairs = pairs.with_columns(is_positive=pl.Series(labels.value)[pairs["sample"]])
    counts = pairs.group_by("code").agg(true=pl.col("is_positive").sum(), false=(~pl.col("is_positive")).sum())
    share, error = pl.col("true") / positive, pl.col("false") / (len(labels) - positive)
    proxies = counts.filter((share >= _PROXY) & (error <= 1 - _PROXY))
    if len(proxies):
        yield f"Codes say what the label says: {', '.join(sorted(proxies['code'])[:_LISTED])}."


def _split_leaks(dataset: MedsDataset) -> Iterator[str]:
    """Yield a sentence if a person is in several splits of the data set."""
    subjects = dataset.subjects()
    frame = pl.DataFrame({"subject_id": subjects, "split": dataset.split_of(subjects)})
    frame = frame.join(persons_of(dataset), on="subject_id", how="inner")
    several = frame.group_by("person").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)
    if len(several):
        yield f"{shown(len(several), show_small=False)} persons are in several splits; split by person."


def _foreign(dataset: MedsDataset, labels: Labels) -> int:
    return int((~np.isin(labels.subject, dataset.subjects())).sum())


def _key_leaks(task: Task, dataset: MedsDataset, labels: Labels) -> Iterator[str]:
    """Yield a sentence if labels repeat a key, or are of patients whom the data set does not hold."""
    keys = pl.DataFrame({"subject": labels.subject, "time": labels.time})
    if again := len(keys) - keys.n_unique():
        yield f"{again:,} labels of {task.name} have the patient and time of another one."
    if lost := _foreign(dataset, labels):
        yield f"{lost:,} labels of {task.name} are of patients without events."
