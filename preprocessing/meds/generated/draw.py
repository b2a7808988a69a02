"""Draw patients as MIMIC-IV has them: stays, diagnoses, procedures, drugs, moves, and the faults of real records.

A draw is a pure function of the seed and of a range of patients. Patients are drawn in units of `UNIT`, each from
random numbers of its own, so a patient is the same whatever the range. Nothing here knows of files: codes are indices
into `Vocabularies`, times are minutes since 1970, and the faults of `RATES` are marked in columns of their own.

What a model can find in the records:
- every patient has two groups of disease, and three fifths of the codes are of them;
- a chronic condition comes back in three of four stays, and the drugs that a patient takes at home in every stay;
- severity, a normal number, makes stays longer, with more diagnoses and drugs, and more often deadly.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from preprocessing.common.ragged import offsets_of, positions
from preprocessing.meds.generated.vocabularies import GROUPS, Ranked, Vocabularies

UNIT = 1024
# Room for the numbers of the stays, and of the rows of other tables, of a unit.
STAYS_OF_A_UNIT, MOST_ROWS_OF_A_UNIT = 4 * UNIT, 1 << 20
DAY = 24 * 60
NEVER = np.iinfo(np.int64).min
MOST_DIAGNOSES = 39
# Shares of rows or patients with each property, as they are drawn; `truth.json` states them.
RATES = {
    "patients_with_stays": 0.613,
    "women": 0.522,
    "died_in_hospital_of_stays": 0.02,
    "died_after_discharge_of_patients_with_stays": 0.129,
    "discharged_at_midnight_before_an_evening_death_of_deaths": 0.25,
    "chronic_condition_coded_in_a_stay": 0.75,
    "codes_of_own_groups": 0.6,
    "missing_gender": 1e-4,
    "missing_dischtime": 5e-4,
    "discharge_before_admission": 3e-4,
    "flag_without_deathtime_of_deaths": 2e-3,
    "stays_after_death_of_deaths": 5e-3,
    "repeated_admission": 1e-4,
    "repeated_row": 5e-4,
    "row_of_unknown_stay": 1e-4,
    "malformed_icd": 2e-4,
    "ndc_zero": 0.11,
    "ndc_missing": 2e-3,
    "ndc_without_leading_zeros": 5e-3,
    "starttime_missing": 1e-3,
    "starttime_after_discharge": 4e-3,
    "stoptime_before_starttime": 0.01,
}
# Those that are faults of the records.
FAULTS = tuple(RATES)[tuple(RATES).index("missing_gender") :]
_MOST_FAULTS = 0.3
# A fault that is as frequent in real records already as it can be.
_FREQUENT = "discharged_at_midnight_before_an_evening_death_of_deaths"
# Rows for each stay, and what they add up to for 364,000 patients.
STAYS_OF_A_PATIENT = 2.443  # of those with stays
DIAGNOSES, PROCEDURES, PRESCRIPTIONS, LABS = 11.72, 1.575, 36.63, 289.0
_YEARS, _FIRST_DAY = 15, 13879  # 1 January 2008 in days since 1970
_ICD10_FROM = 16709 * DAY  # 1 October 2015
Table = dict[str, np.ndarray]
Rates = Mapping[str, float]


class Patients(NamedTuple):
    """Hold the drawn tables, each a dict of columns `[rows]`; `person` numbers the patients, `stay` the stays.

    Times are int64 minutes since 1970, `NEVER` where there is none. The columns that are not plain:

    people: `severity`, `groups` `[rows, 2]`, `born_year`, `anchor`, `real_year` (of the anchor), `dod` in days.
    stays: `edition` 9 or 10, `start`, `end` (true), `discharge` and `death` (as written), `expired`, `repeated`.
    transfers, labs: `number` of the row, over all patients.
    diagnoses, procedures: `edition`, `code`, `seq`, `malformed`, `unknown_stay`, `repeated`.
    prescriptions: `drug`, `start`, `stop`, `ndc` (0 as it is, 1 zero, 2 missing, 3 without leading zeros), `dose`.
    """

    people: Table
    stays: Table
    diagnoses: Table
    procedures: Table
    prescriptions: Table
    transfers: Table
    icu: Table
    drgs: Table
    labs: Table


def rates_of(faults: float) -> dict[str, float]:
    """Return `RATES` with every fault `faults` times as frequent, up to three rows in ten, or as in real records."""
    rates = {name: min(rate * faults, _MOST_FAULTS) if name in FAULTS else rate for name, rate in RATES.items()}
    return rates | {_FREQUENT: RATES[_FREQUENT] * min(faults, 1)}


def draw(
    seed: int, vocabularies: Vocabularies, first: int, stop: int, *, lab_share: float = 0.0, faults: float = 1.0
) -> Patients:
    """Draw the patients with the numbers `first` to `stop` (exclusive).

    Args:
        seed: of all random numbers.
        vocabularies: codes to draw from.
        first, stop: numbers of patients, from 0.
        lab_share: number of laboratory values as a share of MIMIC-IV's 158 million.
        faults: how many times as frequent as in MIMIC-IV faults are, see `rates_of`.
    """
    rates = rates_of(faults)
    units = [_unit(seed, rates, vocabularies, unit, lab_share) for unit in range(first // UNIT, -(-stop // UNIT))]
    joined = []
    for tables in zip(*units, strict=True):
        table = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
        kept = (table["person"] >= first) & (table["person"] < stop)
        joined.append(table if kept.all() else {name: column[kept] for name, column in table.items()})
    return Patients(*joined)


def _unit(seed: int, rates: Rates, vocabularies: Vocabularies, unit: int, lab_share: float) -> Patients:
    # Each table has a stream of its own, so that a change of one leaves the others as they are.
    streams = [np.random.default_rng([seed, unit, table]) for table in range(len(Patients._fields))]
    people = _people(streams[0], rates, vocabularies, unit)
    stays = _stays(streams[1], rates, people)
    tables = Patients(
        people=people,
        stays=stays,
        diagnoses=_diagnoses(streams[2], rates, vocabularies, people, stays),
        procedures=_procedures(streams[3], rates, vocabularies, people, stays),
        prescriptions=_prescriptions(streams[4], rates, vocabularies, people, stays),
        transfers=_transfers(streams[5], people, stays),
        icu=_icu(streams[6], stays),
        drgs=_drgs(streams[7], stays),
        labs=_labs(streams[8], stays, lab_share),
    )
    for table in tables:
        table["person"] = table["person"] + unit * UNIT
        if "stay" in table:
            table["stay"] = np.where(table["stay"] < 0, -1, table["stay"] + unit * STAYS_OF_A_UNIT)
        if "number" in table:
            table["number"] = np.arange(len(table["person"])) + unit * MOST_ROWS_OF_A_UNIT
    return tables


def _people(rng: np.random.Generator, rates: Rates, vocabularies: Vocabularies, unit: int) -> Table:
    severity = rng.normal(size=UNIT)
    mass = np.diff(vocabularies.diagnoses[10].bounds)
    counts = np.where(
        rng.random(UNIT) < rates["patients_with_stays"], 1 + rng.poisson(rng.gamma(0.35, 1.443 / 0.35, UNIT)), 0
    )
    return {
        "person": np.arange(UNIT),
        "severity": severity,
        "groups": rng.choice(GROUPS, (UNIT, 2), p=mass / mass.sum()),
        "is_woman": rng.random(UNIT) < rates["women"],
        "no_gender": rng.random(UNIT) < rates["missing_gender"],
        "age": np.clip(rng.normal(56 + 4 * severity, 19), 18, 96).astype(np.int64),
        "shift": 7 * rng.integers(102 * 365 // 7, 190 * 365 // 7, UNIT),
        "stays": np.minimum(counts, 60),
        "id_offset": rng.integers(0, 27, UNIT),
        "race": rng.choice(5, UNIT, p=[0.67, 0.14, 0.06, 0.04, 0.09]),
        "spare_day": rng.integers(0, _YEARS * 365, UNIT),
    }


def _stays(rng: np.random.Generator, rates: Rates, people: Table) -> Table:
    """Draw the stays, and add `anchor`, `real_year` and `dod` to the people."""
    offsets = offsets_of(people["stays"])
    total = int(offsets[-1])
    person = np.repeat(np.arange(UNIT), people["stays"])
    number = np.arange(total) - offsets[person]
    severity = people["severity"][person]
    length = np.clip(np.exp(1.0 + 0.35 * severity + 0.85 * rng.normal(size=total)), 0.08, 200)
    gap = np.exp(4.6 + 1.5 * rng.normal(size=total))
    room = np.maximum(_YEARS * 365.0 - np.bincount(person, length + 2.05, UNIT), 1.0)
    wide = np.bincount(person, gap, UNIT)
    gap = 2.05 + gap * np.minimum(1.0, room / np.maximum(wide, 1e-9))[person]
    spent = np.bincount(person, length + gap, UNIT)
    first = rng.random(UNIT) * np.maximum(_YEARS * 365.0 - spent, 0.0)
    before = np.cumsum(length + gap) - (length + gap)
    before -= before[offsets[person]] if total else 0.0
    day = np.floor(first[person] + before).astype(np.int64)
    start = (_FIRST_DAY + day) * DAY + _arrival(rng, total)
    end = start + np.maximum((length * DAY).astype(np.int64), 90)
    by_day = np.clip(rng.normal(14.5 * 60, 150, total), 8 * 60, 22 * 60).astype(np.int64)
    end = np.where(length >= 1, end // DAY * DAY + by_day, end)
    end = np.maximum(end, start + 60)
    edition = np.where(start >= _ICD10_FROM, 10, 9)
    anchor = np.where(people["stays"] > 0, 0, (_FIRST_DAY + people["spare_day"]) * DAY)
    anchor[person[number == 0]] = start[number == 0]
    people["real_year"] = _year(anchor // DAY)
    people["anchor"] = _year(anchor // DAY + people["shift"])
    people["born_year"] = people["anchor"] - people["age"]
    shift = people["shift"][person] * DAY
    stays = {"person": person, "stay": np.arange(total), "start": start + shift, "end": end + shift}
    stays |= {"edition": edition, "severity": severity, "length": length}
    return stays | _ends(rng, rates, people, stays, offsets, number)


def _ends(
    rng: np.random.Generator, rates: Rates, people: Table, stays: Table, offsets: np.ndarray, number: np.ndarray
) -> Table:
    """Draw deaths and discharges as they are written, and add `dod` to the people."""
    person, total = stays["person"], len(stays["person"])
    count = people["stays"]
    # The expected share of patients who die in their last stay follows from that of stays; exp(0.32) is the mean.
    chance = rates["died_in_hospital_of_stays"] * STAYS_OF_A_PATIENT * np.exp(0.8 * people["severity"] - 0.32)
    dies = (count > 0) & (rng.random(UNIT) < chance)
    early = (rng.random(UNIT) < rates["stays_after_death_of_deaths"]) & (count > 1)
    expired = dies[person] & (number == (count - 1 - early)[person])
    end = stays["end"]
    evening = (rng.random(total) < rates["discharged_at_midnight_before_an_evening_death_of_deaths"]) & expired
    evening &= end // DAY * DAY > stays["start"]
    end[evening] = end[evening] // DAY * DAY + 17 * 60 + rng.integers(0, 7 * 60, total)[evening]
    late = (rng.random(total) < 0.3) & expired & ~evening
    discharge = np.where(evening, end // DAY * DAY, end + late * rng.integers(1, 120, total))
    no_death = (rng.random(total) < rates["flag_without_deathtime_of_deaths"]) & expired & ~evening
    missing = (rng.random(total) < rates["missing_dischtime"]) & ~expired
    reversed_ = (rng.random(total) < rates["discharge_before_admission"]) & ~expired & ~missing
    discharge = np.where(reversed_, stays["start"] - rng.integers(10, 20 * 60, total), discharge)
    dod = np.full(UNIT, NEVER)
    last = offsets[1:][count > 0] - 1
    later = rng.exponential(120, UNIT).astype(np.int64) % 365 + 1
    dead_later = (rng.random(UNIT) < rates["died_after_discharge_of_patients_with_stays"]) & ~dies
    dod[count > 0] = np.where(dead_later[count > 0], end[last] // DAY + later[count > 0], NEVER)
    dod[person[expired]] = end[expired] // DAY
    people["dod"] = dod
    return {
        "discharge": np.where(missing, NEVER, discharge),
        "death": np.where(expired & ~no_death, end, NEVER),
        "expired": expired,
        "evening_death": evening,
        "reversed": reversed_,
        "after_death": expired_before(expired, person, number, count),
        "repeated": rng.random(total) < rates["repeated_admission"],
        "from_emergency": rng.random(total) < 0.62,
        "kind": rng.choice(9, total, p=[0.33, 0.19, 0.14, 0.12, 0.08, 0.05, 0.04, 0.03, 0.02]),
        "about": rng.integers(0, 1 << 30, total),
    }


def expired_before(expired: np.ndarray, person: np.ndarray, number: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return a `[stays]` bool mask of the stays that follow the one in which the patient died."""
    deadly = np.full(len(count), np.iinfo(np.int64).max)
    deadly[person[expired]] = number[expired]
    return number > deadly[person]


