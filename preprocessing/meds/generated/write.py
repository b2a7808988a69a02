"""Write generated patients as the files of MIMIC-IV, in blocks, so that a killed run goes on where it stopped.

The files grow in the folder `.generating-NAME` beside the output. After each block `progress.json` there records their
lengths; the next run cuts longer files to these and goes on. Each gzipped block is a member of its own without a date,
so the files of a run that was killed are the same, byte by byte, as those of one that was not.
"""

import contextlib
import dataclasses
import gzip
import json
import os
import shutil
from pathlib import Path

from preprocessing.common import atomic, locks
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.progress import Bar
from preprocessing.meds.generated import draw, tables
from preprocessing.meds.generated.vocabularies import (
    CATEGORY,
    CATEGORY_SHARE,
    RETIRED,
    RETIRED_SHARE,
    Vocabularies,
    read_vocabularies,
)

pl = load("polars")

TRUTH, PROGRESS = "truth.json", "progress.json"
# Number to increase when the same seed gives other files.
_FORMAT = 2
_LEVEL = 1
# Bytes of a patient, gzipped or not, as measured; for the estimate before writing.
_BYTES_PER_SUBJECT = {True: 2450, False: 9600}


@dataclasses.dataclass(frozen=True)
class GenerateRequest:
    """Hold the size and the options of a generated MIMIC-IV.

    Attributes:
        output: folder to write, absent, empty or of an earlier run of the same request.
        subjects: number of patients.
        seed: of all random numbers.
        lab_share: number of laboratory values as a share of MIMIC-IV's 158 million.
        faults: how many times as frequent as in MIMIC-IV faults are; 0 for none.
        is_gzipped: whether files are compressed, as PhysioNet publishes them.
        block: patients that are drawn and written at a time; they are the same patients for any block.
        progress: whether to show a progress bar.
    """

    output: Path
    subjects: int
    seed: int = 0
    lab_share: float = 0.0
    faults: float = 1.0
    is_gzipped: bool = True
    block: int = 8 * draw.UNIT
    progress: bool = True

    @property
    def stamp(self) -> dict:
        """Return what the files depend on."""
        names = ("subjects", "seed", "lab_share", "faults", "is_gzipped", "block")
        return {"format": _FORMAT} | {name: getattr(self, name) for name in names}


def generate(request: GenerateRequest) -> dict:
    """Write the files unless they are there, and return the contents of `truth.json`.

    Raises:
        InputError: a number is out of range, the output holds something else, or cannot be written.
    """
    if (
        not 1 <= request.subjects <= tables.MOST_SUBJECTS
        or request.block < 1
        or not 0 <= request.lab_share <= 1
        or request.faults < 0
    ):
        raise InputError(
            f"--subjects must be from 1 to {tables.MOST_SUBJECTS:,}, --block at least 1, --lab_share from 0 to 1, and"
            " --faults at least 0."
        )
    output = atomic.named_path(request.output)
    if (truth := _finished(output)) is not None:
        if truth["request"] == request.stamp:
            return truth
        raise InputError(f"{output} was generated with other options; remove it or choose another --output.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} is not empty; choose another --output.")
    partial = output.parent / f".generating-{output.name}"
    with locks.exclusive(output.parent, file=partial.name), atomic.writing(output):
        truth = _Writer(request, partial).run()
        atomic.flush(partial)
        os.rename(partial, output)
        atomic.flush(output.parent)
    return truth


