"""Make a world of pairs of codes that a crosswalk joins, with random texts and neighbors, for baselines.

Codes of a pair have texts near each other but for a turn of the space, which a linear map can learn from pairs.
"""

import numpy as np

from configs import default
from eval.baselines.data import Codes
from medtok_jax.data.code_table import CodeTable
from medtok_jax.data.dataset import Data
from medtok_jax.text.cache import TextCache
from preprocessing.common.ragged import offsets_of
from preprocessing.graph.holdout import Holdout, hold_out
from preprocessing.graph.icd_graph import REVERSE
from preprocessing.graph.knowledge_graph import from_facts, node_table
from preprocessing.graph.neighborhoods import neighbor_table, subgraphs

PAIRS, PHENOTYPES, WIDTH = 60, 7, 12
CODES = [f"ICD{system}/{number:03d}" for system in ("10CM", "9CM") for number in range(PAIRS)]
KEYS = [*CODES, *(f"HPO/HP:{number}" for number in range(PHENOTYPES))]


def facts() -> dict[str, np.ndarray]:
    """Return all facts: the crosswalk of ICD-9-CM to ICD-10-CM, and two phenotypes of each code."""
    number = np.arange(PAIRS)
    codes = np.arange(2 * PAIRS)
    first = 2 * PAIRS + codes % PHENOTYPES
    second = 2 * PAIRS + (codes // 3) % PHENOTYPES
    links = np.concatenate([np.stack([codes, first], 1), np.stack([codes, second], 1)])
    return {"gem_exact": np.stack([PAIRS + number, number], 1), "hpo_link": np.unique(links, axis=0)}


def divided(share: float = 0.4) -> tuple[dict[str, np.ndarray], set[tuple[str, str]]]:
    """Return the facts without those that are held out, and the held-out pairs in both directions."""
    kept, held = hold_out(facts(), KEYS, ["gem_exact"], Holdout("gem", share, "eval"))
    pairs = [(KEYS[a], KEYS[b]) for a, b in held["gem_exact"].tolist()]
    return kept, {*pairs, *(pair[::-1] for pair in pairs)}


def make_codes(known: dict[str, np.ndarray], *, seed: int = 0) -> Codes:
    """Return the codes with the subgraphs that the real builder cuts from some facts; all are training codes."""
    rows = [("node", key, *key.split("/", 1)) for key in KEYS]
    graph = from_facts(node_table(rows), known, REVERSE)
    anchors = np.arange(len(CODES), dtype=np.int32)[:, None]
    cut = list(subgraphs(neighbor_table(graph, hub_cap=16, priority=()), anchors, max_nodes=16))
    ragged = {
        name: np.concatenate([getattr(one, name) for one in cut])
        for name in ("nodes", "hops", "senders", "receivers", "relations")
    }
    system, code = zip(*(key.split("/", 1) for key in CODES), strict=True)
    zeros = np.zeros(len(CODES), np.int32)
    table = CodeTable(
        fingerprint="crosswalk world",
        key=np.array(CODES, object),
        system=np.array(system, object),
        code=np.array(code, object),
        description=np.array(CODES, object),
        split=zeros.astype(np.int8),
        node_offsets=offsets_of([len(one.nodes) for one in cut]),
        edge_offsets=offsets_of([len(one.senders) for one in cut]),
        self_node=zeros,
        graph_id=np.arange(len(CODES), dtype=np.int32),
        graph=graph,
        **ragged,
    )
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(PAIRS, WIDTH // 2))
    turn = np.linalg.qr(rng.normal(size=(WIDTH // 2, WIDTH // 2)))[0]
    # The second half of a text says nothing about its meaning.
    noise = rng.normal(size=(2 * PAIRS, WIDTH // 2))
    texts = np.concatenate([np.concatenate([meaning, meaning @ turn * 0.2 + meaning]), noise], axis=1)
    cache = TextCache(
        states=texts.astype(np.float32),
        offsets=np.arange(len(CODES) + 1),
        token_ids=zeros + 1,
        name_embedding=rng.normal(size=(len(KEYS) + 1, WIDTH)).astype(np.float32),
        num_cut=0,
    )
    nodes = np.arange(len(KEYS), dtype=np.int32)
    data = Data(
        table=table,
        cache=cache,
        selected=np.arange(len(CODES)),
        text_id=np.arange(len(CODES), dtype=np.int32),
        node_name=nodes + 1,
        row_of_node=np.where(nodes < len(CODES), nodes, -1).astype(np.int32),
    )
    return Codes.of(default.get_config(), data)
