"""Compute frozen text states once and keep them: token states of descriptions, mean-pooled vectors of node names.

The cache is ragged and memory-mapped: `states.bin` holds `[tokens, hidden]` of all descriptions one after the other.
It is keyed by the encoder's identity and GELU, the strings, the cut and the dtype, so that it never serves the wrong
data. What another cache of the same encoder, GELU, cut and dtype holds already is copied instead of encoded. Its
listing is written last and marks a complete cache; a damaged one is made anew, and nothing is copied from it.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import ml_dtypes
import numpy as np

from medtok_jax.models.bert import Bert, load_bert
from medtok_jax.text.encode import activations, check_gelu, compile_encoder, pad, plan, tokens_a_batch
from medtok_jax.text.encoder_files import TextTokenizer, encoder_identity
from preprocessing.common.atomic import whole_file, write_json
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError
from preprocessing.common.listing import LISTING, is_whole, write_listing
from preprocessing.common.locks import LOCK, exclusive
from preprocessing.common.progress import Bar
from preprocessing.common.ragged import positions

DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
ENCODE_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
# Padded lengths between these, for many strings on a CPU: over the packaged ICD descriptions, padded/real falls from
# 1.21 to 1.11, for two more programs to compile. Accelerators compute padding fast and compile slowly.
FINER_LENGTHS, MANY_STRINGS = (12, 20), 20_000
FLUSH_EVERY = 64
ADVICE = "set data.cache_dir"
# Of an encoding that is under way.
PROGRESS, MISSING = "progress.json", "missing.npy"


@dataclasses.dataclass(frozen=True)
class TextCache:
    """Hold frozen text states of a selection of strings.

    Attributes:
        states: `[tokens, hidden]` memory map in the cache's dtype; text i is rows `offsets[i]:offsets[i + 1]`.
        offsets: `[texts + 1]` int64.
        token_ids: `[tokens]` int32 wordpieces, for an encoder that is trained in the step.
        name_embedding: `[names + 1, hidden]` in the cache's dtype; name i is row i + 1, row 0 is zero.
        num_cut: texts that were cut at the maximal length.
        encoder: identity of the text encoder; empty where the states are of none.
    """

    states: np.ndarray
    offsets: np.ndarray
    token_ids: np.ndarray
    name_embedding: np.ndarray
    num_cut: int
    encoder: str = ""


def open_or_encode(
    encoder_dir: Path,
    cache_dir: Path,
    texts: list[str],
    names: list[str],
    *,
    max_length: int,
    dtype: str = "bfloat16",
    gelu: str = "exact",
    progress: bool = True,
) -> TextCache:
    """Open the text states of `texts` and `names`, encoding them first where that was not done.

    An interrupted encoding goes on where it was.

    Args:
        encoder_dir: directory of the text encoder.
        cache_dir: where caches lie.
        texts: distinct descriptions; token states are kept.
        names: distinct node names; mean-pooled vectors are kept. A string in both lists is encoded once.
        max_length: wordpieces a string is cut at.
        dtype: `bfloat16` or `float32`, of what is kept.
        gelu: of the encoder, see `BertConfig.with_gelu`; `tanh` is checked before anything is encoded with it.
        progress: whether to show a bar.

    Raises:
        InputError: where the cache directory cannot be written, or the GELU changes more than is allowed.
    """
    settings = [1, encoder_identity(encoder_dir), gelu, max_length, dtype]
    key = _cache_key(settings, texts, names)
    folder = cache_dir / f"text-{key[:16]}"
    if not is_whole(folder, quiet=True):
        with exclusive(folder, wait=True, advice=ADVICE):
            if not is_whole(folder):  # Another process encoded them while this one waited.
                if (folder / LISTING).exists():
                    _clear(folder)
                _encode(encoder_dir, folder, texts, names, settings, progress)
    return _open(folder)


def _clear(folder: Path) -> None:
    """Remove a damaged cache; what other processes have mapped of it stays theirs."""
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()


def _cache_key(settings: list, texts: list[str], names: list[str]) -> str:
    digest = hashlib.sha256(json.dumps([*settings, len(texts), len(names)]).encode())
    for strings in (texts, names):
        digest.update("\0".join(strings).encode())
    return digest.hexdigest()


def _open(folder: Path) -> TextCache:
    about = json.loads((folder / "about.json").read_text())
    dtype, hidden = DTYPES[about["dtype"]], about["hidden"]
    return TextCache(
        states=np.memmap(folder / "states.bin", dtype, "r", shape=(about["tokens"], hidden)),
        offsets=np.load(folder / "offsets.npy"),
        token_ids=np.load(folder / "token_ids.npy", mmap_mode="r"),
        name_embedding=np.fromfile(folder / "names.bin", dtype).reshape(-1, hidden),
        num_cut=about["num_cut"],
        encoder=about["settings"][1],
    )


def encode_lengths(lengths: np.ndarray) -> list[int]:
    """Return the rising padded lengths at which strings of so many wordpieces each are encoded."""
    finer = jax.default_backend() == "cpu" and len(lengths) >= MANY_STRINGS
    offered = sorted((*ENCODE_LENGTHS, *FINER_LENGTHS)) if finer else ENCODE_LENGTHS
    return [length for length in offered if length < lengths.max()] + [int(lengths.max())]


@dataclasses.dataclass
class _Store:
    """Store encoded strings.

    Attributes:
        states: `[tokens, hidden]` memory map of the descriptions' token states, text i at `offsets[i]:offsets[i + 1]`.
        pooled: `[names + 1, hidden]` memory map of the names' vectors.
        offsets: `[texts + 1]` int64.
        name_row: `[strings]` row of each string in `pooled`, 0 for strings that are no names.
    """

    states: np.memmap
    pooled: np.memmap
    offsets: np.ndarray
    name_row: np.ndarray

    @classmethod
    def open(cls, folder: Path, dtype, hidden: int, offsets: np.ndarray, name_row: np.ndarray) -> "_Store":
        folder.mkdir(parents=True, exist_ok=True)
        states = _reopen(folder / "states.bin", dtype, (int(offsets[-1]), hidden))
        pooled = _reopen(folder / "names.bin", dtype, (int(name_row.max()) + 1, hidden))
        return cls(states, pooled, offsets, name_row)

    def put(self, members: np.ndarray, outputs: tuple) -> None:
        """Store the padded token states and the means of some strings; the first strings are the descriptions."""
        states, mean = (np.asarray(output) for output in outputs)
        rows = self.name_row[members]
        self.pooled[rows[rows > 0]] = mean[: len(members)][rows > 0].astype(self.pooled.dtype)
        is_text = np.flatnonzero(members < len(self.offsets) - 1)
        starts, stops = self.offsets[members[is_text]], self.offsets[members[is_text] + 1]
        where = starts[:, None] + np.arange(states.shape[1])
        kept = where < stops[:, None]
        self.states[where[kept]] = states[is_text][kept].astype(self.states.dtype)

    def add_to(self, digest: "hashlib._Hash", members: np.ndarray) -> None:
        """Add what is stored of some strings to a digest."""
        where, _ = positions(self.offsets, members[members < len(self.offsets) - 1])
        rows = self.name_row[members]
        for array in (members.astype(np.int64), self.states[where], self.pooled[rows[rows > 0]]):
            digest.update(np.ascontiguousarray(array).view(np.uint8))

    def flush(self) -> None:
        self.states.flush()
        self.pooled.flush()


def _encode(encoder_dir: Path, folder: Path, texts: list[str], names: list[str], settings: list, show: bool) -> None:
    """Encode what is missing."""
    *_, gelu, max_length, dtype = settings
    strings = list(dict.fromkeys([*texts, *names]))
    tokens, offsets, _ = TextTokenizer(encoder_dir, max_length)(strings)
    check_gelu(encoder_dir, gelu, tokens, offsets)
    name_row = np.zeros(len(strings), np.int64)
    place = {string: number for number, string in enumerate(strings)}
    name_row[[place[name] for name in names]] = np.arange(1, len(names) + 1)
    bert = load_bert(encoder_dir, dtype=activations(DTYPES[dtype]), gelu=gelu)
    text_offsets = offsets[: len(texts) + 1]
    try:
        store = _Store.open(folder, DTYPES[dtype], bert.config.hidden_size, text_offsets, name_row)
    except OSError as error:
        raise InputError(f"The text cache {folder} cannot be written ({error}); set data.cache_dir.") from error
    progress = _Progress.open(folder, store, np.diff(offsets), lambda: _missing(store, folder, strings, settings))
    bar = Bar(total=len(strings), unit=" texts", show=show)
    bar.set_description(f"Encoding {len(texts):,} descriptions, {len(names):,} node names")
    bar.update(len(strings) - progress.left)
    _encode_batches(bert, store, tokens, offsets, progress, bar)
    bar.close()
    _save(folder / "offsets.npy", text_offsets)
    _save(folder / "token_ids.npy", tokens[: text_offsets[-1]])
    write_digests(folder, texts, names)
    about = {
        "settings": settings,
        "dtype": dtype,
        "hidden": bert.config.hidden_size,
        "tokens": int(text_offsets[-1]),
        "num_cut": _count_cut(encoder_dir, texts, np.diff(text_offsets), max_length),
    }
    write_json(folder / "about.json", about, advice=ADVICE)
    for name in (PROGRESS, MISSING):
        (folder / name).unlink(missing_ok=True)
    write_listing(folder)


def _missing(store: _Store, folder: Path, strings: list[str], settings: list) -> np.ndarray:
    """Copy states from other caches of these settings; return the numbers of the strings that none of them holds."""
    wanted = digests(strings)
    missing_states, missing_mean = np.ones(len(store.offsets) - 1, bool), store.name_row > 0
    for other in sorted(folder.parent.glob(f"text-*/{LISTING}")):
        if _settings_of(other.parent) == settings and is_whole(other.parent, quiet=True):
            copy_states(_open(other.parent), other.parent, store, wanted, (missing_states, missing_mean))
    store.flush()
    missing_mean[: len(missing_states)] |= missing_states
    return np.flatnonzero(missing_mean)


def _settings_of(folder: Path) -> object:
    """Return the settings of another cache, None where they cannot be read."""
    try:
        return json.loads((folder / "about.json").read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


@dataclasses.dataclass
class _Progress:
    """Keep on disk which strings are stored, so that an interrupted encoding goes on.

    What was missing when it began is kept too: caches that come later must not change what it goes on with.

    Attributes:
        folder: of the cache.
        size: padded tokens of a batch; another device may go on with batches of another size, which begin anew.
        missing: numbers of the strings to encode.
        batches: padded length and strings of each batch.
        done: number of batches that are stored.
        digest: of what is stored.
    """

    folder: Path
    size: int
    missing: np.ndarray
    batches: list[tuple[int, np.ndarray]]
    done: int
    digest: "hashlib._Hash"

    @classmethod
    def open(
        cls, folder: Path, store: _Store, lengths: np.ndarray, find_missing: Callable[[], np.ndarray]
    ) -> "_Progress":
        """Return where an interrupted encoding stopped, or, where nothing intact is stored, what is to be encoded."""
        # Nothing that is damaged is read: its digest differs.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            kept = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
            if (kept["size"], kept["missing"]) == (tokens_a_batch(), sha256_of(folder / MISSING)):
                found = cls._at(folder, store, lengths, np.load(folder / MISSING), kept["done"])
                if found.digest.hexdigest() == kept["digest"]:
                    return found
        (folder / PROGRESS).unlink(missing_ok=True)
        begun = cls._at(folder, store, lengths, find_missing(), 0)
        _save(folder / MISSING, begun.missing)
        begun.save()
        return begun

    @classmethod
    def _at(cls, folder: Path, store: _Store, lengths: np.ndarray, missing: np.ndarray, done: int) -> "_Progress":
        size = tokens_a_batch()
        batches = plan(lengths[missing], encode_lengths(lengths), size)
        batches, digest = [(length, missing[members]) for length, members in batches], hashlib.sha256()
        copied = np.setdiff1d(np.arange(len(lengths)), missing)
        groups = [copied[start : start + CHUNK] for start in range(0, len(copied), CHUNK)]
        for members in (*groups, *(members for _, members in batches[:done])):
            store.add_to(digest, members)
        return cls(folder, size, missing, batches, done, digest)

    @property
    def left(self) -> int:
        """Return the number of strings that are still to be encoded."""
        return sum(len(members) for _, members in self.batches[self.done :])

    def save(self) -> None:
        """Write down what is stored; it has reached the disk before."""
        kept = {"done": self.done, "size": self.size, "digest": self.digest.hexdigest()}
        write_json(self.folder / PROGRESS, kept | {"missing": sha256_of(self.folder / MISSING)}, advice=ADVICE)


def _encode_batches(
    bert: Bert, store: _Store, tokens: np.ndarray, offsets: np.ndarray, progress: _Progress, bar: Bar
) -> None:
    """Encode batch after batch of the missing strings."""
    run, pending, last = compile_encoder(bert), [], len(progress.batches)

    def store_next() -> None:
        members, outputs = pending.pop(0)
        store.put(members, outputs)
        store.add_to(progress.digest, members)
        progress.done += 1

    for number, (length, members) in enumerate(progress.batches[progress.done :], start=progress.done + 1):
        pending.append((members, run(*pad(tokens, offsets, members, length, progress.size))))
        # The batch before is stored while the device works on this one.
        if len(pending) > 1:
            store_next()
        bar.update(len(members))
        if number % FLUSH_EVERY == 0 or number == last:
            while pending:
                store_next()
            store.flush()
            progress.save()


def _count_cut(encoder_dir: Path, texts: list[str], lengths: np.ndarray, max_length: int) -> int:
    """Count the texts that lost wordpieces: only those of full length can have."""
    full = [texts[row] for row in np.flatnonzero(lengths == max_length)]
    return TextTokenizer(encoder_dir, max_length)(full)[2] if full else 0


def _reopen(path: Path, dtype, shape: tuple[int, int]) -> np.memmap:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if path.exists() and path.stat().st_size == size:
        return np.memmap(path, dtype, "r+", shape=shape)
    with path.open("wb") as file:
        # A full disk is found here: writing to the memory map would end the process.
        os.posix_fallocate(file.fileno(), 0, size)
    return np.memmap(path, dtype, "r+", shape=shape)


TEXTS, NAMES = "text_digests.npy", "name_digests.npy"
# Strings copied at once.
CHUNK = 8192


def digests(strings: Sequence[str]) -> np.ndarray:
    """Return `[strings, 2]` uint64, a digest of 128 bits of each string."""
    joined = b"".join(hashlib.blake2b(string.encode(), digest_size=16).digest() for string in strings)
    return np.frombuffer(joined, "<u8").reshape(-1, 2)


def write_digests(folder: Path, texts: Sequence[str], names: Sequence[str]) -> None:
    """Write digests of the strings that a cache holds into it."""
    _save(folder / TEXTS, digests(texts))
    _save(folder / NAMES, digests(names))


def _save(path: Path, array: np.ndarray) -> None:
    with whole_file(path, advice=ADVICE) as partial:
        np.save(partial, array)


def find(wanted: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the row of each digest among those held, `[wanted]` int64, -1 where it is not."""
    if not len(held):
        return np.full(len(wanted), -1)
    order = np.argsort(held[:, 0], kind="stable")
    place = np.searchsorted(held[order, 0], wanted[:, 0])
    row = order[np.minimum(place, len(held) - 1)]
    return np.where((held[row] == wanted).all(1), row, -1)


