"""Answers people's sub-questions with the best assistant, in batches.

Unlike people, the assistant sees the contexts. Primitive questions are answered by the environment.
A request to expand an answer becomes a question: if part of the answer is selected and the task has
a question about it (`task_abilities.expander_of`), that question; otherwise the overseer that works
beside people answers the same question again, and its decomposition is shown.
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
from amplify.errors import first_line
from amplify.experiment.sections import Experiment
from amplify.oversight.people.parsing import read_question
from amplify.people.events import New, Told, new_event
from amplify.people.items import Assignment, Exchange, Item
from amplify.task_abilities import expander_of, search_of
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import answer_keys
from amplify.trees.amplification import contexts_for
from amplify.trees.chunks import amplify_chunk
from amplify.types import Assistant, Problems, Roles, Task, Team

SIZES = (1, 8, 64)
"""Batch sizes, to which batches are padded: the program is compiled only for these."""

Pending = tuple[Item, Assignment, Exchange]


class Answered(NamedTuple):
    """Answers to n questions, by the assistant or the environment."""

    answers: Int[Array, "n answer_length"]
    probability: Float[Array, " n"]
    primitive: Bool[Array, " n"]
    read: Int[Array, "n facts fact_length"]


@dataclasses.dataclass(frozen=True)
class Answerer:
    """Answers the sub-questions that people ask in one round."""

    experiment: Experiment
    weights: Roles
    digest: str  # of the assistant's weights
    problems: Problems

    def answer(self, pending: Sequence[Pending]) -> list[New]:
        """Returns a `told` event for each sub-question, in order.

        A question that cannot be answered gets a problem in place of an answer, whatever the task's
        own code raised.

        Args:
            pending: sub-questions, each with its item and assignment.
        """
        asked: dict[int, Int[np.ndarray, " question_length"]] = {}
        bodies: dict[int, dict[str, Any]] = {}
        for place, (item, assignment, exchange) in enumerate(pending):
            try:
                text = self._question(assignment, exchange)
            except Exception as error:  # of a task's own code
                bodies[place] = {"problem": f"this cannot be expanded ({first_line(error)})"}
                continue
            if text is None:
                bodies[place] = self._try(self._decompose, item, assignment, exchange)
                continue
            tokens, problem = read_question(self.experiment.task, text)
            if tokens is None:
                bodies[place] = {"problem": problem}
            else:
                asked[place] = tokens
        rows = [pending[place][0].row for place in asked]
        bodies |= dict(zip(asked, self._answer_or_explain(rows, list(asked.values())), strict=True))
        return [
            new_event(
                Told(number=exchange.number, **bodies[place]),
                item.round,
                item=item.id,
                person=assignment.person,
                checkpoint=self.digest,
                request=f"told:{exchange.event}",
            )
            for place, (item, assignment, exchange) in enumerate(pending)
        ]

    def warm_up(self) -> None:
        """Compiles for every batch size, so that the first person does not wait."""
        blank = jax.device_get(self.problems.questions)[0, 0]
        for size in SIZES:
            self._answer([0] * size, [blank] * size)

    def ask_again(self, asked: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
        """Answers questions about the contexts of rows.

        Args:
            asked: row and text of each question.

        Returns:
            Bodies of `told` events, each with whether the answer is "right" if the task knows.
        """
        task, rows = self.experiment.task, [row for row, _ in asked]
        questions = [words.read_question(task, text) for _, text in asked]
        bodies = self._answer(rows, questions)
        contexts = jax.device_get(self.problems.contexts)
        for row, question, body in zip(rows, questions, bodies, strict=True):
            answer = np.array(body["tokens"]["answer"], np.int32)
            body |= words.correctness(task, contexts[row], question, answer)
        return bodies

    def _question(self, assignment: Assignment, exchange: Exchange) -> str | None:
        """Returns the question to ask; None if the overseer is to decompose an earlier question."""
        if exchange.about is None:
            return exchange.text
        part = exchange.about.get("part")
        expand = expander_of(self.experiment.task)
        if part and expand is not None:
            return expand(part)
        return None

    def _answer_or_explain(
        self, rows: Sequence[int], questions: Sequence[Int[np.ndarray, " question_length"]]
    ) -> list[dict[str, Any]]:
        """Answers questions in batches, or one by one if that fails, so that a question that cannot
        be answered does not affect others.
        """
        try:
            return self._answer(rows, questions)
        except Exception:
            return [
                self._try(lambda *one: self._answer(*one)[0], [row], [question])
                for row, question in zip(rows, questions, strict=True)
            ]

    def _try(self, work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        """Calls `work`; returns a problem if it raises. Raises if not even a known question can be
        answered, since then the question is not the cause.
        """
        try:
            return work(*arguments)
        except Exception as error:
            self.warm_up()
            return {"problem": f"this cannot be answered ({first_line(error)})"}

    def _answer(
        self, rows: Sequence[int], questions: Sequence[Int[np.ndarray, " question_length"]]
    ) -> list[dict[str, Any]]:
        bodies = []
        for start in range(0, len(rows), SIZES[-1]):
            some = slice(start, start + SIZES[-1])
            bodies += self._answer_batch(rows[some], questions[some])
        return bodies

    def _answer_batch(
        self, rows: Sequence[int], questions: Sequence[Int[np.ndarray, " question_length"]]
    ) -> list[dict[str, Any]]:
        experiment = self.experiment
        size = next(size for size in SIZES if size >= len(rows))
        places = jnp.asarray([*rows, *[rows[0]] * (size - len(rows))])
        asked = jnp.asarray(np.stack([*questions, *[questions[0]] * (size - len(rows))]))
        told = _answer_with(
            experiment.task,
            experiment.assistant,
            self.weights["assistant"],
            jax.random.key(experiment.seed),
            jax.tree.map(lambda column: column[places], self.problems),
            asked[:, None],
        )
        told = jax.device_get(told)
        return [self._body(question, told, n) for n, question in enumerate(questions)]

    def _body(self, question: Int[np.ndarray, " question_length"], told: Answered, n: int) -> Any:
        task = self.experiment.task
        body: dict[str, Any] = {
            "question": words.format_tokens(task, question),
            "text": words.format_tokens(task, np.asarray(told.answers[n])),
            "by": "environment" if told.primitive[n] else "assistant",
            "tokens": {"question": question.tolist(), "answer": told.answers[n].tolist()},
        }
        if not told.primitive[n]:
            body["confidence"] = round(float(told.probability[n]), 4)
            if search_of(task):
                read = [fact for fact in told.read[n] if fact.any()]
                body["passages"] = [words.format_tokens(task, fact) for fact in read]
        return body

    def _decompose(self, item: Item, assignment: Assignment, exchange: Exchange) -> Any:
        """Decomposes an earlier question by the overseer that works beside people."""
        assert exchange.about is not None
        task, about = self.experiment.task, exchange.about["number"]
        text = assignment.exchanges[about - 1].text
        question = words.read_question(task, text)
        problem = jax.tree.map(lambda column: column[item.row][None], self.problems)
        problem = problem._replace(questions=jnp.asarray(question)[None, None])
        chunk = amplify_chunk(
            Team(task, self.experiment.assistant, self.experiment.overseer),
            1,
            self.experiment.sub_answers,
            self.weights,
            jax.random.key(self.experiment.seed),
            problem,
        )
        trees = jax.device_get(chunk.trees)
        tree = words.describe_tree(task, jax.device_get(problem.contexts)[0], trees, 0, 0)
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
def _answer_with(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    root: Key[Array, ""],
    problems: Problems,
    questions: Int[Array, "n 1 question_length"],
) -> Answered:
    """Returns the likeliest answer to one question of each problem, or the environment's."""
    contexts = problems.contexts
    primitive = task.is_primitive(questions)
    keys = answer_keys(root, problems.seeds, 1)
    known = vmap_questions(task.environment)(contexts, questions, keys)
    read = contexts_for(task, contexts, jnp.where(primitive[..., None], 0, questions))
    answers = assistant.answer(params, assistant.encode(params, read), questions, None)
    tokens = jnp.where(primitive[..., None], known, answers.tokens)
    return Answered(tokens[:, 0], jnp.exp(answers.log_prob[:, 0]), primitive[:, 0], read)


def _without_truth(tree: words.Tree) -> words.Tree:
    """Returns the tree as people may see it."""
    return {
        "question": tree["question"],
        "answer": tree["answer"],
        "by": tree["by"],
        "steps": [_without_truth(step) for step in tree["steps"]],
    }
