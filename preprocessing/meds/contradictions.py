"""Find where the records of MIMIC contradict themselves, and settle each case by one stated rule.

MIMIC often dates a discharge at midnight of the day of an evening death, or before the admission, and its death flag,
death time and date of death do not always agree. This module decides when each stay ends and each patient died, and
counts the cases. `RULES` says in words what is done about each; `conversion.json` repeats it beside the counts.
"""

import collections
import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from rich.table import Table

from preprocessing.common.extras import load

pl = load("polars")

Frame: TypeAlias = "pl.DataFrame"
# Tables of the patient's whereabouts, which tell how long a stay lasted.
_WHEREABOUTS = ("transfers", "icustays")
# Number of lines of the input that are listed for each kind of contradiction.
LISTED = 20
_DAY = "24h"
# MIMIC-III writes DEAD/EXPIRED, MIMIC-IV DIED.
_DEADLY = r"(?i)\b(?:DIED|DEAD|DEATH|EXPIRED)\b"


@dataclasses.dataclass(frozen=True)
class Rule:
    """Say what is done about one kind of contradiction.

    Attributes:
        done: the rule that the conversion applies, a sentence.
        resolved: False if the events still contradict each other afterwards; `--strict` refuses such records.
    """

    done: str
    resolved: bool = True


_LATER = Rule("The stay ends at the deathtime, and so do its diagnoses.")
_KEPT_EVENTS = "The events keep their own times."
RULES: dict[str, Rule] = {
    "deathtime after dischtime, on the same day": _LATER,
    "deathtime after dischtime, up to 24 hours": _LATER,
    "deathtime after dischtime, more than 24 hours": _LATER,
    "deathtime more than 24 hours before dischtime": Rule("The stay ends at dischtime, the death is at the deathtime."),
    "deathtime before admittime": Rule("The death keeps its time, and the stay stands after it.", resolved=False),
    "deathtime in a row without hadm_id": Rule("The death keeps its time, although the row names no stay."),
    "deathtime without hospital_expire_flag": Rule("The deathtime counts, and the flag is kept as recorded."),
    "hospital_expire_flag without deathtime": Rule(
        "The patient died at the end of the stay, or at the end of the day dod if that is earlier."
    ),
    "discharge_location of a death without hospital_expire_flag": Rule(
        "The location is kept as recorded, and adds no death.", resolved=False
    ),
    "dischtime before admittime": Rule("The dischtime is not used to date the stay's end; see the next rules."),
    "no dischtime": Rule("The stay ends at the deathtime, if there is one; otherwise see the next two rules."),
    "end of the stay from its last event": Rule(
        "The stay has no usable discharge and ends with its last event; beside a dischtime before the admission, only"
        " transfers, intensive care and the emergency department count."
    ),
    "end of the stay from its day of admission": Rule(
        "The stay has no usable discharge and no such event, and ends with the last second of its first day."
    ),
    "no end of the stay": Rule("The stay has no time at all; its events without times are rejected.", resolved=False),
    "no admittime": Rule("The row gives no admission.", resolved=False),
    "stay begins after death": Rule("The stay keeps its times, and stands after the death.", resolved=False),
    "several deathtimes": Rule("The earliest one counts.", resolved=False),
    "deathtime without dod": Rule("The deathtime counts."),
    "dod and deathtime differ by one day": Rule("The deathtime counts."),
    "dod and deathtime differ by more than one day": Rule("The deathtime counts."),
    "dod during a stay that was survived": Rule("The death is at the end of the day dod.", resolved=False),
    "no gender": Rule("The patient has no event of gender.", resolved=False),
    "no birth": Rule("The patient has no MEDS_BIRTH.", resolved=False),
    "birth after an admission or death": Rule("The birth keeps its time.", resolved=False),
    "events before their stay": Rule(_KEPT_EVENTS),
    "events after their stay": Rule(_KEPT_EVENTS),
    "events after death": Rule(f"{_KEPT_EVENTS} Those at the end of a stay are not counted."),
}


