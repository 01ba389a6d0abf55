"""Tables and trees for the terminal. Colour only repeats what a word, a number or a symbol says."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from amplify.report import formats
from amplify.report.results import (
    ALL,
    FINAL,
    Round,
    Score,
    across,
    best,
    finished_rounds,
    half_done,
    is_searched,
    scores,
)
from amplify.statistics import Proportion
from amplify.statistics.clusters import FEWEST
from amplify.statistics.intervals import TOO_FEW
from amplify.store import Store

STYLES = {
    "promoted": "green",
    "rejected": "red",
    "inconclusive": "yellow",
    "better": "green",
    "worse": "red",
}
ROUND_WIDTH = len("99.3-100.0") + 2

TOO_FEW_BRIEFLY = "too few"

DETAILS = ("round", "alone", "95%", "change", "95%", "amplified", "95%")
DETAIL_WIDTHS = (5, 5, 10, 6, 14, 9, 10)


def rounds_table(store: Store) -> RenderableType:
    """Accuracy by class and round, then a line a round. Raises AmplifyError if none is finished."""
    rounds = finished_rounds(store)
    return RoundsTable(store, rounds, scores(store, rounds, changes=False))


@dataclasses.dataclass(frozen=True)
class RoundsTable:
    """Shows as many of the latest rounds as the terminal has room for."""

    store: Store
    rounds: list[Round]
    scores: dict[str, list[Score]]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        labels = max(len(label) for label in self.scores) + 2
        room = max(1, (options.max_width - labels) // ROUND_WIDTH)
        shown, top = self.rounds[-room:], best(self.rounds)
        yield _title(self.store, self.scores)
        yield ""
        table = _table()
        table.add_column()
        for round_ in shown:
            star = "★ " if round_ is top else ""
            table.add_column(f"{star}round {round_.number}", justify="right", no_wrap=True)
        for label, row in self.scores.items():
            if label == ALL:
                table.add_section()
            table.add_row(label, *_cells([score.alone for score in row])[-room:])
            amplified = [_two_lines(score.amplified) for score in row[-room:]]
            table.add_row("  amplified", *amplified, style="dim")
            if is_searched(self.store):
                for name, shares in (
                    ("  passages found", [score.found for score in row[-room:]]),
                    ("  alone, if found", [score.alone_if_found for score in row[-room:]]),
                ):
                    table.add_row(name, *map(_two_lines, shares), style="dim")
        yield table
        yield ""
        if len(shown) < len(self.rounds):
            yield Text(f"These are the latest {len(shown)} of {len(self.rounds)} rounds; for all:")
            yield Text(f"amplify compare {self.store.path}\n", style="bold")
        yield _verdicts(shown)
        yield _notes(self.store, top)


def _two_lines(accuracy: Proportion | None) -> str:
    """An accuracy above its interval."""
    return f"{formats.percent(accuracy)}\n{_briefly(formats.percent_range(accuracy))}".rstrip()


def _briefly(interval: str) -> str:
    """What fits into a column; `_notes` say in full what it means."""
    return TOO_FEW_BRIEFLY if interval == TOO_FEW else interval


def _cells(accuracies: list[Proportion | None]) -> list[Text]:
    """Coloured where the interval lies clear of the round before's."""
    cells = [Text(_two_lines(accuracy)) for accuracy in accuracies]
    for cell, before, after in zip(cells[1:], accuracies, accuracies[1:], strict=False):
        if before and after and before.interval and after.interval:
            if after.interval[0] > before.interval[1]:
                cell.stylize(STYLES["better"])
            elif after.interval[1] < before.interval[0]:
                cell.stylize(STYLES["worse"])
    return cells


def comparison(stores: list[Store]) -> RenderableType:
    """Every class and round with intervals, and the change from round to round.

    Of two experiments, each, and then the best round of the one against that of the other.
    Raises AmplifyError if one of them has no finished round.
    """
    parts: list[RenderableType] = []
    for store in stores:
        rounds = finished_rounds(store)
        by_class = scores(store, rounds)
        top = best(rounds)
        parts += [_title(store, by_class), ""]
        parts += [_details(label, row, top) for label, row in by_class.items()]
        parts += [_verdicts(rounds), _notes(store, top)]
        parts += [Text("change: alone, to the round before, question by question.\n", style="dim")]
    if len(stores) == 2:
        parts.append(_across(*stores))
    return Group(*parts)


