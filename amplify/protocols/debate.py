"""Debate: two sides answer the same sub-questions until they disagree, then those of the disputed
one, and so on, until a look at the world settles what they disagree about.

Irving, Christiano and Amodei 2018 (arXiv:1805.00899). On a task with a decomposition, a statement
about a question consists of answers to its sub-questions, and the other side disputes the first one
that it would answer differently.
"""

import dataclasses
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field

from amplify.protocols.protocol import (
    CON,
    LOOK,
    PRO,
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
    pick,
    pick_statement,
    put,
    put_statement,
    same,
    select,
    stack,
    stack_statement,
)
from amplify.types import Ask, Task


class DebateState(NamedTuple):
    """A debate so far: the statements from the question itself down to the disputed sub-question,
    of which the last one is being made.
    """

    statements: Statement  # with an axis of levels after the leading ones
    pro: Int[Array, "*b levels answer_length"]  # what the sides claim the answer to be
    con: Int[Array, "*b levels answer_length"]
    level: Int[Array, "*b"]  # of the last statement, from 0
    turns: Int[Array, "*b"]  # statements made, the one in progress included
    restating: Bool[Array, "*b"]  # True: the sides are asked again for what they claim
    done: Bool[Array, "*b"]
    verdict: Int[Array, "*b"]


@dataclasses.dataclass(frozen=True)
class Debate:
    """A debate between `pro` and `con`, and its judge.

    The judge sees what the sides say and never a context; it looks at the world at most once, where
    a disputed sub-question is primitive. If a statement ends without dispute, it decides for the
    side whose claim follows from it.
    """

    task: Task
    turns: Count
    """Largest number of statements. A debate that is not over then is undecided."""
    precommitment: bool = True
    """Whether a side is bound by what it first said. If not, both are asked for their claims again
    before a disputed sub-question is gone into. If they then agree, that is settled, and the
    statement of which it is part goes on."""
    looks: Annotated[int, Field(ge=0)] = 1
    """Looks at the world that the judge has; more than one is never needed."""
    errors: Share = 0.0
    """Share of the verdicts that are the wrong way around."""

    @property
    def decomposition(self) -> Decomposition:
        return Decomposition(self.task)

    @property
    def most_turns(self) -> int:
        """A turn of the protocol is one sub-question of a statement, or a restated claim."""
        return self.turns * (self.decomposition.steps + (not self.precommitment))

    def begin(
        self, questions: Int[Array, "*b question_length"], candidates: Candidates
    ) -> DebateState:
        """The first statement is about the question itself, on which the sides are committed."""
        first = self.decomposition.begin(questions)
        lead = first.place.shape
        agree = same(candidates.pro, candidates.con)
        state = DebateState(
            stack_statement(first, self.turns),
            stack(candidates.pro, self.turns, len(lead)),
            stack(candidates.con, self.turns, len(lead)),
            level=jnp.zeros(lead, jnp.int32),
            turns=jnp.ones(lead, jnp.int32),
            restating=jnp.zeros(lead, bool),
            done=agree,
            verdict=jnp.full(lead, UNDECIDED),
        )
        return self._settle(state)

    def turn(self, state: DebateState, keys: Key[Array, "*b"]) -> Asking[DebateState]:
        """Asks both sides the next sub-question, and looks if they disagree on a primitive one."""
        statement = _last(state)
        point = self.decomposition.next(statement)
        live, restating = ~state.done, state.restating & ~state.done
        question = select(restating, statement.question, point.question)
        pro = yield Ask(question, live, PRO)
        con = yield Ask(question, live, CON)
        disputed = live & ~same(pro, con)
        at_bottom = disputed & ~restating & point.primitive
        if self.looks:
            seen = yield Ask(question, at_bottom, LOOK)
            state = _decide(state, at_bottom, supported(seen, pro, con))
        else:
            state = _decide(state, at_bottom, jnp.full_like(state.verdict, UNDECIDED))
        state = self._go_on(state, live & ~disputed & ~restating, pro)
        state = self._claim(state, disputed & restating, pro, con)
        state = self._concede(state, restating & ~disputed, pro)
        state = self._go_into(state, disputed & ~restating & ~point.primitive, question, pro, con)
        return self._settle(state)

    def verdict(self, state: DebateState) -> Int[Array, "*b"]:
        return jnp.where(state.done, state.verdict, UNDECIDED)

    def _go_on(
        self, state: DebateState, where: Bool[Array, "*b"], answer: Int[Array, "*b answer_length"]
    ) -> DebateState:
        """The sides agree on a sub-question; the statement goes on with the next one."""
        statement = _last(state)
        point = self.decomposition.next(statement)
        said = self.decomposition.say(statement, point, answer, where)
        return _with_last(state, said, where)

    def _claim(
        self,
        state: DebateState,
        where: Bool[Array, "*b"],
        pro: Int[Array, "*b answer_length"],
        con: Int[Array, "*b answer_length"],
    ) -> DebateState:
        """The sides have restated what they claim, and still disagree."""
        return state._replace(
            pro=put(state.pro, state.level, pro, where),
            con=put(state.con, state.level, con, where),
            restating=state.restating & ~where,
        )

    def _concede(
        self, state: DebateState, where: Bool[Array, "*b"], answer: Int[Array, "*b answer_length"]
    ) -> DebateState:
        """The sides agree after all; the statement above goes on, which is another turn."""
        state = state._replace(
            level=jnp.where(where, state.level - 1, state.level),
            restating=state.restating & ~where,
        )
        return self._go_on(self._count_turn(state, where), where & ~state.done, answer)

    def _go_into(
        self,
        state: DebateState,
        where: Bool[Array, "*b"],
        question: Int[Array, "*b question_length"],
        pro: Int[Array, "*b answer_length"],
        con: Int[Array, "*b answer_length"],
    ) -> DebateState:
        """The sides disagree on a sub-question; the next statement is about that one."""
        state = self._count_turn(state, where)
        where &= ~state.done
        state = state._replace(level=jnp.where(where, state.level + 1, state.level))
        state = _with_last(state, self.decomposition.begin(question), where)
        state = self._claim(state, where, pro, con)
        return state._replace(restating=state.restating | (where & (not self.precommitment)))

    def _count_turn(self, state: DebateState, where: Bool[Array, "*b"]) -> DebateState:
        over = where & (state.turns == self.turns)
        turns = jnp.where(where & ~over, state.turns + 1, state.turns)
        undecided = jnp.full_like(state.verdict, UNDECIDED)
        return _decide(state._replace(turns=turns), over, undecided)

    def _settle(self, state: DebateState) -> DebateState:
        """Decides where a statement is complete without a dispute."""
        point = self.decomposition.next(_last(state))
        complete = ~point.missing & ~state.restating & ~state.done
        pro, con = pick(state.pro, state.level), pick(state.con, state.level)
        return _decide(state, complete, supported(point.result, pro, con))


def _last(state: DebateState) -> Statement:
    return pick_statement(state.statements, state.level)


def _with_last(state: DebateState, last: Statement, where: Bool[Array, "*b"]) -> DebateState:
    return state._replace(statements=put_statement(state.statements, state.level, last, where))


def _decide(state: DebateState, where: Bool[Array, "*b"], verdict: Int[Array, "*b"]) -> DebateState:
    return state._replace(done=state.done | where, verdict=jnp.where(where, verdict, state.verdict))
