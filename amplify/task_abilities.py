"""Optional abilities of a task, beyond `types.Task`: a truth, a strategy, context sizes, search,
parsing and comparing answers.

An ability is an attribute of the task, a method or a value; a task without the ability lacks the
attribute or sets it to None. Nothing is inherited or registered. Each function below returns one
ability as a value.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from jaxtyping import Array, Bool, Float, Int, Key

from amplify.answers import EXACT, AnswerRule
from amplify.types import Strategy, Task

TRUTH = ("truth", "is_right")
"""Attributes of a task that knows the truth; both are None in a task that does not."""

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "truth": ("context", "question"),
    "is_right": ("context", "question", "answer"),
    "strategy": ("question",),
    "draw_context_of_size": ("key", "size"),
    "find": ("questions",),
    "supports": ("context", "question"),
    "parse_answer": ("text",),
    "expand": ("part",),
    "gold": ("context", "question", "answer"),
    "gold_parts": ("context", "question", "answer"),
    "draft": ("context", "question", "key"),
    "focused_draft": ("context", "question", "key"),
    "impression": ("reader", "context", "question", "answer", "key"),
    "helped_impression": ("reader", "critique", "context", "question", "answer", "key"),
    "refine": ("reader", "critique", "context", "question", "answers", "key"),
}
"""Argument names of each optional method."""


def knows_truth(task: Task) -> bool:
    """Whether a task knows the true answers.

    Args:
        task: its `truth` and `is_right` are methods, or None; then there are no measures of
            accuracy.
    """
    return all(getattr(task, name) is not None for name in TRUTH)


def strategy_of(task: Task) -> Callable[[Int[Array, "*b question_length"]], Strategy] | None:
    """The strategy by which the simulated overseer decomposes a task's questions, as a person who
    does not know the facts would.

    A strategy never sees a context, and works on any leading axes. Given true sub-answers, it
    returns the right answer or "don't know". For a user-defined task that knows the truth, this is
    checked on a hundred questions before round 0. A strategy that is meant to err needs a task
    attribute `strategy_accuracy`: the smallest fraction of these questions that it must not get
    wrong, from 0 to 1.

    Args:
        task: may have a method `strategy(question)`.

    Returns:
        The method; None if the task has no strategy.
    """
    return getattr(task, "strategy", None)


Gold = Callable[
    [
        Int[Array, "facts fact_length"],
        Int[Array, " question_length"],
        Int[Array, " answer_length"],
    ],
    Float[Array, ""],
]
"""Maps a context, a question about it and an answer to what the answer is worth."""


class GoldParts(NamedTuple):
    """The worth of an answer, divided between what a task has in focus and all else."""

    focus: Float[Array, ""]  # of what is in focus by itself; 0 in the mean of drafts
    other: Float[Array, ""]  # what all else adds to it; both add up to gold
    outside: Float[Array, ""]  # share of the answer's parts that are not in focus


PartsOfGold = Callable[
    [
        Int[Array, "facts fact_length"],
        Int[Array, " question_length"],
        Int[Array, " answer_length"],
    ],
    GoldParts,
]
"""Maps a context, a question about it and an answer to what its parts are worth."""


Checks = Literal["random", "unsure", "stakes"]
"""Which parts of an answer a reader checks first: any; those that are the least certain; or those
that are uncertain and on which the answer's worth depends the most."""


class Critic(NamedTuple):
    """Somebody who points at the parts of an answer that are wrong, and may err."""

    accuracy: float  # probability that the critic is right about a part, each independently
    believed: bool  # whether a reader takes the critic's word for it instead of checking


class Reader(NamedTuple):
    """How somebody reads an answer."""

    looks: int
    """Number of parts of an answer that the reader checks; the others are judged by what they seem.
    """
    credulity: float
    """0: the reader allows for how often what seems right is right; 1: it counts as right."""
    attentive: bool
    """Whether the reader notices what only the whole answer shows, such as repeats."""
    checks: Checks = "random"
    """What the reader checks first, without a critic."""
    critic: Critic | None = None
    """Who points at what to check first; None: nobody."""
    asks: int = 0
    """Parts about which the reader asks a helper, if there is one."""
    believes: bool = False
    """Whether the reader takes the helper's word for it instead of checking."""


class Seen(NamedTuple):
    """What a reader makes of an answer."""

    worth: Float[Array, ""]  # what the reader takes it to be worth, in the unit of `gold_of`
    looks: Int[Array, ""]  # number of parts that the reader checked
    asks: Int[Array, ""] | int = 0  # number of parts about which it asked a helper


Impression = Callable[
    [
        Reader,
        Int[Array, "facts fact_length"],
        Int[Array, " question_length"],
        Int[Array, " answer_length"],
        Key[Array, ""],
    ],
    Seen,
]
"""Maps a reader, a context, a question about it, an answer and a key, which is consumed, to what
the reader makes of the answer.
"""

Draft = Callable[
    [Int[Array, "facts fact_length"], Int[Array, " question_length"], Key[Array, ""]],
    Int[Array, " answer_length"],
]
"""Maps a context, a question about it and a key, which is consumed, to an answer."""


