"""Whether a task of an experiment's own keeps to the protocol of tasks, found out before round 0.

Each function that the task has is called as a round would call it, about some hundred questions,
and what it returns is checked: its shape, its dtype, and the range of its tokens and classes. What
is wrong is one line that begins with the file and the line number, and says which function, what
was expected and what was found. See `types.Task`; `ready` calls it.
"""

import contextlib
import math
from collections.abc import Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from amplify.answers import AnswerRule
from amplify.errors import first_line
from amplify.experiment.validation import shown
from amplify.reading.probing import Promise, Trial, described, one_of
from amplify.task_abilities import knows_truth
from amplify.trees.amplification import amplify, over_questions, told_the_truth, with_environment
from amplify.types import ASSISTANT, ENVIRONMENT, Ask, Interaction, Respond, Strategy, Task

QUESTIONS = 100
"""Questions that are asked, at least."""
MOST_ASKS = 256
"""Sub-questions of a strategy, beyond which it is taken to be one that never ends."""
NONSENSE = ("", "?", "this is no question")
"""What `parse` is given beside questions."""
EACH_NEEDS = (("smallest", "largest", "draw_context_of_size"),)
"""Optional parts of a task that need each other."""
FOUND_TRUTH = ("find", "supports")
"""The same, where the task knows the truth."""
LEADING = ", for questions of any leading shape: question[..., 0], jnp.stack(..., axis=-1)"
"""How to write what works on any leading shape."""

A_BOOL = Promise("bool", ())
A_CONTEXT = Promise("int32", ("facts", "fact_length"))
A_QUESTION = Promise("int32", ("question_length",))
AN_ANSWER = Promise("int32", ("answer_length",))
A_CLASS = Promise("int32", (), below="classes")


class Drawn(NamedTuple):
    """What the functions are tried on: problems of questions at all depths."""

    contexts: Int[np.ndarray, "contexts facts fact_length"]
    questions: Int[np.ndarray, "contexts depths question_length"]
    keys: Key[Array, "contexts depths"]


def check_functions(trial: Trial, *, apart: bool = True) -> None:
    """Tries every function of a task.

    Args:
        apart: whether contexts are kept from training for evals, so that there must be several.

    Raises:
        AmplifyError: for the first that does not keep to the protocol.
    """
    _check_optional_parts(trial)
    drawn = _draw(trial, apart)
    if knows_truth(trial.task):
        _check_truth(trial, drawn)
    _check_environment(trial, drawn)
    _check_classes(trial, drawn)
    _check_words(trial, drawn)
    if trial.has("smallest"):
        _check_sizes(trial, drawn)
    if trial.has("find"):
        _check_search(trial, drawn)
    if trial.has("strategy"):
        _check_strategy(trial, drawn)


def _check_optional_parts(trial: Trial) -> None:
    for parts in (*EACH_NEEDS, FOUND_TRUTH) if knows_truth(trial.task) else EACH_NEEDS:
        missing = [name for name in parts if not trial.has(name)]
        if missing and len(missing) < len(parts):
            there = next(name for name in parts if trial.has(name))
            raise trial.error(there, f"needs {' and '.join(missing)} beside it")
    if trial.has("answer_rule") and not isinstance(trial.task.answer_rule, AnswerRule):
        rule = shown(trial.task.answer_rule)
        raise trial.error("answer_rule", f"must be an AnswerRule; got {rule}")


def _draw(trial: Trial, apart: bool) -> Drawn:
    deepest = trial.task.max_depth
    depths = np.unique(np.linspace(1, deepest, min(deepest, QUESTIONS)).astype(np.int32))
    count = math.ceil(QUESTIONS / len(depths))
    seeds = np.arange(count * (1 + len(depths)), dtype=np.uint32).reshape(count, -1)
    roots, keys = map(_keys, (seeds[:, 0], seeds[:, 1:]))
    # Where contexts are found, what is drawn is only what the questions have in common.
    context = Promise("int32", (None, None)) if trial.has("find") else A_CONTEXT
    contexts = trial.call("draw_context", context, roots, over=jax.vmap)

    def over_depths(draw: Any) -> Any:
        return jax.vmap(jax.vmap(draw, (0, None, 0)), (0, 0, None))

    questions = trial.call("draw_question", A_QUESTION, keys, contexts, depths, over=over_depths)
    if count > 1 and _all_the_same(contexts) and (apart or _all_the_same(questions)):
        raise trial.error("draw_context", f"must draw from its key; {count} keys gave one context")
    return Drawn(contexts, questions, keys)


def _all_the_same(rows: np.ndarray) -> bool:
    return bool(np.all(rows == rows[:1]))


def _keys(seeds: np.ndarray) -> Key[Array, "*b"]:
    """Much faster than to split a key, for which a program is compiled."""
    return jax.vmap(jax.random.key)(seeds.ravel()).reshape(seeds.shape)


