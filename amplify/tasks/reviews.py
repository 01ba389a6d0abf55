"""Reviews of answers to another task's questions, as questions of a task of their own.

So whoever can answer questions can review: people do so on the pages on which they answer. Nothing
says which answer is best, or how good one is; that is what is asked.
"""

import dataclasses
import itertools
import string

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from amplify.task_abilities import draft_of
from amplify.types import DONT_KNOW, Task

LOWEST, HIGHEST = 0, 10
"""The scale of scores that people and language models give."""
SCALE = tuple(str(score) for score in range(LOWEST, HIGHEST + 1))


def names_of(candidates: int) -> tuple[str, ...]:
    """What reviewers are told that answers are called: A, B, ...

    Args:
        candidates: number of answers, at most 26.
    """
    return tuple(string.ascii_uppercase[:candidates])


@dataclasses.dataclass(frozen=True)
class Reviewing:
    """Which of several answers to a question of `task` is best? Or, of one: how good is it?

    A question consists of the tokens of a question of `task` and of the answers to it. It is
    answered by a name, or by a number of `SCALE` if there is only one answer. If all of several
    answers are equal, there is nothing to ask: such a question is primitive.
    """

    task: Task
    candidates: int = 2

    truth = None
    """Reviews are opinions; what they are compared with is not known to whoever collects them."""
    is_right = None

    @property
    def choices(self) -> tuple[str, ...]:
        return names_of(self.candidates) if self.candidates > 1 else SCALE

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return (*self.task.vocabulary, *self.choices)

    @property
    def facts(self) -> int:
        return self.task.facts

    @property
    def fact_length(self) -> int:
        return self.task.fact_length

    @property
    def question_length(self) -> int:
        return self.task.question_length + self.candidates * self.task.answer_length

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
        """Draws a question, and drafts of answers to it."""
        draft = draft_of(self.task)
        assert draft is not None  # or there is no oversight that reviews answers
        question_key, *keys = jax.random.split(key, 1 + self.candidates)
        question = self.task.draw_question(question_key, context, depth)
        return jnp.concatenate([question, *(draft(context, question, key) for key in keys)])

    def class_of(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        return self.task.class_of(context, question[: self.task.question_length])

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        shape = (*question.shape[:-1], self.candidates, self.task.answer_length)
        answers = question[..., self.task.question_length :].reshape(shape)
        same = jnp.all(answers == answers[..., :1, :], axis=(-2, -1))
        return same & (self.candidates > 1)

    def environment(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        """Of equal answers, none is best."""
        return jnp.full(1, DONT_KNOW, jnp.int32)

    def parse(self, text: str) -> list[str]:
        raise ValueError("nobody types a review: it is made of a question and answers")

    def show(self, words: list[str]) -> str:
        """Formats a review, a line each for what is asked, the question and every answer."""
        if len(words) == 1:
            return words[0]
        padded = iter([*words, *[self._blank] * (self.question_length - len(words))])
        question = self._show_part(itertools.islice(padded, self.task.question_length))
        one, two = self.candidates == 1, self.candidates == 2
        asked = f"Which answer is {'better' if two else 'best'}?"
        if one:
            asked = f"How good is this answer, from {LOWEST} to {HIGHEST}?"
        answers = [
            f"{name}: {self._show_part(itertools.islice(padded, self.task.answer_length))}"
            for name in (["Answer"] if one else self.choices)
        ]
        return "\n".join([asked, f"Question: {question}", *answers])

    @property
    def _blank(self) -> str:
        return self.task.vocabulary[DONT_KNOW]

    def _show_part(self, padded: "itertools.islice[str]") -> str:
        """Formats a question or an answer in one line, without its padding."""
        words = list(padded)
        while len(words) > 1 and words[-1] == self._blank:
            words.pop()
        return " ".join(self.task.show(words).split())
