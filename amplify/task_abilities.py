"""What a task may have beside what every task has (`types.Task`): a truth, a strategy, sizes, a
search, ways to type and to compare answers.

An ability is an attribute of the task, a method or a value; a task that lacks the attribute, or has
None in its place, does without. Nothing is inherited and nothing is declared elsewhere. Whoever
needs an ability asks for it here, by the function named after it, and gets it as a value.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Int, Key

from amplify.answers import EXACT, AnswerRule
from amplify.types import Strategy, Task

TRUTH = ("truth", "is_right")
"""What a task has that knows the truth; both are None in one that does not."""

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "truth": ("context", "question"),
    "is_right": ("context", "question", "answer"),
    "strategy": ("question",),
    "draw_context_of_size": ("key", "size"),
    "find": ("questions",),
    "supports": ("context", "question"),
    "parse_answer": ("text",),
    "expand": ("part",),
}
"""The arguments that each function takes, where a task has it."""


def knows_truth(task: Task) -> bool:
    """Whether a task says what is true. Where `truth` and `is_right` are None, nobody knows, and
    there are no measures of right and wrong.
    """
    return all(getattr(task, name) is not None for name in TRUTH)


def strategy_of(task: Task) -> Callable[[Int[Array, "*b question_length"]], Strategy] | None:
    """How a person who knows no facts would take a question apart: the simulated overseer.

    A strategy never sees a context, and works on any leading shape. Told true sub-answers, it is
    right or says "don't know". In a task of an experiment's own that knows the truth, this is
    checked on a hundred questions before round 0. An overseer that is meant to err needs an
    attribute `strategy_accuracy` of the task: the least share of these questions about which it is
    not wrong, from 0 to 1; 0 allows anything.

    Args:
        task: has, or lacks, a method `strategy(question)`.

    Returns:
        The method; None where the task does not say how it is taken apart.
    """
    return getattr(task, "strategy", None)


class Sizes(NamedTuple):
    """Contexts of several sizes, so that a curriculum can begin with small ones."""

    smallest: int  # size of context that makes sense
    largest: int  # size of what `Task.draw_context` draws
    draw_context: Callable[[Key[Array, ""], Int[Array, ""]], Int[Array, "facts fact_length"]]
    """Takes a key, which is consumed, and a size in smallest..largest. Draws a context of so many
    symbols, filled up with facts of zeros."""


def sizes_of(task: Task) -> Sizes | None:
    """The sizes of a task's contexts.

    Args:
        task: has, or lacks, `smallest`, `largest` and `draw_context_of_size(key, size)`.

    Returns:
        None where all contexts are of one size.
    """
    smallest, largest = (getattr(task, name, None) for name in ("smallest", "largest"))
    draw_context = getattr(task, "draw_context_of_size", None)
    if smallest is None or largest is None or draw_context is None:
        return None
    return Sizes(smallest, largest, draw_context)


class Search(NamedTuple):
    """Contexts that are not given: what its questions find is what the assistant reads."""

    find: Callable[
        [Int[Array, "batch questions question_length"]], Int[Array, "batch facts fact_length"]
    ]
    """What all questions of a problem find together. A question of zeros finds nothing."""
    supports: (
        Callable[[Int[Array, "facts fact_length"], Int[Array, " question_length"]], Bool[Array, ""]]
        | None
    )
    """Whether all that the true answer rests on is in what was found; may be None where nobody
    knows the truth."""


def search_of(task: Task) -> Search | None:
    """The search by which a task's questions find what is read to answer them. Its `draw_context`
    draws what the questions of a problem have in common.

    Args:
        task: has, or lacks, `find(questions)` and `supports(context, question)`.

    Returns:
        None where contexts are given.
    """
    find = getattr(task, "find", None)
    return None if find is None else Search(find, getattr(task, "supports", None))


def answer_parser_of(task: Task) -> Callable[[str], list[str]] | None:
    """How answers are read that are more than words of the vocabulary, one after another.

    Args:
        task: has, or lacks, a method `parse_answer(text)`.

    Returns:
        The method, which takes an answer as a person or a language model types it to words of the
        vocabulary, and raises ValueError, saying what an answer looks like. None where answers are
        words.
    """
    return getattr(task, "parse_answer", None)


def choices_of(task: Task) -> tuple[str, ...]:
    """All answers, as a person types them, where they are so few that a person may be shown them to
    choose from: the task's `choices`. Empty where an answer is typed.
    """
    return getattr(task, "choices", None) or ()


def rule_of(task: Task) -> AnswerRule:
    """When two answers to a task's questions are the same: its `answer_rule`, by which its
    `is_right` must judge, too. Without one, answers are compared exactly.
    """
    rule: Any = getattr(task, "answer_rule", None)
    return EXACT if rule is None else rule


def expander_of(task: Task) -> Callable[[str], str] | None:
    """How a task can be asked to say more about a part of an answer.

    Args:
        task: has, or lacks, a method `expand(part)`.

    Returns:
        The method, which takes the part to the question that asks for more about it, as a person
        would type it. None where there is no such question.
    """
    return getattr(task, "expand", None)
