"""Compute frozen text states once and keep them: token states of descriptions, mean-pooled vectors of node names.

The cache is ragged and memory-mapped: `states.bin` holds `[tokens, hidden]` of all descriptions one after the other.
It is keyed by the encoder's identity, the strings, the cut and the dtype, so that it never serves the wrong data.
What another cache of the same encoder, cut and dtype holds already is copied instead of encoded.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
from tqdm import tqdm

from medtok_jax.models.bert import Bert, load_bert
from medtok_jax.text.encode import activations, compile_encoder, pad, plan, tokens_a_batch
from medtok_jax.text.encoder_files import TextTokenizer, encoder_identity
from preprocessing.common.atomic import whole_file, write_json, write_text
from preprocessing.common.errors import InputError
from preprocessing.common.locks import exclusive
from preprocessing.common.ragged import positions

DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
ENCODE_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
FLUSH_EVERY = 64
ADVICE = "set data.cache_dir"


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
        progress: whether to show a bar.

    Raises:
        InputError: where the cache directory cannot be written.
    """
    settings = [1, encoder_identity(encoder_dir), max_length, dtype]
    key = _cache_key(settings, texts, names)
    folder = cache_dir / f"text-{key[:16]}"
    if not (folder / "about.json").exists():
        with exclusive(folder, wait=True, advice=ADVICE):
            if not (folder / "about.json").exists():  # Another process encoded them while this one waited.
                _encode(encoder_dir, folder, texts, names, settings, progress)
    return _open(folder)


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


def _buckets(lengths: np.ndarray) -> list[int]:
    return [length for length in ENCODE_LENGTHS if length < lengths.max()] + [int(lengths.max())]


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

    def flush(self) -> None:
        self.states.flush()
        self.pooled.flush()


def _encode(
    encoder_dir: Path, folder: Path, texts: list[str], names: list[str], settings: list, progress: bool
) -> None:
    """Encode what is missing; `about.json`, written last, marks a complete cache."""
    *_, max_length, dtype = settings
    strings = list(dict.fromkeys([*texts, *names]))
    tokens, offsets, _ = TextTokenizer(encoder_dir, max_length)(strings)
    name_row = np.zeros(len(strings), np.int64)
    place = {string: number for number, string in enumerate(strings)}
    name_row[[place[name] for name in names]] = np.arange(1, len(names) + 1)
    bert = load_bert(encoder_dir, dtype=activations(DTYPES[dtype]))
    text_offsets = offsets[: len(texts) + 1]
    try:
        store = _Store.open(folder, DTYPES[dtype], bert.config.hidden_size, text_offsets, name_row)
    except OSError as error:
        raise InputError(f"The text cache {folder} cannot be written ({error}); set data.cache_dir.") from error
    missing = _missing(store, folder, strings, settings)
    bar = tqdm(total=len(strings), initial=len(strings) - len(missing), unit=" texts", disable=not progress)
    bar.set_description(f"Encoding {len(texts):,} descriptions, {len(names):,} node names")
    _encode_batches(bert, store, tokens, offsets, missing, folder / "batches_done", bar)
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
    for name in ("batches_done", "missing.npy"):
        (folder / name).unlink(missing_ok=True)


def _missing(store: _Store, folder: Path, strings: list[str], settings: list) -> np.ndarray:
    """Copy states from other caches of these settings; return the numbers of the strings that none of them holds.

    They are kept beside the states: caches that come later must not change what an interrupted encoding goes on with.
    """
    kept = folder / "missing.npy"
    if kept.exists():
        return np.load(kept)
    wanted = digests(strings)
    missing_states, missing_mean = np.ones(len(store.offsets) - 1, bool), store.name_row > 0
    for other in sorted(folder.parent.glob("text-*/about.json")):
        if json.loads(other.read_text()).get("settings") == settings:
            cache = _open(other.parent)
            copy_states(cache, other.parent, store, wanted, (missing_states, missing_mean))
    store.flush()
    missing_mean[: len(missing_states)] |= missing_states
    missing = np.flatnonzero(missing_mean)
    _save(kept, missing)
    return missing


def _encode_batches(
    bert: Bert,
    store: _Store,
    tokens: np.ndarray,
    offsets: np.ndarray,
    missing: np.ndarray,
    done_file: Path,
    bar: tqdm,
) -> None:
    """Encode batch after batch of the missing, keeping in `done_file` how many are stored durably."""
    lengths, size = np.diff(offsets), tokens_a_batch()
    batches = plan(lengths[missing], _buckets(lengths), size)
    run, batches = compile_encoder(bert), [(length, missing[members]) for length, members in batches]
    # Another device may go on with batches of another size, which begin anew.
    done, *of_size = done_file.read_text().split() if done_file.exists() else ("0",)
    done = int(done) if of_size == [str(size)] else 0
    bar.update(sum(len(members) for _, members in batches[:done]))
    pending = []
    for number, (length, members) in enumerate(batches[done:], start=done + 1):
        pending.append((members, run(*pad(tokens, offsets, members, length, size))))
        # The batch before is stored while the device works on this one.
        if len(pending) > 1:
            store.put(*pending.pop(0))
        bar.update(len(members))
        if number % FLUSH_EVERY == 0 or number == len(batches):
            while pending:
                store.put(*pending.pop(0))
            store.flush()
            write_text(done_file, f"{number} {size}", advice=ADVICE)


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
