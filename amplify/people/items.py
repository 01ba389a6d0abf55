"""What is known about people's work: items, assignments, exchanges, and which answer counts.

An *item* is a question put up to people; an *assignment* is one person's work on one item; an
*exchange* is a sub-question with its answer. `state` makes them of the log of events. Two answers
to an item are the same if the item's rule says so: it is the task's own and came with the question,
so nothing here knows the task. Agreement, gold items, disagreements, the uplift trial and staleness
all compare answers by it.
"""

import dataclasses
from typing import NamedTuple

from amplify.answers import EXACT, AnswerRule
from amplify.people.events import About, Node, Tokens

ACTIVE, SUBMITTED, SKIPPED = "active", "submitted", "skipped"
"""States of an assignment."""


class RoundStage(NamedTuple):
    """A stage of a round that asks people."""

    round: int
    stage: str = ""
    """Its full name, such as "reviews/data"; "": in an older log, the round's only one."""

    def __str__(self) -> str:
        """For ids that are the same in every process, and for older logs those that they have."""
        return f"{self.round}:{self.stage}" if self.stage else str(self.round)


@dataclasses.dataclass
class Exchange:
    """A sub-question, and its answer once there is one."""

    number: int  # within its assignment, from 1
    text: str
    event: int  # id of `asked`
    about: About | None = None  # it expands on an answer, or on a part of one
    answer: str | None = None
    confidence: float | None = None  # probability of the answer, where a model gave it
    steps: tuple[Node, ...] = ()  # the answer's decomposition, if it was expanded on
    passages: tuple[str, ...] = ()  # what the assistant had read
    by: str = ""  # who answered: "assistant", "environment" or "overseer"
    tokens: Tokens | None = None  # of question and answer
    problem: str | None = None  # why there is no answer
    told: int | None = None  # id of `told`
    undone: bool = False

    @property
    def pending(self) -> bool:
        """Whether it waits for an answer."""
        return self.told is None and not self.undone

    @property
    def costs(self) -> bool:
        """Whether it counts against the budget: an answer that was seen counts, even if undone."""
        return self.problem is None and not (self.undone and self.told is None)


@dataclasses.dataclass
class Assignment:
    """One person's work on one item."""

    item: str
    person: str
    began: float
    state: str = ACTIVE
    renewed: float = 0.0  # when its lease last began
    draft: str = ""
    exchanges: list[Exchange] = dataclasses.field(default_factory=list)
    answer: str | None = None  # what counts as theirs: as they gave it, or as it was corrected
    said: str | None = None  # as they gave it
    submitted: int | None = None  # id of the event, once submitted and not undone
    at: float | None = None  # when it was
    reason: str = ""  # of a skip
    problem: str | None = None  # why what was submitted last could not be taken
    seconds: float = 0.0  # of attention
    seen: bool = False  # by whom they were told what: then what they submitted stays

    @property
    def kept(self) -> list[Exchange]:
        """What counts: exchanges not undone, that were answered or will be."""
        return [e for e in self.exchanges if not e.undone and e.problem is None]


@dataclasses.dataclass
class Item:
    """A question put up to people, with everybody's work on it."""

    id: str
    asked_in: RoundStage
    question: str
    label: str = ""  # the question's class
    choices: tuple[str, ...] = ()  # of answers; none: any text
    rule: AnswerRule = EXACT  # when two answers are the same: the task's own
    budget: int = 0  # sub-questions
    overlap: int = 1  # people wanted
    withheld: bool = False  # no help from the assistant: the other arm of the uplift trial
    gold: str | None = None  # the true answer, of an item that checks people
    also_right: tuple[str, ...] = ()  # other answers that the task calls right, of a gold item
    review_of: tuple[str, str] | None = None  # an item and the person whose answer is checked
    row: int = -1  # in the round's data set
    column: int = -1
    checkpoint: str | None = None
    withdrawn: str | None = None  # why
    adjudicated: str | None = None  # the answer that was decided on
    set_aside: str | None = None  # why the task cannot use the answer that counts
    assignments: dict[str, Assignment] = dataclasses.field(default_factory=dict)

    @property
    def round(self) -> int:
        """Number of the round that asks."""
        return self.asked_in.round

    @property
    def submissions(self) -> list[Assignment]:
        """In the order in which they were submitted."""
        done = [a for a in self.assignments.values() if a.state == SUBMITTED]
        return sorted(done, key=lambda assignment: assignment.submitted or 0)

    @property
    def skips(self) -> int:
        """Number of people who skipped it."""
        return sum(a.state == SKIPPED for a in self.assignments.values())

    @property
    def complete(self) -> bool:
        """Whether it needs nobody any more."""
        return self.withdrawn is not None or len(self.submissions) >= self.overlap


Where = int | RoundStage | None
"""A round by its number, or one of its stages; None: all rounds."""


def is_among(item: Item, where: Where) -> bool:
    """Whether an item was put up there."""
    return where in (None, item.round, item.asked_in)


class Counts(NamedTuple):
    """How many questions of a stage, and checks of answers to them, there are and are complete."""

    questions: int
    questions_done: int
    checks: int  # so far: answers that come in may be checked, too
    checks_done: int

    @property
    def all(self) -> int:
        return self.questions + self.checks

    @property
    def done(self) -> int:
        return self.questions_done + self.checks_done


class SetAside(NamedTuple):
    """An event of the log that could not be used, or an answer that the task cannot read."""

    event: int
    kind: str
    round: int
    item: str | None
    person: str | None
    reason: str


@dataclasses.dataclass
class StageState:
    """What the log says about a stage of a round as a whole."""

    lease: float = 600.0  # seconds
    title: str = ""  # the experiment's name
    guide: str = ""  # what people are told about their work, plain text
    closed: int | None = None  # id of the event after which nothing counts
    items: list[str] = dataclasses.field(default_factory=list)


def answer_of(item: Item) -> str | None:
    """Returns the answer that counts: the adjudicated one, or else the most frequent one.

    Of equally frequent answers, the one that was submitted first counts. None if nobody has
    answered, or if the item was withdrawn or set aside.
    """
    if item.withdrawn is not None or item.set_aside is not None:
        return None
    if item.adjudicated is not None:
        return item.adjudicated
    return None if (most := _plurality(item)) is None else most.answer


def chosen(item: Item) -> Assignment | None:
    """Returns the assignment whose answer counts: the first that was submitted with `answer_of`.

    If the item was adjudicated to an answer that nobody gave, this is the assignment that would
    have counted otherwise. None if no answer counts.
    """
    answer = answer_of(item)
    if answer is None:
        return None
    alike = (a for a in item.submissions if same(item, a.answer, answer))
    return next(alike, _plurality(item))


def same(item: Item, one: str | None, two: str | None) -> bool:
    """Whether two answers to an item are the same. None stands for no answer."""
    return item.rule.same(one, two)


def canonical(item: Item, text: str) -> str:
    """Returns a form of an answer that is equal for answers that are the same."""
    return item.rule.canonical(text)


def is_gold(item: Item, answer: str | None) -> bool:
    """Whether an answer to a gold item is right: there may be several right answers."""
    return any(same(item, answer, right) for right in (item.gold, *item.also_right))


def _plurality(item: Item) -> Assignment | None:
    groups: dict[str, list[Assignment]] = {}
    for assignment in item.submissions:
        groups.setdefault(canonical(item, assignment.answer or ""), []).append(assignment)
    return max(groups.values(), key=len)[0] if groups else None  # the first of the longest
