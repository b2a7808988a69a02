"""Write the results of ablations as a Markdown table and a figure."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from configs import ablation
from eval.reports import writer
from eval.reports.headlines import HEADLINES
from eval.reports.plots import save

MARKDOWN, PICTURE = "ablations.md", "ablations.png"
REFERENCE = "default"
UTILIZATION, COSINE, SECONDS = "least utilization of a region", "cosine(e, ê)", "seconds"


def figures_of(result: dict) -> dict[str, float]:
    """Return the headline figures, utilization, cosine and seconds of one result, by title."""
    found = {_name(one): one["value"] for one in result["quality"]["figures"]}
    figures = {one.title: found[one.name] for one in HEADLINES if one.name in found}
    metrics = result["summary"]["all_codes"]
    figures[UTILIZATION] = min(metrics[f"codebook_utilization_{region}"] for region in ("text", "graph", "shared"))
    figures[COSINE] = metrics["cosine"]
    figures[SECONDS] = result["seconds"]
    return figures


def _name(figure: dict) -> tuple[str, str, str, str]:
    """Return the name of a figure, see `Measurement.name`."""
    return figure["family"], figure["metric"], figure["view"], figure["scope"]


def by_cell(results: list[dict]) -> dict[str, dict[str, np.ndarray]]:
    """Group results: cell -> title of a figure -> its values over seeds, float64 `[seeds]`."""
    cells: dict[str, dict[str, list[float]]] = {}
    for result in results:
        for title, value in figures_of(result).items():
            cells.setdefault(result["cell"], {}).setdefault(title, []).append(value)
    return {cell: {title: np.array(values) for title, values in of.items()} for cell, of in cells.items()}


def markdown(results: list[dict]) -> str:
    """Return the report as Markdown: means over seeds, with standard deviations where there are several."""
    quality = results[0]["quality"]
    machines = ", ".join(dict.fromkeys(f"{result['date']} on {result['machine']}" for result in results))
    done = {result["cell"] for result in results}
    changes = {
        cell: ", ".join(f"`{name}={value}`" for name, value in changed.items()) or "`configs/ablation.py`"
        for cell, changed in ablation.cells().items()
        if cell in done
    }
    parts = [
        "# Ablations",
        f"{quality['codes']:,} codes of `{quality['labels']['data_set']}`, {quality['split']} items; mean ± standard"
        f" deviation over seeds; measured {machines}. Marks of figures, of the first cell: {writer.GIVEN} the graph"
        f" contains part of their labels; {writer.TRAINED} other pairs of their kind were in the training loss.",
        _table(results),
        f"![ablations]({PICTURE})",
        "## What each cell changes",
        "\n".join(f"- `{cell}`: {change}" for cell, change in changes.items()),
    ]
    return writer.document(parts)


def _table(results: list[dict]) -> str:
    cells = by_cell(results)
    titles = [*(one.title for one in HEADLINES), UTILIZATION, COSINE, SECONDS]
    titles = [title for title in titles if any(title in of for of in cells.values())]
    marks = {
        _name(figure): writer.marks(bool(figure["given"]), bool(figure.get("trained")))
        for figure in results[0]["quality"]["figures"]
    }
    by_title = {one.title: marks.get(one.name, "") for one in HEADLINES}
    headers = ["cell", "seeds", *(title + by_title.get(title, "") for title in titles)]
    rows = []
    for group, members in ablation.CELLS.items():
        there = [cell for cell in members if cell in cells]
        if there and group != "reference":
            rows.append([f"*{group}*"] + [None] * (1 + len(titles)))
        for cell in there:
            count = max(len(values) for values in cells[cell].values())
            rows.append([f"`{cell}`", count, *(_shown(cells[cell].get(title)) for title in titles)])
    return writer.markdown_table(headers, rows)


def _shown(values: np.ndarray | None) -> str | None:
    if values is None:
        return None
    mean = values.mean()
    spread = f" ± {writer.number(values.std(ddof=1), like=mean)}" if len(values) > 1 else ""
    return writer.number(mean) + spread


def draw(results: list[dict], path: Path) -> None:
    """Draw a panel for each figure with a row for each cell, a dot for each seed and a line at the default cell."""
    cells = by_cell(results)
    titles = [one.title for one in HEADLINES if any(one.title in of for of in cells.values())] + [UTILIZATION, COSINE]
    columns = 4
    rows = -(-len(titles) // columns)
    size = (4 * columns, rows * (1.2 + 0.2 * len(cells)))
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", sharey=True, squeeze=False)
    names = list(cells)
    for title, panel in zip(titles, axes.reshape(-1), strict=False):
        for row, cell in enumerate(names):
            values = cells[cell].get(title, np.zeros(0))
            panel.plot(values, np.full(len(values), -row), ".", color="#0072B2", alpha=0.5)
            if len(values):
                panel.plot(values.mean(), -row, "|", color="#D55E00", markersize=10)
        if title in cells.get(REFERENCE, {}):
            panel.axvline(cells[REFERENCE][title].mean(), color="grey", linewidth=1)
        panel.set(title=title, yticks=-np.arange(len(names)), yticklabels=names)
        panel.grid(axis="x", alpha=0.3)
    for panel in axes.reshape(-1)[len(titles) :]:
        panel.axis("off")
    save(figure, path)


def write(results: list[dict], output: Path) -> None:
    """Write the table and the plot of all results, each file atomically.

    Raises:
        InputError: a file cannot be written.
    """
    writer.write(output / MARKDOWN, markdown(results))
    draw(results, output / PICTURE)
