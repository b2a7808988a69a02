"""Sort more events than memory holds into the files of a MEDS data set.

Events arrive in any order and are distributed to files by patient; at the end each file is sorted separately.
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.progress import Bar
from preprocessing.meds import splits
from preprocessing.meds.layout import DATA

pl = load("polars")

# Arrow types of polars types. MEDS 0.4 requires text_value as large_string and code as string.
_ARROW = {pl.Int64: pa.int64(), pl.Float32: pa.float32(), pl.String: pa.string(), pl.Datetime("us"): pa.timestamp("us")}
_LARGE = ("text_value",)
_ROW_GROUP = 1 << 19
# Maximum number of files, not counting the last file of each split; all of them are open at the same time.
MOST = 500


@dataclasses.dataclass
class Tally:
    """Count the contents of the files.

    Attributes:
        events: code -> number of its events.
        texts: code -> its first text_value in the order of subject and time, for wanted codes.
        rows: name of a file, relative to the data set -> number of its rows.
    """

    events: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    rows: dict[str, int] = dataclasses.field(default_factory=dict)


class Shards:
    """Write the files `data/<split>/<number>.parquet`, each with the events of some patients.

    Args:
        folder: directory of the data set.
        subjects: ids of all patients, int64 [n], sorted and distinct.
        per_shard: number of patients per file.
        columns: columns of the files, with their types. Events also have `rank`, the order of simultaneous events.
        split: position in `splits.SUBJECT_SPLITS` of each patient, int8 [n]; None splits by a hash of the id.

    Raises:
        InputError: there would be more than about `MOST` files.
    """

    def __init__(
        self,
        folder: Path,
        subjects: np.ndarray,
        per_shard: int,
        columns: Mapping[str, "pl.DataType"],
        split: np.ndarray | None = None,
    ):
        self.folder = folder
        self.subjects = subjects
        self.columns = columns
        self.split = splits.split_of(subjects) if split is None else split
        self.names: list[str] = []
        if len(subjects) > MOST * per_shard:
            raise InputError(
                f"{len(subjects):,} patients, {per_shard:,} per file, make too many files; give"
                f" --subjects_per_shard={-(-len(subjects) // MOST)} or more."
            )
        self._shard_of = np.zeros(len(subjects), np.int32)
        for position, split in enumerate(splits.SUBJECT_SPLITS):
            mine = np.flatnonzero(self.split == position)
            numbers = np.arange(len(mine)) // per_shard
            self._shard_of[mine] = len(self.names) + numbers
            count = int(numbers[-1]) + 1 if len(mine) else 0
            self.names += [f"{DATA}/{split}/{number}.parquet" for number in range(count)]
        fields = [*columns.items(), ("rank", pl.Int8)]
        self._unsorted = pa.schema([(name, _ARROW.get(kind, pa.int8())) for name, kind in fields])
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        self._scratch = folder / ".unsorted"
        self._scratch.mkdir()

    def __enter__(self) -> "Shards":
        return self

    def __exit__(self, *_) -> None:
        self._close()

    def add(self, events: "pl.DataFrame") -> None:
        """Distribute events of known patients to the unsorted files."""
        if not len(events):
            return
        shard = self._shard_of[np.searchsorted(self.subjects, events["subject_id"].to_numpy())]
        order = np.argsort(shard, kind="stable")
        shard = shard[order]
        table = events.select(self._unsorted.names)[order].to_arrow(compat_level=pl.CompatLevel.oldest())
        table = table.cast(self._unsorted).combine_chunks()
        starts = np.flatnonzero(np.diff(shard, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(shard)], strict=True):
            self._writer(int(shard[start])).write_table(table.slice(start, stop - start))

    def finish(self, wanted: Callable[[str], bool], check: Callable[[pa.Table], object], progress: bool) -> Tally:
        """Sort and write all files, and return the counts of their contents.

        Args:
            wanted: returns whether to collect the text_value of a code.
            check: raises an error if a table does not have the right schema.
            progress: whether to show a progress bar.
        """
        self._close()
        tally = Tally()
        for number, name in enumerate(Bar(self.names, desc="sorting", unit=" files", show=progress)):
            path = self.folder / name
            unsorted = self._path(number)
            frame = pl.read_ipc_stream(unsorted) if unsorted.is_file() else self._empty()
            frame = frame.sort("subject_id", "time", "rank", nulls_last=False, maintain_order=True).drop("rank")
            table = _meds_table(frame)
            check(table)
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path, compression="zstd", row_group_size=_ROW_GROUP)
            unsorted.unlink(missing_ok=True)
            tally.rows[name] = len(frame)
            _count(frame, tally, wanted)
        self._scratch.rmdir()
        return tally

    def _empty(self) -> "pl.DataFrame":
        return pl.from_arrow(self._unsorted.empty_table())

    def _path(self, number: int) -> Path:
        return self._scratch / f"{number}.arrows"

    def _writer(self, number: int) -> pa.ipc.RecordBatchStreamWriter:
        if number not in self._writers:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writers[number] = pa.ipc.new_stream(self._path(number), self._unsorted, options=options)
        return self._writers[number]

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


def _meds_table(frame: "pl.DataFrame") -> pa.Table:
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    kinds = [pa.string() if pa.types.is_large_string(f.type) and f.name not in _LARGE else f.type for f in table.schema]
    return table.cast(pa.schema(list(zip(table.schema.names, kinds, strict=True))))


def _count(frame: "pl.DataFrame", tally: Tally, wanted: Callable[[str], bool]) -> None:
    found = frame.group_by("code").agg(pl.len().alias("events"), pl.col("text_value").drop_nulls().first())
    for code, count, text in found.iter_rows():
        tally.events[code] += count
        if text is not None and code not in tally.texts and wanted(code):
            tally.texts[code] = text
