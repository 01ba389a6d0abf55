"""Checks the classes in an experiment's own code before a round begins."""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

from amplify.errors import AmplifyError
from amplify.experiment.validation import quote_value, suggestion
from amplify.models.abilities import preparer_of
from amplify.oversight.work import Oversight
from amplify.task_abilities import TRUTH
from amplify.types import OverseerKind, Task

WANTED: dict[str, type] = {"task": Task, "oversight": Oversight}
"""Protocols of the sections whose class is used directly; the classes of others have `build`."""
SIZES = ("facts", "fact_length", "question_length", "answer_length", "max_depth")


def check_class(kind: Any, section: str, named: str) -> None:
    """Checks that a class is a frozen dataclass with the methods that its section needs.

    Args:
        kind: the class, or whatever the name in the file refers to.
        section: "task", "assistant", "overseer" or "oversight".
        named: how errors begin.

    Raises:
        AmplifyError: if it is not.
    """
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        raise AmplifyError(f"{named}, which must be a frozen dataclass, got {_what(kind)}")
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise AmplifyError(f"{named}, which must be a frozen dataclass: @dataclass(frozen=True)")
    wanted = _members(WANTED[section]) if section in WANTED else ["build"]
    there = {*dir(kind), *(field.name for field in dataclasses.fields(kind))}
    if missing := [name for name in wanted if name not in there]:
        hint = suggestion(missing[0], sorted(there - {*wanted})) if len(missing) == 1 else ""
        raise AmplifyError(f"{named}, which lacks {', '.join(missing)}{hint}")


def check_task(task: Any, named: str) -> None:
    """Checks a task's sizes, its optional functions and that it is hashable.

    Args:
        task: the task.
        named: how errors begin.

    Raises:
        AmplifyError: for the first problem.
    """
    for name in SIZES:
        value = getattr(task, name)
        if type(value) is not int or value < 1:
            raise AmplifyError(f"{named}: {name} must be 1 or more, got {quote_value(value)}")
    if len({getattr(task, name) is None for name in TRUTH}) > 1:
        raise AmplifyError(f"{named}: {' and '.join(TRUTH)} must both be functions, or both None")
    try:
        hash(task)
    except TypeError as error:
        raise AmplifyError(f"{named}: its fields must be hashable ({error})") from None
    if preparer_of(task) is None:
        check_names(task, named)


def check_names(task: Any, named: str) -> None:
    """Checks that a task's tokens and classes are tuples of distinct strings.

    For a task that must be prepared first, this is called afterwards.

    Args:
        task: the task.
        named: how errors begin.

    Raises:
        AmplifyError: for the first problem.
    """
    for name in ("vocabulary", "classes"):
        value = getattr(task, name)
        if not isinstance(value, tuple) or not all(isinstance(one, str) for one in value):
            raise AmplifyError(
                f"{named}: {name} must be a tuple of strings, got {quote_value(value)}"
            )
        if not value:
            raise AmplifyError(f"{named}: {name} must not be empty")
        # A tokenizer's vocabulary has "" for each unused id.
        [(often, count)] = collections.Counter(filter(None, value)).most_common(1) or [("", 1)]
        if count > 1:
            raise AmplifyError(
                f"{named}: {name} must not have {often!r} twice, got {quote_value(value)}"
            )


def check_overseer(overseer: Any, streams: bool, named: str) -> None:
    """Checks that what `build` returned is an overseer.

    Args:
        overseer: the object.
        streams: whether answers are streamed, in a compiled training step.
        named: how errors begin.

    Raises:
        AmplifyError: if it is not one, or cannot be used for streaming.
    """
    if missing := [name for name in _members(OverseerKind) if not hasattr(overseer, name)]:
        raise AmplifyError(f"{named}: what build returned lacks {', '.join(missing)}")
    for name in ("traced", "replayable"):
        if not isinstance(getattr(overseer, name), bool):
            value = quote_value(getattr(overseer, name))
            raise AmplifyError(f"{named}: {name} must be True or False, got {value}")
    if streams and not overseer.traced:
        raise AmplifyError(
            f'{named}: training.targets must be "stored" for an overseer that is not traced: it'
            " cannot be asked at every step"
        )
    try:
        hash(overseer)
    except TypeError as error:
        raise AmplifyError(f"{named}: the overseer's fields must be hashable ({error})") from None


def _members(protocol: type) -> Iterator[str]:
    return (name for name in vars(protocol) if not name.startswith("_") and name != "__hash__")


def _what(kind: Any) -> str:
    return "an ordinary class" if isinstance(kind, type) else quote_value(kind)
