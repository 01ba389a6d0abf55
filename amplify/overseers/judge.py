"""A simulated judge, who answers no questions but compares and scores the answers of others.

Its resources are limited: it checks a few parts of an answer and goes by what the others seem. Two
knobs are separate: *bias*, from what it does not check (`looks`, `credulity`, `attentive`), which
more reviews do not remove, and *noise* (`errors`, `noise`), which they average out.
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from pydantic import Field

from amplify.overseers.reviewers import Reviews
from amplify.task_abilities import Impression, Reader, impression_of
from amplify.tasks.batching import vmap_questions
from amplify.types import Roles, Scores, Task

Share = Annotated[float, Field(ge=0, le=1)]


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """`[overseer]` of an experiment file."""

    looks: Annotated[int, Field(ge=0)] = 1000
    """Parts of an answer that the judge checks."""
    credulity: Share = 1.0
    """How far it trusts what it has not checked: 1 takes for right whatever seems right."""
    attentive: bool = True
    """Whether it notices what only the whole answer shows, such as insights and repeats."""
    errors: Share = 0.25
    """Share of its comparisons that are the wrong way around."""
    noise: Annotated[float, Field(ge=0)] = 0.5
    """Standard deviation of the error of a score."""

    def build(self, task: Task) -> "Judge":
        """Builds the judge.

        Raises:
            ValueError: the task does not say what its answers look like to a reader.
        """
        if impression_of(task) is None:
            raise ValueError(
                'overseer.kind = "judge" needs a task with an `impression` of its answers, but'
                f" {type(task).__name__} has none"
            )
        return Judge(task, self)


@dataclasses.dataclass(frozen=True)
class Judge:
    """A simulated judge; a `Reviewer`."""

    task: Task
    config: JudgeConfig

    traced = True
    replayable = True
    using: Any = None
    """It answers no questions."""

    def impression(
        self,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Float[Array, "batch questions"]:
        """What the judge takes answers to be worth, without noise.

        Args:
            contexts: what the questions are about.
            questions: about each context.
            answers: one to each question.
            keys: consumed; they decide what is checked.
        """
        config = self.config
        reader = Reader(config.looks, config.credulity, config.attentive)
        impression: Impression | None = impression_of(self.task)
        assert impression is not None  # checked when the judge was built

        def one(context: Array, question: Array, answer: Array, key: Array) -> Array:
            return impression(reader, context, question, answer, key)

        return vmap_questions(one)(contexts, questions, answers, keys)

    def impressions(
        self,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        first: Int[Array, "batch questions answer_length"],
        second: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> tuple[Float[Array, "batch questions"], Float[Array, "batch questions"]]:
        """What the judge takes two answers to each question to be worth, before it errs.

        Args:
            contexts: what the questions are about.
            questions: about each context.
            first, second: the answers.
            keys: those of `prefers_first`, from which others are split.
        """
        parts = _split_each(keys, 4)
        one = self.impression(contexts, questions, first, parts[0])
        return one, self.impression(contexts, questions, second, parts[1])

    def prefers_first(
        self,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        first: Int[Array, "batch questions answer_length"],
        second: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Bool[Array, "batch questions"]:
        """Compares two answers to each question; of equal ones, either may be preferred.

        Args:
            contexts: what the questions are about.
            questions: about each context.
            first, second: the answers.
            keys: consumed.
        """
        parts = _split_each(keys, 4)
        one, two = self.impressions(contexts, questions, first, second, keys)
        margin = one - two
        coin = _each(jax.random.bernoulli, parts[2])
        prefers = jnp.where(margin == 0, coin, margin > 0)
        errs = _each(lambda key: jax.random.bernoulli(key, self.config.errors), parts[3])
        return prefers ^ errs

    def compare(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        first: Int[Array, "batch questions answer_length"],
        second: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Reviews:
        """Compares two answers to each question; see `Reviewer`."""
        prefers = self.prefers_first(contexts, questions, first, second, keys)
        return Reviews(prefers, jnp.ones(prefers.shape, bool))

    def score(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Scores:
        """Scores answers, with noise; see `Scorer`."""
        reading, noise = _split_each(keys, 2)
        value = self.impression(contexts, questions, candidates, reading)
        value += self.config.noise * _each(jax.random.normal, noise)
        return Scores(value, jnp.ones(value.shape, bool))


def _each(draw: Any, keys: Key[Array, "batch questions"]) -> Array:
    drawn: Array = jax.vmap(jax.vmap(draw))(keys)
    return drawn


def _split_each(
    keys: Key[Array, "batch questions"], parts: int
) -> Key[Array, "parts batch questions"]:
    split = jax.vmap(jax.vmap(lambda key: jax.random.split(key, parts)))(keys)
    return jnp.moveaxis(split, -1, 0)
