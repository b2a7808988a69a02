"""Token quality: measures a tokenizer, or any other representation of codes, without patient data.

    python -m eval.tokenization --tokenizer=TOK --output=DIR [--split=validation] [--quick] [--data_dir=DATA]
    python -m eval.tokenization --workdir=RUN --output=DIR                  # robustness too, by running the model
    python -m eval.tokenization --tokenizer=TOK --other_seeds=TOK1,TOK2 --output=DIR    # stability of tokens

writes `quality.json`, `quality.md` and plots. Families of metrics: codebook, identity, cross_system, tree, groups,
relations, robustness, seeds. Choose between models on `--split=validation`, report on `--split=test`, once.
"""

from collections.abc import Callable, Sequence

from eval import codebook_use, cross_system, groups, identity, relations, tree_metrics
from eval.context import Context
from eval.intervals import interval
from eval.labels import Labels
from eval.measurement import Measurement
from eval.representation import Representation

FAMILIES: dict[str, Callable[[Context], list[Measurement]]] = {
    codebook_use.FAMILY: codebook_use.measure,
    identity.FAMILY: identity.measure,
    cross_system.FAMILY: cross_system.measure,
    tree_metrics.FAMILY: tree_metrics.measure,
    groups.FAMILY: groups.measure,
    relations.FAMILY: relations.measure,
}


def measure(
    representation: Representation,
    labels: Labels,
    *,
    split: str = "test",
    metrics: Sequence[str] = tuple(FAMILIES),
    quick: bool = False,
    seed: int = 0,
    told: Callable[[str], None] = lambda family: None,
) -> list[Measurement]:
    """All figures that a representation admits, each with its items, so that two representations can be compared.

    Args:
        representation: what is judged.
        labels: of a data set that holds its codes.
        split: `validation` (to choose by) or `test` (to report).
        metrics: families of metrics.
        quick: fewer items.
        seed: of what is drawn.
        told: called with each family before it is measured.
    """
    context = Context(representation, labels.for_keys(representation.keys), split, quick, seed)
    found = []
    for family in metrics:
        told(family)
        found += FAMILIES[family](context)
    return found


def judge(
    representation: Representation,
    labels: Labels,
    seed: int = 0,
    *,
    split: str = "test",
    metrics: Sequence[str] = tuple(FAMILIES),
    quick: bool = False,
) -> dict:
    """What `measure` finds, with intervals, in plain values for JSON."""
    found = measure(representation, labels, split=split, metrics=metrics, quick=quick, seed=seed)
    return describe(representation, labels, found, split=split, quick=quick, seed=seed)


def describe(
    representation: Representation,
    labels: Labels,
    measurements: Sequence[Measurement],
    *,
    split: str,
    quick: bool,
    seed: int,
) -> dict:
    """A report in plain values: what was judged, by which labels, and the figures."""
    return {
        "name": representation.name,
        "about": representation.about,
        "codes": len(representation),
        "split": split,
        "quick": quick,
        "seed": seed,
        "labels": {"data_set": labels.data_set, "fingerprint": labels.fingerprint, "counts": labels.counts},
        "dead_rows": codebook_use.dead_rows(representation),
        "figures": [figure(measurement, seed=seed) for measurement in measurements],
    }


def figure(measurement: Measurement, *, seed: int = 0) -> dict:
    """A figure with its interval in plain values."""
    value, low, high, n = interval(measurement, seed=seed)
    names = ("family", "metric", "view", "scope", "unit", "given", "chance", "better")
    return {name: getattr(measurement, name) for name in names} | {"value": value, "low": low, "high": high, "n": n}