def _details(label: str, row: list[Score], top: Round) -> RenderableType:
    title = Text.assemble((label, "bold"), (f", {formats.count(row[-1].items, 'question')}", "dim"))
    if not any(score.items for score in row):
        return Group(title, "")
    table = _table()
    # Of fixed widths, so that the tables of all classes are one to the eye.
    for name, width in zip(DETAILS, DETAIL_WIDTHS, strict=True):
        table.add_column(name, justify="right", no_wrap=True, width=width)
    for score in row:
        style = STYLES.get(formats.direction(score.change), "")
        table.add_row(
            f"{'★ ' if score.number == top.number else ''}{score.number}",
            formats.percent(score.alone),
            _briefly(formats.percent_range(score.alone)),
            Text(formats.points(score.change), style=style),
            Text(_briefly(formats.points_range(score.change)), style=style),
            formats.percent(score.amplified),
            _briefly(formats.percent_range(score.amplified)),
        )
    return Group(title, table, "")


def _across(one: Store, two: Store) -> RenderableType:
    rows = across(one, two)
    names = [f"{store.name} ★ {best(finished_rounds(store)).number}" for store in (one, two)]
    title = Text.assemble((f"{names[0]} and {names[1]}", "bold"), ": alone, the best round of each")
    if not rows:
        return Group(title, "They have no class in common.")
    table = _table()
    table.add_column()
    for name in (*names, "change", "95%", ""):
        table.add_column(name, justify="right")
    for row in rows:
        style = STYLES.get(formats.direction(row.change), "")
        table.add_row(
            row.label,
            _two_lines(row.one),
            _two_lines(row.two),
            Text(formats.points(row.change), style=style),
            Text(_briefly(formats.points_range(row.change)), style=style),
            formats.pairing(row.change),
        )
    return Group(title, table, Text(formats.PAIRING, style="dim"))


def _title(store: Store, by_class: Mapping[str, list[Score]]) -> Text:
    last = by_class[ALL][-1]
    questions = formats.count(last.items, "held-out question")
    contexts = formats.count(last.contexts, "context")
    return Text.assemble(
        (store.name, "bold"), f": right answers in % of {questions} about {contexts}"
    )


def _verdicts(rounds: list[Round]) -> Table:
    lines = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        lines.add_column(no_wrap=True)
    for round_ in rounds:
        verdict, seconds = round_.folder.verdict, round_.folder.record["ledger"]["seconds"]
        style = STYLES[verdict["verdict"]] if verdict else "dim"
        lines.add_row(
            f"round {round_.number}",
            Text(formats.verdict_words(verdict), style=style),
            formats.duration(seconds),
            formats.reason(verdict),
        )
    return lines


def _notes(store: Store, top: Round) -> Text:
    lines = [
        f"★ best round: {top.number}. Verdicts: on the select split."
        f" Accuracies: on the {FINAL} split.",
        f"{formats.COUNTED} {TOO_FEW_BRIEFLY!r}: {TOO_FEW}, they amount to fewer than {FEWEST:g}.",
        *half_done(store),
    ]
    return Text("\n".join(lines), style="dim")


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def rich_tree(tree: dict[str, Any], title: str) -> Tree:
    """A decomposition tree; what people or models wrote is never read as markup."""
    root = Tree(Text(title, style="bold"), guide_style="dim")
    _grow(root, tree)
    return root


def _grow(branch: Tree, tree: Mapping[str, Any]) -> None:
    mark, style = ("✓ right", "green") if tree["right"] else ("✗ wrong", "red")
    line = Text.assemble(
        (f"{tree['question']} → ", ""),
        (tree["answer"], "bold"),
        (f"  {tree['by']}  ", "dim"),
        (mark, style),
    )
    below = branch.add(line)
    for step in tree["steps"]:
        _grow(below, step)


def replayed(again: Mapping[str, Any]) -> RenderableType:
    """Whether a round's data set came out as it was: see `replay.Replayed`."""
    same = Text("the same, bit for bit", "green") if again["same"] else Text("not the same", "red")
    lines = [
        f"round {again['round']}: {again['answers']} answers, {again['by_people']} by people",
        f"  recorded  {again['recorded']}",
        f"  replayed  {again['replayed']}",
    ]
    return Group(*lines, same)


def changes(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What became of a round's answers when somebody else gave them: see `replay.Change`."""
    headings = {
        "what": "",
        "answers": "answers",
        "changed": "changed",
        "right_before": "right before",
        "right_after": "right after",
    }
    table = Table(box=SIMPLE_HEAD)
    for heading in headings.values():
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        table.add_row(*(str(row[key]) for key in headings))
    return table
