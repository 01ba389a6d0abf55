"""Formats estimates and verdicts for people, in the same way in terminal, pages and figures.

`figures` formats plain numbers, also for people's pages.
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
    "A question about a context counts once, however often it was drawn. Intervals are of 95 %,"
    " clustered by context; contexts with the same facts are one cluster."
)
VERDICTS = {"promoted": "✓", "rejected": "✗", "inconclusive": "?"}
"""Symbols shown beside the words."""


NO_INTERVAL = "no interval"
"""Shown for a mean that is not a fraction, if contexts are too few or nothing varies."""


def mean(found: Proportion | None, measure: Measure) -> str:
    """Formats the mean of a measure: fractions in percent, anything else as it is."""
    if found is None:
        return MISSING
    return figures.percent(found.estimate) if measure.share else figures.value(found.estimate)


def mean_range(found: Proportion | None, measure: Measure) -> str:
    """Formats the interval of a mean, or says that there are too few contexts."""
    if found is None:
        return ""
    if measure.share:
        return TOO_FEW if found.interval is None else figures.percent_range(found.interval)
    return NO_INTERVAL if found.interval is None else figures.value_range(found.interval)


def mean_about(found: Proportion | None, measure: Measure) -> str:
    """Formats a mean with its interval in brackets."""
    interval = mean_range(found, measure)
    return f"{mean(found, measure)} ({interval})" if interval else mean(found, measure)


def points(change: Difference | None) -> str:
    """Formats a difference of fractions in percentage points."""
    return MISSING if change is None else figures.points(change.delta)


def points_range(change: Difference | None) -> str:
    """Formats the interval of a difference in percentage points."""
    if change is None:
        return ""
    return TOO_FEW if change.interval is None else figures.points_range(change.interval)


def points_about(change: Difference | None) -> str:
    """Formats a difference with its interval: `+36.9 (+33.8 to +40.0)`."""
    interval = points_range(change)
    return f"{points(change)} ({interval})" if interval else points(change)


def direction(change: Difference | None) -> str:
    """Returns "better" or "worse" if the interval excludes 0, otherwise ""."""
    if change is None or change.interval is None or change.interval[0] <= 0 <= change.interval[1]:
        return ""
    return "better" if change.delta > 0 else "worse"


def verdict_words(verdict: Mapping[str, Any] | None) -> str:
    """Formats a verdict: `✓ promoted`; None: the untrained assistant, which has no verdict."""
    if verdict is None:
        return "· untrained"
    return f"{VERDICTS[verdict['verdict']]} {verdict['verdict']}"


def reason(verdict: Mapping[str, Any] | None) -> str:
    """Returns the reason for a verdict, and the round that it was compared with."""
    if verdict is None:
        return "what the first round is judged against"
    return f"{verdict['reason']} (against round {verdict['against']})"


def human_time(simulated: bool) -> str:
    """Returns the name of the time that people spent, which says whether they were programs.

    Args:
        simulated: whether they were.
    """
    return "simulated people's time" if simulated else "human time"


PAIRING = (
    "Paired: both answered the same questions, and the difference is taken question by question."
    " Unpaired: the questions are not the same, so chance in drawing them counts twice."
)


def pairing(change: Difference | None) -> str:
    """Says whether a difference is paired by question; see `PAIRING`."""
    if change is None:
        return ""
    return "paired" if change.paired else "unpaired"


def headline(found: Results) -> str:
    """Summarises an experiment: the gate's measure over all classes, first and best round."""
    first, *_ = row = found.scores[ALL]
    top = next(score for score in row if score.number == found.best.number)
    came = [first, top] if top is not first else [top]
    reached = " → ".join(_with_unit(score.means.get(found.judged.name), found) for score in came)
    title = found.judged.title
    return (
        f"{title[:1].upper()}{title[1:]}: {reached} of {count(top.items, 'held-out question')},"
        f" in round {top.number}. Bars are 95 % intervals."
    )


def _with_unit(found: Proportion | None, of: Results) -> str:
    return mean(found, of.judged) + ("%" if found and of.judged.share else "")


FACTS_IN_LINE, MOST_FACTS = 160, 2000
"""Characters of a tree's facts: at most this many are shown beside it, and on a page at all."""


def facts(tree: Mapping[str, Any], most: int) -> str:
    """Returns the facts that the question of a tree is about, separated by dots.

    Args:
        tree: as in interactions.jsonl.
        most: characters, after which the other facts are only counted.

    Returns:
        The text; "" if nothing but the question is given, or if the tree does not say.
    """
    shown, length = list[str](), 0
    for fact in (known := tree.get("facts", [])):
        length += len(fact) + 3
        if shown and length > most:
            return " · ".join([*shown, f"… and {len(known) - len(shown):,} more"])
        shown.append(fact)
    return " · ".join(shown)


def effect_of_help(effect: Mapping[str, Any], scale: float, unit: str) -> str:
    """Formats the effect of the assistant's help on people: with it, without it, the difference.

    Args:
        effect: as in the round's record.
        scale: factor for all numbers.
        unit: of the difference, with a leading space.
    """
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
        change += f", 95 % interval {low:+.1f} to {high:+.1f}"
    else:
        change += ", too few people to tell how far this could be off"
    return "; ".join([*arms, change])
