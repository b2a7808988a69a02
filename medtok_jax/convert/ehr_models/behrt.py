"""Write patient histories for BEHRT (Li et al., 2020), https://github.com/deepmedicine/BEHRT.

Its notebooks read a pickled vocabulary and data frames that hold a list of codes and a list of ages (months, as text)
for each patient, where `SEP` ends every visit. The files are:

    vocabulary.pkl          {"token2idx", "idx2token"}: PAD, UNK, SEP, CLS, MASK, then MedTok tokens (`MEDTOK//<id>`)
    mlm.parquet             patid, caliber_id (the tokens), age: training patients with all visits, for task/MLM.ipynb
    train.parquet           patid, code (the tokens), age, label: a row for each sample, for task/NextXVisit.ipynb; the
    tuning.parquet          labels are the diagnoses of the next visit, for each visit that another one follows, or
    test.parquet            else the value of the task or of the file of labels
    label_vocabulary.pkl    {"token2idx", "idx2token"} of the labels: UNK, then all diagnoses or values
    word_embeddings.npy     [tokens, width] float32, for `bert.embeddings.word_embeddings`
    model_config.json       sizes to set in the notebooks
    unmapped_codes.json     codes that the tokenizer does not hold

BEHRT cuts a history that is too long at any token. Here the oldest visits are left out instead and, if the last visit
alone is too long, its last codes; no code is cut in two.
"""

import dataclasses
import json
import pickle  # nosec B403 # It only writes.
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medtok_jax.convert.ehr_models import behrt_check, behrt_notebooks, spelling
from medtok_jax.convert.ehr_models.behrt_check import MAX_MONTHS, SEP, SPECIAL, UNKNOWN
from medtok_jax.convert.ehr_models.open import (
    Records,
    chosen_labels,
    open_records,
    print_size,
    samples_of,
    told_left_out,
)
from medtok_jax.convert.ehr_models.projection import kept_variance
from medtok_jax.convert.ehr_models.spelling import Spelling
from medtok_jax.convert.request import Request
from medtok_jax.convert.timelines import describe_lengths
from medtok_jax.records.choices import MORTALITY
from medtok_jax.records.samples import Labels, Samples, next_visits
from medtok_jax.records.visits import DAYS_A_YEAR, DIAGNOSIS, KINDS, Visits, VisitTable
from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import InputError
from preprocessing.common.progress import Bar
from preprocessing.common.ragged import offsets_of, take
from preprocessing.meds.splits import HELD_OUT, SUBJECT_SPLITS, TRAIN, TUNING

WIDTH = 288
HEADS = 12
# The default length holds this share of the histories, but is at most `LONGEST`.
SHARE = 0.95
LONGEST = 512
STD = 0.02
# Histories that are spelled and written at once.
_CHUNK = 1024
FILES = {TRAIN: "train", TUNING: "tuning", HELD_OUT: "test"}


