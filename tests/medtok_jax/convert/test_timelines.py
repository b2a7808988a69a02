"""Lengths of sequences against the positions of a model."""

import numpy as np

from medtok_jax.convert.timelines import describe_lengths


def test_median_percentile_and_share_by_hand():
    """Of 1 to 101, the 51st is in the middle, 96 has 95 % of the others below, and 11 are beyond 90."""
    found = describe_lengths(np.arange(1, 102), 90, "train: timelines", "shorten them")
    assert found == (
        "train: timelines have 51 tokens in the median and 96 at the 95th percentile; 10.9% are longer than 90"
        " positions; shorten them."
    )


def test_nothing_to_do_where_all_fit():
    found = describe_lengths(np.array([2000, 2048]), 2048, "Histories", "shorten them")
    assert found.endswith("0.0% are longer than 2,048 positions.")
    assert describe_lengths(np.zeros(0, np.int64), 8, "Histories", "shorten them") == "Histories: there are none."
