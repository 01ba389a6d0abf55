"""Values that pages show about a person's work on an item.

They contain nothing that says which round or model wrote what.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from amplify.people.items import Assignment, Counts, Exchange, Item, RoundStage
from amplify.people.rules import Queue

PENDING, ANSWERED, PROBLEM = "pending", "answered", "problem"


class StepView(NamedTuple):
    """A node of an answer's decomposition."""

    question: str
    answer: str
    steps: tuple["StepView", ...]


class ExchangeView(NamedTuple):
    """A sub-question and its answer, if there is one."""

    number: int
    text: str
    part: str  # of the answer that it expands on; "": the whole answer
    state: str
    answer: str
    confidence: str  # in words; "": none was given
    looked_up: bool  # answered by the environment, not by a model
    problem: str
    steps: tuple[StepView, ...]
    passages: tuple[str, ...]
    expansions: list["ExchangeView"]  # of this answer

    @property
    def may_expand(self) -> bool:
        return self.state == ANSWERED


class Progress(NamedTuple):
    """How far a stage of a round has got."""

    mine: int  # items that this person has answered in the stage, checks among them
    counts: Counts


def exchanges(assignment: Assignment, *, answered_only: bool = False) -> list[ExchangeView]:
    """Returns the exchanges that were not undone; expansions are below the answer they expand on.

    Args:
        assignment: whose exchanges.
        answered_only: whether to leave out those without an answer.
    """
    there: dict[int, ExchangeView] = {}
    top: list[ExchangeView] = []
    for exchange in assignment.exchanges:
        if exchange.undone or (answered_only and exchange.answer is None):
            continue
        shown = there[exchange.number] = _shown(exchange)
        above = there.get(exchange.about["number"]) if exchange.about else None
        (top if above is None else above.expansions).append(shown)
    return top


def questions_left(item: Item, assignment: Assignment) -> int:
    """Number of sub-questions that a person may still ask."""
    return max(0, item.budget - sum(exchange.costs for exchange in assignment.exchanges))


def progress(queue: Queue, person: str, stage: RoundStage) -> Progress:
    """How far a stage of a round has got, for a person."""
    return Progress(queue.submitted_by(person, stage), queue.counts(stage))


def has_numbers(choices: Sequence[str]) -> bool:
    """Whether answers are chosen by typing them, as numbers are, and not by their places: of -1, 0
    and 1, a person who types 1 means the last.
    """
    return any(re.fullmatch(r"[-+\N{MINUS SIGN}]?\d+", choice) for choice in choices)


def in_words(probability: float | None) -> str:
    """How sure the assistant was, in words; "" if that is not known."""
    if probability is None:
        return ""
    percent = round(100 * probability)
    if percent == 100 and probability < 1:
        return "over 99 % sure"
    if percent == 0 and probability > 0:
        return "under 1 % sure"
    return f"{percent} % sure"


def _shown(exchange: Exchange) -> ExchangeView:
    state = PENDING if exchange.pending else PROBLEM if exchange.problem else ANSWERED
    return ExchangeView(
        number=exchange.number,
        text=exchange.text,
        part=exchange.about.get("part", "") if exchange.about else "",
        state=state,
        answer=exchange.answer or "",
        confidence=in_words(exchange.confidence),
        looked_up=exchange.by == "environment",
        problem=exchange.problem or "",
        steps=tuple(_step(step) for step in exchange.steps),
        passages=exchange.passages,
        expansions=[],
    )


def _step(tree: Mapping[str, Any]) -> StepView:
    below = tuple(_step(step) for step in tree.get("steps", ()))
    return StepView(str(tree.get("question", "")), str(tree.get("answer", "")), below)