def convert(request: Request) -> None:
    """Write all files into `request.output` and print the steps to train BEHRT on them.

    Options: `width` (288 by default), `tokens_per_code` (0, the default: all), `max_len` (by default the multiple of 64
    that holds 95 % of histories, at most 512), `task` (`mortality` or `readmission`) or `labels` (MEDS label file) in
    place of the diagnoses of the next visit, `inputs` (see `samples_of`).

    Raises:
        InputError: an argument cannot be used.
    """
    width = int(request.options.get("width", WIDTH))
    if width % HEADS:
        raise InputError(f"--width={width} must be a multiple of {HEADS}, the number of attention heads of BEHRT.")
    records = open_records(request)
    visits = records.visits
    spelled = spelling.by_tokens(
        records.rows,
        visits,
        special=list(SPECIAL),
        unknown=UNKNOWN if request.unmapped == "unk" else None,
        per_code=request.options.get("tokens_per_code", 0),
    )
    matrix, share = spelled.initial_matrix(width, std=STD)
    chosen, values, classes = labeled(request, visits)
    sentences = Sentences.of(chosen.visits, spelled)
    max_len = request.options.get("max_len") or sentences.usual_length(visits.patient_offsets)
    remedy = "a smaller --tokens_per_code shortens them, and --max_len makes room"
    lengths = sentences.lengths(visits.patient_offsets)
    print(describe_lengths(lengths, max_len, "Histories of all visits", remedy))
    tables = tables_of(records, chosen, values)
    print_size(visits, sum(_table_bytes(sentences, table, max_len) for table in tables) + matrix.nbytes)
    with whole_folder(request.output) as folder:
        _write_vocabulary(folder / "vocabulary.pkl", spelled.tokens)
        _write_vocabulary(folder / "label_vocabulary.pkl", [UNKNOWN, *classes])
        counts = {table.name: _write_table(folder, sentences, table, max_len) for table in tables}
        np.save(folder / "word_embeddings.npy", matrix)
        sizes = {"vocab_size": len(spelled.tokens), "hidden_size": width, "max_len_seq": max_len}
        (folder / "model_config.json").write_text(json.dumps(sizes, indent=1) + "\n")
        records.write_report(folder)
        behrt_check.check_behrt(folder)
    print(kept_variance(records.rows.config.embedding_dim, width, share))
    for name, (rows, cut) in counts.items():
        print(f"{name}.parquet: {rows:,} histories, {cut:,} of them cut to {max_len:,} tokens.")
    empty = [name for name, (rows, _) in counts.items() if not rows]
    if empty:
        print(f"Warning: the notebooks stop without histories in {' and '.join(empty)}; they need some in each file.")
    if chosen.left_out:
        print(told_left_out(chosen))
    print(behrt_notebooks.steps(request.output, max_len, width))


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Spell visits as tokens, one at a time, since those of all visits are many times as many as their codes.

    Attributes:
        spelled: tokens of each code.
        vocabulary: `[tokens]` str, the token of each id.
        offsets: `[visits + 1]` int64, sums of the numbers of tokens of the visits, without their `SEP`.
        code_ends: `[codes]` int64, sums of the numbers of tokens of each code of `VisitTable.code`.
        age: `[visits]` str, months.
        visits: the visits.
    """

    spelled: Spelling
    vocabulary: np.ndarray
    offsets: np.ndarray
    code_ends: np.ndarray
    age: np.ndarray
    visits: VisitTable

    @classmethod
    def of(cls, visits: VisitTable, spelled: Spelling) -> "Sentences":
        counts = np.diff(spelled.offsets)[visits.code]
        ends = np.cumsum(counts)
        months = visits.age_days / (DAYS_A_YEAR / 12)
        age = np.minimum(np.nan_to_num(months), MAX_MONTHS - 1).astype(np.int64).astype(str).astype(object)
        age[np.isnan(months)] = UNKNOWN
        return cls(
            spelled=spelled,
            vocabulary=np.array(spelled.tokens, dtype=object),
            offsets=np.concatenate([[0], ends])[visits.offsets],
            code_ends=ends,
            age=age,
            visits=visits,
        )

    def lengths(self, patient_offsets: np.ndarray) -> np.ndarray:
        """Return the tokens of each patient's whole history, with `CLS` and each `SEP`, `[patients]` int64.

        Args:
            patient_offsets: `[patients + 1]` int64, the visits of each patient.
        """
        with_sep = self.offsets + np.arange(len(self.offsets))
        return np.diff(with_sep[patient_offsets]) + 1

    def usual_length(self, patient_offsets: np.ndarray) -> int:
        """Return the multiple of 64 that holds most histories, but at most `LONGEST`; see `lengths`."""
        return min(LONGEST, 64 * int(np.ceil(np.quantile(self.lengths(patient_offsets), SHARE) / 64)))

    def history(self, rows: np.ndarray, max_len: int) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return tokens and ages of the visits `rows`, each ended by `SEP`, and whether they were cut."""
        room = max_len - 2  # without the `CLS` that the loader adds, and the last `SEP`
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        # Number of tokens from each visit to the end, with a `SEP` after each visit but the last.
        remaining = np.cumsum((lengths + 1)[::-1])[::-1] - 1
        fitting = np.flatnonzero(remaining <= room)
        begin = int(fitting[0]) if len(fitting) else len(rows) - 1
        tokens, ages = [], []
        for visit in rows[begin:]:
            length = self._length(visit, room)
            ids, _ = take(self.spelled.ids, self.spelled.offsets, self.visits.codes_of(visit))
            tokens += [self.vocabulary[ids[:length]], [SEP]]
            ages.append(np.repeat(self.age[visit], length + 1))
        return np.concatenate(tokens), np.concatenate(ages), begin > 0 or not len(fitting)

    def _length(self, visit: int, room: int) -> int:
        """Return the number of tokens of a visit's first codes that fit into `room`; a first code too long is cut."""
        start, stop = self.offsets[visit : visit + 2]
        if stop - start <= room:
            return int(stop - start)
        ends = self.code_ends[self.visits.offsets[visit] : self.visits.offsets[visit + 1]] - start
        fitting = ends[ends <= room]
        return int(fitting[-1]) if len(fitting) else room


def labeled(request: Request, visits: Visits) -> tuple[Samples, list[list[str]], list[str]]:
    """Return the samples, the labels of each, and the vocabulary of labels.

    Raises:
        InputError: the labels cannot be used, or are numbers that are no classes.
    """
    if not request.options.get("labels") and not request.options.get("task"):
        return _next_diagnoses(request, visits)
    labels = chosen_labels(request, visits, MORTALITY)
    if labels.value.dtype == np.float64:
        raise InputError(f"{request.options['labels']} has labels in float_value; BEHRT predicts classes, not numbers.")
    classes = np.unique(labels.value).astype(str).tolist()
    chosen = samples_of(request, visits, labels)
    return chosen, [[value] for value in chosen.labels.value.astype(str).tolist()], classes


