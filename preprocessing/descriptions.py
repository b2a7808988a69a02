"""Describe every code in one text: its official description, a text composed of its attributes, or the user's text.

    python -m preprocessing.descriptions --input=DIR/processed_codes/codes.csv --output=DIR/processed_descriptions.csv

Texts are composed for NDC and ATC, whose official names say little. `--descriptions=OWN.csv` replaces texts by those of
a user's CSV or TSV, which has a column `description` and either `key` (`ICD10CM/E11.9`), `system` and `code`, or only
`code` if no code of the file belongs to two systems. The output has the columns system, code, description, in the order
of the input; a code without any text has an empty one. Rows that were not used are listed beside the output, in
`processed_descriptions.rejects.csv`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from absl import flags
from rich.console import Console

from preprocessing.codes import ATC, NDC, SYSTEMS, CodeRecord, display_code, is_wellformed
from preprocessing.common import command_line
from preprocessing.common.atomic import named_path, whole_file
from preprocessing.common.errors import InputError
from preprocessing.common.progress import Bar
from preprocessing.common.rejects import Rejects
from preprocessing.common.spreadsheets import TableWriter
from preprocessing.common.text_tables import SEPARATORS, Row, table
from preprocessing.graph.categories import spelled_categories
from preprocessing.sources.code_entries import EMPTY_DESCRIPTION, read_attributes

COLUMNS = ("system", "code", "description")
_CODES = {"system": (), "code": (), "description": ()}
_SYSTEM_OF = {system.lower(): system for system in SYSTEMS}
# Homeopathic products and allergen extracts list hundreds of names; a text encoder reads only a few dozen words.
_MOST_LISTED = 5
_KIND = re.compile(r"\[[A-Za-z/ ]+\]$")
# `60 mg/1`: per tablet, capsule or dose.
_PER_PIECE = re.compile(r"/1$")


class Counts(NamedTuple):
    """Count the codes by the origin of their text: `official`, `composed`, `own`, or `without` any text."""

    official: int
    composed: int
    own: int
    without: int


class OwnText(NamedTuple):
    """Hold one row of a user's file: the keys that its code may mean, and its text."""

    row: Row
    keys: tuple[str, ...]
    text: str


def describe(codes: Path, output: Path, rejects: Rejects, own: Path | None = None, progress: bool = True) -> Counts:
    """Write the description of every code of `codes` to `output` atomically, and count the codes by origin.

    Args:
        codes: `codes.csv` of `process_codes`.
        output: the file to write.
        rejects: receives every row that is not used.
        own: file of the user's texts, or None.
        progress: whether to show a progress bar.

    Raises:
        InputError: a file is missing or empty, or lacks a column.
    """
    texts = {} if own is None else resolve(read_own(own, rejects), codes, own, rejects)
    counts = dict.fromkeys(Counts._fields, 0)
    seen: set[str] = set()
    with whole_file(output) as partial:
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = TableWriter(file)
            writer.row(COLUMNS)
            rows = _records(codes, rejects)
            for row, record, attributes in Bar(rows, desc="describing", unit=" codes", show=progress):
                if record.key in seen:
                    rejects.add(codes, row.line, "duplicate code", f"{record.key} occurs twice", row.text)
                    continue
                seen.add(record.key)
                text, origin = _describe(record, attributes, texts)
                counts[origin] += 1
                writer.row((record.system, record.code, text))
        if not seen:
            raise InputError(f"{codes} holds no codes; make it with python -m preprocessing.process_codes.")
    return Counts(**counts)


def _describe(record: CodeRecord, attributes: Mapping, own: Mapping[str, str]) -> tuple[str, str]:
    """Return the text of a code and the name of its field in `Counts`."""
    if (text := own.get(record.key)) is not None:
        return text, "own"
    text = " ".join(compose(record.system, record.description, attributes).split())
    return text, ("without" if not text else "official" if text == record.description else "composed")


def _records(path: Path, rejects: Rejects) -> Iterator[tuple[Row, CodeRecord, dict]]:
    """Yield the rows of `codes.csv` with their codes and attributes; rows that hold no code are rejected."""
    for row in table(path, rejects, columns=_CODES, optional={"attributes": ()}, separators=",", quoted=True):
        system, code, description, attributes = row.values
        if not is_wellformed(system, code):
            rejects.add(path, row.line, "malformed code", f"{code!r} is no code of {system!r}", row.text)
            continue
        known = read_attributes(attributes)
        if known is None:
            rejects.add(path, row.line, "malformed attributes", "they are no JSON object and were left out", row.text)
        yield row, CodeRecord(system, display_code(system, code), " ".join(description.split())), known or {}


def read_own(path: Path, rejects: Rejects) -> list[OwnText]:
    """Read a user's texts; a code without a system may mean any system that has codes of its shape.

    Raises:
        InputError: the file is missing or empty, or has no column `description`, or neither `key` nor `code`.
    """
    columns = {"key": ("code", "med code", "concept code"), "description": ("desc", "text")}
    optional = {"system": ("vocabulary", "vocabulary id", "code system")}
    texts = []
    for row in table(path, rejects, columns=columns, optional=optional, separators=SEPARATORS, quoted=True, users=True):
        code, text, system = (value.strip() for value in row.values)
        if "/" in code:
            system, _, code = code.partition("/")
        text = " ".join(text.split())
        if system and system.lower() not in _SYSTEM_OF:
            reason = f"{system!r} is none of {', '.join(SYSTEMS)}"
            rejects.add(path, row.line, "unknown system", reason, row.text)
            continue
        keys = _keys(code, _SYSTEM_OF.get(system.lower()))
        if not keys:
            rejects.add(path, row.line, "malformed code", f"{code!r} is no code of {system or 'any system'}", row.text)
        elif not text:
            rejects.add(path, row.line, EMPTY_DESCRIPTION, f"the text of {code} is empty; it was not used", row.text)
        else:
            texts.append(OwnText(row, keys, text))
    return texts


