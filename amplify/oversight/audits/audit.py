"""Audits of a policy while it is trained: every few steps, a judge or people score some of its
answers.

The reward model scores all of a large number of answers, the judge some of them, and the mean of
what the judge would say of all is estimated from both, see `statistics.audits`. The reward model
has not seen the scores. `statistics.alarm` decides what follows: it may ask for a check, which
reviews new answers of the current policy and of the best audited one.

Scores have the judge's own unit: standard deviations of drafts for a simulated judge, points from 0
to 10 for people and language models. Nothing depends on it: the estimate is on the scale of the
scores, the weight of the reward model in it is fitted to them, and the alarm divides differences by
their standard errors. So scores are not standardised. Doing so within each audit would remove
what is compared, the difference between audits.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from amplify.evaluation.statistics.alarm import (
    AlarmRules,
    Check,
    Look,
    Watch,
    best_look,
    reviews_used,
    watch,
)
from amplify.evaluation.statistics.audits import (
    AuditEstimate,
)
from amplify.oversight.reviews.samples import REVIEWS
from amplify.records.record import ASSISTANT, DATA, Record, phases

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]

LOOK, CHECK = "audit", "check"
"""What phases of audits are called, followed by the number of steps before them: audit_40."""
RESTART = "restart"
"""Likewise, the phase in which training begins again without new reviews."""


@dataclasses.dataclass(frozen=True)
class Audit:
    """`[oversight.audit]` of an experiment file."""

    every: Annotated[int, Field(ge=0)] = 0
    """Steps of reinforcement learning between two audits; 0: there are no audits."""
    answers: Count = 512
    """Answers that the reward model scores at each audit, of which the judge scores some."""
    reviews: Positive = 24.0
    """Expected number of answers that the judge scores at each audit. Each is drawn independently,
    so that the number varies; if it is at least `answers`, all are."""
    draw: Literal["random", "active"] = "random"
    """How answers are drawn: all with the same probability, or with probabilities in proportion to
    the disagreement of the reward model's members."""
    budget: Count = 800
    """Scores until the next restart, those of checks included. There are no more audits when the
    next one might exceed it."""
    check_reviews: Annotated[int, Field(ge=2)] = 80
    """Answers of each of two policies that the judge scores if the value seems to have fallen."""
    checks: Count = 3
    """Checks until the next restart, at most."""
    error_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Probability of a false alarm until the next restart, at most."""
    on_alarm: Literal["report", "stop", "return", "restart"] = "return"
    """What follows when the audited value has fallen. report: nothing. stop: training ends. return:
    training ends, and the round's assistant is the best audited policy, as it is without an alarm.
    restart: the judge compares answers of the current policy, the reward model learns from these
    reviews too, and training begins again with the reference policy; the round ends as with
    return."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """Restarts in a round, at most."""
    restart_at: Literal["alarm", "end"] = "alarm"
    """When training begins again, if `on_alarm` is "restart": at an alarm only, or also after the
    last step, when the policy has moved away from what the reward model has learned from, alarm or
    not. A round then has `restarts` times as many steps more."""
    relabel: Annotated[int, Field(ge=0)] = 500
    """Comparisons at each restart; 0: none, and the reward model stays as it is."""

    def __post_init__(self) -> None:
        """Checks that keys fit together.

        Raises:
            ValueError: if they do not.
        """
        if self.restart_at == "end" and self.on_alarm != "restart":
            raise ValueError(
                'oversight.audit.restart_at = "end" needs oversight.audit.on_alarm = "restart", got'
                f" {self.on_alarm!r}"
            )

    @property
    def rules(self) -> AlarmRules:
        """When to check, and when to sound the alarm."""
        return AlarmRules(
            error_rate=self.error_rate,
            checks=self.checks,
            check_reviews=self.check_reviews,
            budget=self.budget,
        )

    @property
    def returns(self) -> bool:
        """Whether a round ends with the best audited policy."""
        return self.on_alarm in ("return", "restart")

    def check_steps(self, steps: int) -> None:
        """Checks that the budget suffices.

        Args:
            steps: of reinforcement learning in a round, without restarts.

        Raises:
            ValueError: for too small a budget.
        """
        looks, reviews = len(self.segments(steps)), min(self.reviews, self.answers)
        if self.every and looks * reviews > self.budget:
            raise ValueError(
                f"oversight.audit.budget = {self.budget} does not suffice for {looks} audits of"
                f" {reviews:g} reviews: increase it, or oversight.audit.every"
            )

    def segments(self, steps: int) -> list[int]:
        """Returns the numbers of steps before each audit, which add up to `steps`."""
        every = self.every or steps
        return [min(every, steps - done) for done in range(0, steps, every)]


def steps_before(phase: str) -> int:
    """Returns the number of steps that the name of a phase ends with, such as `audit_40`."""
    return int(phase.rpartition("_")[2])


class History(NamedTuple):
    """The audits of a round, in the order in which they were made."""

    looks: list[Look]
    checks: list[Check]


def read_history(record: Record, since: int = 0, until: str | None = None) -> History:
    """Reads the audits in a round's record.

    Args:
        record: of the round.
        since: audits of policies with this number of steps or fewer are left out.
        until: name of the last audit that is read, such as audit_40 (and not check_40, which comes
            after it); None: all. A round that is resumed, and a phase that is made again, must
            not be decided by later audits.
    """
    history = History([], [])
    for stage, entry in record.get("stages", {}).items():
        phase, _, last = stage.rpartition("/")
        if last != DATA or not {LOOK, CHECK} & {*entry} or steps_before(phase) <= since:
            continue
        if until is not None and _place(phase) > _place(until):
            continue
        step = steps_before(phase)
        if found := entry.get(LOOK):
            history.looks.append(Look(step, found["proxy"], _read_estimate(found["audited"])))
        if found := entry.get(CHECK):
            best, current = (_read_estimate(found[name]) for name in ("best", "current"))
            history.checks.append(Check(found["best_step"], step, best, current))
    return history


def _place(audit: str) -> tuple[int, bool]:
    """Orders audits by the steps before them; a check follows the look at the same policy."""
    return steps_before(audit), audit.startswith(CHECK)


def restarts(record: Record) -> list[int]:
    """Returns the numbers of steps before each restart of a round, ascending."""
    begun = (f"{REVIEWS}_", f"{RESTART}_")
    return [steps_before(name) for name in phases(record) if name.startswith(begun)]


def last_restart(record: Record, steps: int) -> int:
    """Returns the number of steps before a policy's last restart; 0 if there was none.

    Args:
        record: of the round.
        steps: before the policy that is audited.
    """
    return max((restart for restart in restarts(record) if restart < steps), default=0)


def decide(record: Record, rules: AlarmRules, since: int = 0, until: str | None = None) -> Watch:
    """Decides what follows from the audits so far; see `statistics.alarm.watch`.

    Args:
        record: of the round.
        rules: of the alarm.
        since: number of steps before the last restart.
        until: the last audit; see `read_history`.
    """
    return watch(*read_history(record, since, until), rules)


def affords_look(record: Record, audit: Audit, since: int, steps: int) -> bool:
    """Returns whether the budget suffices for another look.

    The number of its reviews is random: four standard deviations are held in reserve.

    Args:
        record: of the round.
        audit: has the budget.
        since: number of steps before the last restart.
        steps: before the policy that is looked at.
    """
    most = min(audit.reviews + 4 * audit.reviews**0.5, audit.answers)
    earlier = read_history(record, since, until=f"{CHECK}_{steps - 1}")
    return reviews_used(*earlier) + most <= audit.budget


def best_step(record: Record) -> int | None:
    """Returns the number of steps of the best audited policy; None: no audit has a value."""
    best = best_look(read_history(record).looks, restarts=restarts(record))
    return None if best is None else best.step


def _read_estimate(found: Mapping[str, Any] | None) -> AuditEstimate | None:
    return None if found is None else AuditEstimate(**found)


def policy_of(step: int) -> str:
    """Returns the name of the policy's checkpoint after some steps, see `Work.checkpoint`."""
    return f"reinforcement_{step}/{ASSISTANT}"
