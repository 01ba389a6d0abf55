"""Claims of essays: is this claim right, and if not, which of its statements is wrong?

A task of its own about the topics of `Essays` with `sources`. Whoever learns it can help a judge of
essays: it reads what the judge has no time for, and points at what is wrong. That is a critic
(Saunders et al. 2022, arXiv:2206.05802), and a helper in recursive reward modelling (Leike et al.
2018, arXiv:1811.07871, section 3).

The context is what can be read about one claim. A question is about the claim or about one of its
statements, and is answered by "right" or by the number of a wrong statement. A person looks up a
statement, and asks about the statements of a claim.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from amplify.task_helping import Critique
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

    essays: Essays = dataclasses.field(default_factory=lambda: Essays(topics=100_000, sources=4))
    """The essays that make the claims, as in `[task] kind = "essays"`; with `sources`, or nobody
    who reads could learn what is right."""

    facts: ClassVar = 4
    question_length: ClassVar = 1
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
                "task.essays.sources must be 2 or more, got 0: nothing in a context would tell what"
                " is right"
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
        """The token of a question about the whole claim."""
        return len(self.essays.vocabulary)

    @property
    def _right(self) -> int:
        return self._claim + 1

    @property
    def _places(self) -> tuple[int, ...]:
        """The tokens of `PLACES`."""
        return tuple(self._right + 1 + place for place in range(STATEMENTS))

    @property
    def fact_length(self) -> int:
        return self.essays.fact_length

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "facts fact_length"]:
        topic_key, claim_key = jax.random.split(key)
        asked = [claim for claim, is_open in enumerate(self.essays.open_to_questions) if is_open]
        claim = jax.random.choice(claim_key, jnp.array(asked))
        return self.passages(self.essays.draw_context(topic_key))[claim]

    def passages(
        self, context: Int[Array, "all_facts fact_length"]
    ) -> Int[Array, "claims facts fact_length"]:
        """What can be read about each claim, as a context of this task.

        Args:
            context: of essays.
        """
        names = 1 + jnp.arange(self.essays.claims)
        is_topic = context[:, 0] == self.essays.topic_marker
        kept = is_topic[None] | (context[None, :, 0] == names[:, None])
        # Facts may be in any order; those about a claim are sorted by their second token.
        order = jnp.argsort(jnp.where(kept, context[None, :, 1], jnp.iinfo(jnp.int32).max))
        return context[order[:, : self.facts]]

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "facts fact_length"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        place = jax.random.choice(key, jnp.array(self._places))
        return jnp.where(depth > 1, self._claim, place)[None].astype(jnp.int32)

    def _asked(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> tuple[Bool[Array, " statements"], Bool[Array, " statements"]]:
        """Which statements a question is about, and which of the claim's are wrong."""
        is_topic = context[:, 0] == self.essays.topic_marker
        claim = jnp.max(jnp.where(is_topic, 0, context[:, 0])) - 1
        right = statements_right(self.essays.hidden, self.essays.topic_of(context))[claim]
        about = (question[0] == self._claim) | (jnp.array(self._places) == question[0])
        return about, about & ~right

    def truth(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, " answer_length"]:
        _, wrong = self._asked(context, question)
        named = jnp.array(self._places)[jnp.argmax(wrong)]
        return jnp.where(jnp.any(wrong), named, self._right)[None].astype(jnp.int32)

    def is_right(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
    ) -> Bool[Array, ""]:
        _, wrong = self._asked(context, question)
        names_one = jnp.any(wrong & (answer[0] == jnp.array(self._places)))
        return jnp.where(jnp.any(wrong), names_one, answer[0] == self._right)

    def class_of(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        _, wrong = self._asked(context, question)
        whole = question[0] == self._claim
        return 2 * whole.astype(jnp.int32) + jnp.any(wrong).astype(jnp.int32)

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
        whole = question[..., 0] == self._claim
        found = yield Ask(question, ~whole, to="environment")
        wrong, right = jnp.zeros(whole.shape, jnp.int32), jnp.ones(whole.shape, bool)
        for token in self._places:
            said = (yield Ask(jnp.full_like(question, token), whole))[..., 0]
            wrong = jnp.where((wrong == 0) & (said == token), token, wrong)
            right &= said == self._right
        claim = jnp.where(right, self._right, jnp.where(wrong > 0, wrong, DONT_KNOW))
        return jnp.where(whole, claim, found[..., 0])[..., None]

    def fits(self, task: Task) -> bool:
        """Whether the claims are those of a task about essays, see `task_helping.helping_of`."""
        other: Any = task
        return type(other) is Essays and other == dataclasses.replace(
            self.essays, topics=other.topics, focus=other.focus
        )

    @property
    def part_question(self) -> Int[Array, " question_length"]:
        """The question about each passage, see `task_helping.helping_of`."""
        return jnp.array([self._claim], jnp.int32)

    def critique(self, answers: Int[Array, "claims answer_length"]) -> Critique:
        """What answers about every claim say.

        Args:
            answers: one for each claim; anything but an answer counts as "don't know".
        """
        flawed = answers == jnp.array(self._places)[None]
        said = jnp.any(flawed, axis=-1) | (answers[:, 0] == self._right)
        return Critique(said & jnp.array(self.essays.open_to_questions), flawed)

    def parse(self, text: str) -> list[str]:
        if text.strip() in (CLAIM, *PLACES):
            return [text.strip()]
        raise ValueError(
            f"a question is {CLAIM}, or the number of a statement, {PLACES[0]} to {PLACES[-1]}"
        )

    def show(self, words: list[str]) -> str:
        return words[0] if len(words) == 1 else self.essays.show(words)
