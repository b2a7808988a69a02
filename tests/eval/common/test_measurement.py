"""The figure over several scopes, by hand."""

import numpy as np
import pytest

from eval.common.measurement import Measurement, pool_scopes


def of_scope(scope: str, values: list[float], first: int, chance: float | None) -> Measurement:
    items = np.arange(first, first + len(values))
    where = {"family": "tree", "metric": "hits", "view": "vectors", "unit": "codes"}
    return Measurement(**where, scope=scope, items=items, values=np.array(values), clusters=items // 2, chance=chance)


def test_together():
    figures = [of_scope("a", [1.0, 0.0, 0.0], 0, 0.1), of_scope("b", [1.0], 10, 0.5)]
    (whole,) = pool_scopes(figures, "both")
    assert whole.name == ("tree", "hits", "vectors", "both")
    assert whole.value() == 0.5, "of four items, not of two scopes"
    assert whole.chance == pytest.approx((3 * 0.1 + 0.5) / 4)
    assert whole.items.tolist() == [0, 1, 2, 10]
    assert whole.clusters.tolist() == [0, 0, 1, 5]


def test_together_without_chance_or_with_one_scope():
    figures = [of_scope("a", [1.0, 0.0], 0, 0.1), of_scope("b", [1.0], 10, None)]
    assert pool_scopes(figures, "both")[0].chance is None
    assert pool_scopes(figures[:1], "both") == []