class Contradictions:
    """Count contradictions by kind and table, with the lines of the first ones; values of patients are not kept."""

    def __init__(self):
        self._counts: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in RULES}
        self._lines: dict[str, list[int]] = {kind: [] for kind in RULES}

    def add(self, kind: str, table: str, count: int) -> None:
        """Count cases of a kind in a table."""
        if count:
            self._counts[kind][table] += count

    def add_rows(self, table: str, frame: Frame, masks: Mapping[str, "pl.Expr"]) -> None:
        """Count the rows of a table to which each expression applies, by kind, and keep the first lines of each."""
        for kind, mask in masks.items():
            lines = frame.filter(mask)["line"]
            self.add(kind, table, len(lines))
            self._lines[kind] += lines.head(LISTED - len(self._lines[kind])).to_list()

    def summary(self) -> list[dict]:
        """Return the kinds that occur: `kind`, `count`, `tables` (count of each), `lines`, `rule` and `resolved`."""
        return [
            {
                "kind": kind,
                "count": tables.total(),
                "tables": dict(sorted(tables.items())),
                "lines": self._lines[kind],
                "rule": RULES[kind].done,
                "resolved": RULES[kind].resolved,
            }
            for kind, tables in self._counts.items()
            if tables
        ]


def listing(summary: list[dict]) -> Table:
    """Return the result of `Contradictions.summary` as a table for the terminal."""
    table = Table(title="Contradictions in the records", title_justify="left", title_style="bold")
    table.add_column("contradiction", overflow="fold")
    table.add_column("number", justify="right")
    table.add_column("rule", overflow="fold")
    for entry in summary:
        table.add_row(entry["kind"], f"{entry['count']:,}", entry["rule"])
    return table


def needing(table: str, stays: Frame) -> Frame:
    """Return the stays whose end the last event in a table may tell, since no usable dischtime or deathtime does.

    Only if no dischtime is recorded at all, which official files do not know, the large tables are asked, too.

    Args:
        table: name of the table.
        stays: rows of the table of admissions, with `admittime`, `dischtime` and `deathtime`.
    """
    return stays.filter(_recorded_end().is_null() & (pl.col("dischtime").is_null() | pl.lit(table in _WHEREABOUTS)))


def _recorded_end() -> "pl.Expr":
    """Return the later one of dischtime and deathtime; null if it is before the admission."""
    recorded = pl.max_horizontal("dischtime", "deathtime")
    return pl.when((recorded >= pl.col("admittime")).fill_null(True)).then(recorded)


def end_stays(stays: Frame, last_events: Frame, found: Contradictions) -> Frame:
    """Decide when stays end, and count their contradictions.

    Args:
        stays: rows of the table of admissions, each stay once.
        last_events: `hadm_id` and `last`, the time of the last event, of stays that `needing` returns, where known.
        found: receives the counts.

    Returns:
        The rows with `discharged`, the end of the stay, which is not before its admission; null if no time is known.
    """
    stays = stays.join(last_events, on="hadm_id", how="left", maintain_order="left")
    admitted, left, died = pl.col("admittime"), pl.col("dischtime"), pl.col("deathtime")
    last = pl.max_horizontal("last", "edouttime")
    last = pl.when((last >= admitted).fill_null(True)).then(last)
    first_day = admitted.dt.truncate("1d") + pl.duration(days=1, seconds=-1)
    stays = stays.with_columns(recorded=_recorded_end(), last=last)
    stays = stays.with_columns(discharged=pl.coalesce("recorded", "last", first_day))
    flagged = pl.col("hospital_expire_flag") == 1
    unrecorded = pl.col("recorded").is_null()
    same_day = died.dt.date() == left.dt.date()
    within = died <= left.dt.offset_by(_DAY)
    masks = {
        "deathtime after dischtime, on the same day": (died > left) & same_day,
        "deathtime after dischtime, up to 24 hours": (died > left) & ~same_day & within,
        "deathtime after dischtime, more than 24 hours": (died > left) & ~within,
        "deathtime more than 24 hours before dischtime": died.dt.offset_by(_DAY) < left,
        "deathtime before admittime": died < admitted,
        "deathtime without hospital_expire_flag": died.is_not_null() & ~flagged.fill_null(False),
        "hospital_expire_flag without deathtime": died.is_null() & flagged,
        "discharge_location of a death without hospital_expire_flag": died.is_null()
        & ~flagged.fill_null(False)
        & pl.col("discharge_location").str.contains(_DEADLY),
        "dischtime before admittime": left < admitted,
        "no dischtime": left.is_null(),
        "end of the stay from its last event": unrecorded & pl.col("last").is_not_null(),
        "end of the stay from its day of admission": unrecorded & pl.col("last").is_null() & admitted.is_not_null(),
        "no end of the stay": pl.col("discharged").is_null(),
        "no admittime": admitted.is_null(),
    }
    found.add_rows("admissions", stays, masks)
    return stays.drop("recorded", "last")


