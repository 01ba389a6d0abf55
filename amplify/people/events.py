"""The kinds of events, what each of them says, and how they are written and read.

The log keeps an event as a row with a JSON body. `new_event` makes such a row from one of the
classes below, and `check_new` keeps anything else out of the log. `read_event` turns a row back
into its class: it is the only place where a log of an older version is given what it lacks, and
where a damaged row is found out.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, NotRequired, Required

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from typing_extensions import TypedDict

from amplify.answers import AnswerRule, rule_from_row
from amplify.errors import first_line
from amplify.people.text import without_surrogates

Kind = Literal[
    "opened", "put", "taken", "released", "draft", "asked", "told", "submitted", "refused",
    "skipped", "undone", "seen", "withdrawn", "adjudicated", "corrected", "set_aside", "closed",
]  # fmt: skip
"""Every kind of event."""

UNREADABLE = "unreadable"
"""Key in the body of an event whose row is damaged: what is wrong with it."""


class Event(NamedTuple):
    """A row of the log."""

    id: int  # in the order of the log, from 1
    at: float  # seconds since 1970
    kind: str  # perhaps of another version of this program
    round: int
    item: str | None = None
    person: str | None = None  # a pseudonym
    checkpoint: str | None = None  # digest of the weights that answered
    seconds: float | None = None  # of a person's attention
    request: str | None = None  # whoever sends the same request twice meant it once
    body: Mapping[str, Any] = {}

    def as_row(self) -> dict[str, Any]:
        """For JSON: without the fields that have no value."""
        return {key: value for key, value in self._asdict().items() if value is not None}


class New(TypedDict, total=False):
    """An event to append: the fields of `Event` without `id` and `at`."""

    kind: Required[Kind]
    round: Required[int]
    item: str | None
    person: str | None
    checkpoint: str | None
    seconds: float | None
    request: str | None
    body: Mapping[str, Any]


class DamagedEventError(Exception):
    """An event does not say what its kind must; the message is the end of a sentence about it."""


# What each kind says


Texts = Annotated[list[str], Field(strict=False)]
Numbers = Annotated[list[int], Field(strict=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class About(TypedDict):
    """The answer, or the part of one, that a person wants to know more about."""

    number: int  # of the exchange with that answer
    part: NotRequired[str]


class Node(TypedDict):
    """A question and its answer in a decomposition tree."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow")  # type: ignore[misc]
    question: str
    answer: str
    by: NotRequired[str]
    steps: NotRequired[Annotated[list["Node"], Field(strict=False)]]


class Tokens(TypedDict):
    """A question and its answer as the task's tokens."""

    question: Numbers
    answer: Numbers


class Body(BaseModel):
    """What an event says. A key that an older log lacks has its default here; keys that another
    version wrote are ignored.
    """

    model_config = ConfigDict(strict=True, frozen=True)
    KIND: ClassVar[Kind]

    @model_validator(mode="before")
    @classmethod
    def _can_be_stored(cls, values: Any) -> Any:
        return without_surrogates(values)  # of a user's own task, say


class OfStage(Body):
    """An event about a stage of a round; any other is about an item, and so about its stage."""

    stage: str = ""
    """Full name of the stage that asks people, such as "reviews/data". "": the round's only one, in
    logs of versions that had no more."""


