"""Measure the parts of tokenizing codes, from their texts to their tokens.

The rows of the table cover the same codes, sorted by length as when a complete vocabulary is tokenized:

- `wordpieces`: descriptions cut into wordpieces;
- `encode descriptions`, `encode node names`: states by the frozen text encoder, from wordpieces;
- `tokens of states`: the compiled model with its input, from encoded states;
- `text to tokens`: all parts from descriptions to tokens, with node names encoded in advance, as for every code of a
  known graph;
- `text to tokens, names too`: the same, including the encoding of the names of all nodes of the subgraphs.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from eval.speed.isolation import in_child
from eval.speed.setup import Setting, accelerator_peak, activation_dtype, facts, open_run, reports, trace
from eval.speed.timing import Timing, jax_flops, peak_memory, repeat
from medtok_jax.data.dataset import by_length
from medtok_jax.models.bert import load_bert
from medtok_jax.text.cache import DTYPES, encode_lengths
from medtok_jax.text.encode import activations, compile_encoder, pad, plan, tokens_a_batch
from medtok_jax.text.encoder_files import TextTokenizer, resolve_text_encoder
from medtok_jax.training.setup import Training
from preprocessing.common.ragged import take

# Number of codes unless --num_codes is given.
CODES = 8192


def run(setting: Setting) -> dict:
    """Measure in a separate process and return facts and rows."""
    setting = setting.prepared()
    found, rows = in_child(measure, setting)
    return {"facts": {"scale": setting.scale} | found, "rows": rows}


def measure(setting: Setting) -> tuple[dict, list[dict]]:
    """Return facts about the run, and a row for each part."""
    ready = open_run(setting)
    texts, names = _strings(ready, setting.codes or CODES)
    model = setting.config.model
    encoder = Encoder(resolve_text_encoder(model.text_encoder_model), setting.config.data, gelu=model.text_encoder_gelu)
    repeats = min(setting.repeats, 3)
    codes, rate = len(texts), jax_flops(activation_dtype(setting.config), repeats=setting.repeats)
    cut, cut_names = encoder.cut(texts), encoder.cut(names)
    timings = [
        Timing("matmul", (1.0,), 0, "", {"flops": rate}),
        Timing("wordpieces", repeat(lambda: encoder.cut(texts), repeats), codes),
        encoder.timed("encode descriptions", cut, codes, repeats),
        encoder.timed("encode node names", cut_names, len(names), repeats),
    ]
    timings[-1] = dataclasses.replace(timings[-1], unit="names")
    timings.append(_tokens(ready, setting, repeats))
    parts = {timing.name: timing.seconds for timing in timings}
    descriptions = [parts[name] for name in ("wordpieces", "encode descriptions", "tokens of states")]
    timings.append(Timing("text to tokens", _sum(descriptions), codes))
    names_too = _sum([*descriptions, parts["encode node names"]])
    timings.append(Timing("text to tokens, names too", names_too, codes))
    more = {"codes measured": codes, "texts": len(set(texts)), "node names": len(names)}
    return facts(ready) | more, reports(timings, rate)


def _sum(parts: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(map(sum, zip(*parts, strict=True)))


def _strings(ready: Training, count: int) -> tuple[list[str], list[str]]:
    """Return the descriptions of the measured codes, and the distinct names of the nodes of their subgraphs."""
    table, rows = ready.inputs.data.table, _rows(ready, count)
    nodes = np.unique(take(table.nodes, table.node_offsets, rows)[0])
    names = np.unique(table.graph.nodes["name"].to_numpy(zero_copy_only=False)[nodes])
    return table.description[rows].tolist(), names.tolist()


def _rows(ready: Training, count: int) -> np.ndarray:
    """Draw codes from those in use, ordered by length: `[count]` rows."""
    rows = ready.inputs.data.selected
    drawn = np.random.default_rng(0).permutation(len(rows))[:count]
    return by_length(ready.inputs.data, np.sort(rows[drawn]))


class Encoder:
    """Encode texts by the frozen text encoder in the way of the text cache.

    Args:
        directory: directory of the encoder.
        data: section `data` of the configuration.
        gelu: field `model.text_encoder_gelu` of the configuration.
    """

    def __init__(self, directory: Path, data: ConfigDict, *, gelu: str):
        self.cut = TextTokenizer(directory, data.max_length)
        bert = load_bert(directory, dtype=activations(DTYPES[data.cache_dtype]), gelu=gelu)
        self.encode = compile_encoder(bert)
        config = bert.config
        width, inner = config.hidden_size, config.intermediate_size
        self.layers, self.width = config.num_hidden_layers, width
        self.flops_a_token = 2 * self.layers * (4 * width * width + 2 * width * inner)

    def timed(self, name: str, cut: tuple, items: int, repeats: int) -> Timing:
        """Time the encoding of wordpieces in batches, each sent before the result of the one before is fetched."""
        tokens, offsets, _ = cut
        lengths = np.diff(offsets)
        size = tokens_a_batch()
        batches = plan(lengths, encode_lengths(lengths), size)

        def encode() -> None:
            last = None
            for length, members in batches:
                states = self.encode(*pad(tokens, offsets, members, length, size))
                if last is not None:
                    np.asarray(last[0])
                last = states
            np.asarray(last[0])

        first = repeat(encode, 1, warm_up=0)[0]
        seconds = repeat(encode, repeats, warm_up=0)
        # Count the matrix products of the layers and of attention over tokens that are not padding.
        flops = self.flops_a_token * lengths.sum() + 4.0 * self.layers * self.width * (lengths.astype(float) ** 2).sum()
        more = {"flops": float(flops), "peak_bytes": accelerator_peak() or peak_memory()}
        more |= {"compile_seconds": max(first - min(seconds), 0.0), "compile_count": len({n for n, _ in batches})}
        return Timing(name, seconds, items, more=more)


def _tokens(ready: Training, setting: Setting, repeats: int) -> Timing:
    """Time making and tokenizing batches in the way of `medtok_jax.inference.vocabulary`."""
    rows, inputs, state = _rows(ready, setting.codes or CODES), ready.inputs, ready.state
    tokenize_step = ready.programs.tokenize_step

    def tokenize() -> None:
        for batch in inputs.eval_batches(rows):
            _, tokens, _ = tokenize_step(state.params, state.fixed, batch, inputs.tables)
            np.asarray(tokens.ids)

    first = repeat(tokenize, 1, warm_up=0)[0]
    seconds = repeat(tokenize, repeats, warm_up=0)
    trace(setting, tokenize)
    more = {
        "compile_seconds": max(first - min(seconds), 0.0),
        "compile_count": tokenize_step._cache_size(),
        "peak_bytes": accelerator_peak() or peak_memory(),
    }
    return Timing("tokens of states", seconds, len(rows), more=more | {"devices": jax.device_count()})