def _diagnoses(
    rng: np.random.Generator, rates: Rates, vocabularies: Vocabularies, people: Table, stays: Table
) -> Table:
    total = len(stays["person"])
    held = 1 + rng.poisson(4.2 * np.exp(0.35 * people["severity"]))
    chronic = _chronic(rng, rates, vocabularies, people, np.repeat(np.arange(UNIT), held))
    where, counts = positions(offsets_of(held), stays["person"])
    stay = np.repeat(np.arange(total), counts)
    kept = rng.random(len(where)) < rates["chronic_condition_coded_in_a_stay"]
    stay, where = stay[kept], where[kept]
    code = vocabularies.conditions[chronic[where], (stays["edition"][stay] == 10).astype(np.int64)]
    acute = np.repeat(np.arange(total), 1 + rng.poisson(7.42 * np.exp(0.3 * stays["severity"] - 0.045)))
    drawn = _codes(rng, rates, vocabularies.diagnoses, people, stays, acute)
    # Acute codes come first in a stay, as the reason for it.
    return _coded(rng, rates, stays, np.concatenate([acute, stay]), np.concatenate([drawn, code]), MOST_DIAGNOSES)


def _chronic(
    rng: np.random.Generator, rates: Rates, vocabularies: Vocabularies, people: Table, person: np.ndarray
) -> np.ndarray:
    """Draw a chronic condition for each element of `person`: the most frequent ones of a group more often."""
    group = _groups(rng, rates, people, person)
    sizes = np.array([len(conditions) for conditions in vocabularies.of_group])
    flat = np.concatenate([*vocabularies.of_group, np.arange(len(vocabularies.conditions))])
    offsets = offsets_of(np.append(sizes, len(vocabularies.conditions)))
    size = np.where(group < 0, len(vocabularies.conditions), sizes[group])
    # Log-uniform ranks are Zipf's with the exponent 1.
    rank = np.floor(np.exp(rng.random(len(group)) * np.log(size + 1.0))).astype(np.int64) - 1
    return flat[offsets[np.where(group < 0, GROUPS, group)] + np.minimum(rank, size - 1)]


