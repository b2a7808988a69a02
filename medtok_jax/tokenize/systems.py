"""Find the code systems that one row of a file names, and whether its parts contradict one another."""

from medtok_jax.lookup.code_names import shown
from medtok_jax.tokenize.evidence import Scope, edition_of_header
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