def _next_diagnoses(request: Request, visits: Visits) -> tuple[Samples, list[list[str]], list[str]]:
    """Return what `labeled` does, with the diagnoses of the next visit as labels; a visit without any is no label."""
    is_diagnosis = visits.kind == KINDS.index(DIAGNOSIS)
    found = next_visits(visits)
    diagnoses = np.diff(offsets_of(is_diagnosis[visits.code])[visits.offsets])
    kept = np.flatnonzero(found.any(diagnoses > 0))
    labels = Labels(visits.subject[found.row[kept]], found.time[kept], kept)
    if not len(labels):
        raise InputError("No patient has a next visit with a diagnosis to predict; give --labels.")
    chosen = samples_of(request, visits, labels)
    is_unknown = (visits.row < 0) & (request.unmapped == "unk")
    key = np.where(is_unknown, UNKNOWN, visits.key)
    following = (visits.code[slice(*visits.offsets[[found.row[n] + 1, found.stop[n]]])] for n in chosen.labels.value)
    values = [list(dict.fromkeys(key[code[is_diagnosis[code]]].tolist())) for code in following]
    return chosen, values, visits.key[is_diagnosis & ~is_unknown].tolist()


@dataclasses.dataclass(frozen=True)
class HistoryTable:
    """Hold the rows of one of the four tables.

    Attributes:
        name: of the file, without suffix.
        histories: the rows of visits that each row of the table spells.
        labels: the labels of each row, or None in the table of `MLM.ipynb`.
    """

    name: str
    histories: list[np.ndarray]
    labels: list[list[str]] | None

    @property
    def column(self) -> str:
        """Return the name of the column of tokens."""
        return "caliber_id" if self.labels is None else "code"

    @property
    def schema(self) -> pa.Schema:
        texts = pa.list_(pa.string())
        schema = pa.schema([("patid", pa.int64()), (self.column, texts), ("age", texts)])
        return schema if self.labels is None else schema.append(pa.field("label", texts))

    def spelled(self, sentences: Sentences, rows: np.ndarray, max_len: int) -> tuple[pa.Table, int]:
        """Return some rows as they are written, and how many of them are cut to `max_len` tokens."""
        histories = [self.histories[row] for row in rows]
        found = [sentences.history(history, max_len) for history in histories]
        columns = {
            "patid": sentences.visits.subject[[history[0] for history in histories]],
            self.column: [tokens for tokens, _, _ in found],
            "age": [ages for _, ages, _ in found],
        }
        columns |= {} if self.labels is None else {"label": [self.labels[row] for row in rows]}
        return pa.table(columns, schema=self.schema), sum(cut for _, _, cut in found)


def tables_of(records: Records, chosen: Samples, values: list[list[str]]) -> list[HistoryTable]:
    """Return the four tables.

    Args:
        records: the records.
        chosen: the samples, whose visits begin with those of the records.
        values: the labels of each sample.
    """
    bounds = records.visits.patient_offsets
    of_patient = records.dataset.split_of(records.visits.subject[bounds[:-1]])
    histories = [np.arange(*bounds[patient : patient + 2]) for patient in np.flatnonzero(of_patient == TRAIN)]
    tables = [HistoryTable("mlm", histories, None)]
    split = records.dataset.split_of(chosen.labels.subject)
    for name in SUBJECT_SPLITS:
        numbers = np.flatnonzero(split == name)
        histories = [chosen.rows_of(sample) for sample in numbers]
        tables.append(HistoryTable(FILES[name], histories, [values[n] for n in numbers]))
    return tables


def _table_bytes(sentences: Sentences, table: HistoryTable, max_len: int) -> float:
    """Return about how many bytes a table will have, from as many of its rows, evenly spread, as are written at once.

    A token takes more bytes the more different tokens there are, so that no constant holds for all codebooks.
    """
    count = len(table.histories)
    rows = np.unique(np.linspace(0, count - 1, min(count, _CHUNK)).astype(np.int64))
    buffer = pa.BufferOutputStream()
    pq.write_table(table.spelled(sentences, rows, max_len)[0], buffer)
    return buffer.getvalue().size * max(1.0, count / _CHUNK)


def _write_table(folder: Path, sentences: Sentences, table: HistoryTable, max_len: int) -> tuple[int, int]:
    """Write a row for each history; return the numbers of histories and of those cut to `max_len` tokens."""
    cut_rows = 0
    count = len(table.histories)
    path = folder / f"{table.name}.parquet"
    with pq.ParquetWriter(path, table.schema) as writer:
        for start in Bar(range(0, count, _CHUNK), path.name, show=count >= _CHUNK):
            part, cut = table.spelled(sentences, np.arange(start, min(start + _CHUNK, count)), max_len)
            cut_rows += cut
            writer.write_table(part)
    return count, cut_rows


def _write_vocabulary(path: Path, tokens: list[str]) -> None:
    token2idx = {token: number for number, token in enumerate(tokens)}
    with open(path, "wb") as file:
        pickle.dump({"token2idx": token2idx, "idx2token": dict(enumerate(tokens))}, file, protocol=4)
