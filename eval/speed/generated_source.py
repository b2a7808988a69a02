"""Generate source files of a given size, to build data sets as large as the published ones.

The numbers of codes of each system are those of Su et al. (2025), the numbers of nodes and edges those of PrimeKG.
Descriptions are meaningless words of one wordpiece each, so that they are exactly as long as drawn; their lengths have
the distribution of real descriptions.
"""

import csv
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from medtok_jax.text.encoder_files import EMBEDDED, resolve_text_encoder
from preprocessing import primekg
from preprocessing.codes import is_wellformed
from preprocessing.common.atomic import whole_folder
from preprocessing.common.progress import Bar
from preprocessing.dataset.inputs import DESCRIPTIONS, GRAPH, KG, LINKS
from preprocessing.dataset.name import PRIMEKG, RELEASE
from preprocessing.dataset.release import FILE as RELEASE_FILE
from preprocessing.graph.knowledge_graph import NODE_SCHEMA, KnowledgeGraph, from_facts
from preprocessing.graph.neighborhoods import neighbor_table, subgraphs
from preprocessing.linking.links import LINK_SCHEMA

NODES, EDGES = 129_375, 8_100_498


class Texts(NamedTuple):
    """Hold the number of codes of a system, and the median, 95th percentile and maximum of description lengths."""

    codes: int
    median: int
    high: int
    most: int


# Lengths of ICD and NDC are measured on the official files; those of the others are guesses.
SYSTEMS = {
    "SNOMED": Texts(303_325, 11, 24, 60),
    "ICD10CM": Texts(81_184, 16, 28, 57),
    "RxNorm": Texts(81_151, 18, 40, 120),
    "ICD10PCS": Texts(61_644, 17, 26, 39),
    "NDC": Texts(54_560, 50, 107, 2243),
    "ICD9CM": Texts(18_365, 12, 28, 52),
    "CPT4": Texts(10_602, 20, 50, 120),
    "ATC": Texts(6_659, 5, 9, 20),
}
# Share of codes without nodes, and the maximum number of anchors of the others.
UNLINKED, MOST_ANCHORS = 0.1, 4
NAME_WORDS, BLOCK = 4, 250_000
_LETTERS, _DIGITS = "ABCDGHJLMN", {"ICD10PCS": 7, "NDC": 11, "CPT4": 5}


