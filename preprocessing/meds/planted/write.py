"""Write a planted world as a MEDS data set with labels, and what is true of it.

The task `planted` asks at the discharge of the last stay whether the patient dies within 30 days. Beside the data set
(see `preprocessing.meds`) stand

    labels/planted/labels.parquet   a label for each patient
    truth.parquet                   the true probability of each label
    truth.json                      request, groups with their codes and weights, and the AUROC of the true probability

Every diagnosis is an event in ICD-9-CM and one in ICD-10-CM at the same time, as in eICU-CRD, so that a benchmark can
train on one vocabulary and test on the other by hiding the codes of one. Diagnoses stand inside their stay, so that
every input rule sees them. Of each 12 patients 7 are in the split `train`, one in `tuning` and 4 in `held_out`.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from preprocessing.codes import ICD9CM, ICD10CM
from preprocessing.common import atomic
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.progress import Bar
from preprocessing.meds import metadata as meds_metadata
from preprocessing.meds.generated.vocabularies import DRUG_NAMES
from preprocessing.meds.layout import BIRTH, COLUMNS, DEATH, METADATA
from preprocessing.meds.planted.conditions import OUTCOME_PROXY
from preprocessing.meds.planted.draw import DAY, STAYS_OF_A_PERSON, UNIT, Patients
from preprocessing.meds.planted.world import LEAK, World, expected_auroc, make_world, observed_auroc
from preprocessing.meds.shards import Shards
from preprocessing.meds.sources.writer import write_labels
from preprocessing.meds.splits import HELD_OUT, SUBJECT_SPLITS, TRAIN, TUNING

pl = load("polars")

TASK = "planted"
TRUTH, PROBABILITIES = "truth.json", "truth.parquet"
# Event after the discharge that gives the label away in a world with the signal `leak`.
LEAK_AFTER = "PLANTED_LEAK//AFTER_DISCHARGE"
# Days within which a patient with a true label dies; share of the others who die later, and the most days until then.
DEATH_DAYS = 30
_DIE_LATER, _LATEST_DEATH = 0.1, 900
# Number to increase when the same seed gives other files.
_FORMAT = 1
_BLOCK, _PER_SHARD = 8 * UNIT, 2000
_SPLIT_OF = np.array([SUBJECT_SPLITS.index(name) for name in (*[TRAIN] * 7, TUNING, *[HELD_OUT] * 4)], np.int8)
_FIRST_SUBJECT = 1
# Order of simultaneous events.
_PERSON, _ADMISSION, _WITHIN, _DISCHARGE, _AFTER = range(5)


@dataclasses.dataclass(frozen=True)
class PlantedRequest:
    """Hold the size and the options of a planted world.

    Attributes:
        output: folder to write, absent, empty or of an earlier run.
        signal: one of `world.SIGNALS`.
        patients: number of patients, 12 or more; 6,000 are 3,500 to train, 500 to tune and 2,000 held out.
        seed: of all random numbers, those of the groups and their weights included.
        progress: whether to show a progress bar.
    """

    output: Path
    signal: str
    patients: int = 6000
    seed: int = 0
    progress: bool = True

    @property
    def stamp(self) -> dict:
        """Return what the files depend on."""
        return {"format": _FORMAT} | {name: getattr(self, name) for name in ("signal", "patients", "seed")}


def write(request: PlantedRequest) -> dict:
    """Write the world unless it is there, and return the contents of `truth.json`; it appears once it is complete.

    Raises:
        InputError: an option is out of range, packages are missing, or the output cannot be written.
    """
    if request.patients < len(_SPLIT_OF):
        raise InputError(f"--patients must be at least {len(_SPLIT_OF)}, so that every split has one.")
    output = atomic.named_path(request.output)
    atomic.recover(output)
    if (truth := _finished(output)) is not None and truth["request"] == request.stamp:
        return truth
    atomic.check_replaceable(output, TRUTH)
    world = make_world(request.signal, request.seed)
    with atomic.whole_folder(output) as folder:
        truth = _write(request, world, folder)
        atomic.write_json(folder / TRUTH, truth)
    return truth


def _write(request: PlantedRequest, world: World, folder: Path) -> dict:
    meds = load("meds")
    subjects = np.arange(request.patients) + _FIRST_SUBJECT
    split = _SPLIT_OF[np.arange(request.patients) % len(_SPLIT_OF)]
    samples = []
    with Shards(folder, subjects, _PER_SHARD, COLUMNS, split) as shards:
        starts = range(0, request.patients, _BLOCK)
        for first in Bar(starts, desc="drawing", unit=" blocks", show=request.progress):
            patients = world.patients(first, min(first + _BLOCK, request.patients))
            risk = world.risk(patients)
            label = patients.people["luck"] < risk
            shards.add(_events(world, patients, label))
            samples.append(_samples(patients, risk, label))
        tally = shards.finish(_wants_no_text, meds.DataSchema.validate, request.progress)
    table = pl.concat(samples)
    (folder / METADATA).mkdir()
    meds_metadata.write_codes(folder / METADATA, tally.events, {}, (_described(world), {}))
    meds_metadata.write_splits(folder / METADATA, subjects, split)
    # Without its date, the same options give the same bytes.
    undated = {"created_at": None}
    meds_metadata.write_dataset(folder / METADATA, "planted", None, ["hadm_id"], meds.__version__, undated)
    write_labels(folder, TASK, table.select("subject_id", "prediction_time", "boolean_value"))
    table.select("subject_id", "prediction_time", "probability").write_parquet(folder / PROBABILITIES)
    return _truth(request, world, table, split, sum(tally.rows.values()))


def _events(world: World, patients: Patients, label: np.ndarray) -> "pl.DataFrame":
    """Return all events of some patients, with the columns of `COLUMNS` and `rank`."""
    people, stays, diagnoses, drugs = patients
    vocabularies = {
        ICD9CM: [disease.icd9 for disease in world.conditions.diseases],
        ICD10CM: [disease.icd10 for disease in world.conditions.diseases],
    }
    dies, minutes = _deaths(people, label)
    dead = {"person": people["person"][dies]}
    frames = [
        _frame(people, _named("GENDER//", ("M", "F"), people["is_woman"]), None, _PERSON),
        _frame(people, BIRTH, people["born"] * DAY, _PERSON),
        _frame(stays, "HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM", stays["start"], _ADMISSION),
        *(
            _frame(diagnoses, _named(f"{system}/", codes, diagnoses["condition"]), diagnoses["time"], _WITHIN)
            for system, codes in vocabularies.items()
        ),
        _frame(drugs, _named("MEDICATION//START//", DRUG_NAMES, drugs["drug"]), drugs["time"], _WITHIN),
        _frame(stays, "HOSPITAL_DISCHARGE//HOME", stays["end"], _DISCHARGE),
        _frame(dead, DEATH, (people["discharge"] + minutes)[dies], _AFTER),
    ]
    if world.signal == LEAK:
        frames += _leaks(patients, label)
    return pl.concat(frames)


def _leaks(patients: Patients, label: np.ndarray) -> list["pl.DataFrame"]:
    """Return events of all patients with a true label: diagnoses at the last discharge, and an event after it."""
    stays = patients.stays
    is_last = np.append(stays["person"][1:] != stays["person"][:-1], True)
    place = np.flatnonzero(is_last)[label]
    told = {name: stays[name][place] for name in ("person", "stay")}
    end = stays["end"][place]
    at = [f"{system}/{code}" for system, code in zip((ICD9CM, ICD10CM), OUTCOME_PROXY, strict=True)]
    frames = [_frame(told, code, end, _AFTER) for code in at]
    return [*frames, _frame({"person": told["person"]}, LEAK_AFTER, end + 1, _AFTER)]


def _named(start: str, names: Sequence[str], number: np.ndarray) -> np.ndarray:
    return np.array([start + name for name in names], object)[number]


def _frame(table: dict[str, np.ndarray], code: np.ndarray | str, time: np.ndarray | None, rank: int) -> "pl.DataFrame":
    """Return an event for each row of a table with `person` and, of events of a stay, `stay`."""
    subject = table["person"] + _FIRST_SUBJECT
    made = pl.DataFrame({"subject_id": subject}).with_columns(
        time=pl.lit(None) if time is None else pl.Series(_moments(time)),
        code=pl.lit(code) if isinstance(code, str) else pl.Series(code.tolist(), dtype=pl.String),
        hadm_id=pl.Series(table["stay"] + _FIRST_SUBJECT * STAYS_OF_A_PERSON) if "stay" in table else pl.lit(None),
        rank=pl.lit(rank, pl.Int8),
    )
    absent = [pl.lit(None).alias(name) for name in COLUMNS if name not in made.columns]
    return made.with_columns(absent).select(
        *(pl.col(name).cast(kind) for name, kind in COLUMNS.items()), pl.col("rank")
    )


def _moments(minutes: np.ndarray) -> np.ndarray:
    return minutes.astype("datetime64[m]").astype("datetime64[us]")


def _deaths(people: dict[str, np.ndarray], label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return who dies at all, and how many minutes after the last discharge, `[people]` bool and int64."""
    luck = people["later_luck"]
    soon = 1 + luck * (DEATH_DAYS * DAY - 1)
    late = (DEATH_DAYS + 1) * DAY + luck / _DIE_LATER * (_LATEST_DEATH - DEATH_DAYS - 1) * DAY
    return label | (luck < _DIE_LATER), np.where(label, soon, late).astype(np.int64)


