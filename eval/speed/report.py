"""Write the reports of the benchmarks: JSON with every figure, and one table for the terminal and for Markdown."""

import os
import platform
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from eval.reports import writer

HEADERS = ("measurement", "median", "least to most", "rate", "FLOP/s", "of matmul", "memory", "compiled", "JAX speedup")


def machine() -> dict[str, str | float | None]:
    """Return the machine, the date and the load of a measurement."""
    return {
        "date": date.today().isoformat(),
        "system": platform.platform(),
        "processor": _processor(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else -1,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def cells(row: Mapping) -> list[str]:
    """Return the cells of a row as text, in the order of `HEADERS`."""
    if "failed" in row:
        return [row["name"], f"failed: {row['failed']}", *[""] * (len(HEADERS) - 2)]
    memory = row.get("peak_bytes") or row.get("planned_bytes")
    rate = row.get("flops_per_second")
    speedup = row.get("jax_speedup")
    least = row.get("least_seconds", 0.0)
    most = row.get("most_seconds", 0.0)
    return [
        row["name"],
        seconds(row["median_seconds"]) if row.get("repeats") and row["name"] != "matmul" else "",
        f"{seconds(least)} to {seconds(most)}" if row.get("repeats", 1) > 1 else "",
        f"{row['per_second']:,.0f} {row['unit']}/s" if row.get("items") else "",
        f"{rate / 1e9:,.1f} G" if rate else "",
        f"{row['share_of_matmul']:.0%}" if "share_of_matmul" in row else "",
        f"{memory / 2**30:.2f} GiB" if memory else "",
        f"{row['compile_count']} in {row['compile_seconds']:.1f} s" if "compile_count" in row else "",
        f"{speedup:.1f} x" if speedup else "",
    ]


def seconds(value: float) -> str:
    """Return a duration as text with three digits."""
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def title(report: Mapping) -> str:
    """Return the title of a report: its benchmark and facts."""
    facts = (
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in report["facts"].items()
    )
    return f"{report['benchmark']}: {', '.join(facts)}"


def _columns(report: Mapping) -> tuple[list[str], list[list[str]]]:
    """Return (headers, rows) of a report, without the columns that are empty in all rows."""
    rows = [cells(row) for row in report["rows"]]
    used = [column for column in range(len(HEADERS)) if column == 0 or any(row[column] for row in rows)]
    return [HEADERS[column] for column in used], [[row[column] for column in used] for row in rows]


def tables(report: Mapping) -> list[Table]:
    """Return a report as tables for the terminal: its own `tables` where it has any, else one of its rows."""
    own = [
        writer.console_table(one["title"], one["headers"], one["rows"], texts=one.get("texts", 1))
        for one in report.get("tables", ())
        if one["rows"]
    ]
    if own:
        own[0].title = escape(title(report))
    return own or [writer.console_table(title(report), *_columns(report))]


def markdown(report: Mapping) -> str:
    """Return a report as Markdown."""
    machine_facts = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    parts = [f"## {report['benchmark']}", title(report), f"Measured on: {machine_facts}"]
    for one in report.get("tables", ()):
        if one["rows"]:
            table = writer.markdown_table(one["headers"], one["rows"], texts=one.get("texts", 1))
            parts += [f"### {one['title']}", table]
    if not report.get("tables"):
        parts.append(writer.markdown_table(*_columns(report)))
    if "broken" in report:
        sentences = "\n".join(f"- {sentence}" for sentence in report["broken"])
        parts += ["### broken promises", sentences or "none"]
    return writer.document(parts)


def write(report: Mapping, folder: Path) -> Path:
    """Write `speed_BENCHMARK[_SCALE][_TARGET].json` and `.md` to a folder, and return the path of the first."""
    names = (report["facts"][name].replace(":", "-") for name in ("scale", "target") if name in report["facts"])
    path = folder / f"{'_'.join(('speed', report['benchmark'], *names))}.json"
    writer.write(path.with_suffix(".md"), markdown(report), report)
    return path
