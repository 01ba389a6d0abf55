"""Converts tokens to text and typed text to tokens, and formats decomposition trees as text."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Int

from amplify.errors import AmplifyError
from amplify.task_abilities import answer_parser_of, knows_truth, search_of
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

# An unusable reply of a language model is answered with the message of `read_question` or
# `read_answer`, and a replay finds a recorded reply by what was sent. So they stay as they are.

Tree = dict[str, Any]
"""`{"question", "answer", "by", "right", "steps": [Tree, ...]}`, as text; without "right" if the
task does not know the truth. The root of a tree that is kept or shown also has "facts".
"""


def format_tokens(task: Task, tokens: Int[np.ndarray, " length"]) -> str:
    """Formats a fact, question or answer as text.

    Args:
        task: the task that it belongs to.
        tokens: its tokens; trailing padding is dropped.

    Returns:
        The text; for "don't know", the vocabulary's word for it; for FAILED, "(no answer)".
    """
    return _format(task, tuple(tokens.tolist()))


@functools.lru_cache(maxsize=100_000)
def _format(task: Task, tokens: tuple[int, ...]) -> str:
    if FAILED in tokens:
        return "(no answer)"
    vocabulary = _vocabulary(task)
    words = [vocabulary[token] for token in tokens]
    while len(words) > 1 and words[-1] == vocabulary[DONT_KNOW]:
        words.pop()
    return task.show(words)


@functools.cache
def _vocabulary(task: Task) -> tuple[str, ...]:
    return task.vocabulary


def read_question(task: Task, text: str) -> Int[np.ndarray, " question_length"]:
    """Converts a question typed by a person or a language model to tokens.

    Args:
        task: parses the question.
        text: the question as typed.

    Returns:
        The question's tokens.

    Raises:
        AmplifyError: if the text is not a question; the message describes valid questions.
    """
    check_text(text)
    try:
        tokens = _tokens(task, task.parse(text))
    except (ValueError, KeyError) as error:
        raise AmplifyError(f"{_quote(text)} is no question: {error}") from None
    if len(tokens) != task.question_length:
        raise AmplifyError(
            f"{_quote(text)} is no question: {len(tokens)} tokens, in place of"
            f" {task.question_length}"
        )
    return tokens


def read_answer(task: Task, text: str) -> Int[np.ndarray, " answer_length"]:
    """Converts an answer typed by a person or a language model to tokens.

    Args:
        task: parses the answer.
        text: the answer as typed.

    Returns:
        The answer's tokens, padded.

    Raises:
        AmplifyError: if the text is not an answer; the message describes valid answers.
    """
    check_text(text)
    try:
        tokens = _tokens(task, _answer_words(task, text))
    except (ValueError, KeyError) as error:
        raise AmplifyError(f"{_quote(text)} is no answer: {error}") from None
    if not 0 < len(tokens) <= task.answer_length:
        raise AmplifyError(
            f"{_quote(text)} is no answer: it must have 1 to {task.answer_length} tokens"
        )
    return np.pad(tokens, (0, task.answer_length - len(tokens)))


def check_text(text: str) -> None:
    """Checks that a string can be encoded as UTF-8.

    Args:
        text: the string.

    Raises:
        AmplifyError: if it contains a lone surrogate.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise AmplifyError(
            f"{_quote(text)} is no text: character {error.start + 1} is half of a pair"
        ) from None


def _quote(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:197] + "...")


def _answer_words(task: Task, text: str) -> list[str]:
    if (parse := answer_parser_of(task)) is not None:
        return parse(text)
    return [text] if text in _token_ids(task) else text.split()  # a word may have a space in it


def _tokens(task: Task, words: list[str]) -> Int[np.ndarray, " words"]:
    token_ids = _token_ids(task)
    return np.array([token_ids[word] for word in words], np.int32)


@functools.cache
def _token_ids(task: Task) -> dict[str, int]:
    return {word: token for token, word in enumerate(_vocabulary(task))}


def describe_tree(
    task: Task,
    context: Int[np.ndarray, "facts fact_length"],
    interaction: Interaction,
    row: int,
    column: int,
    parts: Sequence[str] = (),
) -> Tree:
    """Formats the decomposition tree of one item of a batch as text.

    Args:
        task: formats questions and answers.
        context: the item's context.
        interaction: NumPy arrays with two leading axes, batch and questions.
        row: the item's index along the first axis.
        column: the item's index along the second axis.
        parts: names of the parts whose answers are marked `types.OTHERS` and above, in this order.

    Returns:
        The tree.
    """
    by = int(interaction.answered_by[row, column])
    question, answer = (np.asarray(x)[row, column] for x in interaction[:2])
    asked = [step.sub for step in interaction.steps if step.asked[row, column]]
    return {
        "question": format_tokens(task, question),
        "answer": format_tokens(task, answer),
        "by": ANSWERED_BY[by] if by < OTHERS else parts[by - OTHERS],
        **correctness(task, context, question, answer),
        "steps": [
            describe_tree(task, context, sub, row, column, parts) for sub in asked if by == OVERSEER
        ],
    }


def describe_context(
    task: Task, context: Int[np.ndarray, "facts fact_length"]
) -> dict[str, list[str]]:
    """Formats the context that the question of a tree is about.

    Args:
        task: formats facts.
        context: padded with zeros.

    Returns:
        `{"facts": [...]}`; empty if the task searches for contexts, since then nothing but the
        question is given.
    """
    if search_of(task):
        return {}
    return {"facts": [format_tokens(task, fact) for fact in np.asarray(context) if fact.any()]}


def correctness(
    task: Task,
    context: Int[np.ndarray, "facts fact_length"],
    question: Int[np.ndarray, " question_length"],
    answer: Int[np.ndarray, " answer_length"],
) -> dict[str, bool]:
    """Judges an answer, if the task knows the truth.

    Args:
        task: the task.
        context: the context that the question is about.
        question: the question.
        answer: the answer to judge.

    Returns:
        `{"right": whether the answer is right}`; empty if the task does not know the truth.
    """
    return {"right": is_right(task, context, question, answer)} if knows_truth(task) else {}


def is_right(
    task: Task,
    context: Int[np.ndarray, "facts fact_length"],
    question: Int[np.ndarray, " question_length"],
    answer: Int[np.ndarray, " answer_length"],
) -> bool:
    """Whether an answer is right.

    Args:
        task: a task that knows the truth.
        context: the context that the question is about.
        question: the question.
        answer: the answer to judge.
    """
    return bool(jax.device_get(_is_right(task, context, question, answer)))


@functools.partial(jax.jit, static_argnums=0)
def _is_right(
    task: Task,
    context: Int[Array, "facts fact_length"],
    question: Int[Array, " question_length"],
    answer: Int[Array, " answer_length"],
) -> Bool[Array, ""]:
    return task.is_right(context, question, answer)
