"""Decides what a simulated person does next, given the page in front of them.

They know the task's strategy for decomposing questions, and no facts. The exchanges on the page say
how far the strategy has got, so nothing is remembered from page to page, and whoever is interrupted
continues from what they see. Whoever reviews answers has an impression of each.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from amplify.crowd.page_reader import Page, ReadExchange
from amplify.errors import AmplifyError
from amplify.overseers.habits import CAREFUL, GUESS, SKIP, Habits
from amplify.overseers.learned import count_asks
from amplify.people.impressions import Impressions
from amplify.people.text import shows_something, why_not_kept
from amplify.task_abilities import rule_of, strategy_of
from amplify.types import DONT_KNOW, Task
from amplify.words import format_tokens, read_answer, read_question

STEPS = 2
"""Steps of the scale of scores for each standard deviation of drafts."""


class Action(NamedTuple):
    """The id of a form, and what is typed into it."""

    form: str
    text: str

    @property
    def field(self) -> str:
        return {"ask": "text", "submit": "answer", "skip": "reason"}[self.form]


def decide(task: Task, habits: Habits, page: Page) -> Action:
    """Returns what a person does on a page that waits for no answer.

    Args:
        task: the page's question is one of its questions.
        habits: of the person.
        page: as they see it.

    Returns:
        A form to send. What cannot be typed into a form, such as part of a character, is a reason
        to skip the item.
    """
    action = _decide(task, habits, page)
    if why_not_kept(action.text) or not shows_something(action.text):
        return Action("skip", "I cannot type what I would answer")
    return action


def review(impressions: Impressions, habits: Habits, page: Page) -> Action:
    """Returns what a person does on a page that asks which answer is best, or how good one is.

    Args:
        impressions: what answers seem to be worth, by the text on the page.
        habits: of the person. Nobody is there to ask, so whoever does not look guesses.
        page: as they see it.
    """
    behavior, seem = habits.choose_behavior(page.item), impressions.get(page.question)
    if behavior == SKIP or seem is None:
        return Action("skip", "I do not understand the question")
    fits = _choices_that_fit(seem, page.choices) if behavior == CAREFUL else page.choices
    if len(fits) > 1:
        return Action("submit", habits.pick("guess", page.item, fits))
    others = [choice for choice in page.choices if choice not in fits]
    wrong = habits.makes_error(page.item)
    return Action("submit", habits.pick("slip", page.item, others) if wrong else fits[0])


def _choices_that_fit(seem: Sequence[float], choices: Sequence[str]) -> Sequence[str]:
    """The names of the answers that seem best; or, of one answer, the score that it seems to
    deserve: the middle of the scale if it is like a draft, and `STEPS` higher for each standard
    deviation above.
    """
    if len(seem) > 1:
        return [name for name, value in zip(choices, seem, strict=True) if value == max(seem)]
    place = round((len(choices) - 1) / 2 + STEPS * seem[0])
    return [choices[min(max(place, 0), len(choices) - 1)]]


def _decide(task: Task, habits: Habits, page: Page) -> Action:
    behavior = habits.choose_behavior(page.item)
    if behavior == SKIP:
        return Action("skip", "I do not understand the question")
    if page.returned:
        return Action("skip", "None of my answers can be taken")
    if behavior == GUESS or page.withheld:
        return Action("submit", _guess(task, habits, page))
    if behavior == CAREFUL:
        return _take_apart(task, habits, page)
    if page.exchanges or page.review or not page.left:
        return _conclude(task, habits, page, _last(page.exchanges))
    return Action("ask", page.question)


def _take_apart(task: Task, habits: Habits, page: Page) -> Action:
    """Follows the strategy as far as the page has answers for it."""
    try:
        question = read_question(task, page.question)
    except AmplifyError:
        return Action("skip", "I do not understand the question")
    told = _by_question(task, page.exchanges) if page.review else iter(page.exchanges)
    answers: list[np.ndarray] = []
    nothing = np.full(task.answer_length, DONT_KNOW, np.int32)
    for _ in range(_asks(task)):
        ask, is_asked = _next(task, question, answers)
        if not is_asked:
            answers.append(nothing)
            continue
        exchange = told.get(ask.tobytes()) if isinstance(told, dict) else next(told, None)
        if exchange is None and (page.review or not page.left):
            return _conclude(task, habits, page, _last(page.exchanges))
        if exchange is None:
            return Action("ask", format_tokens(task, ask))
        answers.append(_answer(task, exchange))
    answer, _ = _next(task, question, answers)
    known = bool((answer != DONT_KNOW).any())
    return _conclude(task, habits, page, format_tokens(task, answer) if known else "")


def _conclude(task: Task, habits: Habits, page: Page, answer: str) -> Action:
    """Submits an answer, or a wrong one in its place."""
    if not answer:
        return Action("skip", "I cannot find out")
    return Action(
        "submit", _slip(task, habits, page, answer) if habits.makes_error(page.item) else answer
    )


def _slip(task: Task, habits: Habits, page: Page, answer: str) -> str:
    """A wrong answer: another choice, or the answer to another question."""
    others = [*page.choices] or [e.answer for e in page.exchanges if e.state == "answered"]
    rule = rule_of(task)
    others = [*dict.fromkeys(o for o in others if o not in ("", "?") and not rule.same(o, answer))]
    if not others:
        others = [word for word in _words(task, page.question) if not rule.same(word, answer)]
    return habits.pick("slip", page.item, others)


def _guess(task: Task, habits: Habits, page: Page) -> str:
    options = page.choices or _words(task, page.question)
    return habits.pick("guess", page.item, options)


def _words(task: Task, question: str) -> list[str]:
    """What somebody who knows nothing could answer: a word of the question, or any word."""
    words = [word for word in question.strip("?").split() if len(word) > 1]
    return [word for word in words if _can_be_read(task, word)] or _vocabulary(task)


@functools.cache
def _vocabulary(task: Task) -> list[str]:
    words = [word for word in task.vocabulary[1:] if word.strip() and word != "?"]
    return [word for word in words[:1000] if _can_be_read(task, word)]


@functools.lru_cache(maxsize=10_000)
def _can_be_read(task: Task, text: str) -> bool:
    try:
        return bool((read_answer(task, text) != DONT_KNOW).any())
    except AmplifyError:
        return False


def _last(told: Sequence[ReadExchange]) -> str:
    """The assistant's last answer; "" if there is none."""
    said = [exchange.answer for exchange in told if exchange.state == "answered"]
    return said[-1] if said and said[-1] != "?" else ""


