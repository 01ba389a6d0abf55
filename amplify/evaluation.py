"""Evaluation: the measures of a round, on held-out problems.

`measures_of` says which measures an experiment has, and `evaluate` takes them. Results are kept
item by item, because rounds are compared item by item; the items are the same in every round of an
experiment.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped

from amplify.amplification import (
    amplified,
    assistant_alone,
    over_questions,
    read_for,
    told_the_truth,
)
from amplify.driving import ask_everything, driven
from amplify.measures import (
    ALONE,
    ALONE_IF_FOUND,
    AMPLIFIED,
    CEILING,
    CONSISTENT,
    FOUND,
    LIVE,
    Measure,
)
from amplify.overseers.human import learner_of
from amplify.overseers.language_model import LanguageModelOverseer, check_failed
from amplify.problems import TOGETHER, answer_keys, at_a_time, in_chunks
from amplify.types import (
    DONT_KNOW,
    FAILED,
    Assistant,
    OverseerKind,
    Problems,
    Respond,
    SearchedTask,
    Task,
    Weights,
    knows_truth,
    rule_of,
)
from amplify.words import shown

CHUNK = TOGETHER
"""Contexts evaluated at a time, at most."""


def measures_of(task: Task, assistant: Assistant, overseer: OverseerKind) -> tuple[Measure, ...]:
    """The measures that evals of an experiment have, in the order in which they are shown.

    A task without a truth has no measures of right and wrong: what remains is how far the assistant
    and its overseer agree. A task whose contexts are found by a search has the search's recall
    beside them.

    Args:
        task, assistant, overseer: as the experiment file builds them.
    """
    costly = isinstance(overseer, LanguageModelOverseer)
    teachable = learner_of(overseer) is not None
    right = (
        ALONE,
        dataclasses.replace(AMPLIFIED, costly=costly),
        dataclasses.replace(CEILING, costly=costly, constant=not teachable),
    )
    if not knows_truth(task):
        return (dataclasses.replace(CONSISTENT, costly=costly),)
    found = (FOUND, ALONE_IF_FOUND) if isinstance(task, SearchedTask) else ()
    return right + found


@dataclasses.dataclass(frozen=True)
class Item:
    """One held-out question, how it was answered, and what was measured: a line of `evals.jsonl`.

    Measures of right and wrong are written as JSON's true and false, which are read as 1 and 0.
    """

    split: str
    problem: str  # the seed of the problem, "stream:index"
    context: str  # digest of what its context says; items with the same one are not independent
    question: str
    label: str  # the question's class
    truth: str | None  # None: the task knows none
    answer: str  # the assistant's own likeliest
    probability: float  # which it gave that answer
    measures: Mapping[str, bool | float]  # by name; those without a value here are left out

    def as_row(self) -> dict[str, Any]:
        row = {key: value for key, value in vars(self).items() if key not in ("label", "measures")}
        if self.truth is None:
            del row["truth"]
        return {"class": self.label, **row, **self.measures}


def evaluate(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    weights: Weights,
    problems: Problems,
    seed: int,
    *,
    split: str,
    advance: Callable[[int], Any] = lambda rows: None,
    place: Sharding | None = None,
) -> list[Item]:
    """Takes every measure of every different question of every problem.

    Two problems may have the same context. Their items say so by its digest, and statistics count
    what is the same once.

    Args:
        split: what the items' rows say of it.
        advance: is told of contexts that were evaluated, for a progress bar.
        place: where contexts lie.

    Raises:
        AmplifyError: if the overseer gives too many of them no answer.
    """
    root = jax.random.key(seed)
    names = [measure.name for measure in measures_of(task, assistant, overseer)]
    function = functools.partial(_judge, task, assistant, overseer, weights, root)
    size = at_a_time(len(problems.seeds), CHUNK, place)
    chunks = list(in_chunks(function, size, problems, advance=advance, place=place))
    judged = jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
    judged |= _compared(task, judged)
    check_failed(overseer, judged["amplified_answer"])
    seeds, questions = jax.device_get((problems.seeds, problems.questions))
    digests = [context_digest(context) for context in jax.device_get(problems.contexts)]
    return [
        Item(
            split=split,
            problem="{}:{}".format(*seeds[row]),
            context=digests[row],
            question=shown(task, questions[row, column]),
            label=task.classes[judged["class"][row, column]],
            truth=shown(task, judged["truth"][row, column]) if "truth" in judged else None,
            answer=shown(task, judged["answer"][row, column]),
            probability=round(float(judged["probability"][row, column]), 4),
            measures={
                name: value
                for name in names
                if name in judged
                if math.isfinite(value := judged[name][row, column].item())
            },
        )
        for row, column in _different(questions)
    ]


def context_digest(context: Int[np.ndarray, "facts fact_length"]) -> str:
    """The same for the same facts, in whatever order: splits take those for one context, too."""
    facts = np.ascontiguousarray(context, dtype=np.int64)
    ordered = facts[np.lexsort(facts.T[::-1])]
    return hashlib.sha256(repr(facts.shape).encode() + ordered.tobytes()).hexdigest()[:16]


def _judge(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    weights: Weights,
    root: Key[Array, ""],
    problems: Problems,
) -> dict[str, Array]:
    """How each question is answered by the assistant and by the overseer, and what is right."""
    judge = _judge_compiled if overseer.traced else _judge_driven
    return judge(task, assistant, overseer, weights, root, problems)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _judge_compiled(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    weights: Weights,
    root: Key[Array, ""],
    problems: Problems,
) -> dict[str, Array]:
    contexts, questions = problems.contexts, problems.questions
    keys = answer_keys(root, problems.seeds, questions.shape[1])
    everywhere = jnp.ones(questions.shape[:2], bool)

    def overseen(respond: Respond) -> Int[Array, "batch questions answer_length"]:
        tree = amplified(task, overseer.using(weights.overseer), respond, contexts, depth=1)
        return tree(questions, everywhere, keys).answer

    helped = overseen(assistant_alone(task, assistant, weights.assistant, contexts))
    told = overseen(told_the_truth(task, contexts)) if knows_truth(task) else helped
    return _results(task, assistant, weights.assistant, problems, helped, told)


def _judge_driven(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    weights: Weights,
    root: Key[Array, ""],
    problems: Problems,
) -> dict[str, Array]:
    everywhere, keys = ask_everything(root, problems)
    bound, params = overseer.using(weights.overseer), weights.assistant

    def overseen(sub_answers: str) -> Int[Array, "batch questions answer_length"]:
        tree = driven(task, assistant, bound, params, problems.contexts, 1, sub_answers)
        return tree(problems.questions, everywhere, keys).answer

    helped = overseen("assistant")
    told = overseen("truth") if knows_truth(task) else helped
    return _compiled_results(task, assistant, params, problems, helped, told)


def _results(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    problems: Problems,
    helped: Int[Array, "batch questions answer_length"],
    told: Int[Array, "batch questions answer_length"],
) -> dict[str, Array]:
    """What is right of the assistant's own likeliest answers and of the overseer's.

    Args:
        params: the assistant's.
        helped: the overseer's answers with the assistant's sampled sub-answers.
        told: the overseer's answers with true sub-answers; of any kind where there is no truth.
    """
    contexts, questions = problems.contexts, problems.questions
    read = read_for(task, contexts, questions)
    memory = assistant.encode(params, read)
    alone = assistant.answer(params, memory, questions, None)

    def right(
        tokens: Int[Array, "batch questions answer_length"],
    ) -> Bool[Array, "batch questions"]:
        return over_questions(task.is_right)(contexts, questions, tokens)

    measured: dict[str, Array] = {}
    if knows_truth(task):
        if isinstance(task, SearchedTask):
            measured[FOUND.name] = over_questions(task.supports)(read, questions)
        measured |= {
            "truth": over_questions(task.truth)(contexts, questions),
            ALONE.name: right(alone.tokens),
            AMPLIFIED.name: right(helped),
            CEILING.name: right(told),
        }
    return measured | {
        "class": over_questions(task.class_of)(contexts, questions),
        "answer": alone.tokens,
        "probability": jnp.exp(alone.log_prob),
        "amplified_answer": helped,
    }


_compiled_results = jax.jit(_results, static_argnums=(0, 1))


def _compared(
    task: Task, judged: Mapping[str, Shaped[np.ndarray, "..."]]
) -> dict[str, Float[np.ndarray, "batch questions"]]:
    """What is measured by comparing texts, where nobody knows the truth."""
    if knows_truth(task):
        return {}
    return {CONSISTENT.name: same_answers(task, judged["answer"], judged["amplified_answer"])}


def same_answers(
    task: Task,
    alone: Int[np.ndarray, "batch questions answer_length"],
    amplified: Int[np.ndarray, "batch questions answer_length"],
) -> Float[np.ndarray, "batch questions"]:
    """Whether the assistant and its overseer give the same answer, by the task's own rule.

    Args:
        alone: the assistant's own answers.
        amplified: the overseer's answers with the assistant's help.

    Returns:
        1 where they are the same, 0 where they differ or one of them is "don't know", and NaN where
        no answer of the overseer was obtained.
    """
    rule = rule_of(task)

    def same(one: Int[np.ndarray, " length"], two: Int[np.ndarray, " length"]) -> float:
        if FAILED in two:
            return math.nan
        both_know = np.any(one != DONT_KNOW) and np.any(two != DONT_KNOW)
        return float(both_know and rule.same(shown(task, one), shown(task, two)))

    pairs = zip(*(side.reshape(-1, side.shape[-1]) for side in (alone, amplified)), strict=True)
    return np.array([same(*pair) for pair in pairs]).reshape(alone.shape[:-1])


def look(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    weights: Weights,
    student: PyTree[Array],
    problems: Problems,
    root: Key[Array, ""],
) -> dict[str, Any]:
    """Measures while training, on few problems: `{"accuracy": {measure: {class: mean}}}`.

    Args:
        student: the weights that training changes, of which the target network is the average.

    Returns:
        The names are those of `measures_of` and, where there is a truth, LIVE. Classes without
        values are left out.
    """
    judged = jax.device_get(_judge(task, assistant, overseer, weights, root, problems))
    judged |= _compared(task, judged)
    names = [measure.name for measure in measures_of(task, assistant, overseer)]
    seen = {name: judged[name] for name in names if name in judged}
    if knows_truth(task):
        seen[LIVE.name] = jax.device_get(_alone(task, assistant, student, problems))
    return {
        "accuracy": {
            name: {
                label: round(float(values[of_class].mean()), 4)
                for index, label in enumerate(task.classes)
                if (of_class := (judged["class"] == index) & np.isfinite(values)).any()
            }
            for name, values in seen.items()
        }
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _alone(
    task: Task, assistant: Assistant, params: PyTree[Array], problems: Problems
) -> Bool[Array, "batch questions"]:
    memory = assistant.encode(params, read_for(task, problems.contexts, problems.questions))
    answers = assistant.answer(params, memory, problems.questions, None)
    return over_questions(task.is_right)(problems.contexts, problems.questions, answers.tokens)


def _different(
    questions: Int[np.ndarray, "batch questions question_length"],
) -> list[tuple[int, int]]:
    """(row, column) of each question that its problem was not asked before."""
    places = []
    for row, asked in enumerate(questions):
        _, first = np.unique(asked, axis=0, return_index=True)
        places += [(row, int(column)) for column in np.sort(first)]
    return places
