"""Open the patient records at a path, in MEDS or as MIMIC."""

from pathlib import Path

from preprocessing.meds.convert import MedsRequest, convert
from preprocessing.meds.dataset import MedsDataset, is_meds


def open_events(path: Path, workdir_for_meds: Path) -> MedsDataset:
    """Open the patient records at `path`, converting a MIMIC directory to MEDS first.

    Args:
        path: a MEDS data set, or a directory with the CSV files of MIMIC-III or MIMIC-IV.
        workdir_for_meds: directory of the converted data set, which is reused if it was made of the same files.

    Raises:
        InputError: `path` is neither, or cannot be converted.
    """
    path = Path(path)
    if is_meds(path):
        return MedsDataset.open(path)
    return MedsDataset.open(convert(MedsRequest(path, Path(workdir_for_meds))).output)
