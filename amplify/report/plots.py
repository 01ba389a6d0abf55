"""Plots: matplotlib for files, altair for pages. Both libraries are slow to import and are so only
when they draw.
"""

import io
from pathlib import Path
from typing import Any

from amplify.report.results import Score

ALONE, AMPLIFIED = (
    "#0072b2",
    "#d55e00",
)  # of Okabe and Ito's palette: told apart by colour-blind eyes and in grey


def draw_rounds(scores: list[Score], path: Path) -> None:
    """Accuracy by round, a panel a class, alone and amplified with 95% intervals, as a PNG."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(score.experiment for score in scores))
    labels = list(dict.fromkeys(score.label for score in scores))
    figure = Figure(
        figsize=(2.1 + 2.4 * len(labels), 3.4 * len(names)), dpi=160, layout="constrained"
    )
    grid = figure.subplots(len(names), len(labels), sharex="row", sharey=True, squeeze=False)
    for row, name in zip(grid, names, strict=True):
        for axes, label in zip(row, labels, strict=True):
            mine = [score for score in scores if (score.experiment, score.label) == (name, label)]
            _draw_class(axes, mine, label)
        row[0].set_ylabel(f"{name}\n% of held-out questions right")
        _name_the_lines(row[0])
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png")
    temporary.rename(path)


def _draw_class(axes: Any, scores: list[Score], label: str) -> None:
    rounds = [score.round for score in scores]
    for by, colour, style in (("amplified", AMPLIFIED, "--"), ("alone", ALONE, "-")):
        points = [getattr(score, by) for score in scores]
        estimates = [100 * point.estimate for point in points]
        below = [100 * (point.estimate - point.low) for point in points]
        above = [100 * (point.high - point.estimate) for point in points]
        face = colour if by == "alone" else "white"
        axes.errorbar(
            rounds, estimates, yerr=(below, above), color=colour, linestyle=style, marker="o",
            markerfacecolor=face, markersize=5, capsize=2.5, linewidth=1.6,
        )  # fmt: skip
    axes.set_title(label, fontsize=10)
    axes.set_xlabel("round")
    axes.set_xticks(rounds)
    axes.set_ylim(-4, 104)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _name_the_lines(axes: Any) -> None:
    axes.text(0.97, 0.16, "● alone", color=ALONE, transform=axes.transAxes, ha="right", fontsize=9)
    axes.text(
        0.97, 0.07, "○ amplified", color=AMPLIFIED, transform=axes.transAxes, ha="right", fontsize=9
    )


def training_curve(metrics: list[dict[str, Any]]) -> str:
    """Loss and agreement with the labels over training steps, as an SVG element."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.4), layout="constrained")
    loss, agreement = figure.subplots(1, 2)
    steps = [row["step"] for row in metrics]
    loss.plot(steps, [row["loss"] for row in metrics], color=ALONE)
    loss.set(title="loss (nats an answer)", xlabel="step", yscale="log")
    agreement.plot(steps, [100 * row["agreement"] for row in metrics], color=ALONE)
    agreement.set(title="agreement with the labels (%)", xlabel="step")
    for axes in (loss, agreement):
        axes.spines[["top", "right"]].set_visible(False)
    drawn = io.StringIO()
    # Text stays text (small files, readable by machines), and the same data gives the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "amplify"}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]


def rounds_chart(scores: list[Score]) -> str:
    """The same picture for a page, with tooltips: an HTML fragment that carries everything it
    needs.
    """
    import altair

    rows = [
        {
            "experiment": score.experiment,
            "class": score.label,
            "round": score.round,
            "who": by,
            "right": 100 * point.estimate,
            "low": 100 * point.low,
            "high": 100 * point.high,
            "n": score.n,
        }
        for score in scores
        for by, point in (("alone", score.alone), ("amplified", score.amplified))
    ]
    colour = altair.Color("who:N", title=None, legend=altair.Legend(orient="top"))
    base = altair.Chart().encode(
        x=altair.X("round:O", axis=altair.Axis(labelAngle=0)),
        color=colour.scale(domain=["alone", "amplified"], range=[ALONE, AMPLIFIED]),
    )
    numbers = [altair.Tooltip(f"{name}:Q", format=".2f") for name in ("right", "low", "high")]
    line = base.mark_line(point=True).encode(
        y=altair.Y("right:Q", title="% right", scale=altair.Scale(domain=[0, 100])),
        strokeDash=altair.StrokeDash("who:N", legend=None),
        tooltip=["class:N", "round:O", "who:N", *numbers, "n:Q"],
    )
    bars = base.mark_rule().encode(y="low:Q", y2="high:Q")
    panels = altair.layer(bars, line, data=altair.Data(values=rows)).properties(
        width=170, height=200
    )
    by_class = {"title": None, "sort": list(dict.fromkeys(score.label for score in scores))}
    if len({score.experiment for score in scores}) == 1:
        chart = panels.facet(altair.Facet("class:N", **by_class), columns=4)
    else:
        row = altair.Row("experiment:N", title=None)
        chart = panels.facet(row=row, column=altair.Column("class:N", **by_class))
    return chart.to_html(inline=True, fullhtml=False, output_div="rounds-chart")
