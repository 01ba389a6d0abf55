"""The interface of whoever reviews answers: scores each of them, or says which one is better.

Code that ranks candidates, weights a signal or audits it takes any `Scorer`; a reward model is
learned from what a `Reviewer` says. Implementations are judges (`judge`, `language_judge`) and the
scorers of `oversight.scorers`.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from amplify.types import Roles, Scores


class Reviews(NamedTuple):
    """Comparisons of two answers to each question."""

    prefers_first: Bool[Array, "batch questions"]
    obtained: Bool[Array, "batch questions"]  # False: `prefers_first` is meaningless


@runtime_checkable
class Scorer(Protocol):
    """Assigns a number to each answer; a frozen dataclass."""

    def __hash__(self) -> int: ...

    @property
    def traced(self) -> bool:
        """Whether its methods are pure functions of arrays that may be compiled with their caller.
        False: it asks people or servers, and is called from Python.
        """

    def score(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Scores:
        """Scores one answer to each question.

        Args:
            roles: parameters of the models that score, by role.
            contexts: what the questions are about.
            questions: about each context.
            candidates: the answers.
            keys: one for each answer, consumed; ignored by deterministic scorers.
        """


@runtime_checkable
class Reviewer(Scorer, Protocol):
    """A scorer that also compares answers.

    A judge that may fail to review has a method `check(obtained, asked)`, which raises AmplifyError
    if too few reviews were obtained.
    """

    def compare(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        first: Int[Array, "batch questions answer_length"],
        second: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Reviews:
        """Compares two answers to each question.

        Args:
            roles: parameters of the models that judge, by role.
            contexts: what the questions are about.
            questions: about each context.
            first, second: the answers.
            keys: one for each question, consumed.
        """


@jax.jit
def draw_order(keys: Key[Array, "batch questions"]) -> Int[Array, "batch questions"]:
    """Draws for each comparison which answer is shown first, because models and people favour a
    place. 1: the second one.

    Args:
        keys: one for each comparison.
    """
    drawn = jax.vmap(jax.vmap(jax.random.bernoulli))(keys)
    return drawn.astype(jnp.int32)
