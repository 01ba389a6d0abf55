"""The study of all mechanisms of oversight as tables for the terminal, as rows for JSON, and as a
figure.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from amplify.evaluation import figures
from amplify.evaluation.items import ALL
from amplify.experiment.sections import Prices
from amplify.report.plots import FAINT, STYLES
from amplify.studies.figures import as_png, begin, finish, legend
from amplify.studies.oversight import (
    ARMS,
    TRUTH,
    Run,
    accuracies,
    actions,
    budget,
    measure,
    other_prices,
    ranking,
    read,
    share_over_seeds,
)
from amplify.studies.seeds import FEWEST, cell, complete, empty_table, over_seeds
from amplify.studies.study import Report

ORACLE = f"{TRUTH} (oracle)"
MEANS: Mapping[str, str] = {
    TRUTH: "amplification whose sub-answers are true",
    "amplification": "the overseer answers from the assistant's answers to sub-questions",
    "reward-model": "a judge says which of some answers is best; reinforcement learning against a"
    " model of its choices",
    "direct": "a judge decides between two answers by looking alone; the assistant imitates the"
    " winner",
    "consultancy": "the same, after an argument for one of the two answers",
    "debate": "the same, after an argument for each",
}
NOTE = (
    "Right answers of the best assistant so far to held-out questions, alone, for as much human"
    " work as the cheapest arm takes, interpolated between rounds. hours, device s: all rounds of"
    " an arm. signal right, in the last round: of amplification, the answers that were imitated; of"
    " a judge, verdicts between a right and a wrong answer; of a reward model, its agreement with"
    " reviews held out. Device seconds are without compilation. Evals are free. Intervals are"
    " Student's, over seeds, cut off at 0 and 100."
)
Runs = Mapping[str, Mapping[int, Run]]
"""The runs of each arm, by seed."""


def table(runs: Runs) -> RenderableType:
    """Returns what arms cost and reached, and their ranking by prices.

    Args:
        runs: seeds that are not done in all arms are left out.
    """
    seeds, done = complete(runs)
    if not seeds:
        return Text("No seed is done in all arms.")
    prices = done[TRUTH][0].prices
    most = budget(done, prices)
    parts: list[RenderableType] = [
        _reached(done, prices, most),
        _by_seed(done, seeds, prices),
        Text(NOTE),
        *(Text(f"{arm}: {means}.") for arm, means in MEANS.items()),
        Text(""),
        *map(Text, _rankings(done, prices)),
    ]
    if len(seeds) < FEWEST:
        parts.append(Text(f"Intervals take {FEWEST} seeds or more."))
    return Group(*parts)


def _reached(runs: Mapping[str, Sequence[Run]], prices: Prices, most: float) -> Table:
    labels = [ALL, *(label for label in runs[TRUTH][0].rounds[0].right if label != ALL)]
    by_class = {label: accuracies(runs, label, prices) for label in labels}
    title = (
        f"Right answers in % for {figures.duration(most)} of simulated human work;"
        f" {figures.count(len(runs[TRUTH]), 'seed')}"
    )
    found = empty_table(title, ["arm", *labels, "signal right", "hours", "device s"])
    found.columns[0].no_wrap = True
    for arm, of in runs.items():
        shares = (_percent(by_class[label][arm]) for label in labels)
        found.add_row(_name(arm), *shares, *_cost(of, prices))
    return found


def _by_seed(runs: Mapping[str, Sequence[Run]], seeds: Sequence[int], prices: Prices) -> Table:
    found = empty_table(
        "The same, all classes, by seed", ["arm", *(f"seed {seed}" for seed in seeds)]
    )
    for arm, shares in accuracies(runs, ALL, prices).items():
        found.add_row(_name(arm), *(f"{100 * share:.1f}" for share in shares))
    return found


def _name(arm: str) -> str:
    return ORACLE if arm == TRUTH else arm


def _cost(runs: Sequence[Run], prices: Prices) -> list[str]:
    """How often the last signal was right, and what all rounds took."""
    last = [run.rounds[-1] for run in runs]
    signals = [one.signal for one in last if one.signal is not None]
    hours = np.mean([prices.seconds(one.effort) / 3600 for one in last])
    seconds = np.mean([one.device_seconds for one in last])
    told = _percent(signals) if signals else figures.MISSING
    return [told, f"{hours:,.0f}", f"{seconds:,.0f}"]


def _percent(shares: Sequence[float]) -> str:
    """A mean over seeds in %, with its interval below it."""
    return cell(share_over_seeds(shares), 1, scale=100.0)


def _rankings(runs: Mapping[str, Sequence[Run]], prices: Prices) -> list[str]:
    """The ranking at the experiment's prices, and at each other price that changes it."""
    used = actions(runs)
    told = ", ".join(f"{action} {getattr(prices, action):g}" for action in used)
    first = ranking(runs, prices)
    lines = [f"Prices in seconds: {told}.", f"Ranking: {' > '.join(first)}."]
    lines += _steps(accuracies(runs, ALL, prices), first)
    others = {said: ranking(runs, changed) for said, changed in other_prices(prices, used)}
    lines += [f"At {said}: {' > '.join(of)}." for said, of in others.items() if of != first]
    if all(of == first for of in others.values()):
        lines.append("It is the same if any one price is halved or doubled.")
    return lines


