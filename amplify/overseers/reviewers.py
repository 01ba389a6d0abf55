"""The interface of whoever reviews answers: scores each of them, or chooses the best of several.

Code that ranks candidates, weights a signal or audits it takes any `Scorer`; a reward model is
learned from what a `Reviewer` says. Implementations are judges (`judge`, `language_judge`) and the
scorers of `oversight.reviews.scorers`.
"""

import functools
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from amplify.tasks.batching import map_keys
from amplify.types import Roles, Scores


class Choices(NamedTuple):
    """The best of several answers to each question."""

    best: Int[Array, "batch questions"]  # its place among the candidates
    confidence: Float[Array, "batch questions"]  # 0: chosen by chance, 1: certain
    obtained: Bool[Array, "batch questions"]  # False: there is no choice, and both are meaningless
    looks: Int[Array, "batch questions"] | int = 0  # parts of the answers that were checked
    asks: Int[Array, "batch questions"] | int = 0  # parts about which a helper was asked


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
    """A scorer that also chooses the best of several answers.

    A judge that may fail to review has a method `check(obtained, asked)`, which raises AmplifyError
    if too few reviews were obtained.
    """

    def choose(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions candidates answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Choices:
        """Chooses the best answer to each question; of two, this is a comparison.

        Args:
            roles: parameters of the models that judge, by role.
            contexts: what the questions are about.
            questions: about each context.
            candidates: the answers to each question.
            keys: one for each question, consumed.
        """


@functools.partial(jax.jit, static_argnums=1)
def draw_order(
    keys: Key[Array, "batch questions"], candidates: int
) -> Int[Array, "batch questions candidates"]:
    """Draws in which order answers are shown, because models and people favour a place: each answer
    is in each place equally often.

    Args:
        keys: one for each choice.
        candidates: number of answers.

    Returns:
        Which answer is shown in each place.
    """
    turn = candidates - 1 - draw_below(keys, jnp.int32(candidates))
    return (turn[..., None] + jnp.arange(candidates, dtype=jnp.int32)[None, None]) % candidates


def draw_below(keys: Key[Array, "batch questions"], most: Int[Array, "..."]) -> Int[Array, "..."]:
    """Draws an integer from 0 to below a number, for each key.

    Args:
        keys: consumed.
        most: the number, one for all keys or one for each; at least 1.
    """
    uniform = map_keys(jax.random.uniform, keys)
    most = jnp.broadcast_to(most, uniform.shape)
    return jnp.minimum((uniform * most.astype(uniform.dtype)).astype(jnp.int32), most - 1)