def _check_truth(trial: Trial, drawn: Drawn) -> None:
    contexts, questions, _ = drawn
    truth = trial.call("truth", AN_ANSWER, contexts, questions, over=over_questions)
    right = trial.call("is_right", A_BOOL, contexts, questions, truth, over=over_questions)
    if not np.all(right):
        text, answer = (trial.shown(one_of(tokens, ~right)) for tokens in (questions, truth))
        raise trial.error(
            "is_right",
            f"must be True of the truth; it is False of {answer!r}, the truth of {text!r}",
        )
    silent = np.zeros_like(truth)
    right = trial.call("is_right", A_BOOL, contexts, questions, silent, over=over_questions)
    if np.any(right):
        text = trial.shown(one_of(questions, right))
        raise trial.error(
            "is_right",
            f'must be False of "don\'t know", an answer of zeros; it is True of it for {text!r}',
        )


def _check_environment(trial: Trial, drawn: Drawn) -> None:
    contexts, questions, keys = drawn
    # To what is no primitive question, the environment's answer means nothing.
    anything = AN_ANSWER._replace(below=None)
    trial.call("environment", anything, contexts, questions, keys, over=over_questions)


def _check_classes(trial: Trial, drawn: Drawn) -> None:
    contexts, questions, _ = drawn
    trial.call("class_of", A_CLASS, contexts, questions, over=over_questions)
    trial.call("is_primitive", A_BOOL, questions[0, 0])
    lead = A_BOOL.of(*questions.shape[:-1])
    if np.all(trial.call("is_primitive", lead, questions, hint=LEADING)):
        raise trial.error(
            "is_primitive",
            "must be False of a question that has to be taken apart; it is True of all that"
            f" draw_question drew, such as {trial.shown(questions[0, 0])!r}",
        )


def _check_words(trial: Trial, drawn: Drawn) -> None:
    """What people and language models read and type."""
    task = trial.task
    facts = [] if trial.has("find") else [*drawn.contexts[0, :4]]
    answer = np.zeros(task.answer_length, np.int32)
    if knows_truth(task):
        answer = np.asarray(jax.jit(task.truth)(drawn.contexts[0], drawn.questions[0, 0]))
    for tokens in [*facts, answer, np.zeros_like(answer)]:
        trial.shown(tokens)
    for question in drawn.questions[0, :8]:
        _check_reads_back(trial, "parse", question)
    if trial.has("parse_answer") and np.any(answer):
        _check_reads_back(trial, "parse_answer", answer)
    for text in NONSENSE:
        for name in ("parse", "parse_answer"):
            with contextlib.suppress(ValueError, KeyError):
                if trial.has(name):
                    trial.words(name, text)
    if trial.has("expand"):
        text = trial.shown(answer)
        with trial.running("expand"):
            asked = trial.function("expand")(text)
        if not isinstance(asked, str):
            raise trial.error("expand", f"must return text; got {described(asked)}")


def _check_reads_back(trial: Trial, name: str, tokens: np.ndarray) -> None:
    """A question or an answer can be typed as it is shown."""
    text, vocabulary = trial.shown(tokens), trial.task.vocabulary
    try:
        found = trial.words(name, text)
    except (ValueError, KeyError) as error:
        raise trial.error(
            name, f"must read what show makes of tokens, {text!r}; it says: {first_line(error)}"
        ) from None
    wanted = [vocabulary[token] for token in tokens]
    if name == "parse_answer":  # zeros at its end are left out
        found = found + [vocabulary[0]] * (len(wanted) - len(found))
    if found != wanted:
        raise trial.error(
            name, f"must read {text!r} as the words it was shown for, {wanted}; got {shown(found)}"
        )


def _check_sizes(trial: Trial, drawn: Drawn) -> None:
    task = trial.task
    for name in ("smallest", "largest"):
        value = getattr(task, name)
        if type(value) is not int or value < 1:
            raise trial.error(name, f"must be 1 or more; got {shown(value)}")
    if task.smallest > task.largest:
        raise trial.error(
            "smallest", f"must be at most largest ({task.largest}); got {task.smallest}"
        )
    sizes = np.array([task.smallest, task.largest], np.int32)
    keys = drawn.keys.reshape(-1)[:2]
    trial.call("draw_context_of_size", A_CONTEXT, keys, sizes, over=jax.vmap)


def _check_search(trial: Trial, drawn: Drawn) -> None:
    """What questions find is what the assistant reads."""
    questions = drawn.questions
    found = trial.call("find", A_CONTEXT.of(len(questions)), questions)
    if trial.has("supports"):
        trial.call("supports", A_BOOL, found, questions, over=over_questions)
    nothing = np.zeros((1, 1, trial.task.question_length), np.int32)
    if np.any(trial.call("find", A_CONTEXT.of(1), nothing)):
        raise trial.error("find", "must find nothing, zeros alone, for a question of zeros")


