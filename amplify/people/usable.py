"""Validates the log's events before `state` applies them.

A log outlives the version that wrote it, and its lines may be damaged. An event that lacks what its
kind requires, or that refers to something unknown, is set aside with the reason; the others are
applied as if it were not there.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from amplify.answers import rule_from_row
from amplify.errors import first_line
from amplify.events import UNREADABLE, Event
from amplify.people.items import Assignment, Item

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Texts = Annotated[list[str], Field(strict=False)]
Numbers = Annotated[list[int], Field(strict=False)]


class Body(BaseModel):
    """What the body of an event must contain; further keys are ignored."""

    model_config = ConfigDict(strict=True)


class Opened(Body):
    lease: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Put(Body):
    question: str
    label: str = ""
    choices: Texts | None = None
    budget: int = 0
    overlap: int = 1
    gold: str | None = None
    also_right: Texts | None = None
    review_of: Annotated[list[str], Field(strict=False, min_length=2, max_length=2)] | None = None
    row: int = -1
    column: int = -1
    rule: dict[str, Any] | None = None

    @field_validator("rule")
    @classmethod
    def known(cls, rule: dict[str, Any] | None) -> dict[str, Any] | None:
        if rule is not None:
            rule_from_row(rule)
        return rule


class About(Body):
    number: int
    part: str = ""


class Asked(Body):
    text: str
    about: About | None = None


class Step(Body):
    question: str
    answer: str
    by: str = ""
    steps: Annotated[list["Step"], Field(strict=False)] = []


class Tokens(Body):
    question: Numbers
    answer: Numbers


class Told(Body):
    number: int
    text: str | None = None
    problem: str | None = None
    question: str = ""
    by: str = ""
    confidence: Share | None = None
    steps: Annotated[list[Step], Field(strict=False)] = []
    passages: Texts = []
    tokens: Tokens | None = None


class Typed(Body):
    text: str


class Answered(Body):
    answer: str


class Reason(Body):
    reason: str


class Problem(Body):
    problem: str


class Undone(Body):
    event: int


class Corrected(Body):
    answer: str
    person: str | None = None
    number: int | None = None


BODIES: Mapping[str, type[Body]] = {
    "opened": Opened,
    "put": Put,
    "asked": Asked,
    "told": Told,
    "draft": Typed,
    "submitted": Answered,
    "skipped": Reason,
    "refused": Problem,
    "undone": Undone,
    "adjudicated": Answered,
    "corrected": Corrected,
    "set_aside": Reason,
}
"""By kind of event; other kinds have no body."""
OF_WORK = {
    "released",
    "draft",
    "asked",
    "told",
    "submitted",
    "refused",
    "skipped",
    "undone",
    "seen",
}
"""Kinds of events about one person's work on an item."""
OF_ITEM = {"taken", "withdrawn", "adjudicated", "corrected", "set_aside", *OF_WORK}
"""Kinds of events about an item."""


def why_not(event: Event, items: Mapping[str, Item], acts: Mapping[str, Sequence[Event]]) -> str:
    """Returns why an event cannot be applied, as the end of a sentence about it; "" if it can.

    Args:
        items: the items that were put up before it.
        acts: each person's acts that could be undone.
    """
    if UNREADABLE in event.body:
        return str(event.body[UNREADABLE])
    if event.kind in BODIES:
        try:
            BODIES[event.kind].model_validate(event.body)
        except ValidationError as error:
            fault = error.errors()[0]
            what = ".".join(map(str, fault["loc"]))
            return f"does not say what it should ({what}: {fault['msg']})"
        except RecursionError as error:
            return f"cannot be read ({first_line(error)})"
    if event.kind == "put":
        return _why_not_put(event, items)
    if event.kind not in OF_ITEM:
        return ""
    item, person = items.get(event.item or ""), event.person or ""
    if item is None:
        return "is about a question that was never put up"
    if event.kind == "taken" and not person:
        return "does not say who took the question"
    if event.kind in OF_WORK and person not in item.assignments:
        return "is by somebody who was not given the question"
    if event.kind == "told":
        return _why_not_of(item.assignments[person], event.body["number"])
    if event.kind == "undone" and all(
        act.id != event.body["event"] or act.item != item.id for act in acts.get(person, ())
    ):
        return "takes back something that did not happen"
    if event.kind == "corrected" and event.body.get("person") is not None:
        whose = item.assignments.get(event.body["person"])
        if whose is None:
            return "corrects somebody who was not given the question"
        return _why_not_of(whose, event.body.get("number"))
    return ""


def _why_not_put(event: Event, items: Mapping[str, Item]) -> str:
    if event.item is None:
        return "does not say which question it puts up"
    item, person = event.body.get("review_of") or (None, None)
    if item is not None and (item not in items or person not in items[item].assignments):
        return "checks an answer that is not there"
    return ""


def _why_not_of(whose: Assignment, number: int | None) -> str:
    """Of an answer to that sub-question; None is a final answer."""
    known = number is None or 0 < number <= len(whose.exchanges)
    return "" if known else "is about a sub-question that was not asked"
