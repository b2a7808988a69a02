"""Render the report of token quality as Markdown, with a table for each family of metrics."""

from eval.reports.writer import document, markdown_table, with_interval

TITLES = {
    "codebook": "Codebook",
    "identity": "Identity: codes that share their tokens with others",
    "cross_system": "Same concept, other system",
    "tree": "Hierarchy",
    "groups": "Groups: linear probes on unseen categories",
    "relations": "Relations: edges of the knowledge graph",
    "free_text": "Free text: terms that no text and no graph contains, as queries for their codes",
    "prefixes": "Shorter codes: the first tokens of each embedding",
    "robustness": "Robustness: codes encoded again with something dropped",
    "seeds": "Stability across seeds",
}
_VIEWS = ("", "vectors", "tokens", "unweighted tokens", "unquantized")
_EXPLAINED = {
    "vectors": "quantized embeddings (cosine)",
    "tokens": "token ids alone (weighted Jaccard overlap; a bag of tokens for probes)",
    "unweighted tokens": "token ids, all counting equally (Jaccard overlap)",
    "unquantized": "embeddings before quantization (cosine)",
}


def markdown(report: dict, plots: list[str] | None = None) -> str:
    """Return a report as Markdown.

    Args:
        report: report of `eval.tokenization.describe`.
        plots: file names of the figures to show.
    """
    labels, figures = report["labels"], report["figures"]
    parts = [
        f"# Token quality of {report['name']}",
        f"{report['codes']:,} codes; labels of `{labels['data_set']}`; {report['split']} items"
        + (", fewer of them (quick)" if report["quick"] else "")
        + ". In brackets 95 % bootstrap intervals (codes of one 3-character category are resampled together).",
    ]
    if dead := report["dead_rows"]:
        counted = ", ".join(f"{region} {count:,}" for region, count in dead.items())
        parts.append(f"Dead rows of the codebook, which no code uses: {counted}.")
    if views := [view for view in views_of(figures) if view]:
        parts.append("Views: " + "; ".join(f"**{view}**: {_EXPLAINED[view]}" for view in views) + ".")
    for family in dict.fromkeys(figure["family"] for figure in figures):
        parts.append(f"## {TITLES[family]}")
        parts.append(_table([figure for figure in figures if figure["family"] == family]))
    if counts := labels["counts"]:
        parts.append("## Labels")
        parts.append("\n".join(f"- {name}: {count:,}" for name, count in counts.items()))
    if report["notes"]:
        parts.append("## Not measured, or not held out")
        parts.append("\n".join(f"- {note}" for note in report["notes"]))
    parts += [f"![{name}]({name})" for name in plots or []]
    return document(parts)


def by_row(figures: list[dict]) -> dict[tuple[str, str], dict[str, dict]]:
    """Group figures: (scope, metric) -> view -> figure."""
    rows: dict[tuple[str, str], dict[str, dict]] = {}
    for figure in figures:
        rows.setdefault((figure["scope"], figure["metric"]), {})[figure["view"]] = figure
    return rows


def views_of(figures: list[dict]) -> list[str]:
    """Return the views that occur in figures, in their fixed order."""
    return [view for view in _VIEWS if any(figure["view"] == view for figure in figures)]


def _table(figures: list[dict]) -> str:
    """Return a Markdown table with a row for each scope and metric and a column for each view."""
    views = views_of(figures)
    given, trained, chance = (
        any(figure[name] not in ("", None) for figure in figures) for name in ("given", "trained", "chance")
    )
    header = ["scope", "metric", *(view or "value" for view in views), *(["chance"] if chance else []), "items"]
    header += ["given"] * given + ["trained"] * trained
    rows = []
    for (scope, metric), by_view in by_row(figures).items():
        one = next(iter(by_view.values()))
        cells = [scope, metric, *(_shown(by_view[view]) if view in by_view else None for view in views)]
        cells += [one["chance"]] if chance else []
        cells += [f"{one['n']:,} {one['unit']}"]
        cells += [one["given"] or "no"] * given + [one["trained"] or "no"] * trained
        rows.append(cells)
    return markdown_table(header, rows, texts=2)


def _shown(figure: dict) -> str:
    return with_interval(figure["value"], figure["low"], figure["high"])
