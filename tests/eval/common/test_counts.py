import pytest

from eval.common import counts


@pytest.mark.parametrize(("number", "shown"), [(0, 0), (1, "< 11"), (10, "< 11"), (11, 11), (2500, 2500)])
def test_small_numbers_are_not_shown(number, shown):
    assert counts.shown(number, show_small=False) == shown
    assert counts.shown(number, show_small=True) == number


def test_no_small_number_follows_from_others():
    assert counts.shown_together([120, 100, 20], show_small=False) == [120, 100, 20]
    assert counts.shown_together([2174, 4, 400, 1770], show_small=False) == [
        "about 2,170",
        "< 11",
        "about 400",
        "about 1,770",
    ]
    assert counts.shown_together([2174, 2170, 1770], show_small=False) == ["about 2,170", "about 2,170", "about 1,770"]
    assert counts.shown_together([30, 7, 0], show_small=False) == ["about 30", "< 11", 0]
    assert counts.shown_together([2174, 4], show_small=True) == [2174, 4]


def test_numbers_whose_difference_is_small_are_close():
    assert counts.close_numbers([1000, 1009, 1030, 500, 500]) == {1000, 1009}
    assert counts.close_numbers([1000, 1011]) == frozenset()
    assert counts.shown(1009, show_small=False, rounded={1009}) == "about 1,010"
    assert counts.shown(1009, show_small=True, rounded={1009}) == 1009
    assert counts.shown_together([1200, 191, 1009], show_small=False, rounded={1009}) == [
        "about 1,200",
        "about 190",
        "about 1,010",
    ]


@pytest.mark.parametrize(("positives", "hidden"), [(0, False), (5, True), (11, False), (95, True), (89, False)])
def test_a_share_that_tells_a_small_number(positives, hidden):
    assert counts.hides_outcomes(positives, 100, show_small=False) is hidden
    assert counts.hides_outcomes(positives, 100, show_small=True) is False
