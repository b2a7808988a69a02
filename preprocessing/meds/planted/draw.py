"""Draw the patients of a planted world: stays, diagnoses and drugs. Nothing here knows of labels or files.

A draw is a pure function of the seed and of a range of patients. Patients are drawn in units of `UNIT`, each from
random numbers of its own, so a patient is the same whatever the range. Times are minutes since 1970.

A patient has some groups of disease, and of each group one or more diseases, which come up in one stay and perhaps
again in later ones. Age, sex, number of stays, number of diseases and drugs are drawn without regard to the groups, so
that a risk which depends on groups or codes is told by nothing else.
"""

from typing import NamedTuple

import numpy as np

from preprocessing.common.ragged import offsets_of
from preprocessing.meds.planted.conditions import Conditions

UNIT = 1024
DAY = 24 * 60
DRUGS = 30
STAYS_OF_A_PERSON = 100
# Mean numbers beside the one that every patient has: of groups of a patient, diseases of a group, and stays.
_GROUPS, _DISEASES, _STAYS = 5.0, 0.5, 1.0
_MOST_STAYS = 6
# Chance that a disease is coded again in a later stay, and mean number of drugs of a stay.
_CODED_AGAIN, _DRUGS_OF_A_STAY = 0.15, 2.0
# Exponents of the frequencies of groups and of drugs, by rank.
_GROUP_ZIPF, _DRUG_ZIPF = 0.4, 0.7
# The last stays end in these days since 1970: the years 2010 to 2014.
_LAST_DAYS = (14610, 16436)
# With an order, the last stay is short and follows soon, so that 30 days hold both diseases.
_LONGEST_BEFORE, _LONGEST_GAP = 5 * DAY, 12 * DAY


class Patients(NamedTuple):
    """Hold drawn tables, each a dict of columns `[rows]`, int64 unless stated.

    `person` numbers the patients; `stay` is `person` x `STAYS_OF_A_PERSON` + the number of the stay of its patient.

    people: `person`, `is_woman`, `age` in years at the last discharge, `stays` (their number), `born` in days,
        `discharge` (the last); `is_reversed`, whether the second disease of the ordered pair came first (worlds with an
        order); `luck` and `later_luck`, float64 in [0, 1), which decide on the label and on what follows it.
    stays: `person`, `stay`, `number`, `start`, `end`.
    diagnoses: `person`, `stay`, `condition`, `time`; sorted by person and stay.
    drugs: `person`, `stay`, `drug`, `time`.
    """

    people: dict[str, np.ndarray]
    stays: dict[str, np.ndarray]
    diagnoses: dict[str, np.ndarray]
    drugs: dict[str, np.ndarray]


