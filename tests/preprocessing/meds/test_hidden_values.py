"""Whatever is damaged in records, no message, log or list of rejected rows holds a value of a patient."""

import functools

import pytest
from rich.console import Console

from preprocessing.meds import conversion
from preprocessing.meds import convert as converter
from preprocessing.meds.mimic_tables import table_of
from tests.helpers import hidden_values, mimic_copies
from tests.helpers.damaged_tables import damages, put, rows_of

# Added to the ids of `mimic_copies`, some of which are too small to be told from numbers of lines.
_OFFSET = 70_000_000
_IDS = ("subject_id", "hadm_id", "icustay_id", "stay_id")


def write_copy(folder, version):
    mimic_copies.write(folder, version)
    for path in folder.rglob("*.csv"):
        header, *rows = rows_of(path)
        places = [place for place, name in enumerate(header) if name.lower() in _IDS]
        for row in rows:
            for place in places:
                row[place] = str(int(row[place]) + _OFFSET) if row[place] else ""
        put(path, [header, *rows])
    return folder


def columns_read(path):
    table = table_of("mimic3" if path.stem.isupper() else "mimic4", path.stem.lower())
    return {*table.columns, *table.optional}


DAMAGES = damages(columns_read)


@pytest.mark.thorough
@pytest.mark.integration
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("version", "tables"),
    [
        ("mimic3", ["PATIENTS", "ADMISSIONS", "DIAGNOSES_ICD", "PRESCRIPTIONS", "LABEVENTS"]),
        ("mimic4", ["hosp/patients", "hosp/admissions", "hosp/diagnoses_icd", "hosp/prescriptions", "icu/icustays"]),
    ],
)
def test_no_message_of_a_conversion_holds_a_value(version, tables, damage, tmp_path, capfd, caplog):
    folder = write_copy(tmp_path / "in", version)
    # Words of messages too: a comment on a value says "twice", and a kind of transfer is a discharge.
    values = (hidden_values.of_tables(folder) | {"70000099"}) - {"twice", "discharge"}
    assert {
        "Heparin",
        "70000011" if version == "mimic3" else "80000021",
        "2160-01-10" if version == "mimic3" else "2180-05-06",
    } < values

    def convert(output):
        conversion.show(converter.convert(converter.MedsRequest(folder, output)), Console(width=200))

    heard = functools.partial(hidden_values.heard, capfd, caplog)
    tried, told = hidden_values.convert_damaged(folder, tables, DAMAGES[damage], convert, values=values, heard=heard)
    assert tried >= len(tables) <= 2 * told