def _by_question(task: Task, told: Iterable[ReadExchange]) -> dict[bytes, ReadExchange]:
    """Exchanges by question: somebody else may have asked other things, in another order."""
    there = {}
    for exchange in told:
        try:
            there[read_question(task, exchange.question).tobytes()] = exchange
        except AmplifyError:  # words of the task's overseers only
            continue
    return there


def _answer(task: Task, exchange: ReadExchange) -> Int[np.ndarray, " answer_length"]:
    """In tokens; "don't know" where there is none."""
    nothing = np.full(task.answer_length, DONT_KNOW, np.int32)
    if exchange.state != "answered" or exchange.answer == format_tokens(task, nothing):
        return nothing
    try:
        return read_answer(task, exchange.answer)
    except AmplifyError:
        return nothing


_asks = functools.cache(count_asks)


def _next(
    task: Task,
    question: Int[np.ndarray, " question_length"],
    answers: Sequence[Int[np.ndarray, " answer_length"]],
) -> tuple[Int[np.ndarray, " length"], bool]:
    """What the strategy asks after these answers and whether it asks at all, or its answer."""
    return _known(task, tuple(question.tolist()), tuple(tuple(a.tolist()) for a in answers))


@functools.lru_cache(maxsize=10_000)
def _known(
    task: Task, question: tuple[int, ...], answers: tuple[tuple[int, ...], ...]
) -> tuple[Int[np.ndarray, " length"], bool]:
    """Cached: each page replays the strategy from its beginning."""
    told = np.asarray(answers, np.int32).reshape(len(answers), 1, task.answer_length)
    said, is_asked = jax.device_get(_said(task, np.asarray([question], np.int32), told))
    return said[0], bool(is_asked[0])


@functools.partial(jax.jit, static_argnums=0)
def _said(
    task: Task,
    question: Int[Array, "1 question_length"],
    answers: Int[Array, "n 1 answer_length"],
) -> tuple[Int[Array, "1 length"], Bool[Array, " 1"]]:
    """Compiled once for each number of answers."""
    take_apart = strategy_of(task)
    assert take_apart is not None
    strategy = take_apart(question)
    everywhere = jnp.ones((1,), bool)
    try:
        ask = next(strategy)
        for number in range(len(answers)):
            ask = strategy.send(answers[number])
    except StopIteration as end:
        return end.value, everywhere
    return ask.question, everywhere if ask.where is None else ask.where