def _check_strategy(trial: Trial, drawn: Drawn) -> None:
    """The simulated overseer keeps to the form of one, and is right if told true sub-answers. Where
    nobody knows the truth, only what the environment knows is told, and the form alone is checked.
    """
    task, (contexts, questions, keys) = trial.task, drawn
    judges = knows_truth(task)

    def overseen(contexts: Array, questions: Array, keys: Array) -> tuple[Interaction, Array]:
        told = told_the_truth(task, contexts) if judges else _told_zeros(task)
        respond = with_environment(task, contexts, told)
        everywhere = jnp.ones(questions.shape[:-1], bool)
        tree = amplify(lambda asked, _: _tried(trial, asked), respond, questions, everywhere, keys)
        right = task.is_right if judges else lambda context, question, answer: jnp.any(answer)
        return tree, over_questions(right)(contexts, questions, tree.answer)

    with trial.running("strategy"):
        jax.eval_shape(lambda question: _told_nothing(trial, question), questions[0, 0])
        tree, right = jax.device_get(jax.jit(overseen)(contexts, questions, keys))
    for step in tree.steps:
        told = step.asked & (step.sub.answered_by == ENVIRONMENT)
        trial.check_range("strategy", A_QUESTION, step.sub.question[step.asked], "ask with")
        trial.check_range("environment", AN_ANSWER, step.sub.answer[told])
        if judges:
            trial.check_range("truth", AN_ANSWER, step.sub.answer[step.asked & ~told])
    trial.check_range("strategy", AN_ANSWER, tree.answer)
    if judges:
        _check_answers(trial, drawn, tree.answer, right)
    elif trial.has("parse_answer"):
        for answer in tree.answer[right][:8]:
            _check_reads_back(trial, "parse_answer", answer)


def _told_zeros(task: Task) -> Respond:
    """Every question is answered with "don't know"."""

    def respond(questions: Array, where: Array, keys: Array) -> Interaction:
        answers = jnp.zeros((*where.shape, task.answer_length), jnp.int32)
        return Interaction(questions, answers, jnp.full(where.shape, ASSISTANT))

    return respond


def _told_nothing(trial: Trial, question: Array) -> Array:
    """A strategy's answer to a single question if nobody knows anything."""
    strategy = _tried(trial, question)
    with contextlib.suppress(StopIteration):
        next(strategy)
        while True:
            strategy.send(jnp.zeros((trial.task.answer_length,), jnp.int32))
    return question


def _tried(trial: Trial, question: Array) -> Strategy:
    """The task's strategy, with all that it yields and returns checked."""
    lead = question.shape[:-1]
    hint = LEADING * bool(lead)
    with trial.running("strategy"):
        strategy = trial.function("strategy")(question)
    if not isinstance(strategy, Generator):
        raise trial.error(
            "strategy", f"must be a generator, which yields Ask(...); got {described(strategy)}"
        )
    answers = None
    for number in range(MOST_ASKS + 1):
        with trial.running("strategy"):
            try:
                ask = next(strategy) if answers is None else strategy.send(answers)
            except StopIteration as end:
                trial.check_form("strategy", AN_ANSWER.of(*lead), end.value, hint=hint)
                if not number:
                    raise trial.error("strategy", "must ask something") from None
                return end.value
        if not isinstance(ask, Ask):
            raise trial.error("strategy", f"must yield Ask(question); got {described(ask)}")
        form = A_QUESTION.of(*lead)
        trial.check_form("strategy", form, ask.question, "yield Ask with a question,", hint)
        if ask.where is not None:
            form = A_BOOL.of(*lead)
            trial.check_form("strategy", form, ask.where, "yield Ask with where,", hint)
        answers = yield ask
    raise trial.error("strategy", f"must end; it asks more than {MOST_ASKS} sub-questions")


def _check_answers(trial: Trial, drawn: Drawn, answers: np.ndarray, right: np.ndarray) -> None:
    """A strategy may not know, and must not be wrong, unless the task says that it errs."""
    silent = ~np.any(answers, axis=-1)
    wrong = ~right & ~silent
    least = getattr(trial.task, "strategy_accuracy", 1.0)
    if not isinstance(least, (int, float)) or not 0 <= least <= 1:
        raise trial.error("strategy_accuracy", f"must be a number from 0 to 1; got {shown(least)}")
    if np.mean(~wrong) < least:
        context = one_of(drawn.contexts, np.any(wrong, axis=1))
        question = one_of(drawn.questions, wrong)
        truth = np.asarray(jax.jit(trial.task.truth)(context, question))
        asked, said, true = map(trial.shown, (question, one_of(answers, wrong), truth))
        raise trial.error(
            "strategy",
            f"must be right, told true sub-answers; it is wrong about {wrong.sum()} of {wrong.size}"
            f" questions: to {asked!r} it says {said!r}, and the truth is {true!r} (an overseer"
            " that is meant to err needs strategy_accuracy, the least share that is not wrong)",
        )
    if least and np.all(silent):
        raise trial.error(
            "strategy",
            f'must answer, told true sub-answers; it says "don\'t know" to all {silent.size}'
            " questions that were tried",
        )
