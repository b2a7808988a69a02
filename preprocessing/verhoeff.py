"""Verhoeff's check digit (1969), which ends every SNOMED CT identifier: a calculation in the dihedral group D5."""


def _product(a: int, b: int) -> int:
    """Product in D5, whose rotations are 0 to 4 and reflections 5 to 9."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
    return 5 + (a - b) % 5 if b < 5 else (a - b) % 5


_PRODUCT = tuple(tuple(_product(a, b) for b in range(10)) for a in range(10))
_SHUFFLE = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _permutations() -> tuple[tuple[int, ...], ...]:
    rows = [tuple(range(10))]
    while len(rows) < 8:
        rows.append(tuple(rows[-1][digit] for digit in _SHUFFLE))
    return tuple(rows)


_PERMUTATION = _permutations()


def has_check_digit(digits: str) -> bool:
    """Whether the last of `digits` (ASCII digits only) is the check digit of those in front of it."""
    check = 0
    for position, digit in enumerate(reversed(digits)):
        check = _PRODUCT[check][_PERMUTATION[position % 8][int(digit)]]
    return check == 0
