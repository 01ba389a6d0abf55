"""Tables and trees for the terminal."""

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from amplify.comparison import Comparison, Proportion
from amplify.report.results import Score, judged_rounds, latest_against, results, scores
from amplify.store import Store

SHOWN_ROUNDS = 6
"""As many of the latest rounds as fit beside each other in 80 columns."""
COLOURS = {"promoted": "green", "rejected": "red", "inconclusive": "yellow"}


def rounds_table(store: Store) -> RenderableType:
    """Classes × rounds on the `final` split, and each round's verdict."""
    rounds = judged_rounds(store)
    shown = rounds[-SHOWN_ROUNDS:]
    table = Table(
        title=f"{store.name}: % right on held-out questions, alone/amplified",
        caption=None if shown == rounds else f"the latest {SHOWN_ROUNDS} of {len(rounds)} rounds",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("class", no_wrap=True)
    for round_ in shown:
        table.add_column(f"round {round_.number}", justify="right", no_wrap=True)
    cells = {(row["class"], row["round"]): row for row in results(store) if row["split"] == "final"}
    for label in store.experiment.task.classes:
        row = [cells.get((label, round_.number)) for round_ in shown]
        table.add_row(label, *(_pair(cell) for cell in row))
    lines = [_verdict_line(round_.number, round_.verdict) for round_ in shown if round_.verdict]
    best = store.best_before(rounds[-1].number + 1) if rounds[-1].verdict else None
    told = [f"best so far: round {best.number}"] if best else []
    return Group(table, *lines, *told)


def comparison(stores: list[Store]) -> RenderableType:
    """Round over round for each experiment, and the experiments' best rounds against each other."""
    parts: list[RenderableType] = [_scores_table(store) for store in stores]
    if len(stores) == 2:
        parts.append(against(*stores))
    return Group(*parts)


def against(ours: Store, theirs: Store) -> str:
    """One sentence on the best rounds of two experiments."""
    difference = latest_against(ours, theirs, "final")
    if difference is None:
        return f"{ours.name} and {theirs.name} were not asked the same questions: compare their intervals above"
    return f"best round of {theirs.name} against best of {ours.name}, paired: {change(difference)} points"


def rich_tree(tree: dict[str, Any], title: str) -> Tree:
    """A decomposition tree, `words.Tree`."""
    root = Tree(Text(title, style="bold"))
    _grow(root, tree)
    return root


def percent(proportion: Proportion) -> str:
    """`99.6 [98.8, 99.9]`"""
    return f"{_number(proportion.estimate)} [{_number(proportion.low)}, {_number(proportion.high)}]"


def change(comparison: Comparison | None) -> str:
    """`+22.7 [+21.3, +24.0]` in points."""
    if comparison is None:
        return "-"
    told = f"{100 * comparison.delta:+.1f}"
    if comparison.interval is None:
        return told
    low, high = comparison.interval
    return f"{told} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _scores_table(store: Store) -> Table:
    table = Table(
        title=f"{store.name}, final split: % right [95% interval]",
        caption="change: alone, against the round before, item by item, in points",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in ("", "alone", "amplified", "change", "n"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    previous = None
    for score in scores(store, "final"):
        if score.label != previous:
            table.add_section()
            table.add_row(Text(score.label, style="bold"))
        previous = score.label
        table.add_row(*_score_row(score))
    return table


def _score_row(score: Score) -> tuple[str, ...]:
    cells = (percent(score.alone), percent(score.amplified), change(score.change))
    return (f"  round {score.round}", *map(escape, cells), str(score.n))


def _pair(cell: dict[str, Any] | None) -> str:
    return "-" if cell is None else f"{_number(cell['alone'])}/{_number(cell['amplified'])}"


def _number(fraction: float) -> str:
    """Per cent, with a decimal where there is one to tell; 100 only if it is."""
    if fraction in (0, 1):
        return f"{100 * fraction:.0f}"
    return f"{min(max(100 * fraction, 0.1), 99.9):.1f}"


def _verdict_line(number: int, verdict: dict[str, Any]) -> Text:
    colour = COLOURS[verdict["verdict"]]
    said = f"round {number} against {verdict['against']}: "
    return Text.assemble(said, (verdict["verdict"], colour), f", {verdict['reason']}")


def _grow(parent: Tree, tree: dict[str, Any]) -> None:
    mark, colour = ("✓ right", "green") if tree["right"] else ("✗ wrong", "red")
    line = Text.assemble(
        (tree["question"], "bold"), " → ", tree["answer"], f"   {tree['by']}, ", (mark, colour)
    )
    branch = parent.add(line)
    for step in tree["steps"]:
        _grow(branch, step)
