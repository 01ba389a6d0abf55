"""Comparisons of two answers to another task's questions, as questions of a task of their own.

So whoever can answer questions can review: people do so on the pages on which they answer. Nothing
says which of the two is better; that is what is asked.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from amplify.task_abilities import draft_of
from amplify.types import DONT_KNOW, Task

NAMES = ("A", "B")
"""What reviewers are told that the two answers are called."""


@dataclasses.dataclass(frozen=True)
class Comparisons:
    """Which of two answers to a question of `task` is better?

    A question consists of the tokens of a question of `task` and of two answers to it. The answer
    is one of `NAMES`. Two equal answers leave nothing to ask: such a question is primitive.
    """

    task: Task

    truth = None
    """Reviews are opinions; what they are compared with is not known to whoever collects them."""
    is_right = None
    choices = NAMES

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return (*self.task.vocabulary, *NAMES)

    @property
    def facts(self) -> int:
        return self.task.facts

    @property
    def fact_length(self) -> int:
        return self.task.fact_length

    @property
    def question_length(self) -> int:
        return self.task.question_length + len(NAMES) * self.task.answer_length

    @property
    def answer_length(self) -> int:
        return 1

    @property
    def max_depth(self) -> int:
        return self.task.max_depth

    @property
    def classes(self) -> tuple[str, ...]:
        return self.task.classes

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "facts fact_length"]:
        return self.task.draw_context(key)

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "facts fact_length"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        """Draws a question, and two drafts of an answer to it."""
        draft = draft_of(self.task)
        assert draft is not None  # or there is no oversight that compares answers
        question_key, *keys = jax.random.split(key, 1 + len(NAMES))
        question = self.task.draw_question(question_key, context, depth)
        return jnp.concatenate([question, *(draft(context, question, key) for key in keys)])

    def class_of(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        return self.task.class_of(context, question[: self.task.question_length])

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        first, second = jnp.split(question[..., self.task.question_length :], len(NAMES), axis=-1)
        return jnp.all(first == second, axis=-1)

    def environment(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        """Of equal answers, neither is better."""
        return jnp.full(1, DONT_KNOW, jnp.int32)

    def parse(self, text: str) -> list[str]:
        raise ValueError("nobody types a comparison: it is made of two answers")

    def show(self, words: list[str]) -> str:
        """Formats a comparison in four lines: what is asked, the question, A and B."""
        if len(words) == 1:
            return words[0]
        padded = iter([*words, *[self._blank] * (self.question_length - len(words))])
        question = self._show_part(itertools.islice(padded, self.task.question_length))
        answers = [
            f"{name}: {self._show_part(itertools.islice(padded, self.task.answer_length))}"
            for name in NAMES
        ]
        return "\n".join(["Which answer is better?", f"Question: {question}", *answers])

    @property
    def _blank(self) -> str:
        return self.task.vocabulary[DONT_KNOW]

    def _show_part(self, padded: "itertools.islice[str]") -> str:
        """Formats a question or an answer in one line, without its padding."""
        words = list(padded)
        while len(words) > 1 and words[-1] == self._blank:
            words.pop()
        return " ".join(self.task.show(words).split())
