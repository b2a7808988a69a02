"""Read the cross-references of an ontology from SSSOM mapping tables and from the xref lines of OBO files.

Formats:
- SSSOM/TSV (https://mapping-commons.github.io/sssom/): `#` lines of metadata, a header, then tab-separated rows with at
  least `subject_id`, `predicate_id` and `object_id`, all CURIEs such as `MONDO:0005148`. MONDO's releases hold one file
  per predicate and foreign vocabulary. `skos:narrowMatch` says that the object is narrower than the subject.
- OBO 1.2 and 1.4 (https://owlcollab.github.io/oboformat/doc/GO.format.obo-1_4.html): `xref: ICD10CM:E11
  {source="MONDO:equivalentTo", source="DOID:9352"}`. MONDO states in `source` how its term relates to the foreign one.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from preprocessing.common.errors import InputError, lacks_column
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import Line, lines

EXACT, CLOSE, NARROW, BROAD, RELATED, XREF = "exact", "close", "narrow", "broad", "related", "xref"

_PREDICATES = {
    "skos:exactMatch": EXACT,
    "owl:equivalentClass": EXACT,
    "skos:closeMatch": CLOSE,
    "skos:narrowMatch": NARROW,
    "skos:broadMatch": BROAD,
    "skos:relatedMatch": RELATED,
    "oboInOwl:hasDbXref": XREF,
}
_SOURCES = {
    "MONDO:equivalentTo": EXACT,
    "MONDO:mondoIsBroaderThanSource": NARROW,
    "MONDO:mondoIsNarrowerThanSource": BROAD,
    "MONDO:relatedTo": RELATED,
}
_CURIE = re.compile(r"([A-Za-z][\w.-]*):(\S+)")
_SYNONYM = re.compile(r'"(.*)" EXACT\b')
_NEEDED = ("subject_id", "predicate_id", "object_id")


class Reference(NamedTuple):
    """Hold one cross-reference from a term of an ontology to a concept of another vocabulary.

    Attributes:
        term: CURIE of the term.
        vocabulary, code: the foreign concept, as the file spells it (`ICD10CM`, `E11.9`).
        predicate: `exact`, `close`, `narrow`, `broad`, `related` or `xref`; narrow means that the foreign concept is
            narrower than the term.
        file, line: file and line number of the reference.
    """

    term: str
    vocabulary: str
    code: str
    predicate: str
    file: Path
    line: int


class OboTerm(NamedTuple):
    """Hold a term that is not obsolete; `names` lists its name and then its exact synonyms."""

    term: str
    names: tuple[str, ...]
    references: tuple[Reference, ...]


def read_sssom(path: Path, rejects: Rejects) -> Iterator[Reference]:
    """Yield the rows of an SSSOM table.

    Raises:
        InputError: the file cannot be read, is empty, or lacks a column.
    """
    header: list[str] | None = None
    for line, text in lines(path, rejects):
        if text.startswith("#"):
            continue
        cells = text.split("\t")
        if header is None:
            header = cells
            if missing := [name for name in _NEEDED if name not in header]:
                raise lacks_column(
                    path, repr(missing[0]), [name for name in _NEEDED if name in header], len(header), line=line
                )
            needed = [header.index(name) for name in _NEEDED]
            continue
        if len(cells) != len(header):
            rejects.add(path, line, "wrong column count", f"{len(cells)} columns, not {len(header)}", text)
            continue
        subject, predicate, target = (cells[column] for column in needed)
        known = _PREDICATES.get(predicate)
        match = _CURIE.fullmatch(target)
        if known is None:
            rejects.add(path, line, "unknown predicate", f"{predicate} is not a mapping predicate", text)
        elif match is None or _CURIE.fullmatch(subject) is None:
            rejects.add(path, line, "malformed identifier", "subject_id and object_id must be PREFIX:ID", text)
        else:
            yield Reference(subject, match[1], match[2], known, path, line)
    if header is None:
        raise InputError(f"{path} has no header; fetch it again.")


def read_obo(path: Path, rejects: Rejects) -> Iterator[OboTerm]:
    """Yield the terms of an OBO file that are not obsolete, with their references.

    Raises:
        InputError: the file cannot be read or holds no term.
    """
    found = False
    fields: list[tuple[int, str, str]] | None = None
    for line, text in itertools.chain(lines(path, rejects), [Line(0, "[end]")]):
        if text.startswith("["):
            if fields and (term := _term(path, fields, rejects)):
                found = True
                yield term
            fields = [] if text == "[Term]" else None
        elif fields is not None:
            field, _, value = text.partition(": ")
            fields.append((line, field, value))
    if not found:
        raise InputError(f"{path} holds no term of an ontology; fetch it again.")


def _term(path: Path, fields: list[tuple[int, str, str]], rejects: Rejects) -> OboTerm | None:
    identity = next((value for _, field, value in fields if field == "id"), "")
    if not identity:
        rejects.add(path, fields[0][0], "term without an id", "a [Term] must have an id", fields[0][2])
        return None
    if any(field == "is_obsolete" and value.startswith("true") for _, field, value in fields):
        return None
    names = []
    synonyms = []
    references = []
    for line, field, value in fields:
        if field == "name":
            names.append(value)
        elif field == "synonym" and (match := _SYNONYM.match(value)):
            synonyms.append(match[1].replace('\\"', '"'))
        elif field == "xref" and (match := _CURIE.match(value)):
            kinds = [_SOURCES[source] for source in re.findall(r'source="([^"]*)"', value) if source in _SOURCES]
            references.append(Reference(identity, match[1], match[2], kinds[0] if kinds else XREF, path, line))
    return OboTerm(identity, (*names, *synonyms), tuple(references))