class Opened(OfStage):
    """A stage of a round began to ask people."""

    KIND = "opened"
    lease: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Seconds without an act after which an item may go to somebody else."""
    title: str = ""
    guide: str = ""
    """The instructions that people see, plain text."""


class Put(OfStage):
    """A question was put up, or an answer for somebody else to check."""

    KIND = "put"
    question: str
    label: str = ""
    choices: Texts | None = None
    budget: int = 0
    overlap: int = 1
    withheld: bool = False
    gold: str | None = None
    also_right: Texts | None = None
    review_of: Annotated[list[str], Field(strict=False, min_length=2, max_length=2)] | None = None
    row: int = -1
    column: int = -1
    rule: dict[str, Any]

    @field_validator("rule")
    @classmethod
    def _is_known(cls, rule: dict[str, Any]) -> dict[str, Any]:
        rule_from_row(rule)
        return rule


class Taken(Body):
    """A person was given an item."""

    KIND = "taken"


class Released(Body):
    """A person returned to an earlier item, and gave back the one in hand."""

    KIND = "released"


class Draft(Body):
    """What a person has typed so far."""

    KIND = "draft"
    text: str


class Asked(Body):
    """A person asked the assistant a sub-question."""

    KIND = "asked"
    text: str
    about: About | None = None


class Told(Body):
    """A sub-question was answered, or could not be."""

    KIND = "told"
    number: int
    """Of the sub-question, within its assignment."""
    text: str | None = None
    problem: str | None = None
    question: str = ""
    by: str = "assistant"
    confidence: Probability | None = None
    steps: Annotated[list[Node], Field(strict=False)] = []
    passages: Texts = []
    tokens: Tokens | None = None


class Submitted(Body):
    """A person gave their final answer."""

    KIND = "submitted"
    answer: str


class Refused(Body):
    """The task cannot read a final answer, which goes back to whoever gave it."""

    KIND = "refused"
    problem: str


class Skipped(Body):
    """A person passed on an item."""

    KIND = "skipped"
    reason: str


class Undone(Body):
    """A person took back an earlier event of theirs."""

    KIND = "undone"
    event: int
    what: str = ""
    """The kind of that event."""


class Seen(Body):
    """A person was shown who told them what."""

    KIND = "seen"


class Withdrawn(Body):
    """Nobody is asked about an item any more, and no answer to it counts."""

    KIND = "withdrawn"
    reason: str = ""


class Adjudicated(Body):
    """Somebody decided which answer counts."""

    KIND = "adjudicated"
    answer: str


class Corrected(Body):
    """A final answer was corrected, or with a `number` what the assistant said to a
    sub-question.
    """

    KIND = "corrected"
    answer: str
    person: str | None = None
    number: int | None = None


class PutAside(Body):
    """The answer that counts cannot be used by the task."""

    KIND = "set_aside"
    reason: str


class Closed(OfStage):
    """Whatever happens afterwards does not change what the stage made of people's answers."""

    KIND = "closed"


BODIES: Mapping[str, type[Body]] = {
    body.KIND: body
    for body in (
        Opened, Put, Taken, Released, Draft, Asked, Told, Submitted, Refused, Skipped, Undone, Seen,
        Withdrawn, Adjudicated, Corrected, PutAside, Closed,
    )
}  # fmt: skip


# The writer and the reader


def new_event(
    body: Body,
    round: int,
    *,
    item: str | None = None,
    person: str | None = None,
    checkpoint: str | None = None,
    request: str | None = None,
) -> New:
    """Returns an event to append to the log.

    Args:
        body: what it says; its class decides the event's kind.
        round: number of the round that it belongs to.
        item: the item that it is about.
        person: pseudonym of whoever did it.
        checkpoint: digest of the assistant's weights.
        request: an id; of several events with the same one, only the first is appended.
    """
    event: New = {"kind": body.KIND, "round": round, "body": body.model_dump(exclude_unset=True)}
    if item is not None:
        event["item"] = item
    if person is not None:
        event["person"] = person
    if checkpoint is not None:
        event["checkpoint"] = checkpoint
    if request is not None:
        event["request"] = request
    return event


def check_new(event: New) -> None:
    """Checks that an event may be written to the log.

    Raises:
        ValueError: its kind is unknown, or its body lacks a key, has an unknown one or a value of
            another type.
    """
    kind, body = event["kind"], event.get("body", {})
    if kind not in BODIES:
        raise ValueError(f"an event's kind must be one of {', '.join(BODIES)}; got {kind!r}")
    known = BODIES[kind].model_fields
    if unknown := [key for key in body if key not in known]:
        allowed = ", ".join(known) or "nothing"
        raise ValueError(f"{kind!r} says {allowed}; it cannot say {', '.join(unknown)}")
    BODIES[kind].model_validate(_of_this_version(kind, body))


def read_event(event: Event) -> Body | None:
    """Returns what an event of the log says; None for a kind that this version does not know.

    Raises:
        DamagedEventError: its row cannot be read, or does not say what its kind must.
    """
    if UNREADABLE in event.body:
        raise DamagedEventError(str(event.body[UNREADABLE]))
    if event.kind not in BODIES:
        return None
    try:
        return BODIES[event.kind].model_validate(_of_this_version(event.kind, event.body))
    except ValidationError as error:
        fault = error.errors()[0]
        what = ".".join(map(str, fault["loc"]))
        reason = f"does not say what it should ({what}: {fault['msg']})"
        raise DamagedEventError(reason) from None
    except RecursionError as error:
        raise DamagedEventError(f"cannot be read ({first_line(error)})") from None


def _of_this_version(kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A body with what older versions wrote otherwise; what they only left out has a default."""
    if kind == "put" and body.get("rule") is None:
        # They compared free text whatever its case, and named how a rule came about "way".
        rule = AnswerRule("exact" if body.get("choices") else "caseless", str(body.get("way", "")))
        return {**body, "rule": rule.as_row()}
    return body
