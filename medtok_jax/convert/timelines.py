"""Compare the lengths of patients' sequences with the positions of the model that reads them."""

import numpy as np


def describe_lengths(lengths: np.ndarray, positions: int, name: str, remedy: str) -> str:
    """Return a sentence with the median and 95th percentile of lengths, and the share that does not fit.

    Args:
        lengths: `[sequences]` int64, tokens of each; empty if there are none.
        positions: tokens that the model reads at once.
        name: of the sequences, such as `train: timelines`.
        remedy: what the user can do where some do not fit.
    """
    if not len(lengths):
        return f"{name}: there are none."
    median, high = np.quantile(lengths, [0.5, 0.95], method="nearest")
    over = float((lengths > positions).mean())
    text = (
        f"{name} have {median:,} tokens in the median and {high:,} at the 95th percentile; {over:.1%} are longer than"
        f" {positions:,} positions"
    )
    return f"{text}; {remedy}." if over else f"{text}."
