"""Save plots, and give all of them the same colors."""

from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from eval.reports.writer import ADVICE
from preprocessing.common.atomic import whole_file

matplotlib.use("Agg")

# The colors of Okabe and Ito, which color-blind readers can distinguish.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically and close it.

    Raises:
        InputError: the file cannot be written.
    """
    with whole_file(path, advice=ADVICE) as partial:
        figure.savefig(partial, dpi=120)
    plt.close(figure)
