"""A tokenizer that saw no crosswalk at all: the data set holds all of them out, and a run on it is like any other."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval.common.representation import load
from eval.quality.label_building import open_labels
from eval.tokenization import measure
from medtok_jax import train
from preprocessing import medtok_codes
from preprocessing.dataset.known_codes import RETIRED, read_known_codes
from preprocessing.graph import icd_graph
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from tests.helpers.small_run import small_config

NAME = "medtok_codes/icd-holdout_gem_100_eval-sample_600"

pytestmark = [pytest.mark.integration, pytest.mark.thorough]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def builder(directory, data_dir):
    return medtok_codes.prepare(NAME, directory, progress=False)


def test_no_crosswalk_is_left(builder):
    graph = KnowledgeGraph.load(medtok_codes.graph_path(builder))
    names = np.array(graph.relation_names)[np.unique(graph.relation)].tolist()
    assert not [name for name in names if "gem" in name]
    held = pq.read_table(medtok_codes.graph_path(builder) / "holdout.parquet")
    facts = icd_graph.icd_facts().facts
    assert len(held) == sum(len(facts[name]) for name in ("gem_exact", "gem_approximate"))
    retired = [row for row in read_known_codes(builder).to_pylist() if row["kind"] == RETIRED and row["stands"]]
    assert retired
    assert all(row["stands"].partition("/")[0] == row["key"].partition("/")[0] for row in retired)


def test_a_run_without_positives(builder, directory, tmp_path):
    config = small_config(directory, data__name=NAME, train__steps=4)
    train.train_and_evaluate(config, tmp_path / "run")
    representation = load(tmp_path / "run")
    assert np.isfinite(representation.vectors).all()
    labels = open_labels(NAME, directory, progress=False)
    assert not any(queries.given for queries in labels.crosswalk.values())
    found = measure(representation, labels, split="test", metrics=["cross_system"])
    assert found
