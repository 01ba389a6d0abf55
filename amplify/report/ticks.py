"""Chooses the ticks of figures: the same ones in PNG files and on pages."""

import itertools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Ticks of fractions. Their axis goes from the first to the last."""

MOST_ROUNDS = 8
"""Largest number of ticks of rounds."""
COSTS = 5
"""Approximate number of ticks of costs."""
VEGA_COSTS: Mapping[str, Any] = MappingProxyType(
    {
        "tickCount": COSTS,
        "labelFlush": False,  # the page's default, said again: labels are centred on their ticks
        "labelExpr": "format(datum.value, abs(datum.value) < 1000 ? '~g' : '~s')",
    }
)
"""The axis of costs on a page. A facet's panels have different axes but share these settings, so
that values cannot be listed; Vega chooses those of `of_costs`, and writes them as `cost` does.
"""


def of_rounds(first: int, last: int) -> list[int]:
    """Returns ticks from one round to another: each, or each second, fifth, tenth, ...

    Args:
        first: number of the first round.
        last: of the last one.
    """
    steps = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    step = next(step for step in steps if (last - first) // step < MOST_ROUNDS)
    return [*range(-(-first // step) * step, last + 1, step)]


def of_costs(low: float, high: float) -> list[float]:
    """Returns about five multiples of 1, 2 or 5 times a power of ten.

    Args:
        low: the smallest value that is drawn.
        high: the largest one.

    Source:
        `ticks` of d3-array 3, which Vega uses.
    """
    if not high > low:
        return [low]
    rough = (high - low) / COSTS
    power = 10.0 ** math.floor(math.log10(rough))
    error = rough / power
    step = power * next((n for n, to in ((10, 50), (5, 10), (2, 2)) if error >= math.sqrt(to)), 1)
    places = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [round(place * step, 12) for place in places]


def cost(value: float) -> str:
    """Formats a cost in few characters: 0.5, 20, 150k, 2M."""
    prefixes = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}
    prefix = next((one for one, size in prefixes.items() if abs(value) >= size), "")
    return f"{value / prefixes.get(prefix, 1):g}{prefix}"
