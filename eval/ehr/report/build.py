"""Write the report of a run: `report.md`, `report.json` and one HTML page with plots, `report.html`."""

from collections.abc import Sequence
from pathlib import Path

from eval.common.counts import FEWEST
from eval.ehr.report import blocks, family, macro, sections, study
from eval.ehr.report.description import RunDescription
from eval.ehr.report.values import values
from eval.ehr.results import CellResult
from eval.reports import writer
from preprocessing.common.atomic import write_text

REPORT = "report.md"
PAGE = "report.html"


def write(cells: Sequence[CellResult], run: RunDescription, folder: Path, *, progress: bool = False) -> dict:
    """Write the report and return its values, as `report.json` has them.

    The files are the same for the same cells, whatever their order.

    Args:
        cells: results of all cells.
        run: the description of the run.
        folder: folder to write into.
        progress: whether to show a progress bar.

    Raises:
        InputError: cells do not belong together, see `study.analyze`, or a file cannot be written.
    """
    cells = sorted(cells, key=_order)
    least = 0 if run.show_small_counts else FEWEST
    results = study.analyze(cells, run.family.tokenizer, least=least, progress=progress)
    run = run.with_rounded(results)
    comparisons = family.compare(run.family, results)
    inputs = {name: task.inputs for name, task in run.tasks.items()}
    means = macro.means_of_groups(cells, inputs, run.family.tokenizer)
    found = values(results, comparisons, cells, run, means)
    document = sections.document(results, comparisons, cells, run, means)
    writer.write(folder / REPORT, blocks.markdown(document), found)
    write_text(folder / PAGE, blocks.page(sections.title(run), document), advice=writer.ADVICE)
    return found


def _order(cell: CellResult) -> tuple:
    return cell.task, cell.tokenizer, cell.model, cell.regime, cell.setting, cell.input, cell.seed
