"""The bag of nodes, against loops over the table that it is made of."""

import numpy as np

from eval.baselines.bag_of_nodes import bag_of_nodes, mean_names
from eval.baselines.pursuit import PursuitOptions
from tests.helpers import crosswalk_world
from tests.helpers.crosswalk_world import WIDTH


def test_means_by_loops():
    codes = crosswalk_world.make_codes(crosswalk_world.facts())
    table, names = codes.data.table, codes.data.cache.name_embedding
    found = mean_names(codes).reshape(len(codes), -1, WIDTH)
    assert found.shape[1] == table.hops.max() + 1
    for place, row in enumerate(codes.rows):
        here = range(table.node_offsets[row], table.node_offsets[row + 1])
        for distance in range(found.shape[1]):
            chosen = [
                names[codes.data.node_name[table.nodes[n]]]
                for n in here
                if table.hops[n] == distance and n - here.start != table.self_node[row]
            ]
            mean = np.mean(chosen, axis=0) if chosen else np.zeros(WIDTH)
            wanted = mean / max(np.linalg.norm(mean), 1e-12)
            np.testing.assert_allclose(found[place, distance], wanted, atol=1e-5)
    # At distance 0 there is only the code itself, whose name is its description.
    assert not found[:, 0].any()


def test_edges_do_not_count(monkeypatch):
    codes = crosswalk_world.make_codes(crosswalk_world.facts())
    whole = mean_names(codes)
    codes.data.table.senders[:] = 0
    codes.data.table.receivers[:] = 0
    np.testing.assert_array_equal(mean_names(codes), whole)


def test_it_is_quantized_at_the_width_of_medtok():
    codes = crosswalk_world.make_codes(crosswalk_world.facts())
    made = bag_of_nodes(codes, PursuitOptions(codebook_size=40, num_tokens=4), width=10, seed=0)
    assert made.tokens.shape == (len(codes), 4)
    assert made.vectors.shape == (len(codes), 10)
    assert made.codebook.shape == (40, 10)
    cosine = (made.vectors * made.unquantized).sum(1) / np.linalg.norm(made.vectors, axis=1)
    assert cosine.mean() > 0.7
