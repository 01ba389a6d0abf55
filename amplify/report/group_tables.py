"""Tables for the terminal in which several experiments are compared."""

import dataclasses
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderableType
from rich.console import Group as Together
from rich.table import Table
from rich.text import Text

from amplify.errors import command
from amplify.evaluation import figures
from amplify.evaluation.items import ALL, FINAL
from amplify.evaluation.statistics import Proportion
from amplify.report import formats
from amplify.report.group_rows import read_groups
from amplify.report.groups import (
    Group,
    agreement_words,
    best_rounds_words,
    by_class,
    differences,
    equal_rounds,
    interval_words,
    judged_measure,
    nothing_in_common,
    seed_of,
    whose_best,
)
from amplify.report.keys import changed_keys
from amplify.report.results import Results, read_results, unfinished_rounds
from amplify.report.tables import (
    change_cells,
    experiment_tables,
    new_table,
    two_lines,
    unbroken,
)
from amplify.store import Store

NARROWEST, WIDEST = len("100.0 (99.3-100.0)"), 28
"""Limits of a column's width."""
WIDEST_VERDICT = len("? inconclusive")


def comparison(stores: Sequence[Store]) -> RenderableType:
    """Returns all tables of one experiment, or those that compare several.

    Args:
        stores: the experiments; of several, the measure of the first one's gate is shown.

    Raises:
        AmplifyError: an experiment has no finished round.
    """
    if len(stores) == 1:
        return experiment_tables(read_results(stores[0]))
    groups = read_groups(stores)
    if apart := nothing_in_common(groups):
        alone = [unbroken(command("compare", store.path)) for store in stores]
        return Together(Text(f"{apart} Each by itself:"), *alone)
    parts: list[RenderableType] = [_title(groups), *_changed(groups), ""]
    parts += [GroupTables(groups), *_agreement(groups), *_seed_tables(groups)]
    parts += [table for other in groups[1:] for table in _differences(groups[0], other)]
    if len(groups) > 1:
        said = f"{formats.PAIRING} The page has the differences at all rounds."
        parts.append(Text(said, style="dim"))
    return Together(*parts, _notes(stores, groups))


def _agreement(groups: Sequence[Group]) -> Iterator[RenderableType]:
    if said := agreement_words(groups):
        yield Text(f"{said}\n", style="dim")


def _changed(groups: Sequence[Group]) -> list[Text]:
    return [Text(line) for line in changed_keys(groups, " on the page")]


def _title(groups: Sequence[Group]) -> Text:
    judged, last = judged_measure(groups), groups[0].scores[ALL][-1]
    questions = figures.count(last.items, "held-out question")
    contexts = figures.count(last.contexts, "context")
    share = ", in %" if judged.share else ""
    return Text.assemble((judged.title, "bold"), f" on {questions} about {contexts}{share}")


