"""Read how a data set spells the events of stays: the predicates of ACES and what is special about its stays."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import yaml

from eval.ehr.tasks.definition import ANY_MEDS, FOLDER
from medtok_jax.records.visits import CODING_DAYS

HOSPITAL, FIRST_ICU = "hospital", "first_icu"


@dataclasses.dataclass(frozen=True)
class Spelling:
    """Hold how a data set spells the events of stays.

    Attributes:
        path: the file of predicates, which ACES reads too.
        patterns: predicate -> regular expression of its codes; predicates that combine others are left out.
        stay: `hospital`, or `first_icu` if a stay begins with the first admission to intensive care in a hospital stay.
        discharge_from: column of the admission that holds the time of the discharge, which is then added as an event;
            empty if discharges are events.
        needs_survival: True if stays are left out whose discharge does not say whether the patient lived.
        needs_diagnosis: True if stays are left out in which no diagnosis was entered up to the prediction time.
        any_age: True if no stay is left out for the age of the patient, because all units are for adults.
        procedures_at_discharge: True if procedures of stays are coded after the discharge, whatever their date in the
            records.
        coding_days: days for which the rule `bedside` does not see what stands at a discharge or after it, as it takes
            time until it is coded.
    """

    path: Path
    patterns: Mapping[str, str]
    stay: str = HOSPITAL
    discharge_from: str = ""
    needs_survival: bool = False
    needs_diagnosis: bool = False
    any_age: bool = False
    procedures_at_discharge: bool = False
    coding_days: float = CODING_DAYS


@functools.cache
def read_spelling(source: str) -> Spelling:
    """Return how a source spells stays, as its file in `predicates` says; without a file, as any MEDS data set does."""
    path = FOLDER / "predicates" / f"{source}.yaml"
    path = path if path.is_file() else path.with_name(f"{ANY_MEDS}.yaml")
    stated = yaml.safe_load(path.read_text(encoding="utf-8"))
    codes = {name: one["code"] for name, one in stated["predicates"].items() if "code" in one}
    patterns = {name: code["regex"] if isinstance(code, dict) else f"^{code}$" for name, code in codes.items()}
    about = {name: value for name, value in stated["metadata"].items() if name != "description"}
    return Spelling(path, patterns, **about)
