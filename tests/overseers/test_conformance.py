"""Every overseer must pass this; broken ones must not (see the `Broken...` fakes)."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.overseers.human import HumanConfig
from amplify.overseers.language_model import LanguageModelOverseer, Utterance
from amplify.overseers.learned import LearnedConfig
from amplify.overseers.simulated import Simulated, SimulatedConfig
from amplify.tasks.algorithmic.union_find import UnionFind
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.problems import draw_problems
from amplify.types import FAILED, Ask, OverseerKind
from amplify.words import read_answer, read_question

TASK = Wildcard(3)
ITEMS = 5


@dataclasses.dataclass(frozen=True)
class Speaker:
    """In place of a language model: asks for the two patterns that a wildcard stands for, and says
    what they add up to.
    """

    samples = False

    def load(self, place):
        return None

    def answer(self, prompts, read, params, lines) -> Sequence[Utterance]:
        return [self.say(prompt.text.splitlines()) for prompt in prompts]

    def say(self, lines: Sequence[str]) -> Utterance:
        pattern = lines[0].removeprefix("Question: ")
        told = [line.removeprefix("Answer: ") for line in lines if line.startswith("Answer: ")]
        if "*" not in pattern or len(told) == 2:
            total = sum(int(answer) for answer in told if answer != "?")
            said = f"{total:+d}" if total else "0"
            return Utterance(False, read_answer(TASK, said))
        return Utterance(True, read_question(TASK, pattern.replace("*", "ab"[len(told)], 1)))


OVERSEERS: dict[str, OverseerKind] = {
    "simulated": SimulatedConfig().build(TASK),
    "simulated, of steps that not all take": SimulatedConfig().build(UnionFind(6, 3)),
    "noisy": SimulatedConfig(noise=0.5).build(TASK),
    "learned": LearnedConfig(width=16, heads=2, layers=1).build(TASK),
    "people, others simulated": HumanConfig().build(TASK),
    "people, others nobody": HumanConfig(others="nobody").build(TASK),
    "people, others learned": HumanConfig(
        others="learned", learned=LearnedConfig(width=16, heads=2, layers=1, noise=0.2)
    ).build(TASK),
    "language model": LanguageModelOverseer(TASK, Speaker(), asks=2, most_failed=0.0),
}


class Setting(NamedTuple):
    contexts: jax.Array
    questions: jax.Array
    keys: jax.Array

    def only(self, item: int) -> "Setting":
        return jax.tree.map(lambda column: column[item : item + 1], self)


class Said(NamedTuple):
    """What an overseer did, step by step: leading axes of steps and items."""

    questions: np.ndarray
    where: np.ndarray
    answers: np.ndarray  # final ones, of items

    def only(self, item: int) -> "Said":
        steps = (part[:, item : item + 1] for part in (self.questions, self.where))
        return Said(*steps, self.answers[item : item + 1])

    def same(self, other: "Said") -> bool:
        """Whether the same was asked, where anything was, and the same answered."""
        asked = self.where[..., None]
        return np.array_equal(self.where, other.where) and (
            np.array_equal(self.answers, other.answers)
            and np.array_equal(self.questions * asked, other.questions * asked)
        )


def setting(task) -> Setting:
    depths = [1 + item % task.max_depth for item in range(ITEMS)]
    problems = draw_problems(task, 0, 1, "train", ITEMS, depths, apart=False)
    row = jnp.arange(ITEMS)
    keys = jax.random.split(jax.random.key(3), ITEMS)
    return Setting(problems.contexts, problems.questions[row, row], keys)


def params_of(overseer):
    """Far from uniform, so that what is said varies: some items ask, and some do not."""
    learner = getattr(overseer, "others", overseer)
    if not hasattr(learner, "init"):
        return None
    return jax.tree.map(lambda leaf: 3 * leaf, learner.init(jax.random.key(1)))


def run(overseer, params, given: Setting, unasked: int = 0):
    """Drives a strategy with true answers.

    Args:
        unasked: tokens that items are told which did not ask.
    """
    task, shape = overseer.task, given.questions.shape[:-1]
    strategy = overseer.using(params)(given.questions, given.keys)
    questions, wheres, told = [], [], None
    while True:
        try:
            ask = next(strategy) if told is None else strategy.send(told)
        except StopIteration as end:
            return jnp.stack(questions), jnp.stack(wheres), end.value
        where = jnp.ones(shape, bool) if ask.where is None else ask.where
        assert ask.question.shape == given.questions.shape
        assert where.shape == shape
        truth = jax.vmap(task.truth)(given.contexts, ask.question)
        told = jnp.where(where[..., None], truth, unasked)
        questions.append(ask.question)
        wheres.append(where)


COMPILED = jax.jit(run, static_argnums=0)


def said_by(overseer, given: Setting, unasked: int = 0, *, eagerly: bool = False) -> Said:
    how = COMPILED if overseer.traced and not eagerly else run
    return Said(*map(np.asarray, how(overseer, params_of(overseer), given, unasked)))


def check_form(overseer) -> None:
    """Asks and answers are tokens in the task's shapes, and its flags say what it is."""
    task = overseer.task
    assert isinstance(overseer.traced, bool)
    assert isinstance(overseer.replayable, bool)
    assert overseer.traced or not overseer.replayable
    assert hash(overseer) == hash(dataclasses.replace(overseer))
    said = said_by(overseer, setting(task))
    assert said.where.dtype == bool
    assert said.where.any()
    assert said.answers.shape == (ITEMS, task.answer_length)
    answered = said.answers[~(said.answers == FAILED).all(-1)]
    for tokens in (said.questions[said.where], answered):
        assert tokens.dtype == np.int32
        assert tokens.min() >= 0
        assert tokens.max() < len(task.vocabulary)


