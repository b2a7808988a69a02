"""Show numbers of patients and samples so that no small group can be read off them."""

import itertools
from collections.abc import Sequence

FEWEST = 11
MASKED = f"< {FEWEST}"


def shown(number: int, *, show_small: bool) -> int | str:
    """Return a number, or `< 11` for a number from 1 to 10 that must not be shown."""
    return number if show_small or not _is_small(number) else MASKED


def shown_together(numbers: Sequence[int], *, show_small: bool) -> list[int | str]:
    """Return numbers of which some may be sums or differences of others.

    Where one of them, or the step from one to the next, is from 1 to 10 and must not be shown, all others are rounded
    to tens, as it could be computed from them.
    """
    steps = [abs(later - earlier) for earlier, later in itertools.pairwise(numbers)]
    if show_small or not any(map(_is_small, [*numbers, *steps])):
        return list(numbers)
    return [MASKED if _is_small(number) else f"about {round(number, -1):,}" if number else 0 for number in numbers]


def hides_outcomes(positives: int, samples: int, *, show_small: bool) -> bool:
    """Return True if the share of positives must not be shown, as it tells a small number of one outcome."""
    return not show_small and (_is_small(positives) or _is_small(samples - positives))


def _is_small(number: int) -> bool:
    return 0 < number < FEWEST
