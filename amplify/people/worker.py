"""Answers people's sub-questions with the best assistant's weights, batching what is pending.

It sees the contexts, which people do not. A primitive question goes to the environment. To expand
on an answer is a question of its own: where a part of it is marked and the task knows how to ask
for more, that; else the answer's question is put to the overseer that does what people do not, and
how it came to an answer is shown.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from amplify import words
from amplify.amplification import over_questions, read_for
from amplify.chunks import amplify_chunk
from amplify.errors import first_line
from amplify.experiment import Experiment
from amplify.people.answer_tokens import read_question
from amplify.people.items import Assignment, Exchange, Item
from amplify.people.queue import New
from amplify.problems import answer_keys
from amplify.types import (
    Assistant,
    ExpandableTask,
    Problems,
    SearchedTask,
    Task,
    Weights,
)

SIZES = (1, 8, 64)
"""Questions answered at a time: the program is compiled for these numbers and no others."""

Pending = tuple[Item, Assignment, Exchange]


class Told(NamedTuple):
    answers: Int[Array, "n answer_length"]
    probability: Float[Array, " n"]
    primitive: Bool[Array, " n"]
    read: Int[Array, "n facts fact_length"]


@dataclasses.dataclass(frozen=True)
class Worker:
    experiment: Experiment
    weights: Weights
    digest: str  # of the assistant's weights
    problems: Problems

    def tell(self, pending: Sequence[Pending]) -> list[New]:
        """`told` events for questions that wait, in their order."""
        asked: dict[int, Int[np.ndarray, " question_length"]] = {}
        bodies: dict[int, dict[str, Any]] = {}
        for place, (item, assignment, exchange) in enumerate(pending):
            try:
                text = self._question(assignment, exchange)
            except Exception as error:  # of a task's own code
                bodies[place] = {"problem": f"this cannot be expanded on ({first_line(error)})"}
                continue
            if text is None:
                bodies[place] = self._one_by_one(self._taken_apart, item, assignment, exchange)
                continue
            tokens, problem = read_question(self.experiment.task, text)
            if tokens is None:
                bodies[place] = {"problem": problem}
            else:
                asked[place] = tokens
        rows = [pending[place][0].row for place in asked]
        bodies |= dict(zip(asked, self._told_or_why_not(rows, list(asked.values())), strict=True))
        return [
            {
                "kind": "told",
                "round": item.round,
                "item": item.id,
                "person": assignment.person,
                "checkpoint": self.digest,
                "request": f"told:{exchange.event}",
                "body": {"number": exchange.number, **bodies[place]},
            }
            for place, (item, assignment, exchange) in enumerate(pending)
        ]

    def warm_up(self) -> None:
        """Compiles what will be asked for, so that the first person need not wait."""
        blank = jax.device_get(self.problems.questions)[0, 0]
        for size in SIZES:
            self._told([0] * size, [blank] * size)

    def ask_again(self, asked: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
        """Answers to questions, each about the context of a row; with "right"."""
        task, rows = self.experiment.task, [row for row, _ in asked]
        questions = [words.read_question(task, text) for _, text in asked]
        bodies = self._told(rows, questions)
        contexts = jax.device_get(self.problems.contexts)
        for row, question, body in zip(rows, questions, bodies, strict=True):
            answer = np.array(body["tokens"]["answer"], np.int32)
            body["right"] = words.is_right(task, contexts[row], question, answer)
        return bodies

    def _question(self, assignment: Assignment, exchange: Exchange) -> str | None:
        """What is to be asked; None to take the question of an answer apart."""
        if exchange.about is None:
            return exchange.text
        part = exchange.about.get("part")
        if part and isinstance(self.experiment.task, ExpandableTask):
            return self.experiment.task.expand(part)
        return None

    def _told_or_why_not(
        self, rows: Sequence[int], questions: Sequence[Int[np.ndarray, " question_length"]]
    ) -> list[dict[str, Any]]:
        """Where they cannot be answered together, each by itself: one that cannot be keeps nobody
        else from an answer.
        """
        try:
            return self._told(rows, questions)
        except Exception:
            return [
                self._one_by_one(lambda *one: self._told(*one)[0], [row], [question])
                for row, question in zip(rows, questions, strict=True)
            ]

    def _one_by_one(self, work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        """What `work` returns, or why it cannot, as long as another question can be answered:
        where none can, that is raised.
        """
        try:
            return work(*arguments)
        except Exception as error:
            self.warm_up()
            return {"problem": f"this cannot be answered ({first_line(error)})"}

    def _told(
        self, rows: Sequence[int], questions: Sequence[Int[np.ndarray, " question_length"]]
    ) -> list[dict[str, Any]]:
        bodies = []
        for start in range(0, len(rows), SIZES[-1]):
            some = slice(start, start + SIZES[-1])
            bodies += self._told_together(rows[some], questions[some])
        return bodies

    def _told_together(
        self, rows: Sequence[int], questions: Sequence[Int[np.ndarray, " question_length"]]
    ) -> list[dict[str, Any]]:
        experiment = self.experiment
        size = next(size for size in SIZES if size >= len(rows))
        places = jnp.asarray([*rows, *[rows[0]] * (size - len(rows))])
        asked = jnp.asarray(np.stack([*questions, *[questions[0]] * (size - len(rows))]))
        told = _tell(
            experiment.task,
            experiment.assistant,
            self.weights.assistant,
            jax.random.key(experiment.seed),
            jax.tree.map(lambda column: column[places], self.problems),
            asked[:, None],
        )
        told = jax.device_get(told)
        return [self._body(question, told, n) for n, question in enumerate(questions)]

    def _body(self, question: Int[np.ndarray, " question_length"], told: Told, n: int) -> Any:
        task = self.experiment.task
        body: dict[str, Any] = {
            "question": words.shown(task, question),
            "text": words.shown(task, np.asarray(told.answers[n])),
            "by": "environment" if told.primitive[n] else "assistant",
            "tokens": {"question": question.tolist(), "answer": told.answers[n].tolist()},
        }
        if not told.primitive[n]:
            body["confidence"] = round(float(told.probability[n]), 4)
            if isinstance(task, SearchedTask):
                read = [fact for fact in told.read[n] if fact.any()]
                body["passages"] = [words.shown(task, fact) for fact in read]
        return body

    def _taken_apart(self, item: Item, assignment: Assignment, exchange: Exchange) -> Any:
        """How the overseer beside people takes an answer's question apart."""
        assert exchange.about is not None
        task, about = self.experiment.task, exchange.about["number"]
        text = assignment.exchanges[about - 1].text
        question = words.read_question(task, text)
        problem = jax.tree.map(lambda column: column[item.row][None], self.problems)
        problem = problem._replace(questions=jnp.asarray(question)[None, None])
        chunk = amplify_chunk(
            task,
            self.experiment.assistant,
            self.experiment.overseer,
            1,
            self.experiment.sub_answers,
            self.weights,
            jax.random.key(self.experiment.seed),
            problem,
        )
        trees = jax.device_get(chunk.trees)
        tree = words.tree(task, jax.device_get(problem.contexts)[0], trees, 0, 0)
        return {
            "question": tree["question"],
            "text": tree["answer"],
            "by": "overseer",
            "steps": [_without_truth(step) for step in tree["steps"]],
            "tokens": {
                "question": question.tolist(),
                "answer": chunk.answers[0, 0].tolist(),
            },
        }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _tell(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    root: Key[Array, ""],
    problems: Problems,
    questions: Int[Array, "n 1 question_length"],
) -> Told:
    """The likeliest answer to one question of each problem, or the environment's."""
    contexts = problems.contexts
    primitive = task.is_primitive(questions)
    keys = answer_keys(root, problems.seeds, 1)
    known = over_questions(task.environment)(contexts, questions, keys)
    read = read_for(task, contexts, jnp.where(primitive[..., None], 0, questions))
    answers = assistant.answer(params, assistant.encode(params, read), questions, None)
    tokens = jnp.where(primitive[..., None], known, answers.tokens)
    return Told(tokens[:, 0], jnp.exp(answers.log_prob[:, 0]), primitive[:, 0], read)


def _without_truth(tree: words.Tree) -> words.Tree:
    """People are not told what is right."""
    return {
        "question": tree["question"],
        "answer": tree["answer"],
        "by": tree["by"],
        "steps": [_without_truth(step) for step in tree["steps"]],
    }
