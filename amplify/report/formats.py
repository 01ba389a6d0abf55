"""Estimates, verdicts and costs as people read them, the same in terminal, pages and pictures.

Plain numbers are formatted by `figures`, for the pages of people, too.
"""

from collections.abc import Mapping
from typing import Any

from amplify.evaluation import figures
from amplify.evaluation.figures import MISSING, count
from amplify.evaluation.items import ALL, Difference
from amplify.evaluation.measures import Measure
from amplify.evaluation.statistics import Proportion
from amplify.evaluation.statistics.intervals import TOO_FEW
from amplify.report.results import Results

COUNTED = (
    "A question about a context counts once, however often it was drawn. Intervals are of 95% and"
    " clustered by context: what contexts say makes them the same, not which draw they are."
)
VERDICTS = {"promoted": "✓", "rejected": "✗", "inconclusive": "?"}
"""A symbol beside the word, never instead of it."""


NO_INTERVAL = "no interval"
"""Of a mean that is no share, where contexts are too few or nothing varies."""


def mean(found: Proportion | None, measure: Measure) -> str:
    """A measure's mean: a share in percent, anything else as it is."""
    if found is None:
        return MISSING
    return figures.percent(found.estimate) if measure.share else figures.value(found.estimate)


def mean_range(found: Proportion | None, measure: Measure) -> str:
    """The interval, or that there are too few contexts to tell."""
    if found is None:
        return ""
    if measure.share:
        return TOO_FEW if found.interval is None else figures.percent_range(found.interval)
    return NO_INTERVAL if found.interval is None else figures.value_range(found.interval)


def mean_about(found: Proportion | None, measure: Measure) -> str:
    """With its interval in brackets."""
    interval = mean_range(found, measure)
    return f"{mean(found, measure)} ({interval})" if interval else mean(found, measure)


def points(change: Difference | None) -> str:
    """A difference of shares, in percentage points."""
    return MISSING if change is None else figures.points(change.delta)


def points_range(change: Difference | None) -> str:
    if change is None:
        return ""
    return TOO_FEW if change.interval is None else figures.points_range(change.interval)


def points_about(change: Difference | None) -> str:
    """With its interval: `+36.9 (+33.8 to +40.0)`."""
    interval = points_range(change)
    return f"{points(change)} ({interval})" if interval else points(change)


def direction(change: Difference | None) -> str:
    """Which side of 0 the whole interval lies on: "better", "worse", or "" where it holds 0."""
    if change is None or change.interval is None or change.interval[0] <= 0 <= change.interval[1]:
        return ""
    return "better" if change.delta > 0 else "worse"


def verdict_words(verdict: Mapping[str, Any] | None) -> str:
    """`✓ promoted`; the first round has nothing to be judged against."""
    if verdict is None:
        return "· untrained"
    return f"{VERDICTS[verdict['verdict']]} {verdict['verdict']}"


def reason(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "what the first round is judged against"
    return f"{verdict['reason']} (against round {verdict['against']})"


PAIRING = (
    "Paired: both answered the same questions, and the difference is taken question by question."
    " Unpaired: the questions are not the same, so chance in drawing them counts twice."
)


def pairing(change: Difference | None) -> str:
    if change is None:
        return ""
    return "paired" if change.paired else "unpaired"


def headline(found: Results) -> str:
    """What an experiment came to, by what its gate compares, over all classes."""
    first, *_ = row = found.scores[ALL]
    top = next(score for score in row if score.number == found.best.number)
    came = [first, top] if top is not first else [top]
    reached = " → ".join(_with_unit(score.means.get(found.judged.name), found) for score in came)
    title = found.judged.title
    return (
        f"{title[:1].upper()}{title[1:]}: {reached} of {count(top.items, 'held-out question')},"
        f" in round {top.number}. Bars are 95% intervals."
    )


def _with_unit(found: Proportion | None, of: Results) -> str:
    return mean(found, of.judged) + ("%" if found and of.judged.share else "")


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
