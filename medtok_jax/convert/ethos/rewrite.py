"""Replace the ICD and ATC tokens of a tokenized ETHOS data set by MedTok tokens.

The codes that ETHOS split are joined again (`codes`), and each is replaced by its tokens. Patients, times, stays,
static data, interval estimates and quantiles do not change.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models.spelling import TokenLists
from medtok_jax.convert.ethos import codes, directory
from medtok_jax.convert.ethos import vocabulary as ethos_vocabulary
from medtok_jax.convert.ethos.codes import OTHER
from medtok_jax.convert.ethos.directory import ShardWriter, Timelines
from medtok_jax.records.event_codes import CodeMapper
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.progress import Bar
from preprocessing.common.ragged import take

pl = load("polars")


class Rewriter:
    """Rewrite the timelines of data sets that share a vocabulary.

    Args:
        vocabulary: tokens by id, of the data set before it is rewritten.
        mapper: maps codes to rows of the tokenizer's table; its `unmapped` is the treatment of codes without a row:
            keep their tokens, `drop` them, or write one `unk`.
        tokens: of each row of the tokenizer's table.
        titles: see `codes.category_titles`.
        codebook_size: N.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        mapper: CodeMapper,
        tokens: TokenLists,
        titles: dict[str, str],
        codebook_size: int,
    ):
        self._old = list(vocabulary)
        self._mapper = mapper
        self._titles = titles
        self._kinds = codes.kinds(vocabulary)
        kept = [t for t, kind in zip(vocabulary, self._kinds, strict=True) if mapper.keeps or kind == OTHER]
        # The vocabulary is the same for training and test data, whatever occurs in either.
        self.vocabulary = ethos_vocabulary.complete(kept, codebook_size)
        new = {token: number for number, token in enumerate(self.vocabulary)}
        self._new_id = np.array([new.get(token, -1) for token in vocabulary], np.int64)
        medtok_ids = np.array([new[ethos_vocabulary.medtok_token(number)] for number in range(codebook_size)], np.int64)
        self._ids = medtok_ids[tokens.ids]
        self._offsets = tokens.offsets
        self._unk = new[ethos_vocabulary.UNK]

    def __call__(self, timelines: Timelines) -> Timelines:
        """Return the same timelines in tokens of `self.vocabulary`."""
        starts, mapped = self._find(timelines)
        count = len(timelines)
        is_code = self._kinds[timelines.tokens] != OTHER
        code_of = np.cumsum(np.isin(np.arange(count), starts)) - 1
        row = np.where(is_code, mapped[code_of] if len(mapped) else -1, -1)
        head = np.zeros(count, bool)
        head[starts] = True
        # Number of new tokens of each old one; all tokens of a mapped code replace its first.
        width = np.ones(count, np.int64)
        width[is_code & (row >= 0)] = 0
        found = row[head & (row >= 0)]
        width[head & (row >= 0)] = self._offsets[found + 1] - self._offsets[found]
        if not self._mapper.keeps:
            width[is_code & (row < 0)] = 0
            width[head & (row < 0)] = int(self._mapper.unmapped == "unk")
        source = np.repeat(np.arange(count), width)
        tokens = self._new_id[timelines.tokens[source]]
        if self._mapper.unmapped == "unk":
            tokens[(is_code & (row < 0))[source]] = self._unk
        replaced = row[source] >= 0
        tokens[replaced], _ = take(self._ids, self._offsets, row[starts[mapped >= 0]])
        return Timelines(
            tokens=tokens,
            times=timelines.times[source],
            patient_ids=timelines.patient_ids,
            patient_offsets=(np.cumsum(width) - width)[timelines.patient_offsets],
            stays={name: values[source] for name, values in timelines.stays.items()},
        )

    def _find(self, timelines: Timelines) -> tuple[np.ndarray, np.ndarray]:
        """Find the codes in timelines; return the positions of their first tokens, and their rows in the table."""
        breaks = np.diff(timelines.times, prepend=timelines.times[:1]) != 0
        breaks[timelines.patient_offsets] = True
        starts, parts = codes.split_into_codes(timelines.tokens, self._kinds, breaks)
        spelled = codes.join_parts(parts, self._old, self._titles)
        return starts, self._mapper.rows(pl.Series(spelled, dtype=pl.String))


def find_parts(folder: Path) -> dict[str, Path]:
    """Return the tokenized data sets at a path by name: `train` and `test` in it, or the path itself as `train`.

    Raises:
        InputError: there is no training set, or the vocabularies differ.
    """
    if directory.is_tokenized(folder):
        return {"train": folder}
    parts = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and directory.is_tokenized(path)}
    if "train" not in parts:
        raise InputError(f"{folder} holds tokenized data sets {sorted(parts)}, but none named train.")
    vocabulary = ethos_vocabulary.read(parts["train"])
    for path in parts.values():
        if ethos_vocabulary.read(path) != vocabulary:
            raise InputError(
                f"{path} has another vocabulary than {parts['train']}; tokenize it with vocab={parts['train']}."
            )
    return parts


def is_tokenized(folder: Path) -> bool:
    """Return True if the folder is a tokenized data set, or holds one."""
    inside = (path for path in folder.iterdir() if path.is_dir())
    return directory.is_tokenized(folder) or any(map(directory.is_tokenized, inside))


def timeline_lengths(source: Path, rewriter: Rewriter) -> np.ndarray:
    """Return the tokens that each timeline of a data set has after rewriting, `[patients]` int64; nothing is written.

    Its mapper counts the codes of the data set, so the rewriter must not be the one that writes.
    """
    lengths = [rewriter(directory.read_shard(path)).lengths for path in directory.shard_paths(source)]
    return np.concatenate(lengths or [np.zeros(0, np.int64)])


def rewrite(source: Path, target: Path, rewriter: Rewriter, *, progress: bool = True) -> int:
    """Rewrite one data set, and return its number of tokens.

    Args:
        source: tokenized data set.
        target: directory to create.
        rewriter: made for the vocabulary of `source`.
        progress: whether to show a progress bar.

    Raises:
        InputError: a file of `source` is missing or cannot be read.
    """
    target.mkdir()
    writer = ShardWriter(target)
    for path in Bar(directory.shard_paths(source), f"Rewriting {source.name}", unit="file", show=progress):
        writer.add(rewriter(directory.read_shard(path)))
    writer.flush()
    ethos_vocabulary.write(target, rewriter.vocabulary)
    directory.write_static(target, directory.read_static(source))
    for name in (directory.INTERVALS, directory.QUANTILES):
        if not (source / name).is_file():
            raise InputError(f"{source / name} is missing; ETHOS writes it when it tokenizes training data.")
        shutil.copyfile(source / name, target / name)
    return writer.tokens
