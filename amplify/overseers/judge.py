"""A simulated judge, who answers no questions but scores those of others, or chooses the best.

Its resources are limited: it checks a few parts of an answer and goes by what the others seem. Two
knobs are separate: *bias*, from what it does not check (`looks`, `credulity`, `attentive`), which
more reviews do not remove, and *noise* (`errors`, `noise`), which they average out.
"""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from pydantic import Field

from amplify.overseers.reviewers import Choices, draw_below
from amplify.task_abilities import (
    Checks,
    Critic,
    Impression,
    Reader,
    Seen,
    impression_of,
    statements_of,
)
from amplify.tasks.batching import fold_in, map_keys, vmap_questions
from amplify.types import Roles, Scores, Task

Share = Annotated[float, Field(ge=0, le=1)]


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """`[overseer]` of an experiment file."""

    looks: Annotated[int, Field(ge=0)] = 1000
    """Parts of an answer that the judge checks; of an algorithmic task, facts that it looks up."""
    credulity: Share = 1.0
    """How far it trusts what it has not checked: 1 takes for right whatever seems right."""
    attentive: bool = True
    """Whether it notices what only the whole answer shows, such as insights and repeats."""
    checks: Checks = "random"
    """What it checks first, if nobody points at flaws: anything; what it is least sure of; or that,
    weighed by how much of the answer's worth depends on it. Makes a difference for essays only."""
    critic: Share = 0.0
    """How often a simulated critic is right about a part of an answer; it shows the judge those
    that it finds wrong. 0: there is no critic. Essays and sentences only."""
    trust: Literal["verify", "believe"] = "verify"
    """What the judge does with a critic's flaws: it checks them first, as far as its looks go; or
    it believes the critic and checks nothing."""
    errors: Share = 0.25
    """Share of its choices that are wrong: of two answers, the other one."""
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
        if (self.critic or self.checks != "random") and statements_of(task) == 1:
            raise ValueError(
                "overseer.critic and overseer.checks need a task whose answers have parts, such as"
                f" essays, but {type(task).__name__} has none"
            )
        return Judge(task, self)

    @property
    def reader(self) -> Reader:
        """How it reads."""
        critic = Critic(self.critic, believed=self.trust == "believe") if self.critic else None
        return Reader(self.looks, self.credulity, self.attentive, self.checks, critic)


@dataclasses.dataclass(frozen=True)
class Judge:
    """A simulated judge; a `Reviewer`."""

    task: Task
    config: JudgeConfig

    traced = True
    replayable = True
    simulates_person = True
    using: Any = None
    """It answers no questions."""

    def impression(
        self,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Seen:
        """What the judge makes of answers, without noise; of each, with the axes `batch questions`.

        Args:
            contexts: what the questions are about.
            questions: about each context.
            answers: one to each question.
            keys: consumed; they decide what is checked.
        """
        reader = self.config.reader
        impression: Impression | None = impression_of(self.task)
        assert impression is not None  # checked when the judge was built

        def one(context: Array, question: Array, answer: Array, key: Array) -> Seen:
            return impression(reader, context, question, answer, key)

        return vmap_questions(one)(contexts, questions, answers, keys)

    def impressions(
        self,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions candidates answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Seen:
        """What the judge makes of several answers to each question, before it errs; of each, with
        the axes `batch questions candidates`.

        Args:
            contexts: what the questions are about.
            questions: about each context.
            candidates: the answers.
            keys: those of `choose`, from which others are split.
        """
        answers = jnp.unstack(candidates, axis=2)
        parts = _split_each(keys, len(answers) + 2)
        seen = [
            self.impression(contexts, questions, answer, key)
            for answer, key in zip(answers, parts[: len(answers)], strict=True)
        ]
        return Seen(*(jnp.stack(part, axis=-1) for part in zip(*seen, strict=True)))

    def choose(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions candidates answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Choices:
        """Chooses the best answer to each question, or another one if it errs; see `Reviewer`. Of
        equal ones, any may be the best.
        """
        number = candidates.shape[2]
        tie_keys, error_keys = _split_each(keys, number + 2)[number:]
        worth, looks = self.impressions(contexts, questions, candidates, keys)
        best, obtained = highest(worth, tie_keys)
        errs = map_keys(lambda key: jax.random.bernoulli(key, self.config.errors), error_keys)
        other = best + 1 + draw_below(fold_in(error_keys, 1), jnp.int32(number - 1))
        confidence = jnp.where(obtained, certainty(worth), 0.0)
        chosen = jnp.where(errs, other % number, best)
        return Choices(chosen, confidence, obtained, jnp.sum(looks, axis=-1))

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
        worth, looks = self.impression(contexts, questions, candidates, reading)
        value = worth + self.config.noise * map_keys(jax.random.normal, noise)
        return Scores(value, jnp.ones(value.shape, bool), looks)


def highest(
    values: Float[Array, "batch questions candidates"], keys: Key[Array, "batch questions"]
) -> tuple[Int[Array, "batch questions"], Bool[Array, "batch questions"]]:
    """Finds the highest value, which is never NaN; of equal ones, any.

    Args:
        values: of each candidate.
        keys: consumed.

    Returns:
        Its place; and whether there is one: False if all values are NaN.
    """
    usable = ~jnp.isnan(values)
    top = values == jnp.max(values, axis=-1, keepdims=True, where=usable, initial=-jnp.inf)
    number = jnp.sum(top, axis=-1, dtype=jnp.int32)
    drawn = draw_below(keys, jnp.maximum(number, 1))
    place = jnp.argmax(jnp.cumsum(top, axis=-1) > drawn[..., None], axis=-1)
    return place.astype(jnp.int32), number > 0


def certainty(
    values: Float[Array, "batch questions candidates"],
) -> Float[Array, "batch questions"]:
    """How sure somebody is who sees these values that the highest one is the best answer.

    Args:
        values: of each candidate. Their differences are log-odds that one is better than another
            (Bradley and Terry 1952; Luce 1959); NaN is never better.

    Returns:
        The probability by which it is, scaled so that 0 means by chance and 1 certainly.
    """
    number = values.shape[-1]
    most = jnp.max(jax.nn.softmax(jnp.where(jnp.isnan(values), -jnp.inf, values)), axis=-1)
    return (number * most - 1) / (number - 1)


def _split_each(
    keys: Key[Array, "batch questions"], parts: int
) -> Key[Array, "parts batch questions"]:
    return jnp.moveaxis(map_keys(lambda key: jax.random.split(key, parts), keys), -1, 0)
