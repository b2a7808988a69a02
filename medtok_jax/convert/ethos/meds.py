"""Convert patient records in MEDS to a tokenized ETHOS data set, with MedTok tokens for medical codes.

The first pass (`spell`) spells the events, and collects vocabulary and quantiles from the training patients; the second
(`write`) writes the timelines, whose lengths are known before (`timeline_lengths`). Only one file of records is in
memory at a time.
"""

import collections
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models.spelling import TokenLists
from medtok_jax.convert.ethos import directory
from medtok_jax.convert.ethos import vocabulary as ethos_vocabulary
from medtok_jax.convert.ethos.directory import ShardWriter, Timelines
from medtok_jax.convert.ethos.files import code_tokens, events
from medtok_jax.convert.ethos.intervals import IntervalEstimates, interval_counts, with_intervals
from medtok_jax.records.event_codes import CodeMapper
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.progress import Bar
from preprocessing.meds.dataset import MedsDataset

pl = load("polars")

# Directory -> its splits of MEDS, in this order: ETHOS validates on the end of the training data.
ETHOS_SPLITS = {"train": ("train", "tuning"), "test": ("held_out",)}
# Number of values of a measurement, drawn evenly from all, that its quantiles are estimated from.
SAMPLED_VALUES = 20_000
_COLUMNS = ("subject_id", "time", "code", "numeric_value", "hadm_id", "icustay_id")
_FURTHER = ("icustay_id", "stay_id", "insurance", "race", "marital_status")


@dataclasses.dataclass
class LeftOut:
    """Count the subjects and events that are not part of any timeline."""

    subjects_without_birth: int = 0
    events_before_1970: int = 0
    measurements_not_among_the_most_frequent: int = 0
    test_events_not_in_the_vocabulary: int = 0


@dataclasses.dataclass(frozen=True)
class Written:
    """Describe written data: the vocabulary by id, number of tokens by directory and split, and omitted events."""

    vocabulary: list[str]
    tokens: dict[str, dict[str, int]]
    left_out: LeftOut


class MeasuredValues:
    """Draw an even sample of the values of each measurement; it does not depend on the files that hold them."""

    def __init__(self, limit: int = SAMPLED_VALUES):
        self._limit = limit
        self._values: dict[str, np.ndarray] = {}
        self._draws: dict[str, np.ndarray] = {}
        self.counts: collections.Counter[str] = collections.Counter()

    def add(self, codes: "pl.Series", values: np.ndarray) -> None:
        """Add measurements: codes, and `[events]` float values."""
        frame = pl.DataFrame({"code": codes, "value": values})
        for (code,), rows in frame.group_by("code", maintain_order=True):
            seen = self.counts[code]
            new = rows["value"].to_numpy()
            # The draw of a value depends on its position only, not on how the values are cut into files.
            draws = np.random.Generator(np.random.PCG64(0).advance(seen)).random(len(new))
            kept = np.concatenate([self._values.get(code, np.empty(0)), new])
            drawn = np.concatenate([self._draws.get(code, np.empty(0)), draws])
            if len(kept) > self._limit:
                lowest = np.argpartition(drawn, self._limit)[: self._limit]
                kept = kept[lowest]
                drawn = drawn[lowest]
            self._values[code] = kept
            self._draws[code] = drawn
            self.counts[code] += len(new)

    def breaks(self) -> dict[str, np.ndarray]:
        """Return the distinct breaks between the quantiles of the most frequent measurements."""
        most = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[: events.MAX_MEASUREMENTS]
        levels = np.linspace(0, 1, events.NUM_QUANTILES + 1)[1:-1]
        return {code: np.unique(np.quantile(self._values[code], levels, method="nearest")) for code, _ in most}


class Speller:
    """Spell the records of one file in the vocabulary of ETHOS.

    Args:
        mapper: maps codes to rows of the tokenizer's table.
        tokens: of each row of the table.
    """

    def __init__(self, mapper: CodeMapper, tokens: TokenLists):
        self._mapper = mapper
        self._ids, self._offsets = tokens

    def __call__(self, frame: "pl.DataFrame") -> tuple["pl.DataFrame", dict[int, dict]]:
        """Return the sorted events (columns of `_COLUMNS`, and `measured`), and the static data of patients."""
        if "icustay_id" not in frame.columns and "stay_id" in frame.columns:
            frame = frame.rename({"stay_id": "icustay_id"})
        found = self._look_up(frame["code"])
        frame = events.with_demographics(frame)
        static = events.static_data(frame)
        frame = frame.filter(~events.is_static(frame) & pl.col("time").is_not_null())
        medical = pl.col("code").is_in(found.filter("medical")["code"].to_list())
        frame = events.with_words(frame)
        frame = frame.with_columns(measured=events.is_measurement(frame, medical))
        frame = code_tokens.replace_codes(frame, found, self._mapper.unmapped)
        is_token = pl.col("code").str.starts_with(code_tokens.MEDTOK)
        frame = frame.with_columns(
            pl.when(is_token).then("code").otherwise(events.spelled(pl.col("code"))).alias("code"),
            *(pl.lit(None, pl.Int64).alias(name) for name in ("hadm_id", "icustay_id") if name not in frame.columns),
        )
        return frame.select(*_COLUMNS, "measured"), static

    def _look_up(self, codes: "pl.Series") -> "pl.DataFrame":
        rows = self._mapper.rows(codes)
        table = pl.DataFrame({"code": codes, "row": rows, "medical": self._mapper.is_medical(codes)})
        table = table.unique("code", maintain_order=True)
        tokens = [
            [ethos_vocabulary.medtok_token(n) for n in self._ids[self._offsets[row] : self._offsets[row + 1]]]
            if row >= 0
            else None
            for row in table["row"]
        ]
        return table.select("code", "medical", tokens=pl.Series(tokens, dtype=pl.List(pl.String)))


