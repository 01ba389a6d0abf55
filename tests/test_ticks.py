"""The ticks of figures, which are the same in PNG files and on pages."""

import pytest

from amplify.report import ticks


@pytest.mark.parametrize(
    ("first", "last", "wanted"),
    [
        (0, 0, [0]),
        (0, 1, [0, 1]),
        (3, 3, [3]),
        (0, 7, [0, 1, 2, 3, 4, 5, 6, 7]),
        (0, 8, [0, 2, 4, 6, 8]),
        (1, 12, [2, 4, 6, 8, 10, 12]),
        (0, 20, [0, 5, 10, 15, 20]),
        (0, 64, [0, 10, 20, 30, 40, 50, 60]),
    ],
)
def test_ticks_of_rounds_are_round_numbers_and_few(first, last, wanted):
    assert ticks.of_rounds(first, last) == wanted
    assert len(wanted) <= ticks.MOST_ROUNDS


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.0, 2.0, ["0", "0.5", "1", "1.5", "2"]),
        (0.0, 1200.0, ["0", "200", "400", "600", "800", "1k", "1.2k"]),
        (140_000.0, 262_144.0, ["140k", "160k", "180k", "200k", "220k", "240k", "260k"]),
        (0.0, 4e12, ["0", "1T", "2T", "3T", "4T"]),
        (0.0, 0.04, ["0", "0.01", "0.02", "0.03", "0.04"]),
        (7.0, 7.0, ["7"]),
    ],
)
def test_ticks_of_costs_are_those_that_vega_chooses(low, high, wanted):
    """The values are those of `d3.ticks(low, high, 5)`."""
    assert [ticks.cost(value) for value in ticks.of_costs(low, high)] == wanted