class _Writer:
    """Write block after block into a provisional folder; see `generate`."""

    def __init__(self, request: GenerateRequest, folder: Path):
        self.request = request
        self.folder = folder
        self.ending = ".csv.gz" if request.is_gzipped else ".csv"

    def run(self) -> dict:
        state = self._state()
        vocabularies = read_vocabularies()
        stop = self.request.subjects
        with Bar(
            total=stop,
            initial=state["next"],
            desc="generating",
            unit=" patients",
            show=self.request.progress,
        ) as bar:
            for first in range(state["next"], stop, self.request.block):
                last = min(first + self.request.block, stop)
                shares = {"lab_share": self.request.lab_share, "faults": self.request.faults}
                patients = draw.draw(self.request.seed, vocabularies, first, last, **shares)
                self._append(tables.frames(patients, vocabularies), state)
                for name, count in counted(patients, vocabularies).items():
                    state["counts"][name] = state["counts"].get(name, 0) + count
                state["next"] = last
                atomic.write_json(self.folder / PROGRESS, state)
                bar.update(last - first)
        for name, frame in tables.dictionaries(vocabularies, "hosp/labevents" in state["sizes"]).items():
            self._path(name).write_bytes(self._packed(frame, True))
        truth = self._truth(state, vocabularies)
        atomic.write_json(self.folder / TRUTH, truth)
        (self.folder / PROGRESS).unlink()
        return truth

    def _state(self) -> dict:
        """Return the progress of an earlier run, after cutting its files to what was recorded; else a new one."""
        # Progress that cannot be read, or files shorter than it says, mean that everything is written again.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
            sizes = state["sizes"]
            is_whole = all(self._path(name).stat().st_size >= size for name, size in sizes.items())
            if state["request"] == self.request.stamp and is_whole:
                for name, size in sizes.items():
                    os.truncate(self._path(name), size)
                return state
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("hosp", "icu"):
            (self.folder / name).mkdir(parents=True)
        return {"request": self.request.stamp, "next": 0, "sizes": {}, "rows": {}, "counts": {}}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{self.ending}"

    def _append(self, frames: dict[str, "pl.DataFrame"], state: dict) -> None:
        for name, frame in frames.items():
            path = self._path(name)
            is_new = name not in state["sizes"]
            # A file that a killed run began, but did not record, is written again.
            with path.open("wb" if is_new else "ab") as file:
                file.write(self._packed(frame, is_new))
                file.flush()
                os.fsync(file.fileno())
            state["sizes"][name] = path.stat().st_size
            state["rows"][name] = state["rows"].get(name, 0) + len(frame)

    def _packed(self, frame: "pl.DataFrame", with_header: bool) -> bytes:
        text = frame.write_csv(include_header=with_header, datetime_format="%Y-%m-%d %H:%M:%S").encode()
        return gzip.compress(text, _LEVEL, mtime=0) if self.request.is_gzipped else text

    def _truth(self, state: dict, vocabularies: Vocabularies) -> dict:
        targets = {
            "stays_of_a_patient_with_stays": draw.STAYS_OF_A_PATIENT,
            "diagnoses_of_a_stay": draw.DIAGNOSES,
            "procedures_of_a_stay": draw.PROCEDURES,
            "prescriptions_of_a_stay": draw.PRESCRIPTIONS,
            "labs_of_a_stay": draw.LABS * self.request.lab_share,
        }
        vocabulary = {
            f"{name}_icd{edition}": len(ranked.code)
            for name, kinds in (("diagnoses", vocabularies.diagnoses), ("procedures", vocabularies.procedures))
            for edition, ranked in kinds.items()
        }
        return {
            "what": "generated patient records in the form of MIMIC-IV; no person is described here",
            "request": state["request"],
            "rates": draw.rates_of(self.request.faults) | {"category": CATEGORY_SHARE, "retired": RETIRED_SHARE},
            "means": targets,
            "codes": vocabulary | {"drugs": len(vocabularies.drugs.code)},
            "rows": state["rows"],
            "counts": state["counts"],
        }


def counted(patients: draw.Patients, vocabularies: Vocabularies) -> dict[str, int]:
    """Return how often each fault and each event of interest occurs."""
    people, stays, drugs = patients.people, patients.stays, patients.prescriptions
    counts = {
        "patients_with_stays": (people["stays"] > 0).sum(),
        "missing_gender": people["no_gender"].sum(),
        "dod": (people["dod"] != draw.NEVER).sum(),
        "stays": len(stays["person"]),
        "stays_of_icd10": (stays["edition"] == 10).sum(),
        "deaths_in_hospital": stays["expired"].sum(),
        "deathtimes": (stays["death"] != draw.NEVER).sum(),
        "discharged_at_midnight_before_an_evening_death": stays["evening_death"].sum(),
        "flag_without_deathtime": (stays["expired"] & (stays["death"] == draw.NEVER)).sum(),
        "missing_dischtime": (stays["discharge"] == draw.NEVER).sum(),
        "discharge_before_admission": stays["reversed"].sum(),
        "stays_after_death": stays["after_death"].sum(),
        "repeated_admissions": stays["repeated"].sum(),
        "prescriptions_ndc_zero": (drugs["ndc"] == 1).sum(),
        "prescriptions_ndc_missing": (drugs["ndc"] == 2).sum(),
        "prescriptions_ndc_without_leading_zeros": (drugs["ndc"] == 3).sum(),
        "prescriptions_without_starttime": (drugs["start"] == draw.NEVER).sum(),
        "prescriptions_after_discharge": drugs["after_discharge"].sum(),
        "prescriptions_stop_before_start": ((drugs["stop"] < drugs["start"]) & (drugs["start"] != draw.NEVER)).sum(),
        "repeated_prescriptions": drugs["repeated"].sum(),
    }
    for name, by_edition in (("diagnoses", vocabularies.diagnoses), ("procedures", vocabularies.procedures)):
        table = getattr(patients, name)
        copies = 1 + table["repeated"]
        for fault in ("malformed", "unknown_stay"):
            counts[f"{name}_{fault}"] = (table[fault] * copies).sum()
        counts[f"repeated_{name}"] = table["repeated"].sum()
        for word, kind in (("category", CATEGORY), ("retired", RETIRED)):
            counts[f"{name}_{word}"] = sum(
                (ranked.kind[table["code"][table["edition"] == edition]] == kind).sum()
                for edition, ranked in by_edition.items()
            )
    return {name: int(count) for name, count in counts.items()}


def estimated_bytes(request: GenerateRequest) -> int:
    """Return about how many bytes the files will have, laboratory values aside."""
    return request.subjects * _BYTES_PER_SUBJECT[request.is_gzipped]


def _finished(output: Path) -> dict | None:
    try:
        return json.loads((output / TRUTH).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