def draw(
    seed: int, conditions: Conditions, first: int, stop: int, *, ordered: bool = False, stream: int = 0
) -> Patients:
    """Draw the patients with the numbers `first` to `stop` (exclusive).

    Args:
        seed: of all random numbers.
        conditions: diseases to draw from.
        first, stop: numbers of patients, from 0.
        ordered: whether each patient has a disease of group 0 in one of the last two stays and one of group 1 in the
            other, in either order; no patient has other diseases of these groups.
        stream: another number gives other patients.
    """
    units = [_unit(seed, stream, conditions, unit, ordered) for unit in range(first // UNIT, -(-stop // UNIT))]
    joined = []
    for tables in zip(*units, strict=True):
        table = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
        kept = (table["person"] >= first) & (table["person"] < stop)
        joined.append(table if kept.all() else {name: column[kept] for name, column in table.items()})
    return Patients(*joined)


def _unit(seed: int, stream: int, conditions: Conditions, unit: int, ordered: bool) -> Patients:
    streams = [np.random.default_rng([seed, stream, unit, table]) for table in range(len(Patients._fields))]
    people = _people(streams[0], ordered)
    stays = _stays(streams[1], people, ordered)
    tables = Patients(
        people, stays, _diagnoses(streams[2], conditions, people, stays, ordered), _drugs(streams[3], stays)
    )
    numbers = stays["number"]
    for table in tables:
        table["person"] = table["person"] + unit * UNIT
        if "stay" in table:
            table["stay"] = table["person"] * STAYS_OF_A_PERSON + numbers[table["stay"]]
    return tables


def _people(rng: np.random.Generator, ordered: bool) -> dict[str, np.ndarray]:
    fewest = 2 if ordered else 1
    return {
        "person": np.arange(UNIT),
        "is_woman": (rng.random(UNIT) < 0.5).astype(np.int64),
        "age": np.clip(rng.normal(62, 16, UNIT), 18, 95).astype(np.int64),
        "stays": np.minimum(fewest + rng.poisson(_STAYS, UNIT), _MOST_STAYS),
        "is_reversed": (rng.random(UNIT) < 0.5).astype(np.int64),
        "luck": rng.random(UNIT),
        "later_luck": rng.random(UNIT),
    }


def _stays(rng: np.random.Generator, people: dict[str, np.ndarray], ordered: bool) -> dict[str, np.ndarray]:
    """Draw the stays backward from the last discharge, and add `discharge` and `born` to the people."""
    person = np.repeat(np.arange(UNIT), people["stays"])
    offsets = offsets_of(people["stays"])
    number = np.arange(len(person)) - offsets[person]
    before_last = people["stays"][person] - 1 - number
    length = np.clip(np.exp(1.2 + 0.7 * rng.normal(size=len(person))) * DAY, 6 * 60, 60 * DAY).astype(np.int64)
    gap = (3 * DAY + np.exp(4.3 + 1.2 * rng.normal(size=len(person))) * DAY).astype(np.int64)
    if ordered:
        length = np.where(before_last <= 1, np.minimum(length, _LONGEST_BEFORE), length)
        gap = np.where(before_last == 0, np.minimum(gap, _LONGEST_GAP), gap)
    # `gap` is the time before a stay: a stay ends as many minutes before the last discharge as all later ones take.
    spent = np.cumsum((length + gap)[::-1])[::-1]
    later = spent - (length + gap)
    later -= later[offsets[1:] - 1][person]
    discharge = rng.integers(_LAST_DAYS[0] * DAY, _LAST_DAYS[1] * DAY, UNIT)
    end = discharge[person] - later
    people["discharge"] = discharge
    people["born"] = discharge // DAY - (people["age"] * 365.2425).astype(np.int64) - rng.integers(1, 365, UNIT)
    return {"person": person, "stay": np.arange(len(person)), "number": number, "start": end - length, "end": end}


def _diagnoses(
    rng: np.random.Generator,
    conditions: Conditions,
    people: dict[str, np.ndarray],
    stays: dict[str, np.ndarray],
    ordered: bool,
) -> dict[str, np.ndarray]:
    """Draw diseases of groups, the stay in which each comes up, and its later codings."""
    popularity = np.arange(1, len(conditions.names) + 1) ** -_GROUP_ZIPF
    if ordered:
        popularity[:2] = 0.0
    groups_of = 1 + rng.poisson(_GROUPS, UNIT)
    person = np.repeat(np.arange(UNIT), groups_of)
    group = rng.choice(len(popularity), len(person), p=popularity / popularity.sum())
    again = 1 + rng.poisson(_DISEASES, len(person))
    person, condition = np.repeat(person, again), draw_conditions(rng, conditions, np.repeat(group, again))
    key = np.unique(person * len(conditions.group) + condition)
    person, condition = key // len(conditions.group), key % len(conditions.group)
    count = people["stays"][person]
    number = np.floor(rng.random(len(person)) * count).astype(np.int64)
    # Every disease may be coded in each stay from its first on.
    room = count - number
    place = np.repeat(np.arange(len(person)), room)
    step = np.arange(len(place)) - offsets_of(room)[place]
    kept = (step == 0) | (rng.random(len(step)) < _CODED_AGAIN)
    place, step = place[kept], step[kept]
    person, condition, number = person[place], condition[place], number[place] + step
    if ordered:
        pair = np.stack([draw_conditions(rng, conditions, np.full(UNIT, which)) for which in (0, 1)])
        last = people["stays"] - 1
        person = np.concatenate([person, np.arange(UNIT), np.arange(UNIT)])
        condition = np.concatenate([condition, pair[0], pair[1]])
        number = np.concatenate([number, last - 1 + people["is_reversed"], last - people["is_reversed"]])
    stay = offsets_of(people["stays"])[person] + number
    order = np.lexsort((condition, stay))
    return _timed(rng, stays, stay[order]) | {"condition": condition[order]}


def draw_conditions(rng: np.random.Generator, conditions: Conditions, group: np.ndarray) -> np.ndarray:
    """Draw a disease of each group by the frequencies of its diseases, `[n]` int64 -> `[n]` int64."""
    cumulative = np.cumsum(conditions.share)
    starts = conditions.starts
    low = group.astype(np.float64)
    found = np.searchsorted(cumulative, low + rng.random(len(group)), side="right")
    return np.clip(found, starts[group], starts[group + 1] - 1)


def _drugs(rng: np.random.Generator, stays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    popularity = np.arange(1, DRUGS + 1) ** -_DRUG_ZIPF
    stay = np.repeat(stays["stay"], rng.poisson(_DRUGS_OF_A_STAY, len(stays["stay"])))
    drug = rng.choice(DRUGS, len(stay), p=popularity / popularity.sum())
    return _timed(rng, stays, stay) | {"drug": drug}


def _timed(rng: np.random.Generator, stays: dict[str, np.ndarray], stay: np.ndarray) -> dict[str, np.ndarray]:
    """Return person, stay and time of an event of each stay, after its admission and before its discharge."""
    start, end = stays["start"][stay], stays["end"][stay]
    time = start + 1 + np.floor(rng.random(len(stay)) * (end - start - 1)).astype(np.int64)
    return {"person": stays["person"][stay], "stay": stay, "time": time}
