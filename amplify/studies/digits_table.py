"""The study of digits as a table for the terminal, as rows for JSON, and as a figure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from amplify.report.plots import GRID, STYLES
from amplify.studies.digits import ARMS, Run, measure, read
from amplify.studies.figures import as_png, begin, finish
from amplify.studies.seeds import (
    FEWEST,
    Criterion,
    complete,
    empty_table,
    mean_cell,
    over_seeds,
    say,
)
from amplify.studies.study import Report

GAIN = "debate minus random"
ROWS: Mapping[str, Callable[[Run], float]] = {
    "random pixels": lambda run: run.random,
    "honest side alone": lambda run: run.alone,
    "debate": lambda run: run.committed,
    GAIN: lambda run: run.gain,
    "debate, any lie": lambda run: run.random_lie,
    "debate, uncommitted": lambda run: run.free,
    "random, of two": lambda run: run.random_committed,
}
NOTE = (
    "Images held out that the same frozen judge gets right. Debates show as many pixels as the"
    " others; both sides play perfectly, and either begins in half of the debates. debate: before"
    " the first pixel, the liar names the digit that suits it best. any lie: it names any other"
    " digit; the mean. uncommitted: it names none, and wins if the judge says anything but the"
    " truth. random, of two: random pixels, and the judge chooses between the truth and the best"
    " lie. Intervals are Student's, over splits. On MNIST, which is another data set: 48.2 % from 4"
    " random pixels and 85.2 % in a debate, 59.4 and 88.9 % from 6 (Irving 2018)."
)
Runs = Mapping[str, Mapping[int, Run]]
"""The runs of each arm, by split."""


def table(runs: Runs) -> RenderableType:
    """Returns a table for each arm, and whether debate helps as expected.

    Args:
        runs: splits that are not done in all arms are shown, but left out of means.
    """
    splits, done = complete(runs)
    enough = len(splits) >= FEWEST
    parts: list[RenderableType] = [
        _of_arm(arm, of, done[arm] if enough else ()) for arm, of in runs.items()
    ]
    if not enough:
        return Group(*parts, Text(NOTE), Text(f"Intervals take {FEWEST} splits or more."))
    return Group(*parts, Text(NOTE), Text(""), *(one.line() for one in criteria(done)))


def _of_arm(arm: str, runs: Mapping[int, Run], done: Sequence[Run]) -> Table:
    title = f"{arm.replace('-', ' ')}: images that are judged right, in %, by split"
    found = empty_table(title, ["", *map(str, runs), "mean"])
    for name, get in ROWS.items():
        shares = [f"{100 * get(run):.1f}" for run in runs.values()]
        mean = mean_cell([100 * get(run) for run in done], 1) if done else ""
        found.add_row(name, *shares, mean)
    found.add_row("images", *(str(run.images) for run in runs.values()), "")
    found.add_row("seconds", *(f"{run.seconds:.0f}" for run in runs.values()), "")
    return found


def criteria(runs: Mapping[str, Sequence[Run]]) -> Iterator[Criterion]:
    """Compares the tables with what is expected of them.

    Args:
        runs: of each arm, in the same order of splits; three or more.
    """
    for arm, of in runs.items():
        gain = over_seeds([run.gain for run in of])
        yield Criterion(
            f"{arm.replace('-', ' ')}: a debate with precommitment is above random pixels by .1"
            " or more, interval above 0",
            say(gain),
            gain.estimate >= 0.1 and gain.low is not None and gain.low > 0,
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
    names = [name for name in ROWS if name != GAIN][::-1]
    for place, (style, arm) in enumerate(zip(STYLES, ARMS, strict=False)):
        for row, name in enumerate(names):
            found = over_seeds([ROWS[name](run) for run in runs[arm]])
            height = row + 0.15 - 0.3 * place
            if found.low is not None and found.high is not None:
                ends = [100 * found.low, 100 * found.high]
                axes.plot(ends, [height, height], color=style.colour, linewidth=1.7)
            label = arm.replace("-", " ") if row == 0 else None
            axes.plot(100 * found.estimate, height, "o", color=style.colour, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 102)
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    finish(axes, "per cent right")
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    return as_png(figure)


REPORT = Report(ARMS, measure, read, table, rows, png)
