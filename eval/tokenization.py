"""Measure the token quality of a tokenizer, or of any other representation of codes, without patient data.

    python -m eval.tokenization --tokenizer=TOK --output=DIR [--split=validation] [--quick] [--data_dir=DATA]
    python -m eval.tokenization --workdir=RUN --output=DIR                  # robustness too, by running the model
    python -m eval.tokenization --tokenizer=TOK --other_seeds=TOK1,TOK2 --output=DIR    # stability of tokens

The command writes `quality.json`, `quality.md` and plots. Families of metrics: codebook, identity, cross_system, tree,
groups, relations, free_text, prefixes, robustness, seeds. Choose between models on `--split=validation`,
report on `--split=test`, once.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags
from rich.console import Console

from preprocessing.common import command_line
from preprocessing.common.errors import InputError

with command_line.importing(__name__):
    from eval.common.intervals import interval
    from eval.common.measurement import Measurement
    from eval.common.representation import Representation, load
    from eval.quality import (
        codebook_use,
        cross_system,
        free_text,
        groups,
        identity,
        prefixes,
        relations,
        seed_stability,
        tree_metrics,
    )
    from eval.quality.context import Context
    from eval.quality.label_building import open_labels
    from eval.quality.labels import SPLITS, Labels
    from eval.reports import quality_plots, writer
    from eval.reports.quality import by_row, markdown, views_of

JSON, MARKDOWN = "quality.json", "quality.md"
# Families with figures for each system besides those for all codes.
PER_SYSTEM = (codebook_use.FAMILY, identity.FAMILY)
EXAMPLE = "python -m eval.tokenization --tokenizer=TOK --output=DIR"

FAMILIES: dict[str, Callable[[Context], list[Measurement]]] = {
    codebook_use.FAMILY: codebook_use.measure,
    identity.FAMILY: identity.measure,
    cross_system.FAMILY: cross_system.measure,
    tree_metrics.FAMILY: tree_metrics.measure,
    groups.FAMILY: groups.measure,
    relations.FAMILY: relations.measure,
    free_text.FAMILY: free_text.measure,
    prefixes.FAMILY: prefixes.measure,
}
# Families that need more than a representation: the run, and tokenizers of other seeds.
MORE_FAMILIES = ("robustness", seed_stability.FAMILY)


def measure(
    representation: Representation,
    labels: Labels,
    *,
    split: str = "test",
    metrics: Sequence[str] = tuple(FAMILIES),
    quick: bool = False,
    seed: int = 0,
    on_family: Callable[[str], None] = lambda family: None,
) -> list[Measurement]:
    """Measure all figures that a representation allows, with their items, for comparison with other representations.

    Args:
        representation: the representation to evaluate.
        labels: labels of a data set that contains its codes.
        split: split whose items count, `validation` (to choose) or `test` (to report).
        metrics: families of metrics, keys of `FAMILIES`.
        quick: whether to measure fewer items.
        seed: seed of all random draws.
        on_family: function called with the name of each family before it is measured.

    Raises:
        InputError: the labels have none of the codes.
    """
    context = Context(representation, labels.for_keys(representation.keys), split, quick, seed)
    found = []
    for family in metrics:
        on_family(family)
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
    """Measure a representation and return the report of `describe`; for the arguments see `measure`."""
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
    """Return a report in values for JSON: the representation, the labels, and the figures with intervals."""
    return {
        "name": representation.name,
        "about": representation.about,
        "codes": len(representation),
        "split": split,
        "quick": quick,
        "seed": seed,
        "labels": {"data_set": labels.data_set, "fingerprint": labels.fingerprint, "counts": labels.counts},
        "dead_rows": codebook_use.dead_rows(representation),
        "notes": _notes(representation, labels, measurements),
        "figures": [figure(measurement, seed=seed) for measurement in measurements],
    }


def _notes(representation: Representation, labels: Labels, measurements: Sequence[Measurement]) -> list[str]:
    """Return a sentence for each figure that was not measured or not held out, with the remedy."""
    measured = {measurement.family for measurement in measurements}
    notes = []
    if codebook_use.FAMILY in measured and representation.embeddings and representation.unquantized is None:
        notes.append(
            "cosine(e, ê) and reconstruction error need the embeddings before quantization: "
            "python -m medtok_jax.tokenize vocabulary --workdir=RUN --output=TOK --embeddings."
        )
    if representation.about.get("graph", True) and any(q.given for q in labels.relations.values()):
        notes.append(
            "The graph contains the note edges: to hold them out, build and train on a data set with "
            "-holdout_note_30_eval in its name."
        )
    if labels.terms and free_text.FAMILY not in measured:
        notes.append(
            "Free text was not measured: it needs a baseline that is made of texts, or a tokenizer with its model: "
            "python -m medtok_jax.tokenize vocabulary --workdir=RUN --output=TOK --with_model."
        )
    if "robustness" not in measured:
        notes.append("Robustness was not measured: it runs the model, which --workdir=RUN names.")
    if seed_stability.FAMILY not in measured:
        notes.append(
            "Stability was not measured: it needs tokenizers of other seeds, which --other_seeds=TOK,TOK names."
        )
    return notes


def figure(measurement: Measurement, *, seed: int = 0) -> dict:
    """Return a figure with its interval in values for JSON."""
    value, low, high, n = interval(measurement, seed=seed)
    names = ("family", "metric", "view", "scope", "unit", "given", "trained", "chance", "better")
    return {name: getattr(measurement, name) for name in names} | {"value": value, "low": low, "high": high, "n": n}


def main(argv: list[str]) -> None:
    """Measure the tokenizer that the flags name, and write the report."""
    command_line.expect_arguments(argv, 0, EXAMPLE)
    given = flags.FLAGS
    metrics = _metrics(given.metrics)
    representation, labels, trained, others = _open(given)
    console = Console()

    def announce(family: str) -> None:
        console.print(f"measuring {family} ...", highlight=False)

    chosen = {"split": given.split, "quick": given.quick, "seed": given.seed}
    plain = [family for family in metrics if family in FAMILIES]
    found = measure(representation, labels, metrics=plain, on_family=announce, **chosen)
    context = Context(representation, labels.for_keys(representation.keys), **chosen)
    if trained is not None and "robustness" in metrics:
        from eval.quality import robustness

        announce(robustness.FAMILY)
        found += robustness.measure(context, trained)
    if others and "seeds" in metrics:
        announce(seed_stability.FAMILY)
        found += seed_stability.measure(context, others)
    report = describe(representation, labels, found, **chosen)
    output = Path(given.output).expanduser()
    _write(output, report, context, plots=given.plots)
    _print(console, report)
    console.print(f"wrote {output / JSON} and {output / MARKDOWN}", highlight=False)


def _metrics(named: list[str]) -> list[str]:
    """Return the named families of metrics, all of them for an empty list."""
    known = (*FAMILIES, *MORE_FAMILIES)
    for name in named:
        if name not in known:
            raise InputError(
                f"--metrics names {name!r}, which is not a family of metrics; choose from: {', '.join(known)}."
            )
    return named or list(known)


def _open(given: flags.FlagValues) -> tuple:
    """Open (representation, labels, run or None, tokenizers of other seeds) as the flags name them."""
    if not given.output:
        raise InputError(f"--output is missing; for example: {EXAMPLE}")
    if not (given.tokenizer or given.workdir):
        raise InputError(f"--tokenizer or --workdir must name a tokenizer; for example: {EXAMPLE}")
    representation = load(given.tokenizer or Path(given.workdir).expanduser() / "tokenizer", given.name)
    data_set = given.codes or (representation.about.get("data_set") or {}).get("name")
    if not data_set:
        raise InputError(f"{representation.name} does not name its data set; give --codes=medtok_codes/icd-...")
    command_line.output_folder(given.output)
    labels = open_labels(data_set, given.data_dir)
    trained = None
    if given.workdir:
        # JAX is only needed to run the model.
        from medtok_jax.inference.trained import open_trained

        trained = open_trained(Path(given.workdir).expanduser(), data_dir=given.data_dir or "")
    return representation, labels, trained, [load(path) for path in given.other_seeds]


def _write(output: Path, report: dict, context: Context, *, plots: bool) -> None:
    """Write the report and its plots, each file atomically."""
    pictures = quality_plots.draw(context, report, command_line.output_folder(output)) if plots else []
    writer.write(output / MARKDOWN, markdown(report, pictures), report)


def _print(console: Console, report: dict) -> None:
    """Print the figures of the complete vocabulary without intervals, marked for what was given and trained on."""
    figures = [one for one in report["figures"] if one["family"] not in PER_SYSTEM or ", " not in one["scope"]]
    figures = [one for one in figures if one["metric"] != codebook_use.BITS]
    views = views_of(figures)
    headers = ["scope", "metric", *(view or "value" for view in views)]
    rows = []
    for (scope, metric), by_view in by_row(figures).items():
        mark = writer.marks(*(any(one[name] for one in by_view.values()) for name in ("given", "trained")))
        rows.append([scope + mark, metric, *(by_view[view]["value"] if view in by_view else None for view in views)])
    console.print(writer.console_table(f"{report['name']}, {report['split']}", headers, rows, texts=2))
    for mark, name in ((writer.GIVEN, "given"), (writer.TRAINED, "trained")):
        for said in dict.fromkeys(one[name] for one in figures if one[name]):
            console.print(f"{mark} {said}", highlight=False)


if __name__ == "__main__":
    flags.DEFINE_string("tokenizer", None, "tokenizer directory, name on the hub, or saved representation")
    flags.DEFINE_string("workdir", None, "work directory of a run, for its tokenizer and its model (robustness)")
    flags.DEFINE_string("output", None, "folder for quality.json, quality.md and plots")
    flags.DEFINE_enum("split", "test", list(SPLITS), "split whose items count: validation to choose, test to report")
    flags.DEFINE_list("metrics", [], f"families to measure, all if not given: {', '.join((*FAMILIES, *MORE_FAMILIES))}")
    flags.DEFINE_bool("quick", False, "measure fewer items, in about a minute")
    flags.DEFINE_list("other_seeds", [], "tokenizers of other seeds, for the stability of tokens")
    flags.DEFINE_string("codes", None, "data set of the labels, if not that of the tokenizer")
    flags.DEFINE_string("data_dir", None, "directory of the data sets; the default of TFDS if not given")
    flags.DEFINE_string("name", None, "name of the tokenizer in the report")
    flags.DEFINE_integer("seed", 0, "seed of all random draws")
    flags.DEFINE_bool("plots", True, "draw plots")
    command_line.run(main)