def _samples(patients: Patients, risk: np.ndarray, label: np.ndarray) -> "pl.DataFrame":
    people = patients.people
    return pl.DataFrame(
        {
            "subject_id": people["person"] + _FIRST_SUBJECT,
            "prediction_time": _moments(people["discharge"]),
            "boolean_value": label,
            "probability": risk,
        }
    )


def _wants_no_text(_: str) -> bool:
    return False


def _described(world: World) -> dict[str, str]:
    described = {f"{ICD9CM}/{disease.icd9}": disease.icd9_title for disease in world.conditions.diseases}
    return described | {f"{ICD10CM}/{disease.icd10}": disease.icd10_title for disease in world.conditions.diseases}


def _truth(request: PlantedRequest, world: World, table: "pl.DataFrame", split: np.ndarray, events: int) -> dict:
    risk, label = table["probability"].to_numpy(), table["boolean_value"].to_numpy()
    at = [f"{system}/{code}" for system, code in zip((ICD9CM, ICD10CM), OUTCOME_PROXY, strict=True)]
    return {
        "what": "a world with a planted signal; no person is described here",
        "request": request.stamp,
        "label": f"death within {DEATH_DAYS} days of the last discharge, where the prediction is made",
        "expected_oracle_auroc": round(expected_auroc(risk), 4),
        "splits": {
            name: {
                "patients": int((split == position).sum()),
                "positives": int(label[split == position].sum()),
                "oracle_auroc": round(observed_auroc(risk[split == position], label[split == position]), 4),
            }
            for position, name in enumerate(SUBJECT_SPLITS)
        },
        "events": events,
        "scale": world.scale,
        "intercept": world.intercept,
        "first_then_second": list(world.conditions.names[:2]) if world.is_ordered else None,
        "leaks": {"at": at, "after": LEAK_AFTER} if world.signal == LEAK else None,
        "groups": list(world.conditions.names),
        "risk": [_set_of(world, number) for number in range(len(world.weight))],
    }


def _set_of(world: World, number: int) -> dict:
    """Return the weight and the codes of a set that the risk depends on."""
    diseases = [world.conditions.diseases[place] for place in np.flatnonzero(world.risk_group == number)]
    return {
        "weight": float(world.weight[number]),
        "icd9": [disease.icd9 for disease in diseases],
        "icd10": [disease.icd10 for disease in diseases],
    }


def _finished(output: Path) -> dict | None:
    try:
        return json.loads((output / TRUTH).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
