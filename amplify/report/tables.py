"""Tables and trees for the terminal. Colour only repeats what text and symbols show."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from amplify.errors import command
from amplify.evaluation import figures
from amplify.evaluation.items import ALL, FINAL, SELECT, Difference
from amplify.evaluation.measures import Measure
from amplify.evaluation.statistics import Proportion
from amplify.evaluation.statistics.clusters import FEWEST
from amplify.evaluation.statistics.intervals import TOO_FEW
from amplify.report import audits, costs, formats
from amplify.report.results import Results, Round, Score, read_results, unfinished_rounds
from amplify.store import Store

STYLES = {
    "promoted": "green",
    "rejected": "red",
    "inconclusive": "yellow",
    "better": "green",
    "worse": "red",
}
TOO_FEW_SHORT = "too few"
TREE_FACTS = 600
"""Most characters of facts above a tree."""

ROUND, INTERVAL, CHANGE, CHANGE_INTERVAL = map(
    len, ("round", "99.3-100.0", "change", "+33.8 to +40.0")
)
"""Column widths of `ClassTable`."""


def rounds_table(store: Store) -> RenderableType:
    """Returns a table of measures by class and round, then a line about each round.

    Args:
        store: the experiment.

    Raises:
        AmplifyError: no round is finished.
    """
    return RoundsTable(read_results(store, changes=False))


@dataclasses.dataclass(frozen=True)
class RoundsTable:
    """Measures by class and round, for as many of the latest rounds as fit the terminal."""

    results: Results

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        found = self.results
        names = [*found.scores, *(f"  {measure.title}" for measure in found.others)]
        width = 2 + max(map(_interval, [found.judged, *found.others]))
        room = max(1, (options.max_width - max(map(len, names)) - 2) // width)
        shown = found.rounds[-room:]
        yield _title(found)
        yield ""
        table = new_table()
        table.add_column()
        for round_ in shown:
            star = "★ " if round_ is found.best else ""
            table.add_column(f"{star}round {round_.number}", justify="right", no_wrap=True)
        for label, row in found.scores.items():
            if label == ALL:
                table.add_section()
            table.add_row(Text(label), *_cells(row, found.judged)[-room:])
            for measure in found.others:
                cells = [two_lines(score.means.get(measure.name), measure) for score in row]
                table.add_row(Text(f"  {measure.title}"), *cells[-room:], style="dim")
        yield table
        yield ""
        if len(shown) < len(found.rounds):
            yield Text(f"These are the latest {len(shown)} of {len(found.rounds)} rounds; for all:")
            yield unbroken(command("compare", found.store.path) + "\n")
        yield _verdicts(shown)
        yield _notes(found)


def unbroken(line: str) -> Text:
    """Returns a line that is never broken, so that a command in it can be copied."""
    return Text(line, style="dim", no_wrap=True, overflow="ignore")


def two_lines(mean: Proportion | None, measure: Measure) -> str:
    """Formats a mean with its interval in a second line."""
    return f"{formats.mean(mean, measure)}\n{_range(mean, measure)}".rstrip()


def _range(mean: Proportion | None, measure: Measure) -> str:
    return _shorten(formats.mean_range(mean, measure))


def _shorten(interval: str) -> str:
    """Shortens an interval to fit a column; `_notes` explains it in full."""
    return TOO_FEW_SHORT if interval == TOO_FEW else interval


def _cells(row: Sequence[Score], measure: Measure) -> list[Text]:
    """Formats means, coloured if their interval does not overlap that of the previous round."""
    means = [score.means.get(measure.name) for score in row]
    cells = [Text(two_lines(mean, measure)) for mean in means]
    for cell, before, after in zip(cells[1:], means, means[1:], strict=False):
        if before and after and before.interval and after.interval:
            if after.interval[0] > before.interval[1]:
                cell.stylize(STYLES["better"])
            elif after.interval[1] < before.interval[0]:
                cell.stylize(STYLES["worse"])
    return cells


def experiment_tables(found: Results) -> RenderableType:
    """Returns tables of all classes and rounds with intervals, and the changes between rounds.

    Args:
        found: results of the experiment, with changes.
    """
    note = f"change: {found.judged.title}, from the previous round, paired by question.\n"
    return Group(
        _title(found),
        "",
        *(ClassTable(found, label) for label in found.scores),
        _verdicts(found.rounds),
        _notes(found),
        Text(note, style="dim"),
        CallsTable(found),
        "",
    )


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """One class by round: the gate's measure with its change, then the other measures.

    Measures that do not fit beside it get further tables. Constant measures are in the heading.
    """

    results: Results
    label: str

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        found, row = self.results, self.results.scores[self.label]
        constant = [m for m in found.others if m.constant]
        yield self._heading(row, constant)
        if any(score.items for score in row):
            changing = [measure for measure in found.others if measure not in constant]
            for shown in _fitting(found.judged, changing, options.max_width):
                yield self._table(row, shown)
        yield ""

    def _heading(self, row: list[Score], constant: list[Measure]) -> Text:
        said = [figures.count(row[-1].items, "question")]
        for measure in constant:
            mean = row[-1].means.get(measure.name)
            if mean is not None:
                said.append(f"{measure.title} {formats.mean_about(mean, measure)}")
        return Text.assemble((self.label, "bold"), (", " + ", ".join(said), "dim"))

    def _table(self, row: list[Score], shown: list[Measure]) -> Table:
        """Makes a table with fixed column widths, so that the tables of all classes align."""
        judged, table = self.results.judged, new_table()
        table.add_column("round", justify="right", no_wrap=True, width=ROUND)
        for measure in shown:
            widths = [(measure.title, _width(measure)), ("95 %", _interval(measure))]
            if measure is judged:
                widths += [("change", CHANGE), ("95 %", CHANGE_INTERVAL)]
            for name, width in widths:
                table.add_column(Text(name), justify="right", no_wrap=True, width=width)
        best = self.results.best.number
        for score in row:
            cells: list[str | Text] = [f"{'★ ' if score.number == best else ''}{score.number}"]
            for measure in shown:
                mean = score.means.get(measure.name)
                cells += [formats.mean(mean, measure), _range(mean, measure)]
                if measure is judged:
                    cells += change_cells(score.change)
            table.add_row(*cells)
        return table


def change_cells(change: Difference | None) -> list[Text]:
    """Formats a difference and its interval."""
    style = STYLES.get(formats.direction(change), "")
    said = formats.points(change), _shorten(formats.points_range(change))
    return [Text(text, style=style) for text in said]


def _width(measure: Measure) -> int:
    return max(len(measure.title), len("100.0" if measure.share else "-0.00123"))


def _interval(measure: Measure) -> int:
    return INTERVAL if measure.share else len("-0.00123 to 0.0456")


def _fitting(judged: Measure, others: list[Measure], width: int) -> list[list[Measure]]:
    """Distributes the measures over tables that fit the width."""
    tables = [[judged]]
    used = ROUND + _width(judged) + _interval(judged) + CHANGE + CHANGE_INTERVAL + 5
    for measure in others:
        wanted = _width(measure) + _interval(measure) + 2
        if used + wanted > width:
            tables.append([])
            used = ROUND + 1
        tables[-1].append(measure)
        used += wanted
    return tables


@dataclasses.dataclass(frozen=True)
class CallsTable:
    """Number of calls by stage, purpose and part: over all rounds, and for the latest ones."""

    results: Results

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        records = {one.number: one.folder.record for one in self.results.rounds}
        groups = costs.groups(records)
        lines = [line for group in groups.values() for line in group]
        if not lines:
            return
        widest = max(len(f"{line.total:,}") for line in lines)
        width = 1 + max(widest, len(f"round {max(records)}"))
        names = max(len(text) for line in lines for text in (line.group, f"  {line.label}"))
        latest = [*records][-max(1, (options.max_width - names - width - 1) // width) :]
        table = new_table()
        table.add_column("calls")
        for heading in ("all", *(f"round {number}" for number in latest)):
            table.add_column(heading, justify="right", no_wrap=True)
        for group, members in groups.items():
            table.add_row(Text(group, style="bold"))
            for line in members:
                numbers = [line.total, *(line.numbers.get(number) for number in latest)]
                table.add_row(Text(f"  {line.label}"), *map(costs.shown, numbers))
        yield table


def _title(found: Results) -> Text:
    last = found.scores[ALL][-1]
    questions = figures.count(last.items, "held-out question")
    contexts = figures.count(last.contexts, "context")
    return Text.assemble(
        (found.name, "bold"),
        f": {questions} about {contexts}, in %",
    )


def _verdicts(rounds: Sequence[Round]) -> Table:
    lines = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        lines.add_column(no_wrap=True)
    for round_ in rounds:
        verdict, seconds = round_.folder.verdict, round_.folder.record["ledger"]["seconds"]
        style = STYLES[verdict["verdict"]] if verdict else "dim"
        lines.add_row(
            f"round {round_.number}",
            Text(formats.verdict_words(verdict), style=style),
            f"took {figures.duration(seconds)}",
            formats.reason(verdict),
        )
    return lines


def _notes(found: Results) -> RenderableType:
    lines = [
        f"★ best round: {found.best.number}. Verdicts: on the {SELECT} split, by"
        f" {found.judged.title!r}. Measures: on the {FINAL} split.",
        f"{formats.COUNTED} {TOO_FEW_SHORT!r}: {TOO_FEW}, an effective number below {FEWEST:g}.",
        *_audits(found),
    ]
    commands = map(unbroken, unfinished_rounds(found.store))
    return Group(Text("\n".join(lines), style="dim"), *commands)


def _audits(found: Results) -> list[str]:
    """What the audits of the last rounds found, if there were any."""
    lines = []
    for round_ in found.rounds:
        rows = audits.of_round(round_.folder, [])
        if rows:
            lines.append(f"Round {round_.number}: {audits.summary(rows, round_.folder)}.")
    return lines


def new_table() -> Table:
    """Returns an empty table in the style of all tables."""
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def rich_tree(tree: dict[str, Any], title: str) -> Tree:
    """Returns a decomposition tree for the terminal.

    Args:
        tree: as in interactions.jsonl; texts in it are never parsed as markup. Its facts, if
            it has any, are above it.
        title: of the tree.
    """
    root = Tree(Text(title, style="bold"), guide_style="dim")
    if facts := formats.facts(tree, TREE_FACTS):
        root.add(Text.assemble(("about  ", "dim"), facts))
    _grow(root, tree)
    return root


def _grow(branch: Tree, tree: Mapping[str, Any]) -> None:
    line = Text.assemble(
        (f"{tree['question']} → ", ""), (tree["answer"], "bold"), (f"  {tree['by']}", "dim")
    )
    if "right" in tree:  # absent if nobody knows the truth
        line.append("  ").append(*("✓ right", "green") if tree["right"] else ("✗ wrong", "red"))
    below = branch.add(line)
    for step in tree["steps"]:
        _grow(below, step)


def replayed(again: Mapping[str, Any]) -> RenderableType:
    """Reports whether a replayed data set equals the recorded one.

    Args:
        again: the fields of `replay.ReplayResult`.
    """
    same = Text("the same, bit for bit", "green") if again["same"] else Text("not the same", "red")
    lines = [
        f"round {again['round']}: {again['answers']} answers, {again['by_people']} by people",
        f"  recorded  {again['recorded']}",
        f"  replayed  {again['replayed']}",
    ]
    return Group(*lines, same)


def changes(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Returns a table of how a round's answers change with a different checkpoint or overseer.

    Args:
        rows: of `replay.Change.as_row`, all with the same keys.
    """
    titles = {
        "what": "",
        "answers": "answers",
        "changed": "changed",
        "right_before": "right before",
        "right_after": "right after",
    }
    headings = {key: title for key, title in titles.items() if all(key in row for row in rows)}
    table = Table(box=SIMPLE_HEAD)
    for heading in headings.values():
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        table.add_row(*(str(row[key]) for key in headings))
    return table


def cross_played(title: str, rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Returns a table of how one round's assistant fares against another's, by class.

    Args:
        title: says which rounds.
        rows: of `cross_play.Result.as_row`.
    """
    table = new_table()
    table.title, table.title_justify = Text(title, "bold"), "left"
    table.add_column()
    for heading in ("score difference", "95 % interval", "decided, in %", "questions"):
        table.add_column(heading, justify="right")
    for row in rows:
        low, high = row["interval"] or (None, None)
        table.add_row(
            row["class"],
            f"{row['score_difference']:+.2f}",
            formats.NO_INTERVAL if low is None else f"{low:+.2f} to {high:+.2f}",
            figures.percent(row["decided"]),
            f"{row['questions']:,}",
        )
    note = (
        "Both argue about the same held-out questions, and each takes each side once. 1: the first"
        " one wins every debate; 0: neither wins more. Intervals are clustered by context."
    )
    return Group(table, Text(note, "dim"))
