"""Checks before round 0 that a custom task fulfils the protocol of tasks.

Each function of the task is called as a round would call it, for about a hundred questions, and its
results are checked: shape, dtype, and range of tokens and classes. An error is one line that names
the place and the function, and says what was expected and what was found. See `types.Task`; called
by `ready`.
"""

import contextlib
import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from amplify.answers import AnswerRule
from amplify.errors import first_line
from amplify.experiment.validation import quote_value
from amplify.reading.own_strategies import check_strategy
from amplify.reading.probing import (
    A_BOOL,
    A_CLASS,
    A_CONTEXT,
    A_QUESTION,
    AN_ANSWER,
    ArraySpec,
    Samples,
    TaskProbe,
    describe_value,
    first_where,
    leading,
)
from amplify.task_abilities import knows_truth
from amplify.tasks.batching import vmap_questions

QUESTIONS = 100
"""Smallest number of questions that are asked."""
NONSENSE = ("", "?", "this is no question")
"""Texts that `parse` may reject, but only with an error that the protocol allows."""
EACH_NEEDS = (("smallest", "largest", "draw_context_of_size"),)
"""Optional parts of a task that require each other."""
FOUND_TRUTH = ("find", "supports")
"""The same, for tasks that know the truth."""


def check_functions(probe: TaskProbe, *, apart: bool = True) -> None:
    """Calls and checks every function of a task.

    Args:
        probe: of the task.
        apart: whether evals keep contexts out of training, so that there must be several contexts.

    Raises:
        AmplifyError: for the first function that violates the protocol.
    """
    _check_optional_parts(probe)
    samples = _draw(probe, apart)
    if knows_truth(probe.task):
        _check_truth(probe, samples)
    _check_environment(probe, samples)
    _check_classes(probe, samples)
    _check_words(probe, samples)
    if probe.has("smallest"):
        _check_sizes(probe, samples)
    if probe.has("find"):
        _check_search(probe, samples)
    if probe.has("strategy"):
        answers = check_strategy(probe, samples)
        if probe.has("parse_answer"):
            for answer in answers[np.any(answers, axis=-1)][:8]:
                _check_reads_back(probe, "parse_answer", answer)


def _check_optional_parts(probe: TaskProbe) -> None:
    for parts in (*EACH_NEEDS, FOUND_TRUTH) if knows_truth(probe.task) else EACH_NEEDS:
        missing = [name for name in parts if not probe.has(name)]
        if missing and len(missing) < len(parts):
            there = next(name for name in parts if probe.has(name))
            raise probe.error(there, f"requires {' and '.join(missing)}")
    if probe.has("answer_rule") and not isinstance(probe.task.answer_rule, AnswerRule):
        rule = quote_value(probe.task.answer_rule)
        raise probe.error("answer_rule", f"must be an AnswerRule; got {rule}")


def _draw(probe: TaskProbe, apart: bool) -> Samples:
    deepest = probe.task.max_depth
    depths = np.unique(np.linspace(1, deepest, min(deepest, QUESTIONS)).astype(np.int32))
    count = math.ceil(QUESTIONS / len(depths))
    seeds = np.arange(count * (1 + len(depths)), dtype=np.uint32).reshape(count, -1)
    roots, keys = map(_keys, (seeds[:, 0], seeds[:, 1:]))
    # If contexts are found by a search, the drawn ones only group questions.
    context = ArraySpec("int32", (None, None)) if probe.has("find") else A_CONTEXT
    contexts = probe.call("draw_context", context, roots, over=jax.vmap)

    def over_depths(draw: Any) -> Any:
        return jax.vmap(jax.vmap(draw, (0, None, 0)), (0, 0, None))

    questions = probe.call("draw_question", A_QUESTION, keys, contexts, depths, over=over_depths)
    if count > 1 and _all_the_same(contexts) and (apart or _all_the_same(questions)):
        raise probe.error("draw_context", f"must use its key; {count} keys gave the same context")
    return Samples(contexts, questions, keys)


def _all_the_same(rows: np.ndarray) -> bool:
    return bool(np.all(rows == rows[:1]))


def _keys(seeds: np.ndarray) -> Key[Array, "*b"]:
    """Keys from seeds. Splitting a key would be slower, because it compiles a program."""
    return jax.vmap(jax.random.key)(seeds.ravel()).reshape(seeds.shape)


