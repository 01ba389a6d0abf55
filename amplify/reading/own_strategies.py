"""Checks before round 0 of a custom task's strategy: its form, its answers given true sub-answers,
and that it does not just ask its own question again. Called by `own_tasks`.
"""

import contextlib
from collections.abc import Callable, Generator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from amplify.experiment.validation import quote_value
from amplify.reading.probing import (
    A_BOOL,
    A_QUESTION,
    AN_ANSWER,
    Samples,
    TaskProbe,
    describe_value,
    first_where,
    leading,
)
from amplify.runtime import calls
from amplify.task_abilities import knows_truth
from amplify.tasks.batching import vmap_questions
from amplify.trees.amplification import (
    amplify,
    environment_alone,
    with_environment,
)
from amplify.types import ASSISTANT, Ask, Interaction, Strategy

Known = Callable[[Int[Array, "*b question_length"]], Bool[Array, "*b"]]
"""Says which sub-questions get an answer."""
MAX_ASKS = 256
"""Number of sub-questions after which a strategy is considered endless."""
SHOWN_FACTS = 8
"""Facts that a message about a question shows."""


def check_strategy(
    probe: TaskProbe, samples: Samples
) -> Int[np.ndarray, "contexts depths answer_length"]:
    """Checks the form of the strategy, and its answers given true sub-answers.

    If the task knows no truth, sub-answers are zeros unless the environment gives them, and only
    the form is checked.

    Args:
        probe: of the task.
        samples: problems of the task.

    Returns:
        The strategy's answers.

    Raises:
        AmplifyError: for the first violation.
    """
    with probe.catching_errors("strategy"):
        first = samples.questions[0, 0]
        jax.eval_shape(lambda question: _trace_strategy(probe, question), first)
    tree = _follow(probe, samples)
    answers = np.asarray(tree.answer)
    for step in tree.steps:
        asked, question, answer, by = map(np.asarray, (step.asked, *step.sub[:3]))
        helped = asked & (by == ASSISTANT)
        probe.check_range("strategy", A_QUESTION, question[asked], "ask with")
        probe.check_range("environment", AN_ANSWER, answer[asked & ~helped])
        probe.check_range("truth", AN_ANSWER, answer[helped])
    probe.check_range("strategy", AN_ANSWER, answers)
    least = getattr(probe.task, "strategy_accuracy", 1.0)
    if not isinstance(least, (int, float)) or not 0 <= least <= 1:
        raise probe.error(
            "strategy_accuracy", f"must be a number from 0 to 1; got {quote_value(least)}"
        )
    if knows_truth(probe.task):
        _check_answers(probe, samples, answers, least)
    _check_help(probe, samples, tree, least)
    _check_each_by_itself(probe, samples)
    if knows_truth(probe.task):
        _check_guesses(probe, samples, least)
    return answers


def _follow(
    probe: TaskProbe,
    samples: Samples,
    told: Int[np.ndarray, "contexts depths answer_length"] | None = None,
    known: Known | None = None,
) -> Interaction:
    """Follows the strategy. Sub-answers are true, or zeros if the task knows no truth.

    Args:
        probe: of the task.
        samples: problems of the task.
        told: what a strategy that asks its own question is told instead.
        known: see `_overseen`.
    """
    with probe.catching_errors("strategy"):
        contexts, questions, keys = samples
        follow = jax.jit(_overseen(probe, known))
        tree: Interaction = jax.device_get(follow(contexts, questions, told, keys))
    return tree


