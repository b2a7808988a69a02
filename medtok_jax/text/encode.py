"""Encode strings with a frozen text encoder to token states and mean-pooled vectors, in few padded shapes."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from medtok_jax.devices.memory import device_memory
from medtok_jax.models.bert import Bert, BertConfig, load_bert
from medtok_jax.text.encoder_files import TextTokenizer
from preprocessing.common.errors import InputError
from preprocessing.common.ragged import take

# Padded lengths on the spot, each compiled when it is first needed.
LENGTHS_ON_THE_SPOT = (16, 32, 64, 128, 256)
# Tokens encoded together on the spot: few, so that one short text does not wait for much padding.
TOKENS_ON_THE_SPOT = 512
# Of an accelerator's memory for each token encoded at once: many times what a BERT needs, as training may hold much.
BYTES_A_TOKEN = 2**18
# Bounds of the tokens that a device encodes at once.
LEAST_TOKENS, MOST_TOKENS = 8192, 65536
# Texts that an approximate GELU is checked on, and the least cosine that each must have with its exact vector.
CHECKED_TEXTS, LEAST_COSINE = 48, 0.9999
# Vectors of node names kept in memory: the same nodes come again in the subgraphs of related codes.
REMEMBERED_NAMES = 100_000


def activations(kept, platform: str | None = None) -> type:
    """Return the dtype that the frozen encoder computes in: that of its results, but float32 on CPUs.

    Args:
        kept: dtype of the results.
        platform: of the devices; None for those of this process.
    """
    on_cpu = (platform or jax.default_backend()) == "cpu"
    return jnp.bfloat16 if np.dtype(kept) == jnp.bfloat16 and not on_cpu else jnp.float32


def tokens_a_batch() -> int:
    """Return the padded tokens of a batch of strings: enough to fill this process's devices, as memory allows."""
    first = jax.local_devices()[0]
    if first.platform == "cpu":
        return LEAST_TOKENS
    return jax.local_device_count() * tokens_a_device(device_memory(first))


def tokens_a_device(memory: int | None) -> int:
    """Return the padded tokens that an accelerator of so many bytes encodes at once, the most where none are known."""
    room = (memory or MOST_TOKENS * BYTES_A_TOKEN) // BYTES_A_TOKEN
    return int(np.clip(2 ** int(np.log2(room)), LEAST_TOKENS, MOST_TOKENS))


