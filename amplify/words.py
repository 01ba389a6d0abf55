"""Tokens as a person reads and types them, and decomposition trees in words."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Int

from amplify.errors import AmplifyError
from amplify.task_abilities import answer_parser_of, knows_truth
from amplify.types import (
    ASSISTANT,
    DONT_KNOW,
    ENVIRONMENT,
    FAILED,
    OTHERS,
    OVERSEER,
    Interaction,
    Task,
)

ANSWERED_BY = {ASSISTANT: "assistant", ENVIRONMENT: "environment", OVERSEER: "overseer"}

Tree = dict[str, Any]
"""`{"question", "answer", "by", "right", "steps": [Tree, ...]}`, in words. There is no "right"
where nobody knows the truth.
"""


def shown(task: Task, tokens: Int[np.ndarray, " length"]) -> str:
    """A fact, question or answer as text; "don't know" as the vocabulary's word for it."""
    return _text(task, tuple(tokens.tolist()))


@functools.lru_cache(maxsize=100_000)
def _text(task: Task, tokens: tuple[int, ...]) -> str:
    if FAILED in tokens:
        return "(none was had)"
    vocabulary = _vocabulary(task)
    words = [vocabulary[token] for token in tokens]
    while len(words) > 1 and words[-1] == vocabulary[DONT_KNOW]:
        words.pop()
    return task.show(words)


@functools.cache
def _vocabulary(task: Task) -> tuple[str, ...]:
    return task.vocabulary


def read_question(task: Task, text: str) -> Int[np.ndarray, " question_length"]:
    """The tokens of a question that a person or a model typed.

    Raises:
        AmplifyError: saying what is allowed.
    """
    check_text(text)
    try:
        tokens = _tokens(task, task.parse(text))
    except (ValueError, KeyError) as error:
        raise AmplifyError(f"{_short(text)} is no question: {error}") from None
    if len(tokens) != task.question_length:
        raise AmplifyError(
            f"{_short(text)} is no question: {len(tokens)} tokens, in place of"
            f" {task.question_length}"
        )
    return tokens


def read_answer(task: Task, text: str) -> Int[np.ndarray, " answer_length"]:
    """The tokens of an answer that was typed. Raises AmplifyError saying what is allowed."""
    check_text(text)
    try:
        tokens = _tokens(task, _answer_words(task, text))
    except (ValueError, KeyError) as error:
        raise AmplifyError(f"{_short(text)} is no answer: {error}") from None
    if not 0 < len(tokens) <= task.answer_length:
        raise AmplifyError(
            f"{_short(text)} is no answer: it must have 1 to {task.answer_length} tokens"
        )
    return np.pad(tokens, (0, task.answer_length - len(tokens)))


def check_text(text: str) -> None:
    """Raises AmplifyError if a string has characters that no file can hold (lone surrogates)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise AmplifyError(
            f"{_short(text)} is no text: character {error.start + 1} is half of a pair"
        ) from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:197] + "...")


def _answer_words(task: Task, text: str) -> list[str]:
    if (parse := answer_parser_of(task)) is not None:
        return parse(text)
    return [text] if text in _numbers(task) else text.split()  # a word may have a space in it


def _tokens(task: Task, words: list[str]) -> Int[np.ndarray, " words"]:
    numbers = _numbers(task)
    return np.array([numbers[word] for word in words], np.int32)


@functools.cache
def _numbers(task: Task) -> dict[str, int]:
    return {word: token for token, word in enumerate(_vocabulary(task))}


def tree(
    task: Task,
    context: Int[np.ndarray, "facts fact_length"],
    interaction: Interaction,
    row: int,
    column: int,
    parts: Sequence[str] = (),
) -> Tree:
    """The decomposition tree of one item of a batch of interactions (numpy arrays, two leading
    axes).

    Args:
        parts: names of the parts whose answers are marked `types.OTHERS` and above, in this order.
    """
    by = int(interaction.answered_by[row, column])
    question, answer = (np.asarray(x)[row, column] for x in interaction[:2])
    asked = [step.sub for step in interaction.steps if step.asked[row, column]]
    return {
        "question": shown(task, question),
        "answer": shown(task, answer),
        "by": ANSWERED_BY[by] if by < OTHERS else parts[by - OTHERS],
        **judged(task, context, question, answer),
        "steps": [tree(task, context, sub, row, column, parts) for sub in asked if by == OVERSEER],
    }


def judged(
    task: Task,
    context: Int[np.ndarray, "facts fact_length"],
    question: Int[np.ndarray, " question_length"],
    answer: Int[np.ndarray, " answer_length"],
) -> dict[str, bool]:
    """What a tree says of an answer beside the answer itself.

    Returns:
        `{"right": whether it is}`; nothing where the task knows no truth.
    """
    return {"right": is_right(task, context, question, answer)} if knows_truth(task) else {}


def is_right(
    task: Task,
    context: Int[np.ndarray, "facts fact_length"],
    question: Int[np.ndarray, " question_length"],
    answer: Int[np.ndarray, " answer_length"],
) -> bool:
    """Whether an answer is true, of a task that knows the truth."""
    return bool(jax.device_get(_is_right(task, context, question, answer)))


@functools.partial(jax.jit, static_argnums=0)
def _is_right(
    task: Task,
    context: Int[Array, "facts fact_length"],
    question: Int[Array, " question_length"],
    answer: Int[Array, " answer_length"],
) -> Bool[Array, ""]:
    return task.is_right(context, question, answer)