def _overseen(probe: TaskProbe, known: Known | None) -> Callable[..., Interaction]:
    """Returns a function of contexts, questions, what is told of them, and keys.

    Args:
        probe: of the task.
        known: which sub-questions get an answer, where others get zeros; None: all.
    """
    task = probe.task

    def overseen(contexts: Array, questions: Array, told: Array | None, keys: Array) -> Interaction:
        def help_with(asked: Array, where: Array, _: Array) -> Interaction:
            answers = jnp.zeros((*where.shape, task.answer_length), jnp.int32)
            if knows_truth(task):
                answers = vmap_questions(task.truth)(contexts, asked)
            if known is not None:
                answers = jnp.where(known(asked)[..., None], answers, 0)
            if told is not None:
                is_own = jnp.all(asked == questions, axis=-1, keepdims=True)
                answers = jnp.where(is_own, told, answers)
            return Interaction(asked, answers, jnp.full(where.shape, ASSISTANT))

        return amplify(
            lambda asked, _: _checked_strategy(probe, asked),
            with_environment(task, contexts, help_with),
            questions,
            jnp.ones(questions.shape[:-1], bool),
            keys,
            parts={calls.ENVIRONMENT: environment_alone(task, contexts)},
        )

    return overseen


def _none_of(questions: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
    """False for all questions."""
    return jnp.zeros(questions.shape[:-1], bool)


def _half_of(questions: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
    """True for about half of all questions, as a function of their content."""
    mixed = jnp.zeros(questions.shape[:-1], jnp.uint32)
    for token in jnp.unstack(questions.astype(jnp.uint32), axis=-1):
        mixed = (mixed + token + jnp.uint32(1)) * jnp.uint32(0x9E3779B1)
    return (mixed >> 16) % 2 == 0


def _trace_strategy(probe: TaskProbe, question: Array) -> Array:
    """Runs the strategy for a single question with zeros as sub-answers; returns the question."""
    strategy = _checked_strategy(probe, question)
    with contextlib.suppress(StopIteration):
        next(strategy)
        while True:
            strategy.send(jnp.zeros((probe.task.answer_length,), jnp.int32))
    return question


def _checked_strategy(probe: TaskProbe, question: Array) -> Strategy:
    """Runs the task's strategy and checks everything that it yields and returns."""
    lead = question.shape[:-1]
    hint = leading(lead)
    with probe.catching_errors("strategy"):
        strategy = probe.function("strategy")(question)
    if not isinstance(strategy, Generator):
        raise probe.error(
            "strategy",
            f"must be a generator, which yields Ask(...); got {describe_value(strategy)}",
        )
    answers = None
    for number in range(MAX_ASKS + 1):
        with probe.catching_errors("strategy"):
            try:
                ask = next(strategy) if answers is None else strategy.send(answers)
            except StopIteration as end:
                probe.check_shape("strategy", AN_ANSWER.batched(*lead), end.value, hint=hint)
                if not number:
                    raise probe.error("strategy", "must ask something") from None
                return end.value
        if not isinstance(ask, Ask):
            raise probe.error("strategy", f"must yield Ask(question); got {describe_value(ask)}")
        form = A_QUESTION.batched(*lead)
        probe.check_shape("strategy", form, ask.question, "yield Ask with a question,", hint)
        if ask.where is not None:
            form = A_BOOL.batched(*lead)
            probe.check_shape("strategy", form, ask.where, "yield Ask with where,", hint)
        answers = yield ask
    raise probe.error("strategy", f"must end; it asks more than {MAX_ASKS} sub-questions")


def _check_answers(
    probe: TaskProbe,
    samples: Samples,
    answers: Int[np.ndarray, "contexts depths answer_length"],
    least: float,
) -> None:
    """Checks the answers: "don't know" is allowed, errors only up to `strategy_accuracy`."""
    silent, right = ~np.any(answers, axis=-1), _are_right(probe, samples, answers)
    wrong = ~right & ~silent
    if np.mean(~wrong) < least:
        context = first_where(samples.contexts, np.any(wrong, axis=1))
        question = first_where(samples.questions, wrong)
        truth = np.asarray(jax.jit(probe.task.truth)(context, question))
        asked, said, true = map(probe.shown, (question, first_where(answers, wrong), truth))
        about = "; ".join(map(probe.shown, context[:SHOWN_FACTS]))
        more = f" and {len(context) - SHOWN_FACTS} more" * (len(context) > SHOWN_FACTS)
        raise probe.error(
            "strategy",
            f"and truth disagree about {wrong.sum()} of {wrong.size} questions: to {asked!r}, with"
            f" the facts {about}{more}, truth says {true!r}, and strategy says {said!r} when truth"
            " answers what it asks; either may be wrong (a strategy that is meant to err needs"
            " strategy_accuracy, the least share that is not wrong)",
        )
    if least and np.all(silent):
        raise probe.error(
            "strategy",
            f'must answer given true sub-answers; it says "don\'t know" to all {silent.size}'
            " questions that were tried",
        )


def _check_help(probe: TaskProbe, samples: Samples, tree: Interaction, least: float) -> None:
    """Checks that the strategy does more than repeat what it is told about its own question.

    A strategy may ask its own question: several times, for a vote, or to verify the answer by
    asking something else. But if it asks once and repeats even a wrong answer, no round can teach
    more than the assistant knows.
    """
    asks_itself = [
        step.asked
        & (step.sub.answered_by == ASSISTANT)
        & np.all(step.sub.question == samples.questions, axis=-1)
        for step in tree.steps
    ]
    once = np.sum(asks_itself, axis=0) == 1
    if not np.any(once):
        return
    told = np.ones_like(tree.answer)
    if knows_truth(probe.task):  # the true answer to another question is one that may be given
        told = np.roll(tree.answer.reshape(-1, told.shape[-1]), 1, axis=0).reshape(told.shape)
        once &= np.any(told, axis=-1) & ~_are_right(probe, samples, told)
    repeats = once & np.all(_follow(probe, samples, told).answer == told, axis=-1)
    if np.mean(~repeats) < least:
        question = probe.shown(first_where(samples.questions, repeats))
        raise probe.error(
            "strategy",
            f"must not ask its own question and repeat the answer: for {question!r} it asks"
            f" {question!r} again, which no help can ever improve; so it does for {repeats.sum()}"
            f" of {repeats.size} questions",
        )


def _check_guesses(probe: TaskProbe, samples: Samples, least: float) -> None:
    """Checks the answers if the assistant knows nothing: they are right, or "don't know".

    If it knows some of what is asked, a strategy may guess, as that of `shortest_path` does.
    """
    answers = np.asarray(_follow(probe, samples, known=_none_of).answer)
    probe.check_range("strategy", AN_ANSWER, answers)
    wrong = ~_are_right(probe, samples, answers) & np.any(answers, axis=-1)
    if np.mean(~wrong) < least:
        question = first_where(samples.questions, wrong)
        asked, said = map(probe.shown, (question, first_where(answers, wrong)))
        raise probe.error(
            "strategy",
            f'must say "don\'t know", an answer of zeros, if that is all it is told: to {asked!r}'
            f" it says {said!r}, which is wrong, and so it does for {wrong.sum()} of {wrong.size}"
            " questions (a strategy that is meant to guess needs strategy_accuracy, the least share"
            " that is not wrong)",
        )


def _check_each_by_itself(probe: TaskProbe, samples: Samples) -> None:
    """Checks that what the strategy does with a question does not depend on the others that it is
    called with, which it would if it reduced over leading axes. If all sub-answers are true, this
    does not show.
    """
    together = np.asarray(_follow(probe, samples, known=_half_of).answer)
    overseen = _overseen(probe, _half_of)

    def alone(context: Array, question: Array, key: Array) -> Array:
        return overseen(context[None], question[None, None], None, key[None, None]).answer[0, 0]

    with probe.catching_errors("strategy"):
        apart = np.asarray(jax.jit(vmap_questions(alone))(*samples))
    differ = np.any(together != apart, axis=-1)
    if np.any(differ):
        question = probe.shown(first_where(samples.questions, differ))
        raise probe.error(
            "strategy",
            f'must answer each question by itself, but if some sub-answers are "don\'t know", its'
            f" answer to {question!r} depends on the other questions of the batch: reduce over the"
            " last axis only, as by jnp.all(..., axis=-1, keepdims=True)",
        )


def _are_right(
    probe: TaskProbe,
    samples: Samples,
    answers: Int[np.ndarray, "contexts depths answer_length"],
) -> Bool[np.ndarray, "contexts depths"]:
    contexts, questions, _ = samples
    return probe.call("is_right", A_BOOL, contexts, questions, answers, over=vmap_questions)