def plan(lengths: np.ndarray, buckets: Sequence[int], tokens_a_batch: int) -> list[tuple[int, np.ndarray]]:
    """Return which strings are encoded together: (padded length, members), shortest first.

    Args:
        lengths: `[strings]` wordpieces of each.
        buckets: rising padded lengths, the last holding any string.
        tokens_a_batch: padded tokens of one batch.
    """
    order = np.argsort(lengths, kind="stable")
    bucket = np.searchsorted(buckets, lengths[order])
    batches = []
    for number in np.unique(bucket):
        length, members = buckets[number], order[bucket == number]
        size = max(tokens_a_batch // length, 1)
        batches += [(length, members[start : start + size]) for start in range(0, len(members), size)]
    return batches


def pad(
    tokens: np.ndarray, offsets: np.ndarray, members: np.ndarray, length: int, tokens_a_batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and mask `[batch, length]`; the batch is always full, so that each length compiles once."""
    size = -(-max(tokens_a_batch // length, 1) // jax.local_device_count()) * jax.local_device_count()
    flat, counts = take(tokens, offsets, members)
    mask = np.zeros((size, length), bool)
    mask[: len(members)] = np.arange(length) < counts[:, None]
    ids = np.zeros((size, length), np.int32)
    ids[mask] = flat
    mask[len(members) :, 0] = True
    return ids, mask


def encode_texts_step(
    state: nnx.State, ids: jax.Array, mask: jax.Array, *, graphdef: nnx.GraphDef
) -> tuple[jax.Array, jax.Array]:
    """Encode a batch of strings.

    Args:
        state: weights of the encoder.
        ids: `[batch, length]` int32 wordpieces.
        mask: `[batch, length]` bool, False at padding.
        graphdef: structure of the encoder.

    Returns:
        States `[batch, length, hidden]` in the dtype of the encoder, and their means `[batch, hidden]` float32.
    """
    states = nnx.merge(graphdef, state)(ids, mask)
    total = jnp.einsum("blh,bl->bh", states, mask.astype(states.dtype), preferred_element_type=jnp.float32)
    return states, total / mask.sum(-1, keepdims=True)


def compile_encoder(bert: Bert) -> Callable:
    """Return `(ids, mask) -> (states, mean-pooled states)`, the batch split over this process's devices."""
    graphdef, state = nnx.split(bert)
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("data",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    state = jax.device_put(state, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    run = jax.jit(functools.partial(encode_texts_step, graphdef=graphdef))

    def call(ids: np.ndarray, mask: np.ndarray):
        return run(state, jax.device_put(ids, spread), jax.device_put(mask, spread))

    return call


def check_gelu(directory: Path, gelu: str, tokens: np.ndarray, offsets: np.ndarray) -> None:
    """Refuse an approximate GELU that changes mean-pooled vectors of some texts more than `LEAST_COSINE` allows.

    Args:
        directory: of the text encoder.
        gelu: see `BertConfig.with_gelu`; nothing is computed where it changes nothing.
        tokens: `[tokens]` int32 wordpieces of all texts, end to end.
        offsets: `[texts + 1]` int64; `CHECKED_TEXTS` of the texts, evenly spaced, are compared in float32.

    Raises:
        InputError: naming the cosine and its bound.
    """
    if BertConfig.from_directory(directory, gelu=gelu) == BertConfig.from_directory(directory) or len(offsets) < 2:
        return
    members = np.unique(np.linspace(0, len(offsets) - 2, CHECKED_TEXTS).astype(np.int64))
    length = int((offsets[members + 1] - offsets[members]).max())
    ids, mask = pad(tokens, offsets, members, length, length * len(members))
    exact, other = (
        np.asarray(compile_encoder(load_bert(directory, gelu=kind))(ids, mask)[1])[: len(members)]
        for kind in ("exact", gelu)
    )
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(other, axis=1)
    least = float(np.min(np.sum(exact * other, axis=1) / np.maximum(norms, 1e-30)))
    if not least >= LEAST_COSINE:
        raise InputError(
            f"model.text_encoder_gelu={gelu!r} changes too much of the text encoder in {directory}: of {len(members)}"
            f" texts, one has a cosine of {least:.6f} with its exact vector, less than {LEAST_COSINE}; set"
            " model.text_encoder_gelu=exact."
        )


class TextStates:
    """Encode strings when they are asked for, as a text cache of the same settings would hold them.

    Args:
        directory: of the text encoder.
        max_length: wordpieces a string is cut at.
        dtype: of the results; what a cache rounds must be rounded here too.
        gelu: that of the cache, see `BertConfig.with_gelu`; not checked anew.

    Raises:
        InputError: the encoder cannot be read.
    """

    def __init__(self, directory: Path, *, max_length: int, dtype, gelu: str = "exact"):
        self.tokenizer = TextTokenizer(directory, max_length)
        self.lengths = [length for length in LENGTHS_ON_THE_SPOT if length < max_length] + [max_length]
        self.dtype = np.dtype(dtype)
        bert = load_bert(directory, dtype=activations(dtype), gelu=gelu)
        self.width = bert.config.hidden_size
        self._run = compile_encoder(bert)
        self._names: OrderedDict[str, np.ndarray] = OrderedDict()

    def __call__(self, texts: Sequence[str], names: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
        """Return states `[tokens, hidden]` of each text and mean-pooled vectors `[names, hidden]`, in `dtype`."""
        missing = [name for name in names if name not in self._names]
        strings = list(dict.fromkeys([*texts, *missing]))
        states = self._encode(strings, set(texts), set(missing))
        pooled = np.zeros((len(names), self.width), self.dtype)
        for row, name in enumerate(names):
            self._names.move_to_end(name)
            pooled[row] = self._names[name]
        while len(self._names) > REMEMBERED_NAMES:
            self._names.popitem(last=False)
        return [states[text] for text in texts], pooled

    def _encode(self, strings: list[str], texts: set[str], names: set[str]) -> dict[str, np.ndarray]:
        if not strings:
            return {}
        tokens, offsets, _ = self.tokenizer(strings)
        states = {}
        for length, members in plan(np.diff(offsets), self.lengths, TOKENS_ON_THE_SPOT):
            padded, mean = self._run(*pad(tokens, offsets, members, length, TOKENS_ON_THE_SPOT))
            padded, mean = np.asarray(padded), np.asarray(mean)
            for place, member in enumerate(members):
                string = strings[member]
                if string in texts:
                    states[string] = padded[place, : offsets[member + 1] - offsets[member]].astype(self.dtype)
                if string in names:
                    self._names[string] = mean[place].astype(self.dtype)
        return states
