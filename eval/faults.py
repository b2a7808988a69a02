"""Run the fault suite and print what was tried and what held: `python -m eval.faults --output=DIR [--long]`.

The suite kills trainings, fills disks, damages files and feeds readers with nonsense; its tests are in tests/faults/ of
a checkout of the project. The short form takes minutes. `--long` adds what takes hours: all tests that are marked
`thorough`. The table has a row for each kind of fault and is also written to `DIR/faults.md` and `DIR/faults.json`;
`DIR/faults.log` holds the output of pytest. The exit status is 1 if anything did not hold.
"""

import collections
import subprocess  # nosec B404 # It starts the tests of this project.
import sys
import time
import xml.etree.ElementTree as ET  # nosec B405 # A file that pytest has just written.
from pathlib import Path

from absl import flags

from eval.reports.writer import ADVICE, console_table, markdown_table
from preprocessing.common import command_line
from preprocessing.common.atomic import scratch_folder, write_json, write_text
from preprocessing.common.errors import InputError, UserError, one_line

EXAMPLE = "python -m eval.faults --output=DIR"
ROOT = Path(__file__).resolve().parent.parent
SUITE = Path("tests") / "faults"
HEADERS = ("what", "what happened else", "tried", "held", "seconds")
# Of pytest: all tests passed, some failed.
PASSED, FAILED = 0, 1
_LONGEST = 200


def run_suite(output: Path, *, long: bool, root: Path = ROOT) -> list[dict]:
    """Run the fault suite in a process of its own, and return the rows of its table, see `rows_of`.

    Args:
        output: folder for the output of pytest.
        long: whether to run the tests marked `thorough` too.
        root: of the checkout.

    Raises:
        InputError: there are no tests below `root`.
        UserError: pytest did not come to an end.
    """
    if not (root / SUITE).is_dir():
        raise InputError(
            f"{root} holds no {SUITE.as_posix()}, as it is no checkout of the project; clone its repository, install"
            " the extra `test`, and run the command there."
        )
    # pytest and the profiles of hypothesis go by this expression.
    chosen = "thorough or not thorough" if long else "not thorough"
    log = output / "faults.log"
    with scratch_folder(output / "junit", advice=ADVICE) as folder:
        results = folder / "results.xml"
        command = [sys.executable, "-m", "pytest", str(SUITE), "-m", chosen, f"--junitxml={results}"]
        # Properties of tests have no place in the newer family of these files.
        command += ["-o", "junit_family=xunit1", "-p", "no:cacheprovider"]
        with log.open("w", encoding="utf-8") as file:
            status = subprocess.run(  # nosec B603 # A list, without a shell.
                command, stdout=file, stderr=subprocess.STDOUT, cwd=root, check=False
            ).returncode
        if status not in (PASSED, FAILED) or not results.is_file():
            raise UserError(f"the fault suite ended with status {status} before its end; {log} says why.")
        return rows_of(results)


def rows_of(results: Path) -> list[dict]:
    """Return a row for each kind of fault from the results of pytest.

    Args:
        results: JUnit XML; a test may have the properties `what`, `tried` and `held`, of which the last ones of each
            `what` count. Without them it is one try of its file.

    Returns:
        `what`, `tried`, `held`, `else` (what failures and skipped tests said), and `seconds`, in the order of tests.
    """
    rows: dict[str, dict] = {}
    for case in ET.parse(results).iter("testcase"):  # nosec B314 # A file that pytest has just written.
        told, problem = _told(case), _problem(case)
        skipped = problem is not None and problem.startswith("skipped")
        if not told:
            told = {case.get("classname", "").rpartition("test_")[2].replace("_", " "): (int(not skipped),) * 2}
        failed = problem is not None and not skipped
        if failed and all(held == tried for tried, held in told.values()):
            what, (tried, held) = next(reversed(told.items()))
            told[what] = max(tried, 1), max(held - 1, 0)
        for what, (tried, held) in told.items():
            row = rows.setdefault(what, {"what": what, "tried": 0, "held": 0, "else": [], "seconds": 0.0})
            row["tried"] += tried
            row["held"] += held
            row["seconds"] += float(case.get("time", 0)) / len(told)
        if problem is not None:
            row["else"].append(f"{case.get('name')}: {problem}")
    return list(rows.values())


def _told(case: ET.Element) -> dict[str, tuple[int, int]]:
    """Return how much a test tried and how much of it held, by the kind of fault."""
    found: dict[str, tuple[int, int]] = {}
    given: dict[str, str] = {}
    for one in case.iter("property"):
        given[one.get("name", "")] = one.get("value", "")
        if given.keys() >= {"what", "tried", "held"}:
            found[given["what"]] = int(given["tried"]), int(given["held"])
            given = {}
    return found


def _problem(case: ET.Element) -> str | None:
    """Return in one line why a test failed or was skipped."""
    for kind in ("failure", "error", "skipped"):
        if (found := case.find(kind)) is not None:
            message = one_line(found.get("message") or (found.text or "").strip() or "no message")[:_LONGEST]
            return f"skipped: {message}" if kind == "skipped" else message
    return None


def cells_of(rows: list[dict]) -> list[list]:
    """Return the cells of the table: equal problems are counted, and sums stand below."""
    cells = []
    for row in rows:
        counts = collections.Counter(problem.partition(": ")[2] for problem in row["else"])
        told = "; ".join(f"{count} x {problem}" for problem, count in counts.items())
        cells.append([row["what"], told, row["tried"], row["held"], round(row["seconds"])])
    sums = [sum(row[number] for row in cells) for number in (2, 3, 4)]
    return [*cells, ["all", "", *sums]]


def write(output: Path, rows: list[dict], *, long: bool, seconds: float) -> None:
    """Write the table, as Markdown and as JSON."""
    form = "long" if long else "short"
    table = markdown_table(HEADERS, cells_of(rows), texts=2)
    head = f"Faults, the {form} form, on {time.strftime('%Y-%m-%d')}, in {seconds:,.0f} s."
    write_text(output / "faults.md", f"{head}\n\n{table}\n", advice=ADVICE)
    about = {"form": form, "date": time.strftime("%Y-%m-%d"), "seconds": seconds, "rows": rows}
    write_json(output / "faults.json", about, advice=ADVICE)


def main(argv: list[str]) -> None:
    """Run the suite, and print and write its table.

    Raises:
        UserError: something did not hold.
    """
    command_line.expect_arguments(argv, 0, EXAMPLE)
    given = flags.FLAGS
    output, begin = command_line.output_folder(given.output), time.monotonic()
    print(f"the tests of {SUITE.as_posix()} run; their output is in {output / 'faults.log'}", file=sys.stderr)
    rows = run_suite(output, long=given.long)
    write(output, rows, long=given.long, seconds=time.monotonic() - begin)
    command_line.table_console().print(console_table("Faults", HEADERS, cells_of(rows), texts=2))
    print(f"wrote {output / 'faults.md'}")
    if bad := [row["what"] for row in rows if row["held"] < row["tried"]]:
        raise UserError(f"not all faults were held off: {', '.join(bad)}; {output / 'faults.log'} says more.")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "folder for the table and the output of pytest", required=True)
    flags.DEFINE_bool("long", False, "run the tests marked `thorough` too, which takes hours")
    command_line.run(main)