def _check_truth(probe: TaskProbe, samples: Samples) -> None:
    contexts, questions, _ = samples
    truth = probe.call("truth", AN_ANSWER, contexts, questions, over=vmap_questions)
    unknown = ~np.any(truth, axis=-1)
    if np.any(unknown):
        text = probe.shown(first_where(questions, unknown))
        raise probe.error("truth", f'must not be zeros ("don\'t know"); it is for {text!r}')
    if truth.size > truth.shape[-1] and _all_the_same(truth.reshape(-1, truth.shape[-1])):
        text = probe.shown(truth[0, 0])
        raise probe.error("truth", f"must depend on the question; all that were drawn get {text!r}")
    right = probe.call("is_right", A_BOOL, contexts, questions, truth, over=vmap_questions)
    if not np.all(right):
        text, answer = (probe.shown(first_where(tokens, ~right)) for tokens in (questions, truth))
        raise probe.error(
            "is_right",
            f"must be True of the truth; it is False of {answer!r}, the truth of {text!r}",
        )
    silent = np.zeros_like(truth)
    right = probe.call("is_right", A_BOOL, contexts, questions, silent, over=vmap_questions)
    if np.any(right):
        text = probe.shown(first_where(questions, right))
        raise probe.error(
            "is_right",
            f'must be False of "don\'t know", an answer of zeros; it is True of it for {text!r}',
        )


def _check_environment(probe: TaskProbe, samples: Samples) -> None:
    contexts, questions, keys = samples
    # The environment's answer to a question that is not primitive has no meaning.
    anything = AN_ANSWER._replace(below=None)
    probe.call("environment", anything, contexts, questions, keys, over=vmap_questions)


def _check_classes(probe: TaskProbe, samples: Samples) -> None:
    contexts, questions, _ = samples
    probe.call("class_of", A_CLASS, contexts, questions, over=vmap_questions)
    probe.call("is_primitive", A_BOOL, questions[0, 0])
    lead = A_BOOL.batched(*questions.shape[:-1])
    if np.all(probe.call("is_primitive", lead, questions, hint=leading(questions.shape[:-1]))):
        raise probe.error(
            "is_primitive",
            "must be False of a question that has to be decomposed; it is True of all that"
            f" draw_question drew, such as {probe.shown(questions[0, 0])!r}",
        )


def _check_words(probe: TaskProbe, samples: Samples) -> None:
    """Checks the texts that people and language models read and write."""
    task = probe.task
    facts = [] if probe.has("find") else [*samples.contexts[0, :4]]
    answer = np.zeros(task.answer_length, np.int32)
    if knows_truth(task):
        answer = np.asarray(jax.jit(task.truth)(samples.contexts[0], samples.questions[0, 0]))
    for tokens in [*facts, answer, np.zeros_like(answer)]:
        probe.shown(tokens)
    for question in samples.questions[0, :8]:
        _check_reads_back(probe, "parse", question)
    if probe.has("parse_answer") and np.any(answer):
        _check_reads_back(probe, "parse_answer", answer)
    for text in NONSENSE:
        for name in ("parse", "parse_answer"):
            with contextlib.suppress(ValueError, KeyError):
                if probe.has(name):
                    probe.words(name, text)
    if probe.has("expand"):
        text = probe.shown(answer)
        with probe.catching_errors("expand"):
            asked = probe.function("expand")(text)
        if not isinstance(asked, str):
            raise probe.error("expand", f"must return text; got {describe_value(asked)}")


def _check_reads_back(probe: TaskProbe, name: str, tokens: np.ndarray) -> None:
    """Checks that a question or an answer can be typed as it is shown."""
    text, vocabulary = probe.shown(tokens), probe.task.vocabulary
    try:
        found = probe.words(name, text)
    except (ValueError, KeyError) as error:
        raise probe.error(
            name, f"must read what show makes of tokens, {text!r}; it says: {first_line(error)}"
        ) from None
    wanted = [vocabulary[token] for token in tokens]
    if name == "parse_answer":  # trailing zeros are left out
        found = found + [vocabulary[0]] * (len(wanted) - len(found))
    if found != wanted:
        raise probe.error(
            name,
            f"must read {text!r} as the words it was shown for, {wanted}; got {quote_value(found)}",
        )


def _check_sizes(probe: TaskProbe, samples: Samples) -> None:
    task = probe.task
    for name in ("smallest", "largest"):
        value = getattr(task, name)
        if type(value) is not int or value < 1:
            raise probe.error(name, f"must be 1 or more; got {quote_value(value)}")
    if task.smallest > task.largest:
        raise probe.error(
            "smallest", f"must be at most largest ({task.largest}); got {task.smallest}"
        )
    sizes = np.array([task.smallest, task.largest], np.int32)
    keys = samples.keys.reshape(-1)[:2]
    probe.call("draw_context_of_size", A_CONTEXT, keys, sizes, over=jax.vmap)


def _check_search(probe: TaskProbe, samples: Samples) -> None:
    """Checks the contexts that are found for questions."""
    questions = samples.questions
    found = probe.call("find", A_CONTEXT.batched(len(questions)), questions)
    if probe.has("supports"):
        probe.call("supports", A_BOOL, found, questions, over=vmap_questions)
    nothing = np.zeros((1, 1, probe.task.question_length), np.int32)
    if np.any(probe.call("find", A_CONTEXT.batched(1), nothing)):
        raise probe.error("find", "must find nothing, zeros alone, for a question of zeros")
