"""Open the patient records that a benchmark names, and refuse those of another data set."""

import dataclasses
import json
from pathlib import Path

from preprocessing.common.errors import InputError
from preprocessing.meds.conversion import CONVERSION
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.layout import DATASET, METADATA
from preprocessing.meds.open import MIMIC, SOURCES, open_events
from preprocessing.meds.planted.write import PlantedRequest, write

# Names of data sets -> the name that their records give themselves in `metadata/dataset.json`.
OWN_NAMES = {
    "mimic3": "MIMIC-III",
    "mimic4": "MIMIC-IV",
    "eicu_demo": "eICU-CRD",
    "eicu": "eICU-CRD",
    "diabetes130": "Diabetes 130-US hospitals",
    "ehrshot": "EHRSHOT",
    "planted": "Planted world",
}
MEDS = "MEDS"
DATASETS = (*OWN_NAMES, MEDS)


@dataclasses.dataclass(frozen=True)
class Records:
    """Hold opened patient records.

    Attributes:
        name: one of `DATASETS`.
        dataset: the events.
    """

    name: str
    dataset: MedsDataset

    @property
    def tables_not_read(self) -> list[str]:
        """Return the tables that this project knows of and did not convert; none of records in MEDS from elsewhere."""
        tables = _metadata(self.dataset.root, CONVERSION).get("tables_not_read")
        return [str(name) for name in tables] if isinstance(tables, list) else []

    def rejected(self) -> dict[str, float]:
        """Return the share of the rows that the conversion could not use, of each table that has such rows.

        Empty of records in MEDS from elsewhere. `metadata/rejects.csv` names file, line and reason of each row.
        """
        tables = _metadata(self.dataset.root, CONVERSION).get("tables")
        counted = tables.items() if isinstance(tables, dict) else ()
        return {name: one["rejected"] / one["rows"] for name, one in counted if one.get("rejected") and one.get("rows")}


def open_records(name: str, path: Path | None, output: Path) -> Records:
    """Open records, which are converted to MEDS in `output/meds` first unless they are in that form.

    Args:
        name: one of `DATASETS`.
        path: the files of the data set or a MEDS data set of it; None makes the planted world with its defaults.
        output: folder of the benchmark.

    Raises:
        InputError: `path` is missing, or holds another data set than `name`.
    """
    if path is None:
        if name != "planted":
            raise InputError(f"--dataset_dir is missing; give the folder with the files of {name}, or MEDS made of it.")
        path = output / "meds"
        write(PlantedRequest(path, "group"))
    if not path.is_dir():
        raise InputError(f"--dataset_dir={path} is no folder; give the folder with the files of {name}.")
    dataset = open_events(path, output / "meds", expected=_source_of(name))
    found = _own_name(dataset.root)
    own = [other for other, stated in OWN_NAMES.items() if stated == found]
    if name == MEDS and own and (dataset.root / METADATA / CONVERSION).is_file():
        raise InputError(f"{path} holds {found}, which has cohorts of its own; give --dataset={own[0]}.")
    if name != MEDS and found != OWN_NAMES[name]:
        told = f"holds {found}" if found else f"does not say which data set it is ({METADATA}/{DATASET})"
        raise InputError(f"{path} {told}, not {OWN_NAMES[name]}; give --dataset={[*own, MEDS][0]}, or another folder.")
    return Records(name, dataset)


def _source_of(name: str) -> str:
    """Return the source of files whose absence is told, of the name of a data set."""
    source = name.removesuffix("_demo")
    return source if source in SOURCES else MIMIC


def _own_name(root: Path) -> str:
    """Return the name of a data set by its metadata; empty if they give none."""
    return str(_metadata(root, DATASET).get("dataset_name") or "")


def _metadata(root: Path, name: str) -> dict:
    """Return the contents of a file of the metadata; empty if it cannot be read."""
    try:
        about = json.loads((root / METADATA / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}