def copy_states(cache, folder: Path, store, wanted: np.ndarray, missing: tuple[np.ndarray, np.ndarray]) -> None:
    """Copy what one cache holds of the missing strings, and mark it as present.

    Args:
        cache: `TextCache` to copy from. folder: where it lies.
        store: where encoded strings go, as `text_cache` opens it.
        wanted: `[strings, 2]` digests; the first strings are the descriptions.
        missing: `[descriptions]` and `[strings]` bool, whose token states and whose mean is missing; changed in place.
    """
    missing_states, missing_mean = missing
    of_text = np.flatnonzero(missing_states)
    row = find(wanted[of_text], np.load(folder / TEXTS))
    of_text, row = of_text[row >= 0], row[row >= 0]
    for start in range(0, len(row), CHUNK):
        part = slice(start, start + CHUNK)
        here, _ = positions(store.offsets, of_text[part])
        there, _ = positions(cache.offsets, row[part])
        store.states[here] = cache.states[there]
    missing_states[of_text] = False
    of_name = np.flatnonzero(missing_mean)
    row = find(wanted[of_name], np.load(folder / NAMES))
    of_name, row = of_name[row >= 0], row[row >= 0]
    store.pooled[store.name_row[of_name]] = cache.name_embedding[row + 1]
    missing_mean[of_name] = False
