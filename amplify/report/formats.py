"""Numbers and verdicts as people read them, the same in terminal, pages and pictures."""

from collections.abc import Mapping
from typing import Any

from amplify.report.results import Difference, Score
from amplify.statistics import Proportion
from amplify.statistics.intervals import TOO_FEW

COUNTED = (
    "A question about a context counts once, however often it was drawn. Intervals are of 95% and"
    " clustered by context: what contexts say makes them the same, not which draw they are."
)
MISSING = "\N{EN DASH}"
"""Stands where there is nothing to show: a class without items, a first round without a change."""

VERDICTS = {"promoted": "✓", "rejected": "✗", "inconclusive": "?"}
"""A symbol beside the word, never instead of it."""


def percent(accuracy: Proportion | None) -> str:
    return MISSING if accuracy is None else _percent(accuracy.estimate)


def percent_about(accuracy: Proportion | None) -> str:
    """With its interval in brackets."""
    interval = percent_range(accuracy)
    return f"{percent(accuracy)} ({interval})" if interval else percent(accuracy)


def percent_range(accuracy: Proportion | None) -> str:
    """The interval, or that there are too few contexts to tell."""
    if accuracy is None:
        return ""
    if accuracy.interval is None:
        return TOO_FEW
    return "\N{EN DASH}".join(map(_percent, accuracy.interval))


def _percent(share: float) -> str:
    """0.0 and 100.0 only where it is exactly that, however near it comes."""
    return f"{100 * share if share in (0, 1) else min(max(100 * share, 0.1), 99.9):.1f}"


def points(change: Difference | None) -> str:
    """A difference of accuracies, in percentage points."""
    return MISSING if change is None else _signed(change.delta)


def points_range(change: Difference | None) -> str:
    if change is None:
        return ""
    if change.interval is None:
        return TOO_FEW
    return " to ".join(map(_signed, change.interval))


def points_about(change: Difference | None) -> str:
    """With its interval: `+36.9 (+33.8 to +40.0)`."""
    interval = points_range(change)
    return f"{points(change)} ({interval})" if interval else points(change)


def _signed(fraction: float) -> str:
    rounded = round(100 * fraction, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def direction(change: Difference | None) -> str:
    """Which side of 0 the whole interval lies on: "better", "worse", or "" where it holds 0."""
    if change is None or change.interval is None or change.interval[0] <= 0 <= change.interval[1]:
        return ""
    return "better" if change.delta > 0 else "worse"


def duration(seconds: float | int) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def verdict_words(verdict: Mapping[str, Any] | None) -> str:
    """`✓ promoted`; the first round has nothing to be judged against."""
    if verdict is None:
        return "· untrained"
    return f"{VERDICTS[verdict['verdict']]} {verdict['verdict']}"


def reason(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "what the first round is judged against"
    return f"{verdict['reason']} (against round {verdict['against']})"


def count(number: int, noun: str) -> str:
    """`1 round`, `2,048 questions`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


PAIRING = (
    "Paired: both answered the same questions, and the difference is taken question by question."
    " Unpaired: the questions are not the same, so chance in drawing them counts twice."
)


def pairing(change: Difference | None) -> str:
    if change is None:
        return ""
    return "paired" if change.paired else "unpaired"


def short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def headline(row: list[Score], best: int) -> str:
    """What an experiment came to, from the scores of all classes."""
    top = next(score for score in row if score.number == best)
    reached = f"{percent(top.alone)}% of {count(top.items, 'held-out question')}"
    if top is not row[0]:
        reached = f"{percent(row[0].alone)}% → {reached}"
    return f"Right alone: {reached}, in round {best}. Bars are 95% intervals."


def helped(effect: Mapping[str, Any], scale: float, unit: str) -> str:
    """What the assistant's help was worth to people: with it, without it, the difference."""
    arms = [
        f"{scale * effect[arm]['mean']:.1f} {how} ({effect[arm]['answers']} answers)"
        for arm, how in (("helped", "with it"), ("alone", "without"))
        if effect[arm]["mean"] is not None
    ]
    if effect["difference"] is None:
        return "; ".join(arms) or MISSING
    change = f"{scale * effect['difference']:+.1f}{unit}"
    if effect["interval"] is not None:
        low, high = (scale * end for end in effect["interval"])
        change += f", 95% interval {low:+.1f} to {high:+.1f}"
    else:
        change += ", too few people to tell how far this could be off"
    return "; ".join([*arms, change])
