"""Evaluation: what the assistant, the assistant amplified once, and the overseer told the truth get
right.

Per-item results on held-out problems, kept one by one, because rounds are compared item by item.
The items are the same in every round of an experiment.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Bool, Int, Key, PyTree

from amplify.amplification import (
    amplified,
    assistant_alone,
    over_questions,
    read_for,
    told_the_truth,
)
from amplify.driving import ask_everything, driven
from amplify.overseers.language_model import check_failed
from amplify.problems import TOGETHER, answer_keys, at_a_time, in_chunks
from amplify.types import (
    Assistant,
    OverseerKind,
    Problems,
    Respond,
    SearchedTask,
    Task,
    Weights,
)
from amplify.words import shown

JUDGED = ("alone", "amplified", "ceiling", "found")

CHUNK = TOGETHER
"""Contexts evaluated at a time, at most."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One held-out question, and how it was answered: a line of `evals.jsonl`."""

    split: str
    problem: str  # the seed of the problem, "stream:index"
    context: str  # digest of what its context says; items with the same one are not independent
    question: str
    label: str  # the question's class
    truth: str
    answer: str  # the assistant's own likeliest
    probability: float  # which it gave that answer
    alone: bool  # the assistant's likeliest answer is right
    amplified: bool  # the overseer's is, with the assistant's sampled sub-answers
    ceiling: bool  # the overseer's is, with true sub-answers
    found: bool | None = None  # all that the truth rests on was found; None: nothing is searched

    def as_row(self) -> dict[str, Any]:
        row = dataclasses.asdict(self)
        if row["found"] is None:
            del row["found"]
        return {"class": row.pop("label"), **row}


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
    """Evaluates every different question of every problem once. `place`: where contexts lie.

    Two problems may have the same context. Their items say so by its digest, and statistics count
    what is the same once.

    Raises AmplifyError if the overseer gives too many of them no answer.
    """
    root = jax.random.key(seed)
    function = functools.partial(_judge, task, assistant, overseer, weights, root)
    size = at_a_time(len(problems.seeds), CHUNK, place)
    chunks = list(in_chunks(function, size, problems, advance=advance, place=place))
    judged = jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
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
            truth=shown(task, judged["truth"][row, column]),
            answer=shown(task, judged["answer"][row, column]),
            probability=round(float(judged["probability"][row, column]), 4),
            **{by: bool(judged[by][row, column]) for by in JUDGED if by in judged},
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
    told = overseen(told_the_truth(task, contexts))
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

    helped, told = overseen("assistant"), overseen("truth")
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
        told: the overseer's answers with true sub-answers.
    """
    contexts, questions = problems.contexts, problems.questions
    read = read_for(task, contexts, questions)
    memory = assistant.encode(params, read)
    alone = assistant.answer(params, memory, questions, None)

    def right(
        tokens: Int[Array, "batch questions answer_length"],
    ) -> Bool[Array, "batch questions"]:
        return over_questions(task.is_right)(contexts, questions, tokens)

    found = (
        {"found": over_questions(task.supports)(read, questions)}
        if isinstance(task, SearchedTask)
        else {}
    )
    return found | {
        "class": over_questions(task.class_of)(contexts, questions),
        "truth": over_questions(task.truth)(contexts, questions),
        "answer": alone.tokens,
        "probability": jnp.exp(alone.log_prob),
        "alone": right(alone.tokens),
        "amplified": right(helped),
        "amplified_answer": helped,
        "ceiling": right(told),
    }


_compiled_results = jax.jit(_results, static_argnums=(0, 1))


def look(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    weights: Weights,
    student: PyTree[Array],
    problems: Problems,
    root: Key[Array, ""],
) -> dict[str, Any]:
    """Accuracy while training, on few problems: `{"accuracy": {"target": {class: share}}}`.

    Of the target network, its amplification, the overseer told the truth, and the student whose
    weights the target network averages. Classes without items are left out.
    """
    judged = jax.device_get(_judge(task, assistant, overseer, weights, root, problems))
    own = jax.device_get(_alone(task, assistant, student, problems))
    right = {
        "overseer": judged["ceiling"],
        "amplified": judged["amplified"],
        "assistant": own,
        "target": judged["alone"],
    }
    return {
        "accuracy": {
            by: {
                label: round(float(items[judged["class"] == index].mean()), 4)
                for index, label in enumerate(task.classes)
                if (judged["class"] == index).any()
            }
            for by, items in right.items()
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
