"""What all protocols have in common: they begin with two answers to a question, go on turn by turn,
and end in a verdict.

`as_strategy` makes an overseer's strategy of a protocol, which `trees.amplification.amplify` and
everything else that follows strategies can run. `play` runs one with `jax.lax.scan` over its turns,
so that the size of the program does not depend on their number.
"""

from collections.abc import Generator, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field
from typing_extensions import Protocol, runtime_checkable

from amplify.protocols.statements import same, select
from amplify.runtime import calls
from amplify.tasks.batching import fold_in, map_keys
from amplify.types import (
    DONT_KNOW,
    OVERSEER,
    Ask,
    Interaction,
    Overseer,
    Respond,
    StackedSteps,
    Step,
    Strategy,
    Task,
)

PRO, CON = "pro", "con"
"""The parts of the two sides. The answers of each are the first two steps of every transcript."""
SIDES = (PRO, CON)

UNDECIDED, FOR_PRO, FOR_CON = 0, 1, 2
"""Verdicts."""

T = TypeVar("T")
Asking = Generator[Ask, Int[Array, "*b answer_length"], T]
"""A generator that asks as a strategy does, and returns a `T` instead of an answer."""

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Candidates(NamedTuple):
    """The answers that a judge decides between."""

    pro: Int[Array, "*b answer_length"]
    con: Int[Array, "*b answer_length"]


@runtime_checkable
class JudgeProtocol(Protocol):
    """A protocol; a frozen dataclass.

    The state that goes from turn to turn is a pytree of arrays with the leading axes of the
    questions. Each turn asks the same parts in the same order, with a mask of the items that ask.
    """

    def __hash__(self) -> int: ...

    @property
    def task(self) -> Task:
        """Its strategy divides questions into sub-questions."""

    @property
    def errors(self) -> float:
        """Share of the judge's verdicts that are the wrong way around."""

    @property
    def most_turns(self) -> int:
        """Number of times that `turn` runs, enough for every item to come to an end."""

    def begin(self, questions: Int[Array, "*b question_length"], candidates: Candidates) -> Any:
        """Returns the state before the first turn."""

    def turn(self, state: Any, keys: Key[Array, "*b"]) -> Asking[Any]:
        """Asks what is asked in one turn.

        Args:
            state: after the turns before it. Items that are decided ask nothing.
            keys: of this turn, consumed.

        Returns:
            The next state.
        """

    def verdict(self, state: Any) -> Int[Array, "*b"]:
        """Returns UNDECIDED, FOR_PRO or FOR_CON after the last turn."""


def as_strategy(protocol: JudgeProtocol) -> Overseer:
    """Returns a judge's strategy, which returns the answer that the judge accepts: that of one of
    the sides, or "don't know" if it cannot decide.

    Args:
        protocol: what it follows.
    """

    def strategy(questions: Int[Array, "*b question_length"], keys: Key[Array, "*b"]) -> Strategy:
        candidates = yield from _hear_candidates(questions)
        state = protocol.begin(questions, candidates)
        for number in range(protocol.most_turns):
            state = yield from protocol.turn(state, fold_in(keys, number + 1))
        return _accepted(protocol, candidates, state, keys)

    return strategy


