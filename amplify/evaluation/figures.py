"""Formats numbers for people, in the same way in terminals, pages and figures.

Functions take plain values and return text; None means that a value is unknown.
"""

from collections.abc import Sequence

TOO_FEW = "too few to tell"
MISSING = "\N{EN DASH}"
"""Stands for a value that does not exist or is unknown."""


def percent(share: float | None) -> str:
    """Formats a fraction in percent; only exactly 0 and 1 are shown as 0.0 and 100.0."""
    if share is None:
        return MISSING
    return f"{100 * share if share in (0, 1) else min(max(100 * share, 0.1), 99.9):.1f}"


def percent_range(interval: Sequence[float] | None) -> str:
    """Formats an interval of fractions; None: there are too few clusters for one."""
    return TOO_FEW if interval is None else MISSING.join(map(percent, interval))


def points(difference: float | None) -> str:
    """Formats a difference of fractions in percentage points."""
    return MISSING if difference is None else signed(100 * difference)


def points_range(interval: Sequence[float] | None) -> str:
    """Formats an interval of differences in percentage points."""
    return "" if interval is None else " to ".join(map(points, interval))


def value(mean: float | None) -> str:
    """Formats a mean that is not a fraction."""
    if mean is None:
        return MISSING
    text = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def value_range(interval: Sequence[float] | None) -> str:
    """Formats an interval of such means; None: there are too few clusters for one."""
    return TOO_FEW if interval is None else " to ".join(map(value, interval))


def signed(value: float | None) -> str:
    """Formats a number with its sign and one decimal."""
    if value is None:
        return MISSING
    rounded = round(value, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def signed_range(interval: Sequence[float] | None) -> str:
    """Formats an interval with signs."""
    return "" if interval is None else " to ".join(map(signed, interval))


def coefficient(value: float | None) -> str:
    """Formats a coefficient, such as Krippendorff's alpha, with two decimals."""
    return MISSING if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def coefficient_range(interval: Sequence[float] | None) -> str:
    """Formats an interval of coefficients."""
    return "" if interval is None else " to ".join(map(coefficient, interval))


def duration(seconds: float | int | None) -> str:
    """Formats seconds in seconds, minutes or hours."""
    if seconds is None:
        return MISSING
    if seconds < 120:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def number(value: float | None) -> str:
    """Formats a number, with one decimal below 10."""
    return MISSING if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def count(number: int, noun: str, nouns: str = "") -> str:
    """Formats a count with its noun: `1 round`, `2,048 questions`."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def short(text: str, length: int = 100) -> str:
    """Truncates a text to a number of characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
