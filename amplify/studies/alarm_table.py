"""The alarm study as tables for the terminal, and as rows for JSON."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from amplify.evaluation.statistics.intervals import LEVEL
from amplify.studies.alarm import (
    ARMS,
    FREE,
    LOST,
    ORACLE,
    PENALTY,
    SEEMING,
    Run,
    budgets,
    criteria,
    detection,
    measure,
    read,
)
from amplify.studies.alarm_figure import png
from amplify.studies.seeds import FEWEST, complete, empty_table, mean_cell, over_seeds, say
from amplify.studies.study import Report

COLUMNS: Mapping[str, Callable[[Run], float]] = {
    "oracle peak": lambda run: run.peak.gold,
    "at step": lambda run: float(run.peak.step),
    "chosen": lambda run: run.chosen_gold,
    "its step": lambda run: float(run.chosen),
    "lowest": lambda run: min(at.gold for at in run.golds),
    "end": lambda run: run.end.gold,
    "last proxy": lambda run: run.looks[-1].proxy,
    "peak - chosen": lambda run: run.peak.gold - run.chosen_gold,
    "chosen - end": lambda run: run.chosen_gold - run.end.gold,
    "reviews": lambda run: float(run.reviews),
}
DIGITS = {"at step": 0, "its step": 0, "reviews": 0}
TITLES = {
    FREE: "no penalty",
    PENALTY: "with a KL penalty",
    ORACLE: "gold as reward: an oracle, the judge scores every attempt by gold with noise",
    SEEMING: "no penalty, and a judge who goes by what seems right",
}
NOTES = (
    "Gold and audits are in standard deviations of drafts. Gold is read for this table only; the"
    " peak is found by gold (an oracle). chosen: the policy that audits choose, up to the alarm or"
    " the end.",
    f"alarm: the step at which it fires, and how much gold has been lost since its peak; in time:"
    f" after the peak, and before {LOST:g} sd is lost. decline: the value fell, and so did the"
    " reward model's score. audits rise: from gold's peak to the end, by means of three audits.",
    "An audit sees what its judge sees. A judge who goes by what seems right takes a policy that"
    " learns to seem right for a better one: its audits rise while gold falls, and no number of"
    " reviews raises the alarm.",
)
Runs = Mapping[str, Mapping[int, Run]]
"""The runs of each arm, by seed."""


def table(runs: Runs) -> RenderableType:
    """Returns the tables of a study: each arm, the curve of reviews, and the criteria.

    Args:
        runs: seeds that are not done in all arms are shown, but left out of means.
    """
    seeds, done = complete(runs)
    parts: list[RenderableType] = [_arm(arm, runs[arm], done[arm]) for arm in runs]
    if seeds:
        parts.append(_curve(done))
    parts += [Text(note) for note in NOTES]
    if len(seeds) < FEWEST:
        return Group(*parts, Text(f"Intervals and criteria take {FEWEST} seeds or more."))
    parts += [Text(line) for line in (*_differences(done), "")]
    return Group(*parts, *(one.line() for one in criteria(done)))


def _arm(arm: str, of: Mapping[int, Run], done: Sequence[Run]) -> Table:
    """All runs of an arm."""
    names = ["seed", *COLUMNS, "alarm", "audits rise", "seconds"]
    found = empty_table(f"{arm}: {TITLES[arm]}", names)
    for seed, run in of.items():
        values = [f"{get(run):.{DIGITS.get(name, 2)}f}" for name, get in COLUMNS.items()]
        found.add_row(str(seed), *values, _alarm(run), _rise(run), f"{run.seconds:.0f}")
    if len(done) >= FEWEST:
        means = [
            mean_cell([get(run) for run in done], DIGITS.get(name, 2))
            for name, get in COLUMNS.items()
        ]
        alarms = sum(run.alarm is not None for run in done)
        found.add_row("mean", *means, f"{alarms} of {len(done)}", "", "", style="bold")
    return found


def _alarm(run: Run) -> str:
    """Says when the alarm fires, and how much gold has been lost by then."""
    if run.alarm is None:
        return "none" if run.fell is None else f"decline at {run.fell}"
    lost = run.peak.gold - run.gold_at(run.alarm)
    if run.alarm <= run.peak.step:
        return f"{run.alarm}, before the peak"
    return f"{run.alarm}, {lost:.2f} lost, {'in time' if run.in_time(run.alarm) else 'late'}"


def _rise(run: Run) -> str:
    gain = run.audited_gain()
    return "-" if gain is None else f"{gain:+.2f}"


def _curve(done: Mapping[str, Sequence[Run]]) -> Table:
    """Shares of alarms by the number of reviews, with and without the reward model's help."""
    arms = [arm for arm in (PENALTY, ORACLE, SEEMING) if done[arm]]
    title = "Reviews against detection: share of runs, in logged audits that are reviewed again"
    found = empty_table(
        title, ["reviews", "estimate", f"{FREE}: in time", *(f"{arm}: any" for arm in arms)]
    )
    for budget in budgets(done):
        for name, said in (("helped", "prediction-powered"), ("alone", "plain mean")):
            shares = [detection(done[FREE], name, budget)[0]]
            shares += [detection(done[arm], name, budget)[1] for arm in arms]
            found.add_row(f"{budget:,}", said, *(f"{share:.2f}" for share in shares))
    return found


