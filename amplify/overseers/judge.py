"""A simulated judge, who answers no questions but scores those of others, or chooses the best.

Its resources are limited: it checks a few parts of an answer and goes by what the others seem. Two
knobs are separate: *bias*, from what it does not check (`looks`, `credulity`, `attentive`), which
more reviews do not remove, and *noise* (`errors`, `noise`), which they average out.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
from pydantic import Field

from amplify.errors import AmplifyError, round_command
from amplify.overseers.helper import Helper
from amplify.overseers.reviewers import Choices, draw_below
from amplify.task_abilities import Checks, Critic, Reader, Seen, impression_of, statements_of
from amplify.task_helping import Critique, Refined, helped_impression_of, refine_of
from amplify.tasks.batching import fold_in, map_keys, vmap_questions
from amplify.types import Place, Roles, Scores, Task

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
    """What it checks, or asks about, first, if nobody points at flaws: anything; what it is least
    sure of; or that, weighed by how much of the answer's worth depends on it. Makes a difference
    for essays only."""
    critic: Share = 0.0
    """How often a simulated critic is right about a part of an answer; it shows the judge those
    that it finds wrong. 0: there is no critic. Essays and sentences only."""
    trust: Literal["verify", "believe"] = "verify"
    """What the judge does with the flaws that a critic or a helper points at: it checks them first,
    as far as its looks go; or it believes what it is told, and checks what it is told nothing
    about."""
    helper: str = ""
    """Folder of another experiment, whose task is "claims" about the same essays: the assistant of
    its best round tells the judge which claims are wrong. A round's folder, such as
    "../claims/002", names that round instead. If the experiment has no promoted round yet, its
    rounds are run first."""
    helper_asks: Annotated[int, Field(ge=1)] = 6
    """Largest number of claims of each essay about which the judge asks the helper."""
    errors: Share = 0.25
    """Share of its choices that are wrong: of two answers, the other one."""
    noise: Annotated[float, Field(ge=0)] = 0.5
    """Standard deviation of the error of a score."""

    PATHS: ClassVar = ("helper",)

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
        if self.helper and helped_impression_of(task) is None:
            raise ValueError(
                "overseer.helper needs a task about whose answers a helper can be asked, such as"
                f" essays, but nothing can be asked about those to {type(task).__name__}"
            )
        if self.helper and self.critic:
            raise ValueError(
                f"overseer.critic must be 0 if there is a helper, got {self.critic:g}: the helper"
                " points at flaws"
            )
        return Judge(task, self)

    @property
    def reader(self) -> Reader:
        """How it reads."""
        believes, asks = self.trust == "believe", self.helper_asks if self.helper else 0
        critic = Critic(self.critic, believed=believes) if self.critic else None
        return Reader(
            self.looks, self.credulity, self.attentive, self.checks, critic, asks, believes
        )


@dataclasses.dataclass(frozen=True)
class Judge:
    """A simulated judge; a `Reviewer`."""

    task: Task
    config: JudgeConfig
    helper: Helper | None = None
    """Whom it asks; its weights are those of the role "overseer"."""

    traced = True
    replayable = True
    simulates_person = True
    using: Any = None
    """It answers no questions."""

    def with_helper(self, helper: Helper) -> "Judge":
        """Returns the judge with a helper.

        Args:
            helper: the one that the experiment file names.

        Raises:
            ValueError: it has learned nothing about answers to the judge's task.
        """
        if not helper.fits(self.task):
            raise ValueError(
                'overseer.helper must be an experiment of task.kind = "claims", whose [task.essays]'
                " equals [task] in all but topics and focus"
            )
        return dataclasses.replace(self, helper=helper)

    def prepare(self) -> None:
        """Checks that the helper can help; see `models.abilities.preparer_of`.

        Raises:
            AmplifyError: if the experiment file names one of which no round was promoted yet.
        """
        if self.config.helper and self.helper is None:
            raise AmplifyError(
                f"overseer.helper: {self.config.helper}: none of its rounds was promoted, so that"
                f" it cannot help yet; run: {round_command(Path(self.config.helper), 1)}"
            )

    def load(self, place: Place) -> PyTree[Array] | None:
        """Loads the helper's weights; see `models.abilities.loader_of`.

        Args:
            place: the sharding of each parameter.

        Returns:
            The weights; None: there is no helper.

        Raises:
            AmplifyError: if they cannot be read.
        """
        self.prepare()
        return None if self.helper is None else self.helper.load(place)

    def impressions(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions candidates answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Seen:
        """What the judge makes of several answers to each question, before it errs; of each, with
        the axes `batch questions candidates`.

        Args:
            roles: the helper's weights are those of the role "overseer".
            contexts: what the questions are about.
            questions: about each context.
            candidates: the answers.
            keys: those of `choose`, from which others are split.
        """
        reading = _split_each(keys, candidates.shape[2] + 2)[:-2]
        return self._read(roles, contexts, questions, candidates, reading)

    def _read(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions candidates answer_length"],
        keys: Key[Array, "candidates batch questions"],
    ) -> Seen:
        answers = jnp.unstack(candidates, axis=2)
        critique = self._critique(roles, contexts)
        seen = [
            self._impression(critique, contexts, questions, answer, key)
            for answer, key in zip(answers, keys, strict=True)
        ]
        return Seen(*(jnp.stack(part, axis=-1) for part in zip(*seen, strict=True)))

    def _critique(self, roles: Roles, contexts: Array) -> Critique | None:
        if self.helper is None:
            return None
        return self.helper.criticise(roles["overseer"], contexts)

    def _impression(
        self,
        critique: Critique | None,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Seen:
        """What the judge makes of one answer to each question."""
        reader = self.config.reader
        alone, helped = impression_of(self.task), helped_impression_of(self.task)

        def one(read: tuple[Array, Critique | None], *of: Array) -> Seen:
            context, said = read
            if said is None:
                assert alone is not None  # checked when the judge was built
                seen = alone(reader, context, *of)
            else:
                assert helped is not None  # likewise
                seen = helped(reader, said, context, *of)
            return seen._replace(asks=jnp.int32(seen.asks))

        return vmap_questions(one)((contexts, critique), questions, answers, keys)

    def refine(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions candidates answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Refined:
        """Refines the first of several answers to each question by what the helper says of them.

        Args:
            roles: the helper's weights are those of the role "overseer".
            contexts: what the questions are about.
            questions: about each context.
            candidates: answers to each question.
            keys: consumed; they decide what is asked about and checked.

        Returns:
            Of each question, with the axes `batch questions`.
        """
        refine, critique = refine_of(self.task), self._critique(roles, contexts)
        assert refine is not None  # checked when the experiment file was read
        assert critique is not None

        def one(read: tuple[Array, Critique], *of: Array) -> Refined:
            context, said = read
            return refine(self.config.reader, said, context, *of)

        return vmap_questions(one)((contexts, critique), questions, candidates, keys)

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
        seen = self.impressions(roles, contexts, questions, candidates, keys)
        best, obtained = highest(seen.worth, tie_keys)
        errs = map_keys(lambda key: jax.random.bernoulli(key, self.config.errors), error_keys)
        other = best + 1 + draw_below(fold_in(error_keys, 1), jnp.int32(number - 1))
        confidence = jnp.where(obtained, certainty(seen.worth), 0.0)
        chosen = jnp.where(errs, other % number, best)
        looks, asks = jnp.sum(seen.looks, axis=-1), jnp.sum(seen.asks, axis=-1)
        return Choices(chosen, confidence, obtained, looks, asks)

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
        seen = self._read(roles, contexts, questions, candidates[:, :, None], reading[None])
        worth, looks, asks = (jnp.squeeze(part, -1) for part in jax.tree.leaves(seen))
        value = worth + self.config.noise * map_keys(jax.random.normal, noise)
        return Scores(value, jnp.ones(value.shape, bool), looks, asks)


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