def play(
    protocol: JudgeProtocol,
    questions: Int[Array, "*b question_length"],
    where: Bool[Array, "*b"],
    keys: Key[Array, "*b"],
    parts: Mapping[str, Respond],
) -> Interaction:
    """Runs a protocol; the result is bit-identical to that of `amplify` with `as_strategy`.

    Args:
        protocol: the protocol.
        questions: a batch of questions.
        where: True for the items to judge; the others are undefined in the result.
        keys: one per question, consumed.
        parts: answer what the judge asks.

    Returns:
        The transcripts. Their steps are stacked, see `trees.scanning.unstack`.
    """
    own_keys = fold_in(keys, 0)

    def answer(number: Int[Array, ""] | int, ask: Ask) -> Step:
        asked = where if ask.where is None else where & ask.where
        sub = parts[ask.to](ask.question, asked, fold_in(keys, number + 1))
        return Step(asked, sub._replace(steps=()))

    def follow(asking: Asking[T], number: Int[Array, ""] | int) -> tuple[T, list[Step]]:
        """Answers everything that part of a strategy asks; its first step has this number."""
        steps: list[Step] = []
        try:
            ask = next(asking)
            while True:
                steps.append(answer(number + len(steps), ask))
                ask = asking.send(steps[-1].sub.answer)
        except StopIteration as end:
            return end.value, steps

    candidates, opening = follow(_hear_candidates(questions), 0)
    begun = protocol.begin(questions, candidates)
    per_turn = _asks_of_turn(protocol, begun, own_keys)

    def take_turn(state: Any, number: Int[Array, ""]) -> tuple[Any, Step]:
        first = len(opening) + per_turn * number
        state, steps = follow(protocol.turn(state, fold_in(own_keys, number + 1)), first)
        return state, _stack(steps)

    state, turns = jax.lax.scan(take_turn, begun, jnp.arange(protocol.most_turns))
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), turns)
    steps = jax.tree.map(lambda *parts: jnp.concatenate(parts), _stack(opening), flat)
    accepted = _accepted(protocol, candidates, state, own_keys)
    by = jnp.full(where.shape, OVERSEER)
    return Interaction(questions, accepted, by, StackedSteps(steps))


def _stack(steps: list[Step]) -> Step:
    stacked: Step = jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)
    return stacked


def _asks_of_turn(protocol: JudgeProtocol, state: Any, keys: Key[Array, "*b"]) -> int:
    """Number of asks of a turn, by abstract evaluation."""
    found: list[int] = []

    def trace() -> Any:
        asking, asks = protocol.turn(state, keys), 0
        try:
            ask = next(asking)
            while True:
                asks += 1
                shape = (*ask.question.shape[:-1], protocol.task.answer_length)
                ask = asking.send(jnp.zeros(shape, jnp.int32))
        except StopIteration as end:
            found.append(asks)
            return end.value

    jax.eval_shape(trace)
    return found[0]


def _hear_candidates(questions: Int[Array, "*b question_length"]) -> Asking[Candidates]:
    pro = yield Ask(questions, to=PRO)
    con = yield Ask(questions, to=CON)
    return Candidates(pro, con)


def _accepted(
    protocol: JudgeProtocol, candidates: Candidates, state: Any, keys: Key[Array, "*b"]
) -> Int[Array, "*b answer_length"]:
    """The answer that the judge accepts, which it sometimes does the wrong way around."""
    verdict = protocol.verdict(state)
    if protocol.errors:
        errs = map_keys(lambda key: jax.random.bernoulli(key, protocol.errors), fold_in(keys, 0))
        wrong = jnp.where(verdict == FOR_PRO, FOR_CON, FOR_PRO)
        verdict = jnp.where(errs & (verdict != UNDECIDED), wrong, verdict)
    for_one = select(verdict == FOR_PRO, candidates.pro, candidates.con)
    nobody = jnp.full_like(for_one, DONT_KNOW)
    # If both sides give the same answer, there is nothing to decide.
    agree = same(candidates.pro, candidates.con)
    return select(agree, candidates.pro, select(verdict == UNDECIDED, nobody, for_one))


def supported(
    result: Int[Array, "*b answer_length"],
    pro: Int[Array, "*b answer_length"],
    con: Int[Array, "*b answer_length"],
) -> Int[Array, "*b"]:
    """Returns the verdict for whoever claims what follows from the answers to sub-questions.

    Args:
        result: what follows.
        pro, con: what the sides claim. If both or neither claim it, nothing is decided.
    """
    for_pro, for_con = same(result, pro), same(result, con)
    return jnp.where(for_pro == for_con, UNDECIDED, jnp.where(for_pro, FOR_PRO, FOR_CON))


LOOK = calls.ENVIRONMENT
"""The part that a judge asks for a look at the world."""
