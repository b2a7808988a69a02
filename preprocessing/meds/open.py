"""Open the patient records at a path, whatever they are."""

from pathlib import Path

from preprocessing.meds.convert import Request, convert
from preprocessing.meds.dataset import MedsDataset, is_meds


def open_events(path: Path, workdir_for_meds: Path) -> MedsDataset:
    """The patient records at `path`: a MEDS data set is read as it is, a MIMIC directory is converted first.

    Args:
        path: a MEDS data set, or a directory with the CSV files of MIMIC-III or MIMIC-IV.
        workdir_for_meds: where the converted data set is put; one that is there already, of the same files, is used.

    Raises:
        InputError: `path` is none of these, or cannot be converted.
    """
    path = Path(path)
    if is_meds(path):
        return MedsDataset.open(path)
    return MedsDataset.open(convert(Request(path, Path(workdir_for_meds))).output)
