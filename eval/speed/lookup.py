"""Measure how fast `MedTokTokenizer` looks up tokens of codes in its table, without JAX and accelerator.

The tokenizer is that of `--tokenizer=DIR`, or one of the codes of the data set with random tokens.
"""

import dataclasses
import random
from pathlib import Path

import numpy as np

from eval.speed.isolation import in_child
from eval.speed.setup import Setting
from eval.speed.timing import Phases, Timing, peak_memory, repeat
from medtok_jax import config as configuration
from medtok_jax.data import code_table
from medtok_jax.lookup import directory
from medtok_jax.lookup.directory import Tokens
from medtok_jax.regions import Regions, parts_of, positions_of
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing import medtok_codes
from preprocessing.dataset.sample import sample

CODES, QUICK_CODES = 1_000_000, 10_000
HISTORIES, VISITS, CODES_A_VISIT = 1000, 8, 12


def run(setting: Setting, tokenizer: str | None = None) -> dict:
    """Measure in a separate process and return facts and rows."""
    if tokenizer is None:
        setting = setting.prepared()
        tokenizer = in_child(write_random, setting)
    found, rows = in_child(measure, str(tokenizer), QUICK_CODES if setting.quick else CODES, setting.repeats)
    return {"facts": {"scale": setting.scale} | found, "rows": rows}


def write_random(setting: Setting) -> str:
    """Write a tokenizer directory of all codes of the data set with random tokens, and return its path."""
    config = setting.config
    data_dir = configuration.data_dir(config)
    builder = medtok_codes.prepare(config.data.name, str(data_dir))
    table = code_table.load(builder, configuration.cache_dir(config))
    rows = sample(table.key, config.data.sample_size, config.data.include)
    path = setting.folder / f"tokenizer-{table.fingerprint[:16]}-{len(rows)}"
    if path.exists():
        return str(path)
    model = config.model
    rng = np.random.default_rng(0)
    regions = Regions.from_ratios(model.codebook_size, model.text_specific_ratio, model.graph_specific_ratio)
    parts = parts_of(model)
    drawn = [rng.integers(*regions.bounds(part.region), (len(rows), part.num_tokens), np.int32) for part in parts]
    ids = np.concatenate(drawn, axis=1)
    strings = {name: getattr(table, name)[rows] for name in ("key", "description")}
    tokens = Tokens(
        strings=strings | {"split": np.array(code_table.SPLITS)[table.split[rows]], "kind": np.full(len(rows), "code")},
        ids=ids,
        weights=np.full(ids.shape, 1 / ids.shape[1], np.float32),
        has_text=np.ones(len(rows), bool),
        has_graph=table.num_nodes[rows] > 0,
        codebook=rng.standard_normal((regions.size, model.embedding_dim), np.float32),
        embeddings=None,
    )
    about = {
        "regions": regions,
        "positions": positions_of(parts),
        "quantizer_kind": model.quantizer_kind,
        "prefer": [],
        "data_set": {"name": config.data.name, "fingerprint": table.fingerprint},
        "text_encoder": {"name": "none", "identity": ""},
        "training": {"step": 0, "model": {}, "train": {}},
    }
    setting.folder.mkdir(parents=True, exist_ok=True)
    directory.write(path, tokens, about)
    return str(path)


def measure(path: str, count: int, repeats: int) -> tuple[dict, list[dict]]:
    """Return facts about the tokenizer, and a row for each way to look up codes."""
    phases = Phases()
    with phases.phase("open"):
        tokenizer = MedTokTokenizer.from_pretrained(Path(path), prefer="paper")
    opened = Timing("open the tokenizer", (phases.phases[0].seconds,), tokenizer.num_codes)
    opened = dataclasses.replace(opened, more={"peak_bytes": peak_memory()})
    keys = np.array(tokenizer.directory.table["key"].to_pylist(), dtype=object)
    rng = random.Random(0)  # nosec B311 # The same codes every time.
    drawn = [keys[rng.randrange(len(keys))] for _ in range(count)]
    bare = [key.partition("/")[2] for key in drawn]
    single = drawn[: max(count // 50, 100)]
    shape = (min(HISTORIES, max(count // (VISITS * CODES_A_VISIT), 1)), VISITS, CODES_A_VISIT)
    histories = np.resize(np.array(drawn, dtype=object), shape).tolist()
    measured = {
        "keys at once": (lambda: tokenizer.encode_many(drawn), count),
        "bare codes at once": (lambda: tokenizer.encode_many(bare, errors="unk"), count),
        "one key after another": (lambda: [tokenizer.encode(key) for key in single], len(single)),
        "histories, padded": (
            lambda: tokenizer.encode_patients(histories, padding=True, return_tensors="np"),
            int(np.prod(shape)),
        ),
    }
    timings = [opened]
    for name, (function, items) in measured.items():
        timings.append(Timing(name, repeat(function, repeats), items, more={"peak_bytes": peak_memory()}))
    return {"codes": tokenizer.num_codes, "looked up": count}, [timing.report() for timing in timings]