def _steps(shares: Mapping[str, Sequence[float]], ranked: Sequence[str]) -> Iterator[str]:
    """By how much each arm is above the next one, paired by seed; nothing for too few seeds."""
    for above, below in itertools.pairwise(ranked):
        differences = [
            100 * (one - other) for one, other in zip(shares[above], shares[below], strict=True)
        ]
        found = over_seeds(differences)
        if found.low is not None and found.high is not None:
            yield (
                f"  {above} minus {below}, paired by seed: {found.estimate:.1f}"
                f" ({found.low:.1f} to {found.high:.1f}) points"
            )


def rows(runs: Runs) -> list[dict[str, Any]]:
    """Returns a row for each round of each cell, for JSON.

    Args:
        runs: as in `table`.
    """
    return [
        {
            "arm": arm,
            "seed": seed,
            "round": number,
            "human_seconds": run.prices.seconds(one.effort),
            **one._asdict(),
        }
        for arm, of in runs.items()
        for seed, run in of.items()
        for number, one in enumerate(run.rounds)
    ]


def png(runs: Mapping[str, Sequence[Run]]) -> bytes:
    """Draws right answers against human work, a line for each arm and a thin one for each seed.

    Args:
        runs: of each arm, for the same seeds.

    Returns:
        The bytes of a PNG file.
    """
    said = (
        "Right answers of the best assistant so far against simulated human work, round by round."
        f"\nThick: the mean of {len(runs[TRUTH])} seeds, with its 95 % interval; thin: each seed."
    )
    figure = begin("Oversight at equal human effort", said, 9.0, 5.0)
    axes, legends = figure.subplots(1, 2, width_ratios=(3, 1))
    figure.subplots_adjust(0.07, 0.1, 0.99, 0.8, wspace=0.02)
    handles = []
    for style, (arm, of) in zip(STYLES, runs.items(), strict=False):
        for run in of:
            axes.plot(*_line(run), color=style.colour, linewidth=0.6, alpha=0.6)
        hours = np.mean([_line(run)[0] for run in of], axis=0)
        means = [
            share_over_seeds([run.rounds[place].right[ALL] for run in of])
            for place in range(len(hours))
        ]
        [line] = axes.plot(
            hours,
            [100 * mean.estimate for mean in means],
            color=style.colour,
            linestyle=":" if arm == TRUTH else "-",
            linewidth=2.0,
            label=_name(arm),
        )
        ends = [mean.interval or (mean.estimate, mean.estimate) for mean in means]
        axes.vlines(hours, *(100 * np.transpose(ends)), color=style.colour, linewidth=1.2)
        handles.append(line)
    axes.set_ylim(-2, 102)
    axes.set_xlim(left=0)
    axes.set_ylabel("right answers, in %", size=8.5, color=FAINT)
    finish(axes, "simulated human work, in hours")
    legend(legends, handles)
    return as_png(figure)


def _line(run: Run) -> tuple[list[float], list[float]]:
    hours = [seconds / 3600 for seconds in run.seconds(run.prices)]
    return hours, [100 * one.right[ALL] for one in run.rounds]


REPORT = Report(ARMS, measure, read, table, rows, png)
