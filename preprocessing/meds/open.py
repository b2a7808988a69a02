"""Convert the patient records of any source to MEDS, and open the records at a path, in MEDS or not."""

from collections.abc import Callable
from pathlib import Path

from preprocessing.common.errors import InputError, without_values
from preprocessing.meds.conversion import Conversion, MedsRequest
from preprocessing.meds.convert import convert as convert_mimic
from preprocessing.meds.dataset import MedsDataset, is_meds
from preprocessing.meds.sources import diabetes130, ehrshot, eicu
from preprocessing.meds.sources.tables import Source, header, homes

MIMIC = "mimic"
_SOURCES: dict[str, tuple[Source, Callable[[MedsRequest], Conversion]]] = {
    module.SOURCE.name: (module.SOURCE, module.convert) for module in (eicu, diabetes130, ehrshot)
}
SOURCES = (MIMIC, *_SOURCES)


def detect(root: Path, otherwise: str = MIMIC) -> str:
    """Return the source of the files below a directory, by the names and columns of files.

    Args:
        root: the directory.
        otherwise: one of `SOURCES`, the answer where no file tells.

    Raises:
        InputError: the directory holds files of several sources.
    """
    found = {
        name: paths[0]
        for name, (source, _) in _SOURCES.items()
        if (paths := [path for path in homes(root, source.mark) if set(source.mark_columns) <= set(header(path))])
    }
    if len(found) > 1:
        listed = " and ".join(f"{path} of {name}" for name, path in found.items())
        raise InputError(f"{root} holds files of several sources, {listed}; give --source, or the directory of one.")
    return next(iter(found), MIMIC if homes(root, "patients") else otherwise)


@without_values()
def convert(request: MedsRequest, source: str | None = None, expected: str = MIMIC) -> Conversion:
    """Convert patient records to MEDS, unless the output was made of the same files; no error shows a value of them.

    Args:
        request: input, output and options.
        source: one of `SOURCES`; None to detect it from the files.
        expected: one of `SOURCES`, whose files the error asks for where there are those of none.

    Raises:
        InputError: the input is of no known source, cannot be read, or the output cannot be written.
    """
    source = source or detect(request.input, expected)
    return convert_mimic(request) if source == MIMIC else _SOURCES[source][1](request)


def open_events(path: Path, workdir_for_meds: Path, expected: str = MIMIC) -> MedsDataset:
    """Open the patient records at `path`, converting those of another format to MEDS first.

    Args:
        path: a MEDS data set, or a directory with the files of MIMIC-III, MIMIC-IV, eICU-CRD, Diabetes-130 or EHRSHOT.
        workdir_for_meds: directory of the converted data set, which is reused if it was made of the same files.
        expected: see `convert`.

    Raises:
        InputError: `path` is none of these, or cannot be converted.
    """
    path = Path(path)
    if is_meds(path):
        return MedsDataset.open(path)
    return MedsDataset.open(convert(MedsRequest(path, Path(workdir_for_meds)), expected=expected).output)
