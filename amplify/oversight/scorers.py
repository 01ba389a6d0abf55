"""Scorers: who assigns a number to an answer.

A reward model, a judge or a game's outcome are others. Whoever ranks candidates, weighs a signal or
audits it asks a scorer, and need not know which.
"""

import dataclasses
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from amplify.errors import AmplifyError
from amplify.task_abilities import knows_truth
from amplify.training.phase import Roles
from amplify.trees.amplification import over_questions, read_for
from amplify.types import Assistant, Task


class Scores(NamedTuple):
    """What a scorer says of answers."""

    value: Float[Array, "batch questions"]  # the higher, the better
    obtained: Bool[Array, "batch questions"]  # False: there is none, and `value` means nothing


@runtime_checkable
class Scorer(Protocol):
    """Assigns a number to each answer. A frozen dataclass."""

    def __hash__(self) -> int: ...

    @property
    def traced(self) -> bool:
        """Whether `score` is a pure function of arrays, to be compiled with what calls it. False:
        it asks people or servers, and is called from Python.
        """

    def score(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Scores:
        """The score of one answer to each question. Consumes the keys.

        Args:
            roles: parameters of the models that score, by role.
            candidates: the answers.
            keys: one for each answer; a scorer that draws nothing ignores them.
        """


@dataclasses.dataclass(frozen=True)
class Gold:
    """The world's own value: 1 for a right answer, 0 for a wrong one.

    It is for reports, and for experiments that say that they train on it.

    Raises:
        AmplifyError: for a task that knows no truth.
    """

    task: Task
    traced = True

    def __post_init__(self) -> None:
        if not knows_truth(self.task):
            raise AmplifyError(
                "the truth cannot score answers: truth and is_right of"
                f" {type(self.task).__name__} are None"
            )

    def score(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Scores:
        """Scores by the truth; needs no roles."""
        right = over_questions(self.task.is_right)(contexts, questions, candidates)
        return Scores(right.astype(jnp.float32), jnp.ones(right.shape, bool))


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """The log-probability, in nats, that a model gives an answer: how confident it is."""

    task: Task
    model: Assistant
    role: str = "assistant"
    traced = True

    def score(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Scores:
        """Scores by the role's parameters."""
        params = roles[self.role]
        memory = self.model.encode(params, read_for(self.task, contexts, questions))
        value = jnp.sum(self.model.log_prob(params, memory, questions, candidates), axis=-1)
        return Scores(value, jnp.ones(value.shape, bool))
