"""Show numbers of patients and samples so that no small group can be read off them."""

import itertools
from collections.abc import Collection, Iterable, Sequence

FEWEST = 11
MASKED = f"< {FEWEST}"


def shown(number: int, *, show_small: bool, rounded: Collection[int] = ()) -> int | str:
    """Return a number, or `< 11` for a number from 1 to 10 that must not be shown.

    Args:
        number: the number.
        show_small: whether all numbers may be shown.
        rounded: numbers to round to tens, see `close_numbers`.
    """
    if show_small or not number:
        return number
    if _is_small(number):
        return MASKED
    return _rounded(number) if number in rounded else number


def shown_together(numbers: Sequence[int], *, show_small: bool, rounded: Collection[int] = ()) -> list[int | str]:
    """Return numbers of which some may be sums or differences of others.

    Where one of them, or the step from one to the next, is from 1 to 10 and must not be shown, all others are rounded
    to tens, as it could be computed from them. So they are if one of them is among `rounded`.
    """
    if show_small or not (tells_small(numbers) or any(number in rounded for number in numbers)):
        return list(numbers)
    return [MASKED if _is_small(number) else _rounded(number) if number else 0 for number in numbers]


def tells_small(numbers: Sequence[int]) -> bool:
    """Return True if one of some numbers, or the step from one to the next, is from 1 to 10."""
    steps = [abs(later - earlier) for earlier, later in itertools.pairwise(numbers)]
    return any(map(_is_small, [*numbers, *steps]))


def close_numbers(numbers: Iterable[int]) -> frozenset[int]:
    """Return the numbers that differ by 1 to 10 from another one, so that the two together would tell a small group.

    Two tasks may differ in one rule of their cohorts; the difference of their sizes is the number of those it is about.
    """
    ordered = sorted(set(numbers))
    pairs = [pair for pair in itertools.pairwise(ordered) if _is_small(pair[1] - pair[0])]
    return frozenset(number for pair in pairs for number in pair)


def hides_outcomes(positives: int, samples: int, *, show_small: bool) -> bool:
    """Return True if the share of positives must not be shown, as it tells a small number of one outcome."""
    return not show_small and (_is_small(positives) or _is_small(samples - positives))


def _rounded(number: int) -> str:
    return f"about {round(number, -1):,}"


def _is_small(number: int) -> bool:
    return 0 < number < FEWEST
