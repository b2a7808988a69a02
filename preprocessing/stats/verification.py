"""Check the contents of a prepared data set against expected values, with a verdict for each.

The expected values are published (the paper's number of codes of each system, section 4; the size of PrimeKG; the
totals of the official ICD lists) or follow from the files from which the data set was built.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from preprocessing import primekg
from preprocessing.codes import ATC, CPT4, ICD9CM, ICD9PROC, ICD10CM, ICD10PCS, NDC, RXNORM, SNOMED
from preprocessing.common import atomic
from preprocessing.dataset.name import EMBEDDED, ICD_NDC, PRIMEKG, RELEASE, DatasetOptions
from preprocessing.dataset.splits import FRACTIONS, SPLITS
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.stats.columns import Columns

# Su et al., ICML 2025: codes of each system, 617,490 in all.
PAPER_COUNTS = {
    (SNOMED,): 303_325,
    (ICD10CM,): 81_184,
    (RXNORM,): 81_151,
    (ICD10PCS,): 61_644,
    (NDC,): 54_560,
    (ICD9CM, ICD9PROC): 18_365,
    (CPT4,): 10_602,
    (ATC,): 6_659,
}
# Relative tolerances: code lists are revised every year or every day, while the authors' release is fixed.
_TOLERANCE = {PRIMEKG: 0.3, RELEASE: 0.01}
# A share that deviates by more standard errors than this is not due to chance.
_MOST_ERRORS = 4.0
_OFF = ("differs", "absent")


@dataclasses.dataclass(frozen=True)
class Check:
    """Hold one comparison of an expected with a found value.

    Attributes:
        what: name of the value.
        expected: expected value, formatted.
        found: found value, formatted.
        verdict: `as expected`, `about as published`, `differs`, `absent` or `not comparable`.
    """

    what: str
    expected: str
    found: str
    verdict: str

    @property
    def is_off(self) -> bool:
        """Return whether the check fails, because the value differs or is absent."""
        return self.verdict in _OFF


def checks_of(options: DatasetOptions, columns: Columns, graph: KnowledgeGraph, report: dict) -> list[Check]:
    """Return all checks of a data set.

    Args:
        options: options that its name states.
        columns: its examples.
        graph: its knowledge graph.
        report: `report.json` beside the graph.
    """
    checks = _systems(options, columns, report) + _codes(options, columns, report)
    checks += _splits(columns)
    if options.source not in EMBEDDED:
        found = dict(zip(graph.node_types, np.bincount(graph.node_type_ids()).tolist(), strict=True))
        checks.append(_exactly("nodes of PrimeKG", sum(primekg.NODE_COUNTS.values()), sum(found.values())))
        checks.append(_exactly("node types of PrimeKG", len(primekg.NODE_COUNTS), len(found)))
        checks.append(_exactly("directed edges of PrimeKG", sum(primekg.ROW_COUNTS.values()), graph.num_edges))
        checks.append(_exactly("relations of PrimeKG", len(primekg.ROW_COUNTS), len(graph.relation_names)))
        checks.append(_exactly("rows rejected", 0, report["rejected"]))
    return checks


def _systems(options: DatasetOptions, columns: Columns, report: dict) -> list[Check]:
    counts = Counter(columns.system.tolist())
    if options.source in EMBEDDED:
        expected = {(entry["system"],): entry["expected"] for entry in report["code_lists"]}
        # Today's ICD-10-CM adds codes to the list of the package.
        expected[(ICD10CM,)] += report["counts"]["icd10cm_codes_of_the_newer_list_only"]
        if options.source == ICD_NDC:
            expected[(NDC,)] = report["counts"]["ndc_codes"]
        tolerance = 0.0
    else:
        expected = PAPER_COUNTS
        tolerance = _TOLERANCE[options.source]
    checks = []
    for systems, published in [*expected.items(), (("all",), sum(expected.values()))]:
        found = len(columns.system) if systems == ("all",) else sum(counts[system] for system in systems)
        name = f"codes: {' + '.join(systems)}"
        if options.sample is not None:
            checks.append(Check(name, f"a sample of {published:,}", f"{found:,}", "not comparable"))
        elif not found:
            checks.append(Check(name, f"{published:,}", "0", "absent"))
        elif found == published:
            checks.append(Check(name, f"{published:,}", f"{found:,}", "as expected"))
        else:
            near = abs(found - published) <= tolerance * published
            checks.append(Check(name, f"{published:,}", f"{found:,}", "about as published" if near else "differs"))
    known = {system for systems in expected for system in systems}
    for system in sorted(counts.keys() - known):
        checks.append(Check(f"codes: {system}", "not in the paper", f"{counts[system]:,}", "not comparable"))
    return checks


def _codes(options: DatasetOptions, columns: Columns, report: dict) -> list[Check]:
    total = len(columns.system)
    read = report["counts"].get("codes", total)
    has_graph = int((columns.nodes > 0).sum())
    largest = int(columns.nodes.max())
    verdict = "as expected" if largest <= options.max_nodes else "differs"
    checks = [
        _exactly("descriptions", total, total - int(columns.is_empty.sum())),
        _exactly("sound subgraphs", total, int(columns.is_sound.sum())),
        Check("nodes of the largest subgraph", f"at most {options.max_nodes:,}", f"{largest:,}", verdict),
    ]
    if options.sample is None:
        checks.append(_exactly("codes of the source files", read, total))
    if options.source in EMBEDDED:
        checks.append(_exactly("codes with a graph", total, has_graph))
    else:
        expected = report["counts"]["codes_with_nodes"]
        checks.append(_exactly("codes with a graph, of those with nodes", expected, has_graph))
        share = f"{has_graph:,} ({has_graph / total:.1%})"
        checks.append(Check("codes with a graph, of all", f"{total:,}", share, "not comparable"))
    return checks


def _splits(columns: Columns) -> list[Check]:
    """Check the shares of the splits over all codes; those of a single system may vary more, as a hash decides."""
    counts = Counter(columns.split.tolist())
    total = len(columns.split)
    checks = []
    for split, fraction in zip(SPLITS, FRACTIONS, strict=True):
        share = counts[split] / total
        error = np.sqrt(fraction * (1 - fraction) / total)
        verdict = "as expected" if abs(share - fraction) <= _MOST_ERRORS * error else "differs"
        checks.append(Check(f"share of {split}", f"{fraction:.1%}", f"{share:.2%}", verdict))
    return checks


def _exactly(what: str, expected: int, found: int) -> Check:
    return Check(what, f"{expected:,}", f"{found:,}", "as expected" if expected == found else "differs")


def check_table(checks: Sequence[Check]) -> Table:
    """Format `checks` for the terminal."""
    table = Table(title="Verification", title_justify="left", title_style="bold")
    for header in ("", "expected", "found", "verdict"):
        table.add_column(header, justify="right" if header in ("expected", "found") else "left")
    for check in checks:
        style = "red" if check.is_off else None
        table.add_row(check.what, check.expected, check.found, check.verdict, style=style)
    return table


def write_checks(path: Path, checks: Sequence[Check]) -> None:
    """Write `checks` as JSON atomically."""
    atomic.write_json(path, [dataclasses.asdict(check) for check in checks])


def read_checks(path: Path) -> list[Check]:
    """Read the checks that `write_checks` wrote."""
    return [Check(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
