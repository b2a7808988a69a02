"""Codes known by their text alone, or by their graph alone: nothing of the other is left anywhere."""

import dataclasses

import jax
import numpy as np
import pytest

from medtok_jax.batch import MISSING
from medtok_jax.config import validate
from medtok_jax.data.dataset import load_data
from medtok_jax.data.input_pipeline import BatchBuilder, Budgets
from medtok_jax.text.encoder_files import resolve_text_encoder
from preprocessing.common.errors import InputError
from tests.helpers.small_run import small_config

ROWS = np.array([3, 4, 5, 8])


def batch_of(data):
    builder = BatchBuilder(data, Budgets((12,), ((256, 256),)), num_stacks=1, local_stacks=[0])
    return builder(ROWS, np.ones(4, bool), np.full(4, -1))


def test_without_graph(data):
    alike = dataclasses.replace(data, table=dataclasses.replace(data.table, graph_id=np.zeros(12, np.int32)))
    batch, whole = batch_of(alike.without("graph")), batch_of(alike)
    assert batch.graph.n_node[0, :-1].tolist() == [1] * 4
    assert batch.graph.n_edge[0, :-1].tolist() == [0] * 4
    assert (batch.graph.nodes["kind"][0, :4] == MISSING).all()
    assert len(set(batch.graph_id)) == 4 > len(set(whole.graph_id)), "equal subgraphs tell nothing any more"
    np.testing.assert_array_equal(batch.text, whole.text)
    np.testing.assert_array_equal(batch.text_id, whole.text_id)


def test_without_text(data):
    batch, whole = batch_of(data.without("text")), batch_of(data)
    assert not batch.text.any()
    assert batch.text_mask.sum(1).tolist() == [0] * 4
    assert len(set(batch.text_id)) == 4 > len(set(whole.text_id)), "equal descriptions tell nothing any more"
    jax.tree.map(np.testing.assert_array_equal, batch.graph, whole.graph)
    np.testing.assert_array_equal(batch.graph_id, whole.graph_id)


def test_a_sample_without_text(data):
    some = dataclasses.replace(data, selected=ROWS, text_id=np.where(np.isin(np.arange(12), ROWS), data.text_id, -1))
    bare = some.without("text")
    assert bare.num_texts == 4
    assert bare.num_tokens(ROWS).tolist() == [0] * 4
    assert (bare.text_id[[0, 1, 2]] == -1).all()


@pytest.mark.parametrize("modalities", ["both", "text", "graph"])
def test_the_configuration_says_which(data_dir, modalities):
    config = small_config(data_dir, data__modalities=modalities)
    loaded = load_data(config, encoder_dir=resolve_text_encoder(config.model.text_encoder_model), progress=False)
    assert bool(loaded.cache.states.any()) == (modalities != "graph")
    assert bool(loaded.table.num_nodes.any()) == (modalities != "text")
    most = loaded.table.num_nodes.max()
    assert loaded.sizes().max_nodes == (1 if modalities == "text" else most)
    assert most == 0 if modalities == "text" else 1 < most <= 64
    # Every part of the pipeline takes what is left.
    budgets = Budgets.fit(loaded, 64, 1, (64,))
    batch = BatchBuilder(loaded, budgets, num_stacks=1, local_stacks=[0])(
        loaded.selected[:64], np.ones(64, bool), np.full(64, -1)
    )
    assert batch.text_mask.any(1).all() == (modalities != "graph")


def test_a_trained_text_encoder_needs_texts(tmp_path):
    config = small_config(tmp_path, data__modalities="graph", model__text_encoder_trainable=True)
    with pytest.raises(InputError, match="leaves no text to train"):
        validate(config, 1)
