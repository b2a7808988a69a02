import networkx as nx
import numpy as np
import pytest
from scipy import stats

from eval.common.intervals import interval
from eval.common.measurement import Measurement
from eval.quality.tree_metrics import Tree, correlation_items, distance

# Root 0 has nodes 1 and 2; 1 has the codes 3, 4 and the node 5, which has the codes 6 and 7; 2 has the code 8.
PATHS = np.array([[0, 1, 3, -1], [0, 1, 4, -1], [0, 1, 5, 6], [0, 1, 5, 7], [0, 2, 8, -1], [-1] * 4], np.int32)
EDGES = [(0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (5, 6), (5, 7), (2, 8)]


def test_distance_against_networkx():
    tree, ends = nx.Graph(EDGES), [3, 4, 6, 7, 8]
    for a in range(5):
        for b in range(5):
            assert distance(PATHS[a : a + 1], PATHS[b : b + 1])[0] == nx.shortest_path_length(tree, ends[a], ends[b])


def test_codes_of_different_trees_are_joined_by_a_root_above_all():
    assert distance(np.array([[0, 1]]), np.array([[7, 8]]))[0] == 4


def test_the_codes_under_a_node_stand_together():
    tree = Tree(PATHS, np.arange(6)[::-1])
    assert tree.rows.tolist() == [0, 1, 2, 3, 4]
    under = {
        int(tree.path[row, level]): tree.rows[tree.begin[row, level] : tree.end[row, level]].tolist()
        for row in range(5)
        for level in range(tree.depth[row])
    }
    everything = {0: [0, 1, 2, 3, 4], 1: [0, 1, 2, 3], 2: [4], 5: [2, 3], 3: [0], 4: [1], 6: [2], 7: [3], 8: [4]}
    assert under == everything


def test_siblings_share_their_parent():
    tree, rng = Tree(PATHS, np.arange(6)), np.random.default_rng(0)
    drawn = np.stack([tree.siblings(np.arange(5), rng) for _ in range(60)])
    assert set(drawn[:, 2]) == {3}
    assert set(drawn[:, 3]) == {2}
    # Everything under their parent counts, and nothing else.
    assert set(drawn[:, 0]) == {1, 2, 3}
    assert set(drawn[:, 4]) == {-1}


def test_others_are_drawn_from_all_levels_and_are_never_the_code_itself():
    tree, rng = Tree(PATHS, np.arange(6)), np.random.default_rng(0)
    drawn = np.stack([tree.at_random_levels(np.arange(5), rng) for _ in range(400)])
    for code in range(5):
        assert code not in drawn[:, code]
        assert set(drawn[:, code]) == set(range(5)) - {code}
    # Code 2 draws from all codes (twice), from those under node 1, and from those under node 5 alike often.
    shares = np.bincount(drawn[:, 2], minlength=5) / 400
    assert shares == pytest.approx([2 / 16 + 1 / 12, 2 / 16 + 1 / 12, 0, 2 / 16 + 1 / 12 + 1 / 4, 2 / 16], abs=0.08)


def test_rank_correlation_against_scipy():
    rng = np.random.default_rng(0)
    closeness = rng.integers(5, size=400)
    likeness = (closeness + rng.normal(scale=2, size=400)).round(1)
    assert correlation_items(likeness, closeness).mean() == pytest.approx(stats.spearmanr(likeness, closeness)[0])
    assert correlation_items(np.ones(400), closeness).mean() == 0
    assert correlation_items(closeness, closeness).mean() == pytest.approx(1)


def test_the_interval_of_a_rank_correlation_against_drawing_pairs():
    rng = np.random.default_rng(0)
    closeness = rng.normal(size=500)
    likeness = closeness + rng.normal(scale=1.5, size=500)
    items = correlation_items(likeness, closeness)
    found = interval(Measurement("f", "m", "", "", "codes", np.arange(500), items))
    wanted = stats.bootstrap(
        (likeness, closeness),
        lambda a, b: stats.spearmanr(a, b)[0],
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=1,
    ).confidence_interval
    assert found.low == pytest.approx(wanted.low, abs=0.015)
    assert found.high == pytest.approx(wanted.high, abs=0.015)
