"""Derive names for nodes that no official file names, and normalize names for comparison."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

_WORD_EDGES = ",.;:()[]"
# Words that cannot end a name, because a prefix that ends with one of them reads as unfinished.
_DANGLING = re.compile(
    "a|an|and|as|at|by|due|during|following|for|from|in|into|involving|not|of|on|or|other|secondary|than|the|to|type|"
    "unspecified|using|via|which|while|with|without"
)
_UNSPECIFIED = re.compile(
    r"(?:, | |\()(?:unspecified|nos|not otherwise specified|not elsewhere classified|nec)\)?$", re.IGNORECASE
)
_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")


def shared_words(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """Return the longest common prefix of two lists of words, ignoring case and punctuation at the edges of words."""
    shared = []
    for a, b in zip(left, right, strict=False):
        if a.strip(_WORD_EDGES).lower() != b.strip(_WORD_EDGES).lower():
            break
        shared.append(a if a == b else a.strip(_WORD_EDGES))
    return shared


def prefix_name(words: Sequence[str]) -> str:
    """Turn a shared prefix into a name without dangling last words; return "" if none remain or brackets are open."""
    kept = list(words)
    while kept and (_DANGLING.fullmatch(kept[-1].strip(_WORD_EDGES).lower()) or not any(c.isalnum() for c in kept[-1])):
        kept.pop()
    name = " ".join(kept).strip(_WORD_EDGES.replace(")", "").replace("]", "") + " ")
    return name if name.count("(") == name.count(")") and name.count("[") == name.count("]") else ""


def category_name(descriptions: Sequence[str], residual: str | None) -> str:
    """Return a name for a category that has no title in its file.

    The first of these that exists is the name: the longest common word prefix of the `descriptions` of its codes; the
    description of its residual code without "unspecified"; its first two descriptions.

    Args:
        descriptions: of the category's codes, in code order; at least one.
        residual: description of the code that appends a 9 to the category, or None if there is no such code.
    """
    words = descriptions[0].split()
    for description in descriptions[1:]:
        words = shared_words(words, description.split())
    name = prefix_name(words) or (without_unspecified(residual) if residual else None)
    return name or "; ".join(descriptions[:2])


def without_unspecified(description: str) -> str | None:
    """Return a description without "unspecified" (`Cholera, unspecified` -> `Cholera`); None if it has no such word."""
    shorter = _UNSPECIFIED.sub("", description)
    if shorter != description:
        return shorter
    head, _, tail = description.partition(" ")
    return tail[:1].upper() + tail[1:] if head.lower() == "unspecified" and tail else None


def normal_form(name: str) -> str:
    """Normalize a name for comparison: drop case, accents, punctuation, "unspecified" and plural s."""
    bare = unicodedata.normalize("NFKD", _UNSPECIFIED.sub("", name)).encode("ascii", "ignore").decode().lower()
    bare = bare.replace("'s ", " ")
    return " ".join(_singular(word) for word in _NOT_ALPHANUMERIC.split(bare) if word)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def by_normal_form(named: Iterable[tuple[str, int]], shortest: int = 4) -> dict[str, list[int]]:
    """Group ids by the normal form of their names, skipping forms shorter than `shortest` (they match by chance)."""
    groups: dict[str, list[int]] = {}
    for name, identity in named:
        form = normal_form(name)
        if len(form) >= shortest:
            members = groups.setdefault(form, [])
            if identity not in members[-1:]:
                members.append(identity)
    return groups
