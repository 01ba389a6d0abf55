"""Consultancy: one side argues for its answer, and the judge checks a few points of the argument.

The control of debate: the same statements about the same decomposition, and the same looks at the
world, but nobody who objects. Khan et al. 2024 (arXiv:2402.06782), section 3.
"""

import dataclasses
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field

from amplify.protocols.protocol import (
    FOR_CON,
    FOR_PRO,
    LOOK,
    PRO,
    Asking,
    Candidates,
    Count,
    Share,
)
from amplify.protocols.statements import Decomposition, Points, Statement, pick, same, select
from amplify.tasks.batching import fold_in, map_keys
from amplify.types import Ask, Task


class ConsultancyState(NamedTuple):
    """A check in progress, and what the checks before it found."""

    root: Int[Array, "*b question_length"]
    root_claim: Int[Array, "*b answer_length"]
    statement: Statement  # the one that the consultant is making
    claim: Int[Array, "*b answer_length"]  # what it claims the answer to be
    level: Int[Array, "*b"]  # 0: the statement is about the question itself
    checks: Int[Array, "*b"]  # done
    refuted: Bool[Array, "*b"]
    done: Bool[Array, "*b"]


@dataclasses.dataclass(frozen=True)
class Consultancy:
    """A consultant, `pro`, argues for its own answer against that of `con`, who says no more.

    In a check, the judge follows the argument from the question down to a random primitive
    sub-question, hears the statements on the way, and looks whether the consultant is right there.
    The look is equally likely at every level. The judge accepts the answer of `con` if a look
    refutes the consultant, or if one of its claims does not follow from its statement.
    """

    task: Task
    turns: Count
    """Levels of the argument that a check can go down; a check that would go further is dropped."""
    looks: Annotated[int, Field(ge=0)] = 1
    """Number of checks, each with one look at the world."""
    errors: Share = 0.0
    """Share of the verdicts that are the wrong way around."""

    @property
    def decomposition(self) -> Decomposition:
        return Decomposition(self.task)

    @property
    def most_turns(self) -> int:
        """A turn of the protocol is one sub-question of a statement."""
        return self.looks * self.turns * self.decomposition.steps

    def begin(
        self, questions: Int[Array, "*b question_length"], candidates: Candidates
    ) -> ConsultancyState:
        """The first check begins with the question itself."""
        lead = questions.shape[:-1]
        state = ConsultancyState(
            questions,
            candidates.pro,
            self.decomposition.begin(questions),
            candidates.pro,
            level=jnp.zeros(lead, jnp.int32),
            checks=jnp.zeros(lead, jnp.int32),
            refuted=jnp.zeros(lead, bool),
            done=same(candidates.pro, candidates.con),
        )
        nothing_to_say = ~self.decomposition.next(state.statement).missing
        return state._replace(done=state.done | nothing_to_say | (self.looks == 0))

    def turn(self, state: ConsultancyState, keys: Key[Array, "*b"]) -> Asking[ConsultancyState]:
        """Asks the consultant the next sub-question; after the last one, checks the statement."""
        point, live = self.decomposition.next(state.statement), ~state.done
        answer = yield Ask(point.question, live, PRO)
        said = self.decomposition.say(state.statement, point, answer, live)
        state = state._replace(statement=said)
        points = self.decomposition.points(said)
        complete = live & ~self.decomposition.next(said).missing
        chosen = self._choose(state, points, keys)
        question, claim = pick(points.questions, chosen), pick(said.answers, chosen)
        follows = same(points.result, state.claim)
        at_bottom = complete & follows & pick(points.primitive, chosen)
        seen = yield Ask(question, at_bottom, LOOK)
        refuted = (complete & ~follows) | (at_bottom & ~same(seen, claim))
        deeper = complete & follows & ~at_bottom & (state.level + 1 < self.turns)
        return self._next(state, complete, deeper, refuted, question, claim)

    def verdict(self, state: ConsultancyState) -> Int[Array, "*b"]:
        return jnp.where(state.refuted, FOR_CON, FOR_PRO)

    def _choose(
        self, state: ConsultancyState, points: Points, keys: Key[Array, "*b"]
    ) -> Int[Array, "*b"]:
        """Chooses the sub-question that is looked at, or gone into: a primitive one with such a
        probability that the look is equally likely at every level that is left.
        """
        primitive, other = points.asked & points.primitive, points.asked & ~points.primitive
        left = (self.turns - state.level).astype(jnp.float32)
        stops = map_keys(jax.random.uniform, fold_in(keys, 1)) * left < 1
        stops = (stops & jnp.any(primitive, axis=-1)) | ~jnp.any(other, axis=-1)
        among = jnp.where(stops[..., None], primitive, other)
        step_keys = [fold_in(keys, 2 + step) for step in range(among.shape[-1])]
        draws = jnp.stack([map_keys(jax.random.uniform, one) for one in step_keys], axis=-1)
        return jnp.argmax(jnp.where(among, 1 + draws, 0.0), axis=-1).astype(jnp.int32)

    def _next(
        self,
        state: ConsultancyState,
        complete: Bool[Array, "*b"],
        deeper: Bool[Array, "*b"],
        refuted: Bool[Array, "*b"],
        question: Int[Array, "*b question_length"],
        claim: Int[Array, "*b answer_length"],
    ) -> ConsultancyState:
        """Goes on with the next statement of a check, or with the next check."""
        checks = state.checks + (complete & ~deeper).astype(jnp.int32)
        begun = self.decomposition.begin(select(deeper, question, state.root))
        pairs = zip(begun, state.statement, strict=True)
        level = jnp.where(deeper, state.level + 1, 0)
        return state._replace(
            statement=Statement(*(select(complete, new, old) for new, old in pairs)),
            claim=select(complete, select(deeper, claim, state.root_claim), state.claim),
            level=jnp.where(complete, level, state.level),
            checks=checks,
            refuted=state.refuted | refuted,
            done=state.done | refuted | (checks >= self.looks),
        )