def with_deaths(patients: Frame, stays: Frame, lost: Frame, found: Contradictions) -> Frame:
    """Decide when patients died, and count the contradictions between stays and dates of death.

    The earliest deathtime counts. A patient who died in hospital, as only the flag of a stay says, died at its end, or
    at `dod` if that is earlier. All others died at `dod`.

    Args:
        patients: rows of the table of patients, with `dod` at the last second of its day.
        stays: the result of `end_stays`.
        lost: rows of the table of admissions without a stay, with `subject_id` and `deathtime`.
        found: receives the counts.

    Returns:
        The rows with `admitted`, the first admission, and `died`.
    """
    flagged = (pl.col("hospital_expire_flag") == 1) & pl.col("deathtime").is_null()
    ends = stays.group_by("subject_id").agg(
        pl.col("admittime").min().alias("admitted"), pl.col("discharged").filter(flagged).min().alias("flagged_end")
    )
    times = pl.concat([frame.select("subject_id", "deathtime") for frame in (stays, lost)]).drop_nulls()
    times = times.group_by("subject_id").agg(
        pl.col("deathtime").min().alias("died_there"), pl.col("deathtime").n_unique().alias("deathtimes")
    )
    patients = patients.join(ends, on="subject_id", how="left", maintain_order="left")
    patients = patients.join(times, on="subject_id", how="left", maintain_order="left")
    by_flag = pl.when(pl.col("flagged_end").is_not_null()).then(pl.min_horizontal("flagged_end", "dod"))
    patients = patients.with_columns(died=pl.coalesce(pl.min_horizontal("died_there", by_flag), "dod"))
    apart = (pl.col("dod").dt.date() - pl.col("died_there").dt.date()).dt.total_days().abs()
    masks = {
        "several deathtimes": pl.col("deathtimes") > 1,
        "deathtime without dod": pl.col("died_there").is_not_null() & pl.col("dod").is_null(),
        "dod and deathtime differ by one day": apart == 1,
        "dod and deathtime differ by more than one day": apart > 1,
    }
    found.add_rows("patients", patients, masks)
    found.add_rows("admissions", lost, {"deathtime in a row without hadm_id": pl.col("deathtime").is_not_null()})
    deaths = patients.select("subject_id", "died")
    seen = stays.join(deaths, on="subject_id", how="inner", maintain_order="left")
    died, survived = pl.col("died"), pl.col("deathtime").is_null() & (pl.col("hospital_expire_flag") != 1)
    inside = (died > pl.col("admittime")) & (died < pl.col("discharged").dt.truncate("1d"))
    masks = {
        "stay begins after death": pl.col("admittime") > died,
        "dod during a stay that was survived": survived.fill_null(True) & inside,
    }
    found.add_rows("admissions", seen, masks)
    return patients.drop("died_there", "flagged_end", "deathtimes")


def count_patients(people: Frame, found: Contradictions) -> None:
    """Count patients without gender or birth, and those who were born after they were admitted or died.

    Args:
        people: rows of the table of patients with `admitted`, `born` and `died`.
        found: receives the counts.
    """
    masks = {
        "no gender": pl.col("gender").is_null(),
        "no birth": pl.col("born").is_null(),
        "birth after an admission or death": pl.col("born") > pl.min_horizontal("admitted", "died"),
    }
    found.add_rows("patients", people, masks)


def count_events(table: str, frame: Frame, events: Frame, deaths: np.ndarray, found: Contradictions) -> None:
    """Count the events of a block that are outside their stay, or after death but not at the end of a stay.

    Args:
        table: name of the table.
        frame: its rows, sorted by `line`, with `admitted` and `discharged` if they may belong to stays; the table of
            admissions, whose arrivals may precede the stay, has only `discharged`.
        events: events of these rows.
        deaths: time of death of the patient of each event, datetime64[us] [len(events)]; NaT for the living.
        found: receives the counts.
    """
    time = events["time"].to_numpy()
    after_death = time > deaths
    if "discharged" in frame.columns:
        row = frame["line"].search_sorted(events["line"])
        discharged = frame["discharged"].gather(row).to_numpy()
        after_death &= time != discharged
        if "admitted" in frame.columns:
            found.add("events before their stay", table, int((time < frame["admitted"].gather(row).to_numpy()).sum()))
            found.add("events after their stay", table, int((time > discharged).sum()))
    found.add("events after death", table, int(after_death.sum()))
