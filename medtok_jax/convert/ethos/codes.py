"""Join medical codes from the tokens into which ETHOS splits them.

ETHOS writes a diagnosis as up to three tokens (`ICD//CM//` and the title of its category, `ICD//CM//3-6//` and its next
three characters, `ICD//CM//SFX//` and the rest), a procedure as seven (`ICD//PCS//` and one character each), a drug as
up to three (`ATC//` and two levels with their title, `ATC//4//` and one character, `ATC//SFX//` and the rest). Two
things are lost: ICD-9 codes were converted to ICD-10 codes, and titles replace categories. Categories are recovered
from the official list of titles.

The format is that of `ethos/tokenize/mimic/preprocessors.py` of github.com/ipolharvard/ethos-ares.
"""

import re
import xml.etree.ElementTree as ET  # nosec B405 # A file of an installed package.
from collections.abc import Mapping, Sequence

import numpy as np

from preprocessing import codes
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading
from preprocessing.sources.packages import package_file

OTHER = 0
CM_TITLE, CM_MIDDLE, CM_REST, PCS, ATC_TITLE, ATC_MIDDLE, ATC_REST = range(1, 8)
# Prefixes, the longest first: some are prefixes of others.
_PREFIXES = {
    "ICD//CM//3-6//": CM_MIDDLE,
    "ICD//CM//SFX//": CM_REST,
    "ICD//CM//": CM_TITLE,
    "ICD//PCS//": PCS,
    "ATC//SFX//": ATC_REST,
    "ATC//4//": ATC_MIDDLE,
    "ATC//": ATC_TITLE,
}
# Kinds that continue a code -> the kind that must precede them.
_CONTINUES = {CM_MIDDLE: CM_TITLE, CM_REST: CM_MIDDLE, ATC_MIDDLE: ATC_TITLE, ATC_REST: ATC_MIDDLE}
_PCS_LENGTH = 7
_PARTS = _PCS_LENGTH
NO_PART = -1
_TABULAR_LIST = ("simple_icd_10_cm", "data/*.xml")
_OTHER_TITLES = {
    "ESTROGEN_RECEPTOR_STATUS": "Z17",
    "MAJOR_DEPRESSIVE_DISORDER_SINGLE_EPISODE": "F32",
    "ENCOUNTER_FOR_FOLLOW-UP_EXAMINATION_AFTER_COMPLETED_TREATMENT": "Z09",
}


def kinds(vocabulary: Sequence[str]) -> np.ndarray:
    """Return the kind of each token, `[vocabulary]` int8: a constant such as `PCS`, `OTHER` outside of codes."""
    return np.array(
        [next((kind for prefix, kind in _PREFIXES.items() if t.startswith(prefix)), OTHER) for t in vocabulary], np.int8
    )


def title_form(title: str) -> str:
    """Return a title as ETHOS spells it in a token."""
    return re.sub("[,.]", "", title.upper()).replace(" ", "_")


def category_titles() -> dict[str, str]:
    """Map the titles of ICD-10-CM categories, as ETHOS spells them, to categories, leaving out ambiguous titles.

    Titles are those of the tabular list, and the few that differ in ETHOS's list of 2021.

    Raises:
        InputError: the package that ships the tabular list is missing.
    """
    found: dict[str, str] = {}
    path = package_file(*_TABULAR_LIST)
    with reading(path, "the tabular list", "install the package simple-icd-10-cm again"):
        root = ET.parse(path).getroot()  # nosec B314 # A file of an installed package.
    for category in root.iterfind("chapter/section/diag"):
        title = title_form(category.findtext("desc", ""))
        code = category.findtext("name", "")
        found[title] = code if found.get(title, code) == code else ""
    return {title: code for title, code in found.items() if code} | _OTHER_TITLES


def split_into_codes(tokens: np.ndarray, kinds_of: np.ndarray, breaks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the codes in a sequence of tokens.

    Args:
        tokens: `[events]` int64 ids.
        kinds_of: see `kinds`.
        breaks: `[events]` bool mask of the events that cannot continue the code of the event before.

    Returns:
        `[codes]` int64 positions of first tokens, and `[codes, 7]` int64 ids of all tokens, padded by `NO_PART`.
    """
    kind = kinds_of[tokens]
    before = np.concatenate([[OTHER], kind[:-1]])
    needed = np.full(ATC_REST + 1, -1)
    needed[list(_CONTINUES)] = list(_CONTINUES.values())
    follows = (needed[kind] == before) & ~breaks
    follows |= (kind == PCS) & ~breaks & ~_starts_of_runs(kind == PCS, breaks)
    is_code = kind != OTHER
    starts = np.flatnonzero(is_code & ~follows)
    number = np.cumsum(is_code & ~follows) - 1
    inside = np.flatnonzero(is_code)
    column = inside - starts[number[inside]]
    parts = np.full((len(starts), _PARTS), NO_PART, np.int64)
    parts[number[inside], column] = tokens[inside]
    return starts, parts


def _starts_of_runs(member: np.ndarray, breaks: np.ndarray) -> np.ndarray:
    """Return a mask of every seventh token in each run of procedure characters, the first tokens of codes.

    In a run whose length is not a multiple of seven, all tokens are marked.
    """
    first = member & (~np.concatenate([[False], member[:-1]]) | breaks)
    run = np.cumsum(first) - 1
    position = np.arange(len(member)) - np.flatnonzero(first)[run] if first.any() else np.zeros(len(member), int)
    length = np.bincount(run[member], minlength=1)
    return member & ((position % _PCS_LENGTH == 0) | (length[run] % _PCS_LENGTH != 0))


def join_parts(parts: np.ndarray, vocabulary: Sequence[str], titles: Mapping[str, str]) -> list[str]:
    """Return the code that each row of tokens spells.

    Args:
        parts: `[codes, 7]`, see `split_into_codes`.
        vocabulary: tokens by id.
        titles: see `category_titles`.

    Returns:
        `SYSTEM/code` in normal form; for a code that cannot be recovered, the parts of its tokens after the system.
    """
    unique, inverse = np.unique(parts, axis=0, return_inverse=True)
    spelled = [_join([vocabulary[i] for i in row if i != NO_PART], titles) for row in unique]
    return [spelled[i] for i in inverse.reshape(-1)]


def _join(tokens: list[str], titles: Mapping[str, str]) -> str:
    prefix = next(prefix for prefix in _PREFIXES if tokens[0].startswith(prefix))
    kind = _PREFIXES[prefix]
    head = tokens[0].removeprefix(prefix)
    rest = "".join(token.rsplit("//", 1)[1] for token in tokens[1:])
    system = codes.ATC if kind >= ATC_TITLE else codes.ICD10PCS if kind == PCS else codes.ICD10CM
    stem = {CM_TITLE: titles.get(head, "?"), PCS: head, ATC_TITLE: head.partition("//")[0]}.get(kind, "?")
    try:
        return f"{system}/{codes.display_code(system, stem + rest)}"
    except InputError:
        known = [head.replace("//", "_"), rest] if kind in (CM_TITLE, ATC_TITLE, PCS) else ["...", head + rest]
        return f"{system}/{' + '.join(part for part in known if part)}"