def _groups(rng: np.random.Generator, rates: Rates, people: Table, person: np.ndarray) -> np.ndarray:
    """Return a group for each element of `person`: one of the patient's own, or -1 for any."""
    own = rng.random(len(person)) < rates["codes_of_own_groups"]
    return np.where(own, people["groups"][person, rng.integers(0, 2, len(person))], -1)


def _codes(
    rng: np.random.Generator, rates: Rates, ranked: dict[int, Ranked], people: Table, stays: Table, stay: np.ndarray
) -> np.ndarray:
    """Draw a code of the stay's edition for each element of `stay`."""
    group = _groups(rng, rates, people, stays["person"][stay])
    group[np.diff(ranked[9].bounds)[group] == 0] = -1
    is_ten = stays["edition"][stay] == 10
    code = np.empty(len(stay), np.int64)
    for edition, mask in ((9, ~is_ten), (10, is_ten)):
        code[mask] = ranked[edition].draw(rng, group[mask])
    return code


def _procedures(
    rng: np.random.Generator, rates: Rates, vocabularies: Vocabularies, people: Table, stays: Table
) -> Table:
    total = len(stays["person"])
    counts = np.where(rng.random(total) < 0.55, 1 + rng.poisson(1.95, total), 0)
    stay = np.repeat(np.arange(total), counts)
    table = _coded(
        rng, rates, stays, stay, _codes(rng, rates, vocabularies.procedures, people, stays, stay), MOST_DIAGNOSES
    )
    days = (stays["end"] - stays["start"])[table["stay"]] / DAY
    return table | {"day": stays["start"][table["stay"]] // DAY + np.floor(rng.random(len(days)) * days).astype(int)}


def _coded(
    rng: np.random.Generator, rates: Rates, stays: Table, stay: np.ndarray, code: np.ndarray, most: int
) -> Table:
    """Number the codes of each stay, each code once, and mark the faults."""
    _, kept = np.unique(stay << 32 | code, return_index=True)
    kept = kept[np.argsort(stay[kept] << 32 | kept)]
    stay, code = stay[kept], code[kept]
    seq = np.arange(len(stay)) - offsets_of(np.bincount(stay, minlength=len(stays["person"])))[stay] + 1
    stay, code, seq = (column[seq <= most] for column in (stay, code, seq))
    return {
        "person": stays["person"][stay],
        "stay": stay,
        "edition": stays["edition"][stay],
        "code": code,
        "seq": seq,
        "malformed": rng.random(len(stay)) < rates["malformed_icd"],
        "unknown_stay": rng.random(len(stay)) < rates["row_of_unknown_stay"],
        "repeated": rng.random(len(stay)) < rates["repeated_row"],
    }


def _prescriptions(
    rng: np.random.Generator, rates: Rates, vocabularies: Vocabularies, people: Table, stays: Table
) -> Table:
    home = 12
    at_home = vocabularies.drugs.draw(rng, _groups(rng, rates, people, np.repeat(np.arange(UNIT), home)))
    # exp(0.587) is the mean of the factor that severity and length of stay make.
    rate = PRESCRIPTIONS * np.exp(0.2 * stays["severity"] + 0.45 * np.log(stays["length"]) - 0.587)
    stay = np.repeat(np.arange(len(stays["person"])), rng.poisson(rate))
    person, total = stays["person"][stay], len(stay)
    drug = vocabularies.drugs.draw(rng, _groups(rng, rates, people, person))
    usual = rng.random(total) < 0.35
    drug = np.where(usual, at_home[person * home + rng.integers(0, home, total)], drug)
    admitted, end = stays["start"][stay], stays["end"][stay]
    start = admitted + (rng.random(total) ** 1.3 * (end - admitted)).astype(np.int64)
    start = np.minimum(-(-start // 60) * 60, end)
    after = rng.random(total) < rates["starttime_after_discharge"]
    start = np.where(after, end + rng.integers(1, 21 * 60, total), start)
    stop = start + 60 * (1 + np.exp(3.2 + 0.9 * rng.normal(size=total)).astype(np.int64))
    before = rng.random(total) < rates["stoptime_before_starttime"]
    stop = np.where(before, start - 60 * rng.integers(1, 20, total), stop)
    absent = rng.random(total) < rates["starttime_missing"]
    shares = [rates[name] for name in ("ndc_zero", "ndc_missing", "ndc_without_leading_zeros")]
    ndc = np.searchsorted(np.cumsum(shares), rng.random(total), side="right")
    order = np.argsort(stay << 32 | (start - admitted + DAY), kind="stable")
    table = {
        "person": person,
        "stay": stay,
        "drug": drug,
        "start": np.where(absent, NEVER, start),
        "stop": stop,
        "after_discharge": after & ~absent,
        "ndc": np.array([1, 2, 3, 0], np.int8)[ndc],
        "dose": rng.choice(np.array([1, 2, 5, 10, 20, 25, 40, 50, 81, 100, 325, 500, 650, 1000, 5000]), total),
        "pharmacy": rng.integers(10_000_000, 100_000_000, total),
        "kind": np.searchsorted([0.80, 0.97], rng.random(total)),
        "repeated": rng.random(total) < rates["repeated_row"],
    }
    return {name: column[order] for name, column in table.items()}


def _transfers(rng: np.random.Generator, people: Table, stays: Table) -> Table:
    """Draw moves: `event` is 0 emergency, 1 admission, 2 transfer, 3 discharge; visits without a stay have stay -1."""
    total = len(stays["person"])
    inner = np.repeat(np.arange(total), rng.poisson(0.78, total))
    length = stays["end"] - stays["start"]
    inside = stays["start"][inner] + (rng.random(len(inner)) * length[inner]).astype(np.int64)
    urgent = np.flatnonzero(stays["from_emergency"])
    every = np.arange(total)
    visits = np.repeat(np.arange(UNIT), rng.poisson(0.8, UNIT))
    day = _FIRST_DAY + rng.integers(0, _YEARS * 365, len(visits)) + people["shift"][visits]
    arrived = day * DAY + _arrival(rng, len(visits))
    none = np.full(len(visits), -1)
    parts = [
        (stays["person"][urgent], urgent, np.zeros(len(urgent), int), stays["start"][urgent] - 300),
        (stays["person"], every, np.full(total, 1), stays["start"]),
        (stays["person"][inner], inner, np.full(len(inner), 2), inside),
        (stays["person"], every, np.full(total, 3), stays["end"]),
        (visits, none, np.zeros(len(visits), int), arrived),
        (visits, none, np.full(len(visits), 3), arrived + rng.integers(60, 900, len(visits))),
    ]
    person, stay, event, time = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((event, time, person))
    table = {"person": person, "stay": stay, "event": event, "time": time, "unit": rng.integers(0, 30, len(person))}
    table["number"] = np.zeros(len(person), np.int64)
    return {name: column[order] for name, column in table.items()}


def _icu(rng: np.random.Generator, stays: Table) -> Table:
    stay = np.flatnonzero(rng.random(len(stays["person"])) < np.clip(0.165 * np.exp(0.3 * stays["severity"]), 0, 1))
    start, end = stays["start"][stay], stays["end"][stay]
    begin = start + (rng.random(len(stay)) * 0.3 * (end - start)).astype(np.int64)
    stop = begin + 30 + (rng.random(len(stay)) * (end - begin - 30)).astype(np.int64)
    unit = rng.integers(0, 8, len(stay))
    return {"person": stays["person"][stay], "stay": stay, "start": begin, "stop": stop, "unit": unit}


def _drgs(rng: np.random.Generator, stays: Table) -> Table:
    grouped = np.flatnonzero(rng.random(len(stays["person"])) < 0.697)
    stay = np.repeat(grouped, 2)
    system = np.tile([0, 1], len(grouped))
    number, level = rng.integers(1, 950, len(stay)), rng.integers(1, 5, len(stay))
    return {"person": stays["person"][stay], "stay": stay, "system": system, "number": number, "level": level}


def _labs(rng: np.random.Generator, stays: Table, share: float) -> Table:
    rate = LABS * share * stays["length"] ** 0.7 / np.mean(stays["length"] ** 0.7)
    stay = np.repeat(np.arange(len(stays["person"])), rng.poisson(rate))
    start, end = stays["start"][stay], stays["end"][stay]
    time = np.sort((start + (rng.random(len(stay)) * (end - start)).astype(np.int64)) + (stay << 40)) - (stay << 40)
    item, value = rng.integers(0, 12, len(stay)), rng.normal(size=len(stay))
    stored = time + rng.integers(20, 240, len(stay))
    table = {
        "person": stays["person"][stay],
        "stay": stay,
        "time": time,
        "stored": stored,
        "item": item,
        "value": value,
    }
    return table | {"number": np.zeros(len(stay), np.int64)}


def _arrival(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw minutes of the day: four in five arrive by day, around three in the afternoon."""
    by_day = rng.normal(15 * 60, 4 * 60, count).astype(np.int64) % DAY
    return np.where(rng.random(count) < 0.8, by_day, rng.integers(0, DAY, count))


def _year(days: np.ndarray) -> np.ndarray:
    return days.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
