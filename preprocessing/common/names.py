"""Suggest the name that was meant where one is unknown."""

import difflib
from collections.abc import Iterable

# Share of letters that two names have in common, in order, from which one may be meant by the other.
_ALIKE = 0.5


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is spelled most like `name`, ignoring case.

    Args:
        name: a name that is not known.
        known: at least one name; the first is returned if none is alike.
    """
    of_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), of_lower, n=1, cutoff=0.0)
    return of_lower[found[0]] if found else next(iter(of_lower.values()))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that refuses a name: the one that was meant, if any is alike, and all."""
    known = list(known)
    found = nearest(name, known)
    listed = ", ".join(known)
    alike = difflib.SequenceMatcher(None, name.lower(), found.lower()).ratio() >= _ALIKE
    return f"did you mean {found!r}? Known are {listed}." if alike else f"choose from: {listed}."
