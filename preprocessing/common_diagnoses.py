"""List the commonest diagnoses of open demos of patient records, which every sample of codes holds.

    python -m preprocessing.common_diagnoses --mimic3=DIR --eicu=DIR

Formats: `DIAGNOSES_ICD.csv` of the MIMIC-III demo with `hadm_id` and `icd9_code`; `diagnosis.csv` of the eICU-CRD demo
with `patientunitstayid` and `icd9code`, which holds codes of both editions (`401.9, I10`); each file plain or `.gz`.
The codes of each demo are ranked by the number of stays that have them, and taken from both in turn. The file that
`--output` names keeps its other content; it holds codes alone, and no number of patients.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
from absl import flags
from pyarrow import csv

from preprocessing.codes import ICD9CM, ICD10CM, display_code, is_wellformed
from preprocessing.common import atomic, command_line
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading
from preprocessing.dataset.sample import HELD_FILE
from preprocessing.sources.icd import vocabulary

COUNT = 200
SOURCES = (
    "MIMIC-III Clinical Database Demo 1.4, https://physionet.org/content/mimiciii-demo/1.4/, "
    "Open Data Commons Open Database License (ODbL) 1.0",
    "eICU Collaborative Research Database Demo 2.0, https://physionet.org/content/eicu-crd-demo/2.0/, ODbL 1.0",
)
RULE = "ranked by the number of stays that have the code, from both demos in turn; codes only, no counts"


def common_diagnoses(mimic3: Path, eicu: Path, count: int = COUNT) -> list[str]:
    """Return the keys of the commonest diagnoses of both demos, the commonest first.

    Raises:
        InputError: a folder lacks its file, or the file lacks a column.
    """
    known = {record.key for record in vocabulary()}
    ranked = [
        _ranked(mimic3, "DIAGNOSES_ICD.csv", ("hadm_id", "icd9_code"), (ICD9CM,), known),
        _ranked(eicu, "diagnosis.csv", ("patientunitstayid", "icd9code"), (ICD9CM, ICD10CM), known),
    ]
    turns = (key for turn in itertools.zip_longest(*ranked) for key in turn if key is not None)
    return list(itertools.islice(dict.fromkeys(turns), count))


def _ranked(folder: Path, name: str, columns: tuple[str, str], systems: Iterable[str], known: set[str]) -> list[str]:
    stays: dict[str, set[str]] = {}
    table = _read(folder, name, columns)
    for stay, text in zip(*(table[column].to_pylist() for column in columns), strict=True):
        for key in keys_of(text, systems, known):
            stays.setdefault(key, set()).add(stay)
    return sorted(stays, key=lambda key: (-len(stays[key]), key))


def keys_of(text: str, systems: Iterable[str], known: set[str]) -> list[str]:
    """Return the keys of the codes in a text such as `401.9, I10`; a code of none or of several systems is left out."""
    found = []
    for code in text.split(","):
        keys = [f"{system}/{display_code(system, code)}" for system in systems if is_wellformed(system, code)]
        keys = [key for key in keys if key in known]
        if len(keys) == 1:
            found += keys
    return found


def _read(folder: Path, name: str, columns: tuple[str, str]) -> pa.Table:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            types: Mapping[str, pa.DataType] = dict.fromkeys(columns, pa.string())
            with reading(path, f"a table with the columns {', '.join(columns)}"):
                return csv.read_csv(
                    path, convert_options=csv.ConvertOptions(include_columns=columns, column_types=types)
                )
    raise InputError(f"{folder} holds neither {name} nor {name}.gz; give the folder of the demo's tables.")


def main(argv: list[str]) -> None:
    """Replace the list in the file that the flags name."""
    command_line.expect_arguments(argv, 0, "python -m preprocessing.common_diagnoses --mimic3=DIR --eicu=DIR")
    output = Path(flags.FLAGS.output)
    with reading(output, "JSON", "give the file of the package"):
        content = json.loads(output.read_text(encoding="utf-8"))
    keys = common_diagnoses(Path(flags.FLAGS.mimic3), Path(flags.FLAGS.eicu))
    content["common_diagnoses"] = {"sources": SOURCES, "rule": RULE, "keys": keys}
    atomic.write_json(output, content)
    print(f"{output}: {len(keys)} diagnoses, " + ", ".join(f"{n} {s}" for s, n in _by_system(keys).items()))


def _by_system(keys: Iterable[str]) -> Counter[str]:
    return Counter(key.partition("/")[0] for key in keys)


if __name__ == "__main__":
    flags.DEFINE_string("mimic3", None, "folder with DIAGNOSES_ICD.csv of the MIMIC-III demo", required=True)
    flags.DEFINE_string("eicu", None, "folder with diagnosis.csv of the eICU-CRD demo", required=True)
    flags.DEFINE_string("output", str(HELD_FILE), "JSON file whose list is replaced (default: that of the package)")
    command_line.run(main)
