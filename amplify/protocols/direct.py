"""Direct judgement: the judge follows the task's strategy by itself, as far as its looks at the
world reach, and hears no argument.

The control that shows what arguments are worth. Irving, Christiano and Amodei 2018
(arXiv:1805.00899), section 2.
"""

import dataclasses
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field

from amplify.protocols.protocol import (
    LOOK,
    UNDECIDED,
    Asking,
    Candidates,
    Count,
    Share,
    supported,
)
from amplify.protocols.statements import (
    Decomposition,
    Statement,
    pick_statement,
    put_statement,
    same,
    stack_statement,
)
from amplify.types import Ask, Task


class DirectState(NamedTuple):
    """Where the judge is in the tree of sub-questions, which it follows depth first."""

    candidates: Candidates
    statements: Statement  # the judge's own, with an axis of levels after the leading ones
    level: Int[Array, "*b"]  # of the last statement, from 0
    looks: Int[Array, "*b"]  # used
    done: Bool[Array, "*b"]
    verdict: Int[Array, "*b"]


@dataclasses.dataclass(frozen=True)
class Direct:
    """A judge who hears the two answers, and looks at the world to find out which is right.

    It remembers nothing but the sub-questions that it is in the middle of, so a sub-question that
    comes up twice is looked up twice. If its looks do not suffice, the verdict is undecided.
    """

    task: Task
    turns: Count
    """Levels of sub-questions that the judge can keep in mind."""
    looks: Annotated[int, Field(ge=0)] = 16
    """Looks at the world that the judge has."""
    errors: Share = 0.0
    """Share of the verdicts that are the wrong way around."""

    @property
    def decomposition(self) -> Decomposition:
        return Decomposition(self.task)

    @property
    def most_turns(self) -> int:
        """A turn of the protocol is a look, or a step down to or up from a sub-question. There are
        at most `turns` steps down before a look, and as many up.
        """
        return self.looks + 2 * (self.looks + 1) * self.turns

    def begin(
        self, questions: Int[Array, "*b question_length"], candidates: Candidates
    ) -> DirectState:
        """The judge begins with the question itself."""
        first = self.decomposition.begin(questions)
        lead = first.place.shape
        return DirectState(
            candidates,
            stack_statement(first, self.turns),
            level=jnp.zeros(lead, jnp.int32),
            looks=jnp.zeros(lead, jnp.int32),
            done=same(candidates.pro, candidates.con),
            verdict=jnp.full(lead, UNDECIDED),
        )

    def turn(self, state: DirectState, keys: Key[Array, "*b"]) -> Asking[DirectState]:
        """Looks if the next sub-question is primitive; else goes down to it, or up again."""
        statement = pick_statement(state.statements, state.level)
        point, live = self.decomposition.next(statement), ~state.done
        at_bottom = live & point.missing & point.primitive
        looks = at_bottom & (state.looks < self.looks)
        seen = yield Ask(point.question, looks, LOOK)
        state = self._say(state, looks, seen)
        down = live & point.missing & ~point.primitive & (state.level + 1 < self.turns)
        complete = live & ~point.missing
        up, ends = complete & (state.level > 0), complete & (state.level == 0)
        state = self._enter(state, down, point.question)
        state = state._replace(level=jnp.where(up, state.level - 1, state.level))
        state = self._say(state, up, point.result)
        verdict = supported(point.result, state.candidates.pro, state.candidates.con)
        return state._replace(
            looks=state.looks + looks.astype(jnp.int32),
            verdict=jnp.where(ends, verdict, state.verdict),
            done=state.done | (live & ~looks & ~down & ~up),
        )

    def verdict(self, state: DirectState) -> Int[Array, "*b"]:
        return state.verdict

    def _say(
        self, state: DirectState, where: Bool[Array, "*b"], answer: Int[Array, "*b answer_length"]
    ) -> DirectState:
        """Adds an answer to the last statement."""
        statement = pick_statement(state.statements, state.level)
        point = self.decomposition.next(statement)
        said = self.decomposition.say(statement, point, answer, where)
        return _with_last(state, said, where)

    def _enter(
        self, state: DirectState, where: Bool[Array, "*b"], question: Int[Array, "*b length"]
    ) -> DirectState:
        """Begins a statement about a sub-question."""
        state = state._replace(level=jnp.where(where, state.level + 1, state.level))
        return _with_last(state, self.decomposition.begin(question), where)


def _with_last(state: DirectState, last: Statement, where: Bool[Array, "*b"]) -> DirectState:
    return state._replace(statements=put_statement(state.statements, state.level, last, where))