class Spelled:
    """Store the spelled events of all files on disk, and collect static data, counts and values of measurements."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir()
        self._paths: dict[str, list[Path]] = collections.defaultdict(list)
        self.static: dict[int, dict] = {}
        self._static_codes: set[str] = set()
        self.counts: collections.Counter[str] = collections.Counter()
        self.values = MeasuredValues()
        self.left_out = LeftOut()

    def remove(self) -> None:
        """Remove the stored events."""
        shutil.rmtree(self._folder)

    def add(self, frame: "pl.DataFrame", static: dict[int, dict], split: str) -> None:
        """Add the events of one file and split, and the static data of its patients."""
        self.static |= static
        path = self._folder / f"{split}-{len(self._paths[split])}.parquet"
        frame.write_parquet(path)
        self._paths[split].append(path)
        if split in ETHOS_SPLITS["train"]:
            self._static_codes |= {
                code for fields in static.values() for field in fields.values() for code in field["code"]
            }
            measured = frame.filter("measured")
            self.values.add(measured["code"], measured["numeric_value"].to_numpy())
            counts = frame.filter(~pl.col("measured"))["code"].value_counts(name="events")
            self.counts.update(dict(counts.iter_rows()))

    def frames(self, split: str, columns: list[str] | None = None) -> Iterator["pl.DataFrame"]:
        """Yield the events that were added for a split, in the same order, with some columns or all."""
        for path in self._paths[split]:
            yield pl.read_parquet(path, columns=columns)

    def vocabulary(self, codebook_size: int) -> list[str]:
        """Return the tokens by id: static data, events by frequency, measurements, and then the required ones."""
        by_frequency = sorted(self.counts, key=lambda code: (-self.counts[code], code))
        tokens = [*sorted(self._static_codes - {events.BIRTH}), *by_frequency, *self.values.breaks()]
        return ethos_vocabulary.complete(tokens, codebook_size)


def timeline_lengths(spelled: Spelled, codebook_size: int) -> dict[str, np.ndarray]:
    """Return the tokens of each timeline that `write` would write, `[patients]` int64, by directory."""
    known = spelled.vocabulary(codebook_size)
    breaks = list(spelled.values.breaks())
    lengths = {}
    for name, splits in ETHOS_SPLITS.items():
        parts = []
        for split in splits:
            for frame in spelled.frames(split, ["subject_id", "time", "code", "measured"]):
                code = pl.col("code")
                frame = frame.filter(pl.when("measured").then(code.is_in(breaks)).otherwise(code.is_in(known)))
                if not len(frame):
                    continue
                subjects = frame["subject_id"].to_numpy()
                starts = np.diff(subjects, prepend=subjects[0] - 1) != 0
                _, intervals = interval_counts(frame["time"].cast(pl.Int64).to_numpy(), starts)
                # A measurement is followed by its quantile, a timeline by its end.
                words = 1 + frame["measured"].to_numpy().astype(np.int64) + intervals
                parts.append(np.add.reduceat(words, np.flatnonzero(starts)) + 1)
        if parts:
            lengths[name] = np.concatenate(parts)
    return lengths


def write(spelled: Spelled, codebook_size: int, folder: Path) -> Written:
    """Write `folder/train` and, if there are test patients, `folder/test`, and remove the spelled events."""
    vocabulary = spelled.vocabulary(codebook_size)
    breaks = spelled.values.breaks()
    encoder = _Encoder(vocabulary, breaks, spelled.left_out)
    tokens = {}
    for name, splits in ETHOS_SPLITS.items():
        counts = _write_timelines(folder / name, splits, spelled, encoder)
        if counts:
            tokens[name] = counts
    # Estimates and breaks come from the training patients only.
    for name in tokens:
        ethos_vocabulary.write(folder / name, vocabulary)
        directory.write_json(folder / name / directory.INTERVALS, encoder.estimates.statistics())
        named = {f"Q//{code}": values.tolist() for code, values in breaks.items()}
        directory.write_json(folder / name / directory.QUANTILES, named)
    spelled.remove()
    return Written(vocabulary, tokens, spelled.left_out)


def spell(dataset: MedsDataset, speller: Speller, folder: Path, *, progress: bool = True) -> Spelled:
    """Spell all events and store them in `folder`, which is created.

    Raises:
        InputError: there is no training patient with a birth and an event.
    """
    spelled = Spelled(folder)
    left_out = spelled.left_out
    columns = [name for name in _FURTHER if name in dataset.further]
    needed = ("numeric_value", "text_value", "hadm_id", *columns)
    for frame in Bar(
        dataset.frames(columns=needed), "Spelling events", len(dataset.shards), unit="file", show=progress
    ):
        subjects = frame["subject_id"].unique(maintain_order=True).to_numpy()
        words, static = speller(frame)
        born = np.isin(subjects, list(static))
        left_out.subjects_without_birth += int((~born).sum())
        words = words.filter(pl.col("subject_id").is_in(subjects[born].tolist()))
        before = words["time"].cast(pl.Int64) < 0
        left_out.events_before_1970 += int(before.sum())
        words = words.filter(~before)
        split = dataset.split_of(subjects)
        for name in np.unique(split[born]):
            members = subjects[born & (split == name)].tolist()
            rows = words.filter(pl.col("subject_id").is_in(members))
            spelled.add(rows, {subject: static[subject] for subject in members}, str(name))
    if not spelled.counts:
        raise InputError(f"{dataset.root} has no patient with a birth and an event to train on.")
    return spelled


class _Encoder:
    """Encode events as timelines of ids, and collect the durations of intervals in the training data."""

    def __init__(self, vocabulary: list[str], breaks: dict[str, np.ndarray], left_out: LeftOut):
        self.ids = {token: number for number, token in enumerate(vocabulary)}
        self.breaks = breaks
        self.left_out = left_out
        self.estimates = IntervalEstimates()

    def __call__(self, frame: "pl.DataFrame", *, train: bool) -> Timelines | None:
        frame = self._with_quantiles(frame)
        frame = frame.with_columns(token=pl.col("code").replace_strict(self.ids, default=None, return_dtype=pl.Int64))
        self.left_out.test_events_not_in_the_vocabulary += frame["token"].null_count()
        frame = frame.drop_nulls("token")
        if not len(frame):
            return None
        subjects = frame["subject_id"].to_numpy()
        starts = np.flatnonzero(np.diff(subjects, prepend=subjects[0] - 1))
        numbers = frame.select(pl.col(directory.STAYS).cast(pl.Float64, strict=False).fill_null(np.nan))
        stays = {name: numbers[name].to_numpy() for name in directory.STAYS}
        timelines = Timelines(
            frame["token"].to_numpy(), frame["time"].cast(pl.Int64).to_numpy(), subjects[starts], starts, stays
        )
        if train:
            self.estimates.add(timelines)
        return with_intervals(timelines, [self.ids[name] for name in events.INTERVALS], self.ids["TIMELINE_END"])

    def _with_quantiles(self, frame: "pl.DataFrame") -> "pl.DataFrame":
        """Append to each measurement the quantile of its value, and leave out measurements without quantiles."""
        kept = ~pl.col("measured") | pl.col("code").is_in(list(self.breaks))
        self.left_out.measurements_not_among_the_most_frequent += len(frame) - int(frame.select(kept.sum()).item())
        frame = frame.filter(kept)
        if not self.breaks:
            return frame
        measured = frame["measured"].to_numpy()
        quantile = np.zeros(len(frame), np.int64)
        values = frame["numeric_value"].to_numpy()
        codes = frame["code"]
        for code, breaks in self.breaks.items():
            selected = (codes == code).to_numpy() & measured
            quantile[selected] = 1 + np.searchsorted(breaks, values[selected], side="left")
        words = pl.concat_list("code", pl.lit("Q") + pl.Series(quantile).cast(pl.String))
        words = pl.when("measured").then(words).otherwise(pl.concat_list("code"))
        return frame.with_columns(words.alias("code")).explode("code")


def _write_timelines(folder: Path, splits: tuple[str, ...], spelled: Spelled, encoder: _Encoder) -> dict[str, int]:
    """Write the timelines of some splits, and return the number of tokens of each; without any, remove the folder."""
    folder.mkdir()
    writer = ShardWriter(folder)
    counts = {}
    patients = []
    for split in splits:
        before = writer.tokens
        for frame in spelled.frames(split):
            timelines = encoder(frame, train=folder.name == "train")
            if timelines is not None:
                writer.add(timelines)
                patients += timelines.patient_ids.tolist()
        counts[split] = writer.tokens - before
    writer.flush()
    if not patients:
        folder.rmdir()
        return {}
    known = encoder.ids
    directory.write_static(folder, {p: _known_only(spelled.static[p], known) for p in patients})
    return counts


def _known_only(static: dict, known: dict[str, int]) -> dict:
    """Return the static data of a patient with `UNKNOWN` for every code that the vocabulary lacks."""
    return {
        prefix: field
        if prefix == events.BIRTH
        else {**field, "code": [code if code in known else f"{prefix}//UNKNOWN" for code in field["code"]]}
        for prefix, field in static.items()
    }
