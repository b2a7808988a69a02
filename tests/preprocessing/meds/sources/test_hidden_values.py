"""Whatever is damaged in eICU-CRD, Diabetes-130 or EHRSHOT, no message of a conversion holds a value of a patient."""

import functools
import gzip

import pytest
from rich.console import Console

from preprocessing.meds import conversion, open
from preprocessing.meds.sources.writer import show_counted
from tests.helpers import hidden_values, source_copies
from tests.helpers.damaged_tables import damages, put, rows_of

# Added to ids, some of which are too small to be told from numbers of lines.
_OFFSET = 70_000_000
_IDS = {
    *("patientunitstayid", "patienthealthsystemstayid", "encounter_id", "patient_nbr"),
    *("patient_id", "omop_person_id", "visit_id"),
}
FILES = {
    "eicu": ("patient", "diagnosis", "medication", "apachePatientResult"),
    "diabetes130": ("diabetic_data",),
    "ehrshot": ("data/ehrshot", "splits/person_id_map", "benchmark/guo_los/labeled_patients"),
}
MAKERS = {"eicu": source_copies.eicu, "diabetes130": source_copies.diabetes130, "ehrshot": source_copies.ehrshot}
DAMAGES = damages(lambda path: {name.lower() for name in rows_of(path)[0]})
# Words of messages too.
WORDS = {"admission", "diagnosis", "discharge", "hospital", "patient", "person", "birth", "death", "time", "none"}


def write_copy(folder, source):
    MAKERS[source](folder)
    for path in list(folder.rglob("*.csv*")):
        if path.suffix == ".gz":
            plain = path.with_suffix("")
            plain.write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
            path = plain
        if path.stem == "IDS_mapping":
            continue
        header, *rows = rows_of(path)
        places = [place for place, name in enumerate(header) if name in _IDS]
        for row in rows:
            for place in places:
                row[place] = str(int(row[place]) + _OFFSET) if row[place].isdigit() else row[place]
        put(path, [header, *rows])
    return folder


@pytest.mark.thorough
@pytest.mark.integration
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("source", FILES)
def test_no_message_of_a_conversion_holds_a_value(source, damage, tmp_path, capfd, caplog):
    folder = write_copy(tmp_path / "in", source)
    found = of_encounters(folder) if source == "diabetes130" else hidden_values.of_tables(folder)
    values = {value for value in found | {"70000099"} if value.lower() not in WORDS}
    assert any(value.startswith("700000") for value in values)

    def convert(output):
        done = open.convert(conversion.MedsRequest(folder, output), source)
        conversion.show(done, Console(width=200))
        show_counted(done, Console(width=200))

    heard = functools.partial(hidden_values.heard, capfd, caplog)
    tried, told = hidden_values.convert_damaged(
        folder, FILES[source], DAMAGES[damage], convert, values=values, heard=heard
    )
    assert tried >= len(FILES[source])
    assert told


def of_encounters(folder):
    """Return the cells of the encounters alone, since the file of ids holds words that are no values of patients."""
    rows = rows_of(folder / "diabetic_data.csv")[1:]
    return {cell for row in rows for cell in row if len(cell) >= hidden_values.SHORTEST}
