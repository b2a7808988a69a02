"""Download the sources of a group, and report the outcome of each."""

from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table

from preprocessing.common import locks
from preprocessing.common.errors import InputError, UserError
from preprocessing.common.progress import Bar
from preprocessing.download.catalogue import select
from preprocessing.download.collect import Outcome, Settings, collect, tidy
from preprocessing.download.manifest import Manifest
from preprocessing.download.physionet import PROJECTS
from preprocessing.download.source import DownloadSource

_NEEDS = {"open": "nothing", "umls": "UMLS_API_KEY", "hand": "--from_dir"}
_SHOWN = {
    "fetched": "fetched",
    "by hand": "taken from --from_dir",
    "there": "there already",
    "not needed": "not needed",
    "missing": "needs you",
    "failed": "FAILED",
}


def download(
    group: str, settings: Settings, *, only: Sequence[str] = (), sources: Iterable[DownloadSource] | None = None
) -> list[Outcome]:
    """Collect the sources of a group; the failure of one does not stop the others.

    Args:
        group: one of `GROUPS`.
        settings: folders and options of the download.
        only: names of sources; empty selects all of the group.
        sources: catalogue to use instead of `SOURCES`.

    Returns:
        The outcome of each source, in the order of the catalogue.

    Raises:
        InputError: the group or a name is not known, or the output cannot be written.
    """
    chosen = select(group, only, sources)
    if settings.from_dir and not settings.from_dir.is_dir():
        raise InputError(f"--from_dir={settings.from_dir} is not a folder; check the path.")
    outcomes: list[Outcome] = []
    with locks.exclusive(settings.output, wait=True, advice="choose another --output"):
        manifest = Manifest.read(settings.output)
        for source in Bar(chosen, desc=group, unit=" sources", show=settings.progress):
            if source.name in {outcome.source.replaces for outcome in outcomes if _is_present(outcome)}:
                outcomes.append(Outcome(source, "not needed"))
            else:
                outcomes.append(collect(source, manifest, settings))
        tidy(outcomes, settings.output)
    return outcomes


def _is_present(outcome: Outcome) -> bool:
    return outcome.state in ("fetched", "by hand", "there")


def raise_failures(outcomes: Collection[Outcome], only: Sequence[str] = ()) -> None:
    """Raise an error if a source failed, or if one that only the user can get was asked for by name.

    Args:
        outcomes: outcomes of all sources.
        only: names of the sources that were asked for by name.

    Raises:
        UserError: sources failed; the message names them.
        InputError: only the user can get some of the sources in `only`; the message names them.
    """
    failed = [outcome.source.name for outcome in outcomes if outcome.state == "failed"]
    if failed:
        raise UserError(
            f"{len(failed)} of the sources failed: {', '.join(failed)} (see above); run the same command again, which "
            "keeps the files that were fetched."
        )
    asked = {name.lower() for name in only}
    missing = [outcome.source.name for outcome in outcomes if outcome.state == "missing"]
    missing = [name for name in missing if name.lower() in asked]
    if missing:
        raise InputError(f"only you can get {', '.join(missing)}; follow the instructions above.")


def catalogue_table(sources: Iterable[DownloadSource]) -> Table:
    """Return a table of `sources` and of the MIMIC projects, with version, license, address and needed credentials."""
    table = Table(title="What can be downloaded", title_justify="left", title_style="bold", expand=True)
    for header in ("group", "source", "needs"):
        table.add_column(header, no_wrap=True)
    for header, ratio in (("version", 2), ("license", 3), ("from", 6)):
        table.add_column(header, overflow="fold", ratio=ratio)
    for source in sources:
        where = [download.url for download in source.downloads if download.url] or [source.listing or source.how]
        more = f" (and {len(where) - 1} more)" if len(where) > 1 else ""
        needs = _NEEDS[source.access]
        table.add_row(source.group, source.name, needs, source.version, source.license, where[0] + more)
    for project in PROJECTS.values():
        needs = "nothing" if project.is_open else "PhysioNet account"
        table.add_row("(mimic)", project.name, needs, project.version, project.license, project.page)
    return table


def print_outcomes(outcomes: Collection[Outcome], console: Console) -> None:
    """Print one line per source, then the reason for each one that is missing or failed."""
    for outcome in outcomes:
        color = {"failed": "red", "missing": "yellow"}.get(outcome.state, "green")
        console.print(f"  {outcome.source.name:<14} [{color}]{_SHOWN[outcome.state]}[/{color}]", highlight=False)
    for outcome in outcomes:
        if outcome.reason:
            console.print(outcome.reason, markup=False, highlight=False, soft_wrap=True)
