"""Read SNOMED CT in Release Format 2, which the user supplies (affiliate license).

Format (SNOMED International, "Release File Specifications", section 4.2): tab-separated UTF-8 with a header, CRLF line
ends and no quotation marks.
- `sct2_Concept_Snapshot_<edition>_<date>.txt`: id, effectiveTime, active, moduleId, definitionStatusId;
- `sct2_Description_Snapshot-en_<edition>_<date>.txt`: id, effectiveTime, active, moduleId, conceptId, languageCode,
  typeId, term, caseSignificanceId; typeId 900000000000003001 is the fully specified name, `Apple (organism)`.
"""

import re
from collections import Counter
from pathlib import Path

from preprocessing.codes import SNOMED
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import Row, table
from preprocessing.sources.code_entries import CodeEntries
from preprocessing.sources.release_files import need_release

_CONCEPTS = r"sct2_Concept_Snapshot_.*?(\d{8})\.txt"
_DESCRIPTIONS = r"sct2_Description_Snapshot-en_.*?(\d{8})\.txt"
_FULLY_SPECIFIED_NAME = "900000000000003001"
_TAG = re.compile(r"\(([^()]+)\)$")


def read_snomed(folder: Path, rejects: Rejects) -> CodeEntries:
    """Return the active concepts with their fully specified names.

    The semantic tag at the end of the name (`(disorder)`) becomes the attribute `semantic_tag`, so that names compare
    with those of other sources; it also remains in the description if two concepts would otherwise have the same name
    (`Apple (organism)`, `Apple (substance)`).

    Raises:
        InputError: the folder lacks a file, or a file lacks a column.
    """
    entries = CodeEntries(SNOMED, rejects)
    concepts, descriptions = (
        need_release(folder, pattern, entries, example, newest=lambda match: (match[1],))
        for pattern, example in (
            (_CONCEPTS, "sct2_Concept_Snapshot_INT_20250101.txt"),
            (_DESCRIPTIONS, "sct2_Description_Snapshot-en_INT_20250101.txt"),
        )
    )
    active: dict[str, Row] = {}
    for row in table(concepts, rejects, columns={"id": (), "active": ()}):
        identity, state = row.values
        if state == "1":
            active[identity] = row
        else:
            entries.counts["inactive"] += 1
    names, repeated = _read_names(descriptions, entries, active)
    alike = Counter(_bare(row.values[-1].rstrip()) for row in names.values())
    for identity, row in active.items():
        named = names.get(identity)
        if named is None:
            entries.add(concepts, row.line, identity, "", row=row.text)
        else:
            _add(entries, descriptions, identity, named, alike)
    for identity, row in repeated:
        _add(entries, descriptions, identity, row, alike)
    return entries


def _read_names(
    path: Path, entries: CodeEntries, active: dict[str, Row]
) -> tuple[dict[str, Row], list[tuple[str, Row]]]:
    """Return the rows of the fully specified names by concept, and the rows that name a concept again."""
    names: dict[str, Row] = {}
    repeated = []
    columns = {"conceptId": (), "active": (), "typeId": (), "term": ()}
    for row in table(path, entries.rejects, columns=columns):
        identity, state, kind, _ = row.values
        if state != "1" or kind != _FULLY_SPECIFIED_NAME:
            entries.counts["other descriptions"] += 1
        elif identity not in active:
            entries.counts["names of inactive concepts"] += 1
        elif identity in names:
            repeated.append((identity, row))
        else:
            names[identity] = row
    return names, repeated


def _bare(name: str) -> str:
    """Return a name without its semantic tag."""
    return _TAG.sub("", name).rstrip()


def _add(entries: CodeEntries, path: Path, identity: str, row: Row, alike: Counter[str]) -> None:
    name = row.values[-1].rstrip()
    match = _TAG.search(name)
    bare = _bare(name)
    description = name if alike[bare] > 1 or not bare else bare
    attributes = {"semantic_tag": match[1]} if match else {}
    entries.add(path, row.line, identity, description, attributes, row=row.text)
