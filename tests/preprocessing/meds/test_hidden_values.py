"""Whatever is damaged in records, no message, log or list of rejected rows holds a value of a patient."""

import csv
import gzip
import io
import re

import pytest
from rich.console import Console

from preprocessing.meds import conversion
from preprocessing.meds import convert as converter
from preprocessing.meds.mimic_tables import table_of
from tests.helpers import hidden_values, mimic_copies

# Added to the ids of `mimic_copies`, some of which are too small to be told from numbers of lines.
_OFFSET = 70_000_000
_IDS = ("subject_id", "hadm_id", "icustay_id", "stay_id")


def rows_of(path):
    return list(csv.reader(io.StringIO(path.read_text())))


def put(path, rows, delimiter=","):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    path.write_text(text.getvalue())


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


def each_column(change):
    """Damage one column at a time: `change(header, rows, place)`."""

    def damages(path):
        header, *rows = rows_of(path)
        table = table_of("mimic3" if path.stem.isupper() else "mimic4", path.stem.lower())
        read = {*table.columns, *table.optional}
        for place in (place for place, name in enumerate(header) if name.lower() in read):
            changed = [header.copy(), *(row.copy() for row in rows)]
            change(changed[0], changed[1:], place)
            put(path, changed)
            yield

    return damages


def remove(header, rows, place):
    for row in (header, *rows):
        del row[place]


def fill(text):
    def change(_, rows, place):
        for row in rows:
            row[place] = text or f"{row[0]} {row[1]}"

    return change


def swap(header, _, place):
    header[place - 1], header[place] = header[place], header[place - 1]


def rewritten(*changes):
    """Damage the text of a file, once for each of the changes."""

    def damages(path):
        text = path.read_text()
        for change in changes:
            changed = change(text)
            path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
            yield

    return damages


def squeezed(path):
    """Damage the file as gzip: cut at several places, a byte changed, and plain text under its name."""
    data = gzip.compress(path.read_bytes(), mtime=0)
    path.unlink()
    packed = path.with_suffix(".csv.gz")
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    for damaged in (data[: len(data) // 2], data[:-4], data[:12], bytes(flipped), b"no gzip"):
        packed.write_bytes(damaged)
        yield


def every_other(character):
    def change(text):
        lines = text.splitlines(keepends=True)
        return "".join(line.replace(",", character) if place % 2 else line for place, line in enumerate(lines))

    return change


def mixed(text):
    header, *lines = text.splitlines()
    return "\n".join([header, *(",".join(reversed(line.split(","))) for line in lines)]) + "\n"


def times(style):
    return lambda text: re.sub(r"(\d{4})-(\d\d)-(\d\d)( \d\d:\d\d:\d\d)?", style, text)


DAMAGES = {
    "a header is missing": rewritten(lambda text: text.partition("\n")[2]),
    "a column is missing": each_column(remove),
    "two columns are mixed up": each_column(swap),
    "text in each column": each_column(fill(None)),
    "a number in each column": each_column(fill("70000099")),
    "nothing in each column": each_column(fill("")),
    "another separator": rewritten(*(lambda text, c=c: text.replace(",", c) for c in ";\t|")),
    "another separator in some rows": rewritten(*map(every_other, ";\t|")),
    "cells in another order": rewritten(mixed),
    "rows repeated": rewritten(lambda text: text + text.partition("\n")[2], lambda text: text * 2),
    "other forms of time": rewritten(
        times(r"\2/\3/\1\4"), times(r"\3.\2.\1"), times(r"\1\2\3"), times(r"\1-\2-\3T00:00Z"), times(r"\1-13-\3\4")
    ),
    "stray quotation marks": rewritten(
        lambda text: text.replace(",", ',"', 5), lambda text: text.replace("\n", '"\n'), lambda text: '"' + text
    ),
    "bytes that are no text": rewritten(
        lambda text: text.replace(",", ",\0"),
        lambda text: text.encode().replace(b"WHITE", b"WH\xcfTE").replace(b"-01", b"\xff\xfe-01"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-32"),
        lambda text: b"PK\x03\x04" + text.encode(),
        lambda text: text.replace("\n", "\r"),
    ),
    "nothing": rewritten(lambda _: "", lambda text: text.partition("\n")[0], lambda _: "\n\n"),
    "a broken archive": squeezed,
}


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
    tried = told = 0
    for table in tables:
        path = folder / f"{table}.csv"
        whole = path.read_bytes()
        for _ in DAMAGES[damage](path):
            output = tmp_path / f"out{tried}"
            with hidden_values.heard(capfd, caplog) as said:
                done = converter.convert(converter.MedsRequest(folder, output))
                conversion.show(done, Console(width=200))
            text = said()
            if (output / "metadata").is_dir():
                text += "".join((output / "metadata" / name).read_text() for name in ("rejects.csv", "dataset.json"))
            found = hidden_values.in_text(values, text)
            assert not found, (table, found, text)
            tried += 1
            told += "Error" in text or "rejected" in text
        path.write_bytes(whole)
        path.with_suffix(".csv.gz").unlink(missing_ok=True)
    assert tried >= len(tables) <= 2 * told