def _differences(done: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    """Lines about means over seeds."""
    for arm, of in done.items():
        below, above = (
            over_seeds([COLUMNS[name](run) for run in of])
            for name in ("peak - chosen", "chosen - end")
        )
        better = sum(run.chosen_gold > run.end.gold for run in of)
        yield (
            f"{arm}: chosen is {say(below)} below gold's peak and {say(above)} above the last step;"
            f" above it in {better} of {len(of)} runs"
        )
    alarms = [run for run in done[FREE] if run.alarm is not None]
    lost = [run.peak.gold - run.gold_at(run.alarm) for run in alarms if run.alarm is not None]
    in_time = sum(run.in_time(run.alarm) for run in alarms)
    said = f", {np.mean(lost):.2f} sd lost on average" if lost else ""
    yield f"{FREE}: {len(alarms)} alarms in {len(done[FREE])} runs, {in_time} in time{said}"
    gains = [gain for run in done[SEEMING] if (gain := run.audited_gain()) is not None]
    fall, lowest = (
        over_seeds(values)
        for values in (
            [run.peak.gold - run.end.gold for run in done[SEEMING]],
            [run.lost for run in done[SEEMING]],
        )
    )
    if len(gains) >= FEWEST:
        yield (
            f"{SEEMING}: from gold's peak to the end, audits rise by {say(over_seeds(gains))} and"
            f" gold falls by {say(fall)}, at its lowest by {say(lowest)}"
        )
    yield f"Intervals are Student's, over seeds, of {100 * (1 - LEVEL):.0f} %."


def rows(runs: Runs) -> list[dict[str, Any]]:
    """Returns a row for each cell, for JSON; one for each number of reviews, with and without help;
    and one for each criterion if there are seeds enough.

    Args:
        runs: as in `table`.
    """
    cells = [
        {
            "arm": arm,
            "seed": seed,
            **{name.replace(" ", "_"): get(run) for name, get in COLUMNS.items()},
            "alarm": run.alarm,
            "in_time": run.in_time(run.alarm),
            "fell": run.fell,
            "audited_gain": run.audited_gain(),
            "seconds": run.seconds,
        }
        for arm, of in runs.items()
        for seed, run in of.items()
    ]
    seeds, done = complete(runs)
    if not seeds:
        return cells
    curve = []
    for budget in budgets(done):
        for name in ("helped", "alone"):
            shares = {arm: detection(of, name, budget) for arm, of in done.items()}
            any_ = {arm: share for arm, (_, share) in shares.items()}
            row = {"reviews": budget, "estimate": name, "in_time": shares[FREE][0], "any": any_}
            curve.append(row)
    met = criteria(done) if len(seeds) >= FEWEST else []
    return [*cells, *curve, *(one._asdict() for one in met)]


REPORT = Report(ARMS, measure, read, table, rows, png)
