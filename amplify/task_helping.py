"""Optional abilities of tasks by which an assistant that has learned one task helps whoever judges,
or refines, answers to another. They are attributes of the tasks, as in `task_abilities`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Int, Key

from amplify.task_abilities import Reader, Seen
from amplify.types import Task


class Critique(NamedTuple):
    """What a helper says about every part of any answer, if it is asked."""

    said: Bool[Array, " parts"]  # False: it cannot be asked about the part, or does not know
    flawed: Bool[Array, "parts statements"]  # what it says is wrong with the part


HelpedImpression = Callable[
    [
        Reader,
        Critique,
        Int[Array, "facts fact_length"],
        Int[Array, " question_length"],
        Int[Array, " answer_length"],
        Key[Array, ""],
    ],
    Seen,
]
"""Maps a reader, what a helper says, of which the reader learns what it asks about, a context, a
question about it, an answer and a key, which is consumed, to what the reader makes of the answer.
"""


class Refined(NamedTuple):
    """An answer made of others, without what a critic says is wrong with them."""

    answer: Int[Array, " answer_length"]
    struck: Int[Array, ""]  # number of parts of the first answer that were found to be wrong
    looks: Int[Array, ""]  # number of parts that somebody checked
    asks: Int[Array, ""]  # number of parts about which the critic was asked


Refine = Callable[
    [
        Reader,
        Critique,
        Int[Array, "facts fact_length"],
        Int[Array, " question_length"],
        Int[Array, "answers answer_length"],
        Key[Array, ""],
    ],
    Refined,
]
"""Maps a reader, what a critic says about every part, a context, a question about it, several
answers and a key, which is consumed, to the first answer, refined.
"""


def helped_impression_of(task: Task) -> HelpedImpression | None:
    """What somebody who reads an answer with the help of a model takes it to be worth.

    Args:
        task: may have a method `helped_impression(reader, critique, context, question, answer,
            key)`.

    Returns:
        The method; None if nobody can help a reader of the task's answers.
    """
    return getattr(task, "helped_impression", None)


def refine_of(task: Task) -> Refine | None:
    """How an answer is refined by a critique.

    Args:
        task: may have a method `refine(reader, critique, context, question, answers, key)`.

    Returns:
        The method; None if the task's answers cannot be refined.
    """
    return getattr(task, "refine", None)


class Helping(NamedTuple):
    """What an assistant that has learned a task can tell a judge of answers to another task."""

    fits: Callable[[Task], bool]
    """Whether it can be asked about answers to a task."""
    passages: Callable[[Int[Array, "facts fact_length"]], Int[Array, "parts its_facts fact_length"]]
    """Maps a context of that task to what is read, as a context, about each part that an answer may
    have; the parts are those of `Critique`."""
    question: Int[Array, " question_length"]
    """The question that is asked about each part."""
    critique: Callable[[Int[Array, "parts answer_length"]], Critique]
    """Maps the answers to what they say."""


def helping_of(task: Task) -> Helping | None:
    """What an assistant that has learned a task can tell a judge of answers to another task.

    Args:
        task: may have methods `fits(task)`, `passages(context)` and `critique(answers)`, and a
            property `part_question`.

    Returns:
        How it helps; None if it cannot.
    """
    if getattr(task, "fits", None) is None:
        return None
    parts: Any = task
    return Helping(parts.fits, parts.passages, parts.part_question, parts.critique)
