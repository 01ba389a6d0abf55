"""Reports the audits of a round: each look with its intervals, and what the alarm said."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from amplify.evaluation import figures
from amplify.evaluation.measures import GOLD
from amplify.evaluation.statistics.alarm import Watch
from amplify.evaluation.statistics.audits import NamedInterval
from amplify.oversight.audits.audit import (
    CHECK,
    Audit,
    best_step,
    decide,
    read_history,
    restarts,
)
from amplify.records.round_folder import RoundFolder
from amplify.report.curve import Curve, draw_lines, evaluated_rows, mean_of

SECTION = "oversight.audit"
"""Key of the section in a record: audits can be read without running an experiment's own code."""
LINES = (
    "judge's value with its interval of one look",
    "reward model's score",
    "gold, which the judge does not see",
)
"""What the lines of `audits_curve` are."""
DEVIATIONS = "in standard deviations of drafts"
IN_POINTS = ("human", "language-model")
"""Values of `overseer.kind` whose scores are points from 0 to 10, and not in `DEVIATIONS`."""


class AuditRow(NamedTuple):
    """One look at a policy."""

    step: int
    proxy: float
    value: float | None
    reviews: int
    one_look: NamedInterval | None
    over_looks: NamedInterval | None
    gold: float | None
    said: Watch
    checked: bool
    """Whether a check followed."""
    restarts: bool
    """Whether training began again after it."""


def of_round(this: RoundFolder, metrics: Sequence[dict[str, Any]]) -> list[AuditRow]:
    """Returns the audits of a round; none if its oversight has none.

    Args:
        this: the round's folder.
        metrics: the training curve, which may have gold.
    """
    section = this.record["experiment"].get(SECTION)
    history = read_history(this.record)
    if not history.looks or section is None:
        return []
    audit = Audit(**section)
    golds = {row["step"]: mean_of(row, GOLD.name) for row in evaluated_rows(metrics)}
    rows, restarted = [], restarts(this.record)
    looks = len(audit.segments(this.record["experiment"]["training.steps"]))
    checked = {check.step for check in history.checks}
    for look in history.looks:
        found = look.audited
        since = max((step for step in restarted if step < look.step), default=0)
        rows.append(
            AuditRow(
                look.step,
                look.proxy,
                found.value if found else None,
                found.reviews if found else 0,
                found.one_look() if found else None,
                found.over_looks(looks) if found else None,
                golds.get(look.step),
                decide(this.record, audit.rules, since, until=f"{CHECK}_{look.step}"),
                look.step in checked,
                look.step in restarted,
            )
        )
    return rows


def lines_of(this: RoundFolder) -> list[str]:
    """Returns what the lines of `audits_curve` are, with their units where these differ.

    Args:
        this: the round's folder.
    """
    if not _in_points(this):
        return list(LINES)
    audited, *others = LINES
    return [f"{audited}, in points from 0 to 10", *(f"{line}, {DEVIATIONS}" for line in others)]


def _in_points(this: RoundFolder) -> bool:
    return this.record["experiment"].get("overseer.kind") in IN_POINTS


def audits_curve(rows: Sequence[AuditRow], this: RoundFolder) -> Curve:
    """Draws looks over steps; the index of a line in `LINES` is its style.

    Args:
        rows: one or more.
        this: the round's folder.
    """
    gold = [(row.step, row.gold) for row in rows if row.gold is not None]
    intervals = [
        (0, [(row.step, row.one_look.low), (row.step, row.one_look.high)])
        for row in rows
        if row.one_look
    ]
    values = [(row.step, row.value) for row in rows if row.value is not None]
    proxies = [(row.step, row.proxy) for row in rows]
    lines = [(2, gold), (1, proxies), *intervals, (0, values)]
    return draw_lines("audits" if _in_points(this) else f"audits, {DEVIATIONS}", lines)


def summary(rows: Sequence[AuditRow], this: RoundFolder) -> str:
    """Says in a sentence what audits found.

    Args:
        rows: one or more.
        this: the round's folder.
    """
    history = read_history(this.record)
    reviews = sum(row.reviews for row in rows)
    best = best_step(this.record)
    found = [row for row in rows if row.said.status in ("alarm", "decline")]
    lines = [
        f"{figures.count(len(rows), 'audit')} of {reviews / len(rows):.0f} reviews on average",
        figures.count(len(history.checks), "check"),
    ]
    lines += [f"{row.said.status} after {row.step} steps ({row.said.reason})" for row in found]
    if not found:
        lines.append("no alarm")
    if best is not None:
        lines.append(f"best audited policy after {best} steps")
    return ", ".join(lines)
