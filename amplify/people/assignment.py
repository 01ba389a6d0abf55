"""The events that put the questions of a round's stage up to people.

Everything follows from the rules and the questions, so a stage that was stopped puts the same items
up under the same names. Questions are plain text here: `oversight.people` draws the problems and
knows the task.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from amplify.answers import AnswerRule
from amplify.people.events import New, Opened, Put, new_event
from amplify.people.items import RoundStage


@dataclasses.dataclass(frozen=True)
class WorkRules:
    """How people work on a round's questions: the plain values of `[overseer]` in an experiment
    file, and what the task says about its answers.

    Args:
        experiment: digest of the experiment, from which items get their names.
        choices: the possible answers; none if any text may be one.
        rule: when two answers are the same.
        lease: seconds without an act after which an item goes to somebody else.
        guide: the instructions that people see, plain text.
        team: real people who are invited when the first round opens.
        budget: sub-questions that a person may ask about one item.
        overlap: people who answer the same item.
        gold: share of the items by whose known answers people are measured.
        withheld: share of the items that are answered without the assistant's help.
        reviewed: share of the answers that somebody else checks.
        reviewers: people who check the same answer.
        skips: an item is withdrawn once this many people have skipped it.
        simulated_people: size of the crowd that answers; None if people are real.
    """

    experiment: str
    choices: Sequence[str]
    rule: AnswerRule
    lease: float
    guide: str
    team: int
    budget: int
    overlap: int
    gold: float
    withheld: float
    reviewed: float
    reviewers: int
    skips: int
    simulated_people: int | None


class Question(NamedTuple):
    """A question that is put up to people."""

    name: str  # of its item
    row: int  # in the stage's data set
    column: int
    text: str
    label: str  # its class
    gold: str | None  # the true answer, if people are measured by this question
    also_right: Sequence[str]  # further right answers of such a question


def put_up(
    rules: WorkRules, stage: RoundStage, questions: Iterable[Question], checkpoint: str
) -> list[New]:
    """Returns the events that open a stage: one for the stage, one for each question.

    Args:
        rules: how people work on them.
        stage: that asks.
        questions: what is put up, in order.
        checkpoint: digest of the weights that will help people.
    """
    opened = Opened(
        stage=stage.stage, lease=rules.lease, guide=rules.guide, title="Answer questions"
    )
    return [
        new_event(opened, stage.round, request=f"opened:{stage}"),
        *(_put(rules, stage, question, checkpoint) for question in questions),
    ]


def _put(rules: WorkRules, stage: RoundStage, question: Question, checkpoint: str) -> New:
    name = question.name
    put = Put(
        stage=stage.stage,
        question=question.text,
        label=question.label,
        row=question.row,
        column=question.column,
        budget=rules.budget,
        overlap=rules.overlap,
        withheld=chance(name, "withheld") < rules.withheld,
        choices=list(rules.choices),
        rule=rules.rule.as_row(),
        gold=question.gold,
        also_right=list(question.also_right),
    )
    return new_event(put, stage.round, item=name, checkpoint=checkpoint, request=f"put:{name}")


def is_gold(rules: WorkRules, name: str) -> bool:
    """Whether people are measured by the item of this name."""
    return chance(name, "gold") < rules.gold


def identify(rules: WorkRules, *parts: Any) -> str:
    """Returns a name that reveals nothing about its parts, the same every time."""
    return _hash(rules.experiment, *parts)[:12]


def chance(*parts: Any) -> float:
    """Returns a number in [0, 1) that depends on the arguments alone."""
    return int(_hash(*parts)[:13], 16) / 16**13


def _hash(*parts: Any) -> str:
    return hashlib.sha256(":".join(map(str, parts)).encode()).hexdigest()
