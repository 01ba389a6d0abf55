"""What rounds cost in human effort and in compute, as axes against which accuracy is drawn.

All lines of a plot share one unit: the first in a list that every group has. Costs are sums over
all rounds so far, including those that were not promoted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from amplify.errors import AmplifyError
from amplify.files.json_lines import read_lines
from amplify.records.record import CHECKPOINT, phases
from amplify.report.groups import Group
from amplify.report.results import Results, Round

Cost = Callable[[Round], float]

OVERSEERS = {
    "simulated": "the simulated overseer",
    "learned": "the learned overseer",
    "language-model": "the overseer, a language model",
    "human": "people",
}
DAY, HOUR, MINUTE = 86400.0, 3600.0, 60.0


class Axis(NamedTuple):
    """What is on the horizontal axis of a plot."""

    title: str
    note: str  # a sentence about it; may be ""
    lines: Sequence[Sequence[float]]  # of each group, one value for each of its rounds


def effort(groups: Sequence[Group]) -> Axis | str:
    """Returns human effort by round or, without people, what stands for it; or why there is none.

    Args:
        groups: the groups that are drawn.
    """
    simulated = any(_value(group, "overseer.people") == "simulated" for group in groups)
    people = "simulated people" if simulated else "people"
    who = list(dict.fromkeys(_overseer(group) for group in groups))
    asked = who[0] if len(who) == 1 else "the overseer"
    nobody = f"No people took part: these are answers by {asked}."
    if len(who) > 1:
        nobody = f"These are answers by each experiment's overseer: {', '.join(who)}."
    found = _first(
        groups,
        [
            (_entry("human_seconds"), f"time of {people}, in seconds", ""),
            (_entry("human_answers"), f"answers by {people}", ""),
            (
                _entry("demonstrations"),
                "demonstrations",
                "Demonstrations are what would cost people's time.",
            ),
            (
                _entry("overseer_answers"),
                f"answers by {asked}",
                nobody,
            ),
        ],
    )
    return found or "No plot against human effort: the rounds record no answers by an overseer."


def compute(groups: Sequence[Group]) -> Axis | str:
    """Returns the cost of training by round, in operations or in seconds; or why there is none.

    Args:
        groups: the groups that are drawn.
    """
    devices = {
        one.folder.record.get("device")
        for group in groups
        for found in group.members
        for one in found.rounds
    }
    note = "Seconds of training without compilation."
    if len(devices) > 1:
        note += " The devices differ, so seconds are not comparable."
    found = _first(
        groups,
        [
            (_flops, "training, in floating-point operations", ""),
            (_seconds, "training, in seconds", note),
        ],
    )
    return found or "No plot against compute: the rounds record no training time."


def _first(groups: Sequence[Group], units: Sequence[tuple[Cost, str, str]]) -> Axis | None:
    for cost, title, note in units:
        lines = [_so_far(group, cost) for group in groups]
        if all(line and line[-1] > 0 for line in lines):
            return _in_larger_units(Axis(title, note, lines))
    return None


def _so_far(group: Group, cost: Cost) -> list[float]:
    """The mean over seeds of all costs up to each round."""
    each = [_sums(found, cost) for found in group.members]
    return [sum(sums[number] for sums in each) / len(each) for number in group.numbers]


def _sums(found: Results, cost: Cost) -> Mapping[int, float]:
    total, sums = 0.0, {}
    for round_ in found.rounds:
        total += cost(round_)
        sums[round_.number] = total
    return sums


def _in_larger_units(axis: Axis) -> Axis:
    most = max(max(line) for line in axis.lines)
    for length, name in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
        if axis.title.endswith("in seconds") and most > 2 * length:
            lines = [[value / length for value in line] for line in axis.lines]
            note = axis.note.replace("Seconds of", f"{name.capitalize()} of")
            note = note.replace("seconds are", "times are")
            return Axis(axis.title.replace("seconds", name), note, lines)
    return axis


def _entry(key: str) -> Cost:
    return lambda round_: float(round_.folder.record["ledger"].get(key) or 0)


def _seconds(round_: Round) -> float:
    """Time of the stages that train, without compilation; round 0 trains nothing."""
    if not round_.number:
        return 0.0
    stages = round_.folder.record["stages"].items()
    return float(
        sum(
            max(entry.get("seconds", 0) - entry.get("compile_seconds", 0), 0)
            for name, entry in stages
            if name.rpartition("/")[2] == CHECKPOINT
        )
    )


def _flops(round_: Round) -> float:
    """Operations that the training logs of all phases count; 0 if a model does not count them."""
    folder = round_.folder
    logs = [folder.phase(phase).metrics for phase in phases(folder.record)]
    try:
        rows = [row for log in logs if log.exists() for row in read_lines(log)]
    except AmplifyError:  # a damaged log: seconds are in the record
        return 0.0
    return float(sum(row.get("flops", 0) for row in rows))


def _overseer(group: Group) -> str:
    kind = str(_value(group, "overseer.kind"))
    return OVERSEERS.get(kind, "the overseer")


def _value(group: Group, key: str) -> Any:
    return group.first.store.experiment.values.get(key)