@dataclasses.dataclass(frozen=True)
class GroupTables:
    """The first gate's measure by class and round, with a column for each group.

    Groups that do not fit the width get further tables.
    """

    groups: Sequence[Group]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        rows = [*by_class(self.groups)]
        names = max(
            len(text) for label, row in rows for text in (label, *(f"  {n}" for n, _ in row))
        )
        width = 2 + min(WIDEST, max(NARROWEST, *(len(group.name) for group in self.groups)))
        most = max(1, (options.max_width - names - 1) // width)
        for start in range(0, len(self.groups), most):
            shown = slice(start, start + most)
            table = new_table()
            table.add_column("round")
            for group in self.groups[shown]:
                table.add_column(Text(group.name), justify="right", max_width=WIDEST)
            for label, of_rounds in rows:
                table.add_row(Text(label, style="bold"))
                for name, means in of_rounds:
                    table.add_row(f"  {name}", *map(self._cell, means[shown]))
                table.add_section()
            yield table
            yield ""

    def _cell(self, mean: Proportion | None) -> str:
        return formats.mean_about(mean, judged_measure(self.groups))


def _seed_tables(groups: Sequence[Group]) -> Iterator[RenderableType]:
    for group in groups:
        if len(group.members) > 1:
            yield from (SeedTable(group), "")


@dataclasses.dataclass(frozen=True)
class SeedTable:
    """The last round of each seed of a group: its verdict, and the gate's measure by class.

    Classes that do not fit the width get further tables. Intervals of classes are left out.
    """

    group: Group

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        judged = judged_measure([self.group])
        yield Text.assemble((self.group.name, "bold"), f": {judged.title} by seed")
        for first, labels in self._fitting(options.max_width):
            yield self._table(labels, first=first)

    def _fitting(self, width: int) -> Iterator[tuple[bool, list[str]]]:
        """Yields the classes of each table, as many as fit the width, with whether it is the first
        one, which has further columns.
        """
        seeds = len("last round of") + 1
        free = width - seeds - len("round") - NARROWEST - WIDEST_VERDICT - 3
        labels, first = list[str](), True
        for label in self.group.labels:
            if labels and free < len(label) + 1:
                yield first, labels
                labels, first, free = [], False, width - seeds
            labels.append(label)
            free -= max(len(label), len("100.0")) + 1
        yield first, labels

    def _table(self, labels: Sequence[str], *, first: bool) -> Table:
        table = new_table()
        table.add_column("last round of", no_wrap=True)
        for name in ("round", ALL) if first else ():
            table.add_column(name)
        for label in labels:
            table.add_column(Text(label), justify="right")
        if first:
            table.add_column("verdict", no_wrap=True)
        for found in self.group.members:
            table.add_row(*self._row(found, labels, first=first))
        return table

    def _row(self, found: Results, labels: Sequence[str], *, first: bool) -> Iterator[str]:
        last, judged = found.rounds[-1], found.judged

        def mean(label: str) -> Proportion | None:
            return found.scores[label][-1].means.get(judged.name)

        yield f"seed {seed_of(found.store)}"
        if first:
            yield from (str(last.number), formats.mean_about(mean(ALL), judged))
        yield from (formats.mean(mean(label), judged) for label in labels)
        if first:
            yield formats.verdict_words(last.folder.verdict)


def _differences(one: Group, two: Group) -> Iterator[RenderableType]:
    """Of the best rounds, and of the last round that both have unless it is the best of all."""
    yield _difference(one, two)
    numbers = equal_rounds(one, two)
    best = {found.best.number for found in (*one.members, *two.members)}
    if numbers and best != {numbers[-1]} and differences(one, two, numbers[-1]):
        yield _difference(one, two, numbers[-1])


def _difference(one: Group, two: Group, number: int | None = None) -> RenderableType:
    rows, measure = differences(one, two, number), judged_measure([one])
    best = number is None
    where = whose_best(one, two) if best else f"at round {number}"
    unit = ", in points" if measure.share else ""
    title = Text.assemble(
        (f"Difference, {two.short_name} minus {one.short_name}", "bold"),
        f": {measure.title}{unit}, {where}",
    )
    if not rows:
        return Together(title, "They have no class in common.")
    table = new_table()
    table.add_column()
    for name in (one.short_name, two.short_name, "difference", "95 %", ""):
        table.add_column(Text(name), justify="right")
    for row in rows:
        table.add_row(
            Text(row.label),
            two_lines(row.one, measure),
            two_lines(row.two, measure),
            *change_cells(row.change),
            formats.pairing(row.change),
        )
    note = [Text(f"best rounds: {best_rounds_words(one, two)}", "dim")] if best else []
    return Together(title, *note, table, "")


def _notes(stores: Sequence[Store], groups: Sequence[Group]) -> RenderableType:
    missing = [
        f"{group.name}: only rounds that all seeds have finished are averaged."
        for group in groups
        if any(len(found.rounds) > len(group.numbers) for found in group.members)
    ]
    lines = [
        f"On the {FINAL} split. ★ best: the best round of each experiment, by its gate.",
        interval_words(groups),
        *missing,
    ]
    commands = [
        *(line for store in stores for line in unfinished_rounds(store)),
        f"Other measures, rounds and costs of one experiment: {command('compare', stores[0].path)}",
    ]
    return Together(Text("\n".join(lines), style="dim"), *map(unbroken, commands))