def write_source(source: str, folder: Path, *, codes: int | None = None, seed: int = 0, progress: bool = True) -> Path:
    """Write the files that `medtok_codes/primekg` or `medtok_codes/release` is built from, unless they exist.

    Args:
        source: `primekg` or `release`.
        folder: the source directory, written atomically.
        codes: number of codes, None for all 617,490; numbers of nodes and edges are in proportion.
        seed: seed of all random draws.
        progress: whether to show progress bars.
    """
    if folder.is_dir():
        return folder
    total = sum(texts.codes for texts in SYSTEMS.values())
    share = 1.0 if codes is None else min(codes / total, 1.0)
    rng = np.random.default_rng(seed)
    words = _words()
    nodes = max(int(NODES * share), 200)
    graph = power_law_graph(nodes, max(int(EDGES * share) // 2 * 2, 4 * nodes), primekg.PRIORITY, seed=seed)
    names = pa.array([" ".join(words[row]) for row in rng.integers(len(words), size=(nodes, NAME_WORDS))])
    graph = KnowledgeGraph(**vars(graph) | {"nodes": graph.nodes.set_column(2, "name", names)})
    described = [row for system, texts in SYSTEMS.items() for row in _codes(rng, words, system, texts, share)]
    anchors = rng.integers(nodes, size=(len(described), MOST_ANCHORS)).astype(np.int32)
    counts = rng.integers(1, MOST_ANCHORS + 1, len(described)) * (rng.random(len(described)) >= UNLINKED)
    anchors[np.arange(MOST_ANCHORS) >= counts[:, None]] = -1
    with whole_folder(folder) as partial:
        if source == PRIMEKG:
            _write_primekg(partial, described, graph, anchors)
        else:
            _write_release(partial, described, graph, anchors, progress)
    return folder


def _words() -> np.ndarray:
    """Return words that are one wordpiece of the embedded encoder (and of bert-base-uncased)."""
    content = json.loads((resolve_text_encoder(EMBEDDED) / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    return np.array(sorted(word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2))


def _codes(rng: np.random.Generator, words: np.ndarray, system: str, texts: Texts, share: float) -> list[tuple]:
    """Return (system, code, description) of the codes of one system, with a lognormal number of words."""
    count = max(int(texts.codes * share), 1)
    spread = np.log(texts.high / texts.median) / 1.645
    # [CLS] and [SEP] are two wordpieces.
    lengths = np.clip(texts.median * np.exp(spread * rng.standard_normal(count)) - 2, 1, texts.most - 2).astype(int)
    drawn = words[rng.integers(len(words), size=lengths.sum())]
    parts = np.split(drawn, np.cumsum(lengths)[:-1])
    return [(system, _code(system, number), " ".join(part)) for number, part in enumerate(parts)]


def _code(system: str, number: int) -> str:
    """Return a code in the format of its system."""
    match system:
        case "SNOMED":
            digits = f"{100_000 + number}00"
            return next(digits + check for check in "0123456789" if is_wellformed(system, digits + check))
        case "RxNorm":
            return str(100_000 + number)
        case "ICD10CM":
            return f"{_LETTERS[number // 100_000]}{number // 1000 % 100:02d}.{number % 1000:03d}"
        case "ICD9CM":
            return f"{number // 100:03d}.{number % 100:02d}"
        case "ATC":
            return f"{_LETTERS[number // 1000]}{number // 100 % 10:02d}AA{number % 100:02d}"
        case _:
            return f"{number:0{_DIGITS[system]}d}"


def _write_primekg(folder: Path, described: list[tuple], graph: KnowledgeGraph, anchors: np.ndarray) -> None:
    with (folder / DESCRIPTIONS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("system", "code", "description"))
        writer.writerows(described)
    graph.save(folder / GRAPH)
    row, rank = np.nonzero(anchors >= 0)
    keys = pa.array([f"{system}/{code}" for system, code, _ in described]).take(pa.array(row))
    columns = {
        "key": keys,
        "node_id": anchors[row, rank],
        "method": np.full(len(row), "generated"),
        "confidence": np.ones(len(row), np.float32),
        "rank": rank.astype(np.uint8),
        "exact": rank == 0,
        "via": np.full(len(row), ""),
    }
    (folder / LINKS).parent.mkdir()
    pq.write_table(pa.table(columns, schema=LINK_SCHEMA), folder / LINKS)


def _write_release(
    folder: Path, described: list[tuple], graph: KnowledgeGraph, anchors: np.ndarray, progress: bool
) -> None:
    """Write the mapping table, with the neighborhoods that `primekg` would have as node lists, and `kg.csv`."""
    table = neighbor_table(graph, hub_cap=16, priority=primekg.PRIORITY, first_kept=primekg.FIRST_KEPT)
    found = Bar(subgraphs(table, anchors, max_nodes=64), "cutting subgraphs", len(described), show=progress)
    columns = {
        "med_code": [code for _, code, _ in described],
        "desc": [text for _, _, text in described],
        "code_system": [system for system, _, _ in described],
        "pkg_index_list": [subgraph.nodes for subgraph in found],
        "med_code_node_mapping": [row[row >= 0] for row in anchors],
    }
    pq.write_table(pa.table(columns), folder / RELEASE_FILE)
    sources, nodes = graph.sources(), graph.nodes
    parts = {"index": "node_id", "id": "source_id", "type": "type", "name": "name", "source": "source"}
    with (folder / KG).open("wb") as file:
        for start in Bar(range(0, graph.num_edges, BLOCK), "writing edges", show=progress):
            edges = slice(start, start + BLOCK)
            relation = pa.array(graph.relation_names).take(pa.array(graph.relation[edges].astype(np.int32)))
            block = {"relation": relation, "display_relation": relation}
            for end, ids in (("x", sources[edges]), ("y", graph.indices[edges])):
                rows = nodes.take(pa.array(np.asarray(ids)))
                block |= {f"{end}_{name}": rows[column] for name, column in parts.items()}
            order = ["relation", "display_relation", *(f"{e}_{n}" for e in "xy" for n in parts)]
            options = pyarrow.csv.WriteOptions(include_header=start == 0)
            pyarrow.csv.write_csv(pa.table({name: block[name] for name in order}), file, options)


SOURCES = (PRIMEKG, RELEASE)
_KINDS = 10


def power_law_graph(
    nodes: int, edges: int, relations: tuple[str, ...], *, exponent: float = 0.75, seed: int = 0
) -> KnowledgeGraph:
    """Generate a graph whose degrees follow a power law.

    The ends of edges are drawn with a weight of `rank ** -exponent` (Chung and Lu, Annals of Combinatorics 2002), so
    that the largest hubs are joined to a tenth of all nodes, as in PrimeKG; ids are independent of degrees. Relations
    are symmetric, and their frequencies follow a power law too.

    Args:
        nodes: number of nodes.
        edges: number of directed edges, of which every second one is the reverse of another.
        relations: names of the relations.
        exponent: exponent of the power law of degrees.
        seed: seed of all random draws.
    """
    rng = np.random.default_rng(seed)
    bounds = np.cumsum((np.arange(nodes) + 10.0) ** -exponent)
    ids = rng.permutation(nodes)
    pairs = np.empty(0, np.int64)
    wanted = edges // 2
    while len(pairs) < wanted:
        drawn = rng.random((int((wanted - len(pairs)) * 1.2) + 100, 2)) * bounds[-1]
        ends = np.sort(ids[np.searchsorted(bounds, drawn)], axis=1)
        ends = ends[ends[:, 0] != ends[:, 1]]
        pairs = np.unique(np.concatenate([pairs, ends[:, 0] * nodes + ends[:, 1]]))
    pairs = rng.permutation(pairs)[:wanted]
    share = (np.arange(len(relations)) + 1.0) ** -1.5
    kind = rng.choice(len(relations), wanted, p=share / share.sum())
    facts = {
        name: np.stack(np.divmod(pairs[kind == position], nodes), axis=1) for position, name in enumerate(relations)
    }
    return from_facts(_node_table(nodes), facts, {name: name for name in relations})


def _node_table(nodes: int) -> pa.Table:
    numbers = np.arange(nodes, dtype=np.int32)
    texts = pa.array(numbers).cast(pa.string())
    kinds = pa.array([f"type {kind}" for kind in range(_KINDS)]).take(pa.array(numbers % _KINDS))
    source = pa.array(["generated"]).take(pa.array(np.zeros(nodes, np.int32)))
    return pa.Table.from_arrays([pa.array(numbers), kinds, texts, source, texts], schema=NODE_SCHEMA)
