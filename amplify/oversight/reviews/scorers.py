"""Scorers that ask nobody: the truth, and a model's likelihood. See `overseers.reviewers.Scorer`;
judges are scorers, too.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from amplify.errors import AmplifyError
from amplify.task_abilities import knows_truth
from amplify.tasks.batching import vmap_questions
from amplify.trees.amplification import contexts_for
from amplify.types import Assistant, Roles, Scores, Task


@dataclasses.dataclass(frozen=True)
class Gold:
    """Scores by the truth: 1 for a right answer, 0 for a wrong one.

    For reports, and for experiments that declare that they train on it.

    Raises:
        AmplifyError: the task knows no truth.
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
        """Scores by the truth; uses neither roles nor keys."""
        right = vmap_questions(self.task.is_right)(contexts, questions, candidates)
        return Scores(right.astype(jnp.float32), jnp.ones(right.shape, bool))


def log_likelihood(
    model: Assistant,
    params: PyTree[Array],
    read: Int[Array, "batch facts fact_length"],
    questions: Int[Array, "batch questions question_length"],
    answers: Int[Array, "batch questions answer_length"],
) -> Float[Array, "batch questions"]:
    """Log-probability of whole answers under a model, in nats.

    Args:
        model: the model.
        params: its parameters.
        read: the contexts that it reads, see `contexts_for`.
        questions: about each context.
        answers: one to each question.
    """
    memory = model.encode(params, read)
    return jnp.sum(model.log_prob(params, memory, questions, answers), axis=-1)


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Scores by a model's confidence: the log-probability of the answer, in nats."""

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
        """Scores with the parameters of `role`; uses no keys."""
        read = contexts_for(self.task, contexts, questions)
        value = log_likelihood(self.model, roles[self.role], read, questions, candidates)
        return Scores(value, jnp.ones(value.shape, bool))