def check_batching(overseer) -> None:
    """Each item is overseen alone as it is in a batch, by its own key."""
    given = setting(overseer.task)
    together = said_by(overseer, given)
    for item in range(ITEMS):
        assert together.only(item).same(said_by(overseer, given.only(item)))


def check_repeats(overseer) -> None:
    """Asked and told the same, it does the same: replays and scans rely on that."""
    given = setting(overseer.task)
    assert said_by(overseer, given, eagerly=True).same(said_by(overseer, given, eagerly=True))


def check_unasked(overseer) -> None:
    """What an item is told that did not ask makes no difference."""
    given = setting(overseer.task)
    assert said_by(overseer, given, 0).same(said_by(overseer, given, 2))


def check_tracing(overseer) -> None:
    """Compiled, it does what it does in Python."""
    if overseer.traced:
        given = setting(overseer.task)
        assert said_by(overseer, given).same(said_by(overseer, given, eagerly=True))


CHECKS = (check_form, check_batching, check_repeats, check_unasked, check_tracing)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", OVERSEERS)
def test_an_overseer_conforms(name, check):
    check(OVERSEERS[name])


# Broken ones


@dataclasses.dataclass(frozen=True)
class BrokenNoise(Simulated):
    """Errs for a whole batch by the first item's key."""

    def using(self, params=None):
        inner = super().using(params)
        return lambda questions, keys: inner(questions, jnp.broadcast_to(keys[:1], keys.shape))


@dataclasses.dataclass(frozen=True)
class BrokenTokens(Simulated):
    """Answers with tokens that are not in the vocabulary."""

    def _strategy(self, questions, keys):
        answer = yield from super()._strategy(questions, keys)
        return answer + len(self.task.vocabulary)


@dataclasses.dataclass(frozen=True)
class BrokenMask(Simulated):
    """Says where it asks with numbers."""

    def _strategy(self, questions, keys):
        answer = yield Ask(questions, jnp.ones(questions.shape[:-1], jnp.int32))
        return answer


MOODS = iter(range(1000))


@dataclasses.dataclass(frozen=True)
class BrokenMemory(Simulated):
    """Answers differently every time."""

    traced = replayable = False

    def _strategy(self, questions, keys):
        answer = yield Ask(questions)
        return answer * 0 + 1 + next(MOODS) % 2


@dataclasses.dataclass(frozen=True)
class BrokenHearing(Simulated):
    """Half of the items do not ask, and answer what they are told all the same."""

    def _strategy(self, questions, keys):
        answer = yield Ask(questions, questions[..., 0] == questions[0, 0])
        return answer


@dataclasses.dataclass(frozen=True)
class BrokenTrace(Simulated):
    """Does something else where it is compiled."""

    def _strategy(self, questions, keys):
        answer = yield Ask(questions)
        return answer * 0 + 1 if isinstance(questions, jax.core.Tracer) else answer


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        (check_form, BrokenTokens(TASK)),
        (check_form, BrokenMask(TASK)),
        (check_batching, BrokenNoise(TASK, noise=0.5)),
        (check_repeats, BrokenMemory(TASK)),
        (check_unasked, BrokenHearing(TASK)),
        (check_tracing, BrokenTrace(TASK)),
    ],
)
def test_a_broken_overseer_is_caught(check, broken):
    with pytest.raises(AssertionError):
        check(broken)
