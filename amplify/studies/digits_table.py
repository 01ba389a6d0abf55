"""The study of digits as a table for the terminal, as rows for JSON, and as a figure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from amplify.report.plots import STYLES
from amplify.studies.digits import ARMS, Run, measure, read
from amplify.studies.figures import as_png, begin, finish
from amplify.studies.seeds import FEWEST, Criterion, complete, empty_table, over_seeds
from amplify.studies.study import Report

COLUMNS: Mapping[str, Callable[[Run], float]] = {
    "random pixels": lambda run: run.random,
    "honest side alone": lambda run: run.alone,
    "debate, no precommitment": lambda run: run.free,
    "debate, best lie": lambda run: run.committed,
    "debate, any lie": lambda run: run.random_lie,
    "random pixels, truth or best lie": lambda run: run.random_committed,
    "gain": lambda run: run.gain,
}
NOTE = (
    "Per cent of the images held out that the judge gets right, the same frozen judge in a row. A"
    " row's debates show as many pixels as its random ones; both sides play perfectly, and half of"
    " the debates begin with either side. best lie: before the first pixel, the liar names the"
    " digit that suits it best; any lie: mean over all. gain: debate, best lie, minus random"
    " pixels. Intervals are Student's, over splits. For comparison, on MNIST, which is another data"
    " set: 48.2 % from 4 random pixels and 85.2 % in a debate, 59.4 and 88.9 % from 6 (Irving"
    " 2018)."
)
Runs = Mapping[str, Mapping[int, Run]]
"""The runs of each arm, by split."""


def table(runs: Runs) -> RenderableType:
    """Returns the table of a study, and whether debate helps as expected.

    Args:
        runs: splits that are not done in all arms are shown, but left out of means.
    """
    splits, done = complete(runs)
    found = empty_table("Which digit is it?", ["arm", "split", *COLUMNS, "images", "seconds"])
    for arm, of in runs.items():
        for split, run in of.items():
            shares = [f"{100 * get(run):.1f}" for get in COLUMNS.values()]
            found.add_row(arm, str(split), *shares, str(run.images), f"{run.seconds:.0f}")
        if len(splits) >= FEWEST:
            means = [_mean([get(run) for run in done[arm]]) for get in COLUMNS.values()]
            found.add_row(arm, "mean", *means, "", "", style="bold", end_section=True)
    wrapped = _wrapping(found)
    if len(splits) < FEWEST:
        return Group(wrapped, Text(NOTE), Text(f"Intervals take {FEWEST} splits or more."))
    return Group(wrapped, Text(NOTE), Text(""), *(one.line() for one in criteria(done)))


def _wrapping(found: Table) -> Table:
    """Lets long headings break, so that the table fits a terminal."""
    for column in found.columns[2:]:
        column.max_width = 13
    return found


def _mean(values: Sequence[float]) -> str:
    found = over_seeds(values)
    shares = [100 * value for value in (found.estimate, found.low, found.high) if value is not None]
    if len(shares) < 3:
        return f"{shares[0]:.1f}"
    return f"{shares[0]:.1f}\n{shares[1]:.1f} to {shares[2]:.1f}"


def criteria(runs: Mapping[str, Sequence[Run]]) -> Iterator[Criterion]:
    """Compares the table with what is expected of it.

    Args:
        runs: of each arm, in the same order of splits; three or more.
    """
    for arm, of in runs.items():
        gain = over_seeds([run.gain for run in of])
        assert gain.low is not None
        assert gain.high is not None
        points = [100 * value for value in (gain.estimate, gain.low, gain.high)]
        yield Criterion(
            f"{arm}: debate with precommitment is above random pixels by 10 points or more,"
            " interval above 0",
            f"{points[0]:.1f} ({points[1]:.1f} to {points[2]:.1f})",
            points[0] >= 10 and points[1] > 0,
        )


def rows(runs: Runs) -> list[dict[str, Any]]:
    """Returns a row for each cell, for JSON, and one for each criterion if there are enough.

    Args:
        runs: as in `table`.
    """
    cells = [
        {"arm": arm, "split": split, **run._asdict(), "gain": run.gain}
        for arm, of in runs.items()
        for split, run in of.items()
    ]
    splits, done = complete(runs)
    enough = len(splits) >= FEWEST
    return [*cells, *(one._asdict() for one in (criteria(done) if enough else ()))]


def png(runs: Mapping[str, Sequence[Run]]) -> bytes:
    """Draws the share of images that the judge gets right, by how pixels are chosen.

    Args:
        runs: of each arm, for the same splits.

    Returns:
        The bytes of a PNG file.
    """
    number = len(runs[ARMS[0]])
    said = (
        f"Per cent of images that the judge gets right; means of {number} splits, 95 % intervals."
    )
    figure = begin("Debate about digits", said, 8.0, 4.2)
    axes = figure.subplots()
    figure.subplots_adjust(0.3, 0.12, 0.97, 0.83)
    names = [name for name in COLUMNS if name != "gain"][::-1]
    for place, (style, arm) in enumerate(zip(STYLES, ARMS, strict=False)):
        for row, name in enumerate(names):
            found = over_seeds([COLUMNS[name](run) for run in runs[arm]])
            assert found.low is not None
            assert found.high is not None
            height = row + 0.15 - 0.3 * place
            ends = [100 * found.low, 100 * found.high]
            axes.plot(ends, [height, height], color=style.colour, linewidth=1.7)
            label = arm.replace("-", " ") if row == 0 else None
            axes.plot(100 * found.estimate, height, "o", color=style.colour, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 100)
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    finish(axes, "per cent right")
    axes.grid(axis="x", color="#d9d9d9", linewidth=0.7)
    return as_png(figure)


REPORT = Report(ARMS, measure, read, table, rows, png)
