"""Settle the code system of one row: the systems that it names, and the one of them that knows its code."""

from medtok_jax.lookup.code_index import AmbiguousCodeError, UnknownCodeError
from medtok_jax.lookup.code_names import ALIASES, shown
from medtok_jax.tokenize.evidence import Scope, edition_of_header, systems_knowing
from medtok_jax.tokenize.rows import CodeRow
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.errors import InputError


class ContradictionError(InputError):
    """Report a row whose code, system, edition and header name different code systems."""


def named_systems(tokenizer: MedTokTokenizer, row: CodeRow, default: str | None) -> Scope:
    """Return the code systems that a row names, by its code, system, edition and header, or None if it names none.

    Args:
        tokenizer: knows the names.
        row: the row, with a code.
        default: name of the system of rows without a system.

    Raises:
        ContradictionError: the names contradict one another.
        InputError: a name is not that of a code system.
    """
    names = tokenizer.index.names
    said: list[tuple[str, frozenset[str]]] = []
    prefix = names.split(row.code)[0]
    if prefix is not None:
        said.append((row.code, frozenset(prefix)))
    for name in (row.system or default, row.edition):
        if name is not None:
            said.append((name, frozenset(names.systems_named(name))))
    of_header = edition_of_header(row.header)
    if of_header is not None:
        said.append((row.header, of_header))
    if not said:
        return None
    common = frozenset.intersection(*(systems for _, systems in said))
    if not common:
        listed = ", ".join(shown(name) for name, _ in said)
        raise ContradictionError(f"its system, edition and code contradict one another ({listed})")
    return common


def choose_system(tokenizer: MedTokTokenizer, code: str, systems: Scope) -> str | None:
    """Return the name of the system to look a code up in, of those that it may belong to; None for any.

    Raises:
        AmbiguousCodeError: several of them know the code, and no order of preference settles it.
        UnknownCodeError: none of them does, and the shape of the code does not settle it.
    """
    if systems is not None and len(systems) == 1:
        return next(iter(systems))
    known = systems_knowing(tokenizer, code)
    known = known if systems is None else known & systems
    if len(known) > 1:
        preferred = [system for system in tokenizer.index.prefer if system in known]
        if preferred:
            return preferred[0]
        bare = tokenizer.index.names.split(code)[1]
        normal = dict(tokenizer.index.wellformed(code))
        keys = [f"{system}/{normal.get(system, bare)}" for system in sorted(known)]
        raise AmbiguousCodeError(
            f"{shown(code)} is a code of several systems: {', '.join(keys)}; give one of these, or an order of"
            " preference.",
            keys,
        )
    if known:
        return next(iter(known))
    if systems is None:
        return None
    for name, named in ALIASES.items():
        if systems == frozenset(named):
            return name
    shapes = {system for system, _ in tokenizer.index.wellformed(code)} & systems
    if len(shapes) == 1:
        return next(iter(shapes))
    raise UnknownCodeError(f"{shown(code)} is not a code of {' or '.join(sorted(systems))} in this tokenizer.")
