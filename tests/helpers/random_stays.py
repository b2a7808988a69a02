"""Draw stays of invented patients with all that tasks ask for, and all that goes wrong in records, as MEDS events."""

import datetime
import random

import polars as pl

SCHEMA = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "hadm_id": pl.Int64}
_FIRST = datetime.datetime(2020, 1, 1)
_PLACES = ("HOME", "HOME", "HOME", "SKILLED NURSING FACILITY", "HOSPICE", "ACUTE HOSPITAL", "DIED", "PSYCH FACILITY")
_DIAGNOSES = ("ICD9CM/584.9", "ICD10CM/I10", "ICD10CM/A41.9", "ICD9CM/V70.0", "DIAGNOSIS//sepsis")
_DRUGS = (
    "MEDICATION//START//Heparin",
    "MEDICATION//START//Vancomycin",
    "MEDICATION//START//Lipitor",
    "NDC/00002143380",
)
_OTHERS = (*_DIAGNOSES, *_DRUGS, "ICD9Proc/00.10", "ICU_ADMISSION//MICU", "LAB//1//mg")


def events(seed: int, patients: int = 60) -> pl.DataFrame:
    """Return the events of some patients, at few hours of the day, so that many are simultaneous."""
    rng = random.Random(seed)
    rows: list[tuple] = []
    for subject in range(1, patients + 1):
        born = datetime.datetime(rng.choice((1950, 1960, 2002)), 1, 15)
        rows += [(subject, None, f"GENDER//{rng.choice('FM')}", None), (subject, born, "MEDS_BIRTH", None)]
        time = _FIRST
        for number in range(rng.randrange(1, 6)):
            hadm_id = subject * 10 + number
            time += datetime.timedelta(hours=4 * rng.randrange(0, 6), days=rng.choice((0, 0, 5, 20, 60)))
            end = time + datetime.timedelta(hours=4 * rng.choice((1, 6, 7, 12, 43, 90)))
            rows.append((subject, time, "HOSPITAL_ADMISSION//URGENT//ER", hadm_id))
            for _ in range(rng.randrange(8)):
                moment = time + rng.random() * 1.1 * (end - time)
                rows.append((subject, moment.replace(minute=0, second=0, microsecond=0), rng.choice(_OTHERS), hadm_id))
            rows += [(subject, end, code, hadm_id) for code in rng.sample(_DIAGNOSES, rng.randrange(4))]
            if rng.random() < 0.7:
                rows += [(subject, end, "ICD9Proc/00.10", hadm_id), (subject, time, rng.choice(_DRUGS), hadm_id)]
            if rng.random() < 0.95:
                rows.append((subject, end, f"HOSPITAL_DISCHARGE//{rng.choice(_PLACES)}", hadm_id))
            time = end if rng.random() < 0.9 else time
        if rng.random() < 0.5:
            ends = [moment for _, moment, code, _ in rows if code.startswith("HOSPITAL_DISCHARGE")]
            dead = rng.choice(ends or [time]) + datetime.timedelta(hours=rng.choice((0, 0, 0, -4, 4, 400)))
            rows.append((subject, dead, "MEDS_DEATH", None))
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return frame.sort("subject_id", "time", nulls_last=False, maintain_order=True)