class Sizes(NamedTuple):
    """Contexts of different sizes, for a curriculum that starts with small ones."""

    smallest: int  # smallest meaningful size
    largest: int  # size of contexts from `Task.draw_context`
    draw_context: Callable[[Key[Array, ""], Int[Array, ""]], Int[Array, "facts fact_length"]]
    """Takes a key (consumed) and a size in smallest..largest; draws a context of that many symbols,
    padded with facts of zeros."""


def sizes_of(task: Task) -> Sizes | None:
    """The sizes of contexts that a task can draw.

    Args:
        task: may have `smallest`, `largest` and `draw_context_of_size(key, size)`.

    Returns:
        The sizes; None if all contexts have the same size.
    """
    smallest, largest = (getattr(task, name, None) for name in ("smallest", "largest"))
    draw_context = getattr(task, "draw_context_of_size", None)
    if smallest is None or largest is None or draw_context is None:
        return None
    return Sizes(smallest, largest, draw_context)


class Search(NamedTuple):
    """Retrieval: the assistant reads what the questions of a problem find."""

    find: Callable[
        [Int[Array, "batch questions question_length"]], Int[Array, "batch facts fact_length"]
    ]
    """Retrieves one context for all questions of a problem. A question of zeros finds nothing."""
    supports: (
        Callable[[Int[Array, "facts fact_length"], Int[Array, " question_length"]], Bool[Array, ""]]
        | None
    )
    """Whether a retrieved context has everything that the true answer rests on; may be None if the
    task does not know the truth."""


def search_of(task: Task) -> Search | None:
    """The search of a retrieval task: its `draw_context` draws what the questions of a problem have
    in common, and its `find` retrieves the context that the assistant reads.

    Args:
        task: may have `find(questions)` and `supports(context, question)`.

    Returns:
        The search; None if contexts are drawn rather than retrieved.
    """
    find = getattr(task, "find", None)
    return None if find is None else Search(find, getattr(task, "supports", None))


def answer_parser_of(task: Task) -> Callable[[str], list[str]] | None:
    """The task's own parser of answers.

    Args:
        task: may have a method `parse_answer(text)`.

    Returns:
        The method, which maps an answer as typed by a person or a language model to words of the
        vocabulary, and raises ValueError with a description of valid answers. None if answers are
        words of the vocabulary, separated by spaces.
    """
    return getattr(task, "parse_answer", None)


def choices_of(task: Task) -> tuple[str, ...]:
    """All possible answers, if they are few enough for people to choose from a list.

    Args:
        task: may have `choices`.

    Returns:
        The answers as people type them; empty if answers are typed.
    """
    return getattr(task, "choices", None) or ()


def rule_of(task: Task) -> AnswerRule:
    """The rule by which two answers to a task's questions are compared.

    Args:
        task: may have an `answer_rule`, which its `is_right` must follow, too.

    Returns:
        The rule; `EXACT` if the task has none.
    """
    rule: Any = getattr(task, "answer_rule", None)
    return EXACT if rule is None else rule


def gold_of(task: Task) -> Gold | None:
    """What answers are really worth, for a task whose answers are more or less good.

    Only evals and scorers that the experiment file names may ask; no other training signal does.

    Args:
        task: may have a method `gold(context, question, answer)`.

    Returns:
        The method, whose values have mean 0 and standard deviation 1 over `draft_of`'s answers;
        None if the task's answers are right or wrong.
    """
    return getattr(task, "gold", None)


def gold_parts_of(task: Task) -> PartsOfGold | None:
    """What answers are really worth, divided by what a task has in focus. For evals only.

    Args:
        task: may have a `focus`, and then has a method `gold_parts(context, question, answer)`.

    Returns:
        The method; None if the task has no focus.
    """
    return None if getattr(task, "focus", None) is None else getattr(task, "gold_parts", None)


def impression_of(task: Task) -> Impression | None:
    """What somebody who reads an answer takes it to be worth.

    Args:
        task: may have a method `impression(reader, context, question, answer, key)`.

    Returns:
        The method; None if the task does not simulate readers.
    """
    return getattr(task, "impression", None)


def statements_of(task: Task) -> int:
    """How many statements somebody reads who reads an answer: what reading it costs.

    Args:
        task: may have `statements`.

    Returns:
        The number; 1 if the task does not say.
    """
    return getattr(task, "statements", 1)


def draft_of(task: Task) -> Draft | None:
    """How somebody answers who does not know what is right; the first policy imitates it.

    Args:
        task: may have a method `draft(context, question, key)`.

    Returns:
        The method, which draws an answer; None if the task has no drafts.
    """
    return getattr(task, "draft", None)


def focused_draft_of(task: Task) -> Draft | None:
    """How somebody answers who does not know what is right, and keeps to what is in focus.

    Args:
        task: may have a `focus`, and then has a method `focused_draft(context, question, key)`.

    Returns:
        The method, which draws an answer; None if the task has no focus.
    """
    return None if getattr(task, "focus", None) is None else getattr(task, "focused_draft", None)


def expander_of(task: Task) -> Callable[[str], str] | None:
    """The task's way to ask for more about a part of an answer.

    Args:
        task: may have a method `expand(part)`.

    Returns:
        The method, which maps part of an answer to a question about it, as a person would type it.
        None if the task has no such questions.
    """
    return getattr(task, "expand", None)
