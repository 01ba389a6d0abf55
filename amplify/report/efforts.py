"""What rounds cost in human effort and in compute, as axes against which accuracy is drawn.

All lines of a plot share one unit: the first in a list that every group has. Costs are sums over
all rounds so far, including those that were not promoted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from amplify.errors import AmplifyError
from amplify.experiment.sections import Prices
from amplify.files.json_lines import read_lines
from amplify.records.record import CHECKPOINT, phases
from amplify.report.groups import Group
from amplify.report.results import Results, Round
from amplify.runtime.effort import ACTIONS

Cost = Callable[[Round, Prices], float]
"""What a round cost, in some unit."""
Unit = tuple[Cost, str, str]
"""A cost, the title of its axis, and a note about it, which may be empty."""

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
    """Returns human work by round or, where there is none, what stands for it; or why there is no
    such plot.

    Args:
        groups: the groups that are drawn.
    """
    who = list(dict.fromkeys(_overseer(group) for group in groups))
    asked = who[0] if len(who) == 1 else "the overseer"
    nobody = f"No people took part: these are answers by {asked}."
    if len(who) > 1:
        nobody = f"These are answers by each experiment's overseer: {', '.join(who)}."
    answers = f"answers by {asked}"
    units = [*_human(groups), (_entry("overseer_answers"), answers, nobody)]
    found = _first(groups, units)
    return found or "No plot against human effort: the rounds record no answers by an overseer."


def _human(groups: Sequence[Group]) -> list[Unit]:
    """The units of human work, the best one first; each says what of it was simulated."""
    found = list(_members(groups))
    people = _whose({simulates_people(one.store.experiment.values) for one in found})
    ledgers = [of.folder.record["ledger"] for one in found for of in one.rounds]
    counted = all("effort" in ledger for ledger in ledgers)  # not so in rounds of older versions
    priced = counted and any(ledger["effort"] for ledger in ledgers)
    shown = "Demonstrations are what would cost people's time."
    return [
        (_work, f"{_kind_of_work(found)}, in seconds", _prices(groups))
        if priced
        else (_measured, f"time of {people}, in seconds", ""),
        (_entry("human_answers"), f"answers by {people}", ""),
        (_entry("demonstrations"), "demonstrations", shown),
    ]


def simulates_people(values: Mapping[str, Any]) -> bool:
    """Whether the people of an experiment are programs.

    Args:
        values: of the experiment, by key.
    """
    return bool(values.get("overseer.people") == "simulated")


def _whose(simulated: set[bool]) -> str:
    if len(simulated) > 1:
        return "people, real and simulated"
    return "simulated people" if simulated == {True} else "people"


def _kind_of_work(found: Sequence[Results]) -> str:
    """Human work, unless some or all of it was simulated."""
    return "human work, partly simulated" if _real(found) else "simulated human work"


def _real(found: Sequence[Results]) -> bool:
    """Whether any time was measured that real people spent."""
    return any(_is_measured(one) for one in found if not _simulated(one))


def _simulated(found: Results) -> bool:
    return simulates_people(found.store.experiment.values)


def _is_measured(found: Results) -> bool:
    return _sums(found, _measured)[found.rounds[-1].number] > 0


def _prices(groups: Sequence[Group]) -> str:
    """Says where seconds of human work come from."""
    found = list(_members(groups))
    said = "People's own time is measured" if _real(found) else "No people took part"
    if any(_is_measured(one) for one in found if _simulated(one)):
        said += "; the time of simulated people is what they took on the pages"
    prices = list(dict.fromkeys(one.store.experiment.prices for one in found))
    if len(prices) > 1:
        return f"{said}; what else was simulated costs what each experiment's [prices] say."
    used = {action for one in found for of in one.rounds for action in _actions(of)}
    each = [f"{action} {vars(prices[0])[action]:g}" for action in ACTIONS if action in used]
    other = "what else was simulated" if "pages" in said else "what was simulated"
    return f"{said}; {other} is priced in seconds: {', '.join(each)} ([prices])."


def _members(groups: Sequence[Group]) -> Iterator[Results]:
    for group in groups:
        yield from group.members


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


def _first(groups: Sequence[Group], units: Sequence[Unit]) -> Axis | None:
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
        total += cost(round_, found.store.experiment.prices)
        sums[round_.number] = total
    return sums


def _in_larger_units(axis: Axis) -> Axis:
    most = max(max(line) for line in axis.lines)
    for length, name in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
        if length == DAY and not axis.title.startswith("training"):
            continue  # a person's day is not 24 hours
        if axis.title.endswith("in seconds") and most > 2 * length:
            lines = [[value / length for value in line] for line in axis.lines]
            note = axis.note.replace("Seconds of", f"{name.capitalize()} of")
            note = note.replace("seconds are", "times are")
            return Axis(axis.title.replace("seconds", name), note, lines)
    return axis


def _entry(key: str) -> Cost:
    return lambda round_, prices: float(round_.folder.record["ledger"].get(key) or 0)


_measured = _entry("human_seconds")


def _actions(round_: Round) -> dict[str, int]:
    actions: dict[str, int] = round_.folder.record["ledger"].get("effort", {})
    return actions


def _priced(round_: Round, prices: Prices) -> float:
    """Seconds of a person's time for what simulated people did."""
    return prices.seconds(_actions(round_))


def _work(round_: Round, prices: Prices) -> float:
    return _measured(round_, prices) + _priced(round_, prices)


def _seconds(round_: Round, prices: Prices) -> float:
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


def _flops(round_: Round, prices: Prices) -> float:
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