def _keys(code: str, system: str | None) -> tuple[str, ...]:
    """Return the keys that `code` may mean, in `system` or in every system that has codes of its shape.

    The position of a dot distinguishes systems: `E10.9` is a code of ICD10CM, which ICD9CM would write as `E109`.
    """
    systems = (system,) if system else SYSTEMS
    return tuple(f"{name}/{display_code(name, code)}" for name in systems if is_wellformed(name, code))


def resolve(texts: list[OwnText], codes: Path, own: Path, rejects: Rejects) -> dict[str, str]:
    """Return the text of each key, for texts whose code is exactly one code of `codes`; the first text of a code wins.

    A bare code that is a category in another system is ambiguous too: 7895 is a code of ICD9Proc, but in ICD9CM it is
    the category of ascites.

    Args:
        texts: the user's texts.
        codes: `codes.csv` of `process_codes`.
        own: file of the user's texts, which the rejects name.
        rejects: receives texts of unknown, ambiguous and repeated codes.
    """
    wanted = {key for text in texts for key in text.keys}
    # The faults of `codes` are reported when it is read to be described.
    records = [record for _, record, _ in _records(codes, Rejects(None))]
    known = wanted & {record.key for record in records}
    categories = wanted & (spelled_categories(records).keys() - known)
    chosen: dict[str, str] = {}
    for row, keys, text in texts:
        found = [key for key in keys if key in known]
        if not found:
            rejects.add(own, row.line, "unknown code", f"{codes.name} holds none of {', '.join(keys)}", row.text)
        elif len(found) + len(above := [key for key in keys if key in categories]) > 1:
            reason = f"may be {' or '.join([*found, *above])}; add a column system or key"
            rejects.add(own, row.line, "ambiguous code", reason, row.text)
        elif chosen.setdefault(found[0], text) != text:
            rejects.add(own, row.line, "duplicate code", f"{found[0]} already has another text", row.text)
    return chosen


def compose(system: str, description: str, attributes: Mapping) -> str:
    """Compose the text of one code from its official description and its attributes in `codes.csv`; may be empty."""
    composer = _COMPOSERS.get(system)
    return composer(description, attributes) if composer is not None and attributes else description


def _composed_ndc(name: str, attributes: Mapping) -> str:
    """Compose a text such as `Ativan (Lorazepam), injection, intramuscular; lorazepam 2 mg/ml; Benzodiazepine; ...`."""
    generic = _listed(attributes.get("generic", "").split(", "))
    title = f"{name} ({generic})" if name and generic and generic.lower() != name.lower() else name or generic
    form, route = (attributes.get(field, "").lower() for field in ("form", "route"))
    ingredients = [_PER_PIECE.sub("", text).lower() for text in attributes.get("ingredients", ())]
    parts = [", ".join(filter(None, (title, form, route))), _listed(ingredients), _listed(_classes(attributes))]
    return "; ".join(filter(None, (*parts, attributes.get("package", ""))))


def _classes(attributes: Mapping) -> list[str]:
    """Return the names of the established pharmacologic classes (EPC), or of all classes if there is none."""
    classes = attributes.get("class", ())
    established = [name for name in classes if name.endswith("[EPC]")]
    return list(dict.fromkeys(_KIND.sub("", name).rstrip() for name in established or classes))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_LISTED])
    return shown if len(names) <= _MOST_LISTED else f"{shown} and {len(names) - _MOST_LISTED} more"


def _composed_atc(name: str, attributes: Mapping) -> str:
    """Compose the name and the classes above it: `metformin; Biguanides; Blood glucose lowering drugs, ...`."""
    return "; ".join(filter(None, (name, *attributes.get("within", ()))))


_COMPOSERS: dict[str, Callable[[str, Mapping], str]] = {NDC: _composed_ndc, ATC: _composed_atc}


def main(argv: list[str]) -> None:
    """Describe the codes that the flags name."""
    example = "python -m preprocessing.descriptions --input=codes.csv --output=processed_descriptions.csv"
    command_line.expect_arguments(argv, 0, example)
    codes = Path(flags.FLAGS.input)
    output = Path(flags.FLAGS.output)
    own = None if flags.FLAGS.descriptions is None else Path(flags.FLAGS.descriptions)
    with Rejects(named_path(output).with_name(f"{output.stem}.rejects.csv")) as rejects:
        counts = describe(codes, output, rejects, own)
        if rejects.summary():
            Console().print(rejects.table())
        print(
            f"wrote {output}: {sum(counts):,} codes, of which {counts.official:,} with their official text, "
            f"{counts.composed:,} composed, {counts.own:,} replaced by your own, {counts.without:,} without any"
        )
        rejects.finish(flags.FLAGS.strict)


if __name__ == "__main__":
    flags.DEFINE_string("input", None, "codes.csv as python -m preprocessing.process_codes writes it")
    flags.DEFINE_string("output", None, "CSV to write, with the columns system, code, description")
    flags.DEFINE_string(
        "descriptions", None, "your own texts: CSV with description, and key, or system and code, or only code"
    )
    flags.DEFINE_bool("strict", False, "exit with status 1 if rows were rejected, after all was read and written")
    flags.mark_flags_as_required(["input", "output"])
    command_line.run(main)
