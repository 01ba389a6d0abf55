"""Claims of essays: is this claim right, and if not, which of its statements is wrong?

A task of its own about the topics of `Essays`, whose contexts have `sources`. Whoever learns it can
help a judge of essays: it reads what the judge has no time for, and points at what is wrong. That
is a critic (Saunders et al. 2022, arXiv:2206.05802), and a helper in recursive reward modelling
(Leike et al. 2018, arXiv:1811.07871, section 3).

A question is about a claim or one of its statements, and is answered by "right" or by the number of
a wrong statement. A person looks up a statement, and asks about the statements of a claim.
"""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field

from amplify.task_abilities import Critique
from amplify.tasks.essays.task import Essays
from amplify.tasks.essays.world import STATEMENTS, statements_right
from amplify.types import DONT_KNOW, Ask, Strategy, Task

CLAIM, RIGHT = "claim", "right"
PLACES = tuple(str(1 + place) for place in range(STATEMENTS))
"""Words for the statements of a claim: in a question, the one that it is about; in an answer, one
that is wrong."""


@dataclasses.dataclass(frozen=True)
class Claims:
    """Claims."""

    essays: Essays = dataclasses.field(default_factory=lambda: Essays(topics=100_000, sources=True))
    """The essays that make the claims, as in `[task] kind = "essays"`; with `sources`, or nobody
    who reads could learn what is right."""
    wrong: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of questions that are about something wrong."""

    question_length: ClassVar = 2
    answer_length: ClassVar = 1
    max_depth: ClassVar = 2
    classes: ClassVar = ("right statement", "wrong statement", "right claim", "wrong claim")
    choices: ClassVar = (RIGHT, *PLACES)

    def __post_init__(self) -> None:
        """Checks that something can be learned.

        Raises:
            ValueError: if nothing in a context tells what is right, or no claim may be asked about.
        """
        if not self.essays.sources:
            raise ValueError(
                "task.essays.sources must be true: nothing else in a context tells what is right"
            )
        if not any(self.essays.open_to_questions):
            raise ValueError(
                "task.essays.blind_family must be -1 if task.essays.families is 1: there is no"
                " other family to ask about"
            )

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return (*self.essays.vocabulary, CLAIM, RIGHT, *PLACES)

    @property
    def _claim(self) -> int:
        """The token after the claim's in a question about the whole of it."""
        return len(self.essays.vocabulary)

    @property
    def _right(self) -> int:
        return self._claim + 1

    @property
    def _places(self) -> tuple[int, ...]:
        """The tokens of `PLACES`."""
        return tuple(self._right + 1 + place for place in range(STATEMENTS))

    @property
    def facts(self) -> int:
        return self.essays.facts

    @property
    def fact_length(self) -> int:
        return self.essays.fact_length

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "facts fact_length"]:
        return self.essays.draw_context(key)

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "facts fact_length"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        about_wrong, place = jax.random.split(key)
        right = self._right_statements(context)
        whole = depth > 1
        is_right = jnp.where(whole, jnp.all(right, axis=-1, keepdims=True), right)
        wanted = ~jax.random.bernoulli(about_wrong, self.wrong)
        allowed = jnp.array(self.essays.open_to_questions)[:, None]
        fitting = allowed & (is_right == wanted)
        fitting = jnp.where(jnp.any(fitting), fitting, allowed)
        drawn = jnp.where(fitting, jax.random.uniform(place, right.shape), -1)
        claim, statement = jnp.divmod(jnp.argmax(drawn), STATEMENTS)
        second = jnp.where(whole, self._claim, jnp.array(self._places)[statement])
        return jnp.stack([1 + claim, second]).astype(jnp.int32)

    def _right_statements(
        self, context: Int[Array, "facts fact_length"]
    ) -> Bool[Array, "claims statements"]:
        return statements_right(self.essays.hidden, self.essays.topic_of(context))

    def _asked(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> tuple[Bool[Array, " statements"], Bool[Array, " statements"]]:
        """Which statements of the claim a question is about, and which of them are right."""
        about = (question[1] == self._claim) | (jnp.array(self._places) == question[1])
        right = self._right_statements(context)[question[0] - 1]
        return about, right

    def truth(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, " answer_length"]:
        about, right = self._asked(context, question)
        wrong = about & ~right
        named = jnp.array(self._places)[jnp.argmax(wrong)]
        return jnp.where(jnp.any(wrong), named, self._right)[None].astype(jnp.int32)

    def is_right(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
    ) -> Bool[Array, ""]:
        about, right = self._asked(context, question)
        wrong = about & ~right
        names_one = jnp.any(wrong & (answer[0] == jnp.array(self._places)))
        return jnp.where(jnp.any(wrong), names_one, answer[0] == self._right)

    def class_of(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        about, right = self._asked(context, question)
        whole = question[1] == self._claim
        wrong = jnp.any(about & ~right)
        return 2 * whole.astype(jnp.int32) + wrong.astype(jnp.int32)

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        return jnp.zeros(question.shape[:-1], bool)

    def environment(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        """Looks a statement up."""
        return self.truth(context, question)

    def strategy(self, question: Int[Array, "*b question_length"]) -> Strategy:
        """A statement is looked up; about a claim, the assistant is asked for each statement."""
        whole = question[..., 1] == self._claim
        found = yield Ask(question, ~whole, to="environment")
        wrong, right = jnp.zeros(whole.shape, jnp.int32), jnp.ones(whole.shape, bool)
        for token in self._places:
            statement = jnp.stack([question[..., 0], jnp.full_like(question[..., 1], token)], -1)
            said = (yield Ask(statement, whole))[..., 0]
            wrong = jnp.where((wrong == 0) & (said == token), token, wrong)
            right &= said == self._right
        claim = jnp.where(right, self._right, jnp.where(wrong > 0, wrong, DONT_KNOW))
        return jnp.where(whole, claim, found[..., 0])[..., None]

    def fits(self, task: Task) -> bool:
        """Whether the claims are those of a task about essays, see `task_abilities.helping_of`."""
        return task == dataclasses.replace(self.essays, topics=getattr(task, "topics", 0) or 1)

    @property
    def part_questions(self) -> Int[Array, "claims question_length"]:
        """A question about each claim."""
        names = 1 + jnp.arange(self.essays.claims, dtype=jnp.int32)
        return jnp.stack([names, jnp.full_like(names, self._claim)], axis=-1)

    def critique(self, answers: Int[Array, "claims answer_length"]) -> Critique:
        """What answers to these questions say.

        Args:
            answers: one to each; anything but an answer counts as "don't know".
        """
        flawed = answers == jnp.array(self._places)[None]
        said = jnp.any(flawed, axis=-1) | (answers[:, 0] == self._right)
        return Critique(said & jnp.array(self.essays.open_to_questions), flawed)

    def parse(self, text: str) -> list[str]:
        names = self.essays.vocabulary[1 : 1 + self.essays.claims]
        claim, _, place = text.strip().partition(".")
        if claim in names and place in ("", *PLACES):
            return [claim, place or CLAIM]
        raise ValueError(
            f"a question is a claim or one of its statements: {names[0]} or {names[0]}.1"
        )

    def show(self, words: list[str]) -> str:
        if len(words) == 1 and words[0] in self.choices:
            return words[0]
        if len(words) == self.question_length and words[1] in (CLAIM, *PLACES):
            return words[0] if words[1] == CLAIM else ".".join(words)
        return self.essays.show(words)
