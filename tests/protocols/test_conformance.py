"""Every protocol must pass this; broken ones must not (see the `Broken...` fakes)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify import words
from amplify.protocols import PROTOCOLS, Consultancy, Debate, Direct
from amplify.protocols.protocol import FOR_PRO, LOOK, SIDES, as_strategy, play
from amplify.protocols.rewards import candidate, zero_sum, zero_sum_of_log
from amplify.protocols.sides import answering, dishonest, honest, parts, plan_lies
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.problems import draw_problems
from amplify.trees.amplification import amplify
from amplify.trees.counting import count_answers
from amplify.trees.scanning import unstack
from amplify.types import ENVIRONMENT, OTHERS, Ask

TASK = Permutation(4, 3)
PROBLEMS = draw_problems(TASK, 0, 1, "train", 8, [1, 2, 2])
KEYS = jax.random.split(jax.random.key(1), PROBLEMS.questions.shape[:2])
EVERYWHERE = jnp.ones(KEYS.shape, bool)
LIES = plan_lies(TASK, PROBLEMS.contexts, PROBLEMS.questions, 3, KEYS)
RIGHT, WRONG = "right", "wrong"

INSTANCES = {
    "direct": Direct(TASK, 2, looks=2),
    "consultancy": Consultancy(TASK, 2),
    "debate": Debate(TASK, 2),
    "debate, free": Debate(TASK, 2, precommitment=False),
}


def test_every_protocol_is_tried():
    assert {*PROTOCOLS.values()} == {type(protocol) for protocol in INSTANCES.values()}


def people(contexts, lies, pro: str, con: str):
    sides = {"right": honest(TASK, contexts), "wrong": dishonest(TASK, contexts, lies)}
    return parts(TASK, contexts, sides[pro], sides[con])


@functools.cache
def run(protocol, pro: str, con: str, row: int | None = None):
    """Transcripts of all problems, or of one."""
    rows = slice(None) if row is None else slice(row, row + 1)

    @jax.jit
    def transcripts(problems, lies, keys):
        where = jnp.ones(keys.shape, bool)
        asked = people(problems.contexts, lies, pro, con)
        return play(protocol, problems.questions, where, keys, asked)

    problems = jax.tree.map(lambda column: column[rows], PROBLEMS)
    lies = jax.tree.map(lambda column: column[:, rows], LIES)
    return jax.device_get(transcripts(problems, lies, KEYS[rows]))


def check_is_a_strategy(protocol) -> None:
    """Scanned and unrolled, a protocol has the same transcript."""
    scanned = unstack(run(protocol, RIGHT, WRONG))
    asked = people(PROBLEMS.contexts, LIES, RIGHT, WRONG)
    nobody = asked[LOOK]  # no protocol asks the assistant

    @jax.jit
    def unroll(questions):
        return amplify(as_strategy(protocol), nobody, questions, EVERYWHERE, KEYS, parts=asked)

    unrolled = jax.device_get(unroll(PROBLEMS.questions))
    assert jax.tree.structure(scanned) == jax.tree.structure(unrolled)
    for one, two in zip(jax.tree.leaves(scanned), jax.tree.leaves(unrolled), strict=True):
        np.testing.assert_array_equal(one, two)


def check_begins_with_the_sides(protocol) -> None:
    """Each transcript begins with both candidates, whatever the rest is."""
    tree = run(protocol, RIGHT, WRONG)
    steps = unstack(tree).steps
    assert [int(step.sub.answered_by[0, 0]) for step in steps[:2]] == [OTHERS, OTHERS + 1]
    for side, step in enumerate(steps[:2]):
        assert step.asked.all()
        np.testing.assert_array_equal(step.sub.question, PROBLEMS.questions)
        np.testing.assert_array_equal(candidate(tree, side), step.sub.answer)


def check_accepts_a_candidate_or_nothing(protocol) -> None:
    for sides in ((RIGHT, WRONG), (WRONG, RIGHT)):
        tree = run(protocol, *sides)
        options = [candidate(tree, side) for side in range(2)]
        options.append(np.zeros_like(options[0]))
        assert np.any([(tree.answer == one).all(-1) for one in options], axis=0).all()


def check_is_blind(protocol) -> None:
    """The verdict does not depend on which side says what, unless only one is heard."""
    if not isinstance(protocol, Consultancy):
        one, two = run(protocol, RIGHT, WRONG), run(protocol, WRONG, RIGHT)
        np.testing.assert_array_equal(one.answer, two.answer)


def check_keeps_to_its_looks(protocol) -> None:
    tree = run(protocol, RIGHT, WRONG)
    looks = count_answers(tree, EVERYWHERE, ENVIRONMENT)
    assert (looks <= protocol.looks).all()
    asked = tree.steps.step
    world = (asked.sub.answered_by == ENVIRONMENT) & asked.asked
    assert np.asarray(TASK.is_primitive(jnp.asarray(asked.sub.question)))[world].all()


def check_does_not_depend_on_the_batch(protocol) -> None:
    """One problem at a time, its transcript is what it is among others."""
    together = run(protocol, RIGHT, WRONG)
    for row in (5,):
        alone = run(protocol, RIGHT, WRONG, row)
        np.testing.assert_array_equal(alone.answer[0], together.answer[row])
        np.testing.assert_array_equal(
            alone.steps.step.asked[:, 0], together.steps.step.asked[:, row]
        )


def check_sides_that_agree_are_believed_at_once(protocol) -> None:
    tree = run(protocol, WRONG, WRONG)
    np.testing.assert_array_equal(tree.answer, LIES.answers[0])
    assert not tree.steps.step.asked[2:].any()
    assert (zero_sum(tree) == 0).all()


def check_rescores(protocol) -> None:
    """A logged transcript has the reward of the one that was played, and no names but of sides."""
    for sides in ((RIGHT, WRONG), (WRONG, RIGHT), (RIGHT, RIGHT)):
        tree = run(protocol, *sides)
        rewards, flat = zero_sum(tree), unstack(tree)
        np.testing.assert_array_equal(rewards, zero_sum(flat))
        for row, column in ((0, 0), (1, 2), (2, 1)):
            log = words.describe_tree(
                TASK, np.asarray(PROBLEMS.contexts[row]), flat, row, column, SIDES
            )
            assert (
                zero_sum_of_log(log, "?")
                == zero_sum_of_log(log, "?")
                == float(rewards[row, column])
            )
            assert {step["by"] for step in log["steps"]} <= {*SIDES, "environment"}
            assert {*log["steps"][0]} <= {"question", "answer", "by", "right", "steps"}


def check_hears_everyone_out(protocol) -> None:
    """Given all turns that there are, an honest side never loses to a dishonest one."""
    for sides, sign in (((RIGHT, WRONG), 1), ((WRONG, RIGHT), -1)):
        rewards = sign * np.asarray(zero_sum(run(protocol, *sides)))
        if isinstance(protocol, Consultancy) and sign < 0:
            continue  # nobody objects
        assert (rewards >= 0).all()


CHECKS = (
    check_is_a_strategy,
    check_begins_with_the_sides,
    check_accepts_a_candidate_or_nothing,
    check_is_blind,
    check_keeps_to_its_looks,
    check_does_not_depend_on_the_batch,
    check_sides_that_agree_are_believed_at_once,
    check_rescores,
    check_hears_everyone_out,
)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", INSTANCES)
def test_protocol_conforms(name, check):
    check(INSTANCES[name])


# Broken protocols


class BrokenChance(Debate):
    """Decides by something outside."""

    def verdict(self, state):
        return jnp.array(np.random.default_rng().integers(0, 3, state.verdict.shape))


class BrokenLooks(Debate):
    """Looks at the world as often as it likes."""

    def turn(self, state, keys):
        state = yield from super().turn(state, keys)
        point = self.decomposition.next(jax.tree.map(lambda a: a[:, :, 0], state.statements))
        yield Ask(point.question, jnp.ones(keys.shape, bool), "environment")
        return state


class BrokenSide(Debate):
    """Always believes the same side."""

    def verdict(self, state):
        return jnp.full_like(state.verdict, FOR_PRO)


@dataclasses.dataclass(frozen=True)
class BrokenBatch(Debate):
    """Goes by what is said about the other items of a batch."""

    def verdict(self, state):
        return jnp.where(jnp.sum(state.turns) > 30, state.verdict, 0)


class BrokenState(Debate):
    """Goes on asking when the sides agree."""

    def begin(self, questions, candidates):
        state = super().begin(questions, candidates)
        return state._replace(done=jnp.zeros_like(state.done))


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        (check_is_a_strategy, BrokenChance),
        (check_keeps_to_its_looks, BrokenLooks),
        (check_hears_everyone_out, BrokenSide),
        (check_is_blind, BrokenSide),
        (check_does_not_depend_on_the_batch, BrokenBatch),
        (check_sides_that_agree_are_believed_at_once, BrokenState),
    ],
)
def test_broken_protocol_is_caught(check, broken):
    with pytest.raises(AssertionError):
        check(broken(TASK, 2))


def test_a_log_that_does_not_begin_with_both_sides_is_rejected():
    log = {"answer": "1", "steps": [{"by": "pro", "answer": "1"}]}
    with pytest.raises(ValueError, match="begins with the answers of pro and con"):
        zero_sum_of_log(log, "?")


def test_a_task_without_a_strategy_has_no_protocols():
    @functools.partial(dataclasses.dataclass, frozen=True)
    class Plain(Permutation):
        strategy = None

    with pytest.raises(ValueError, match="Plain has no `strategy`"):
        Debate(Plain(4, 3), 2).decomposition  # noqa: B018


def test_who_says_that_it_does_not_know_wins_nothing():
    """Where nothing is decided, the accepted answer is "don't know", too."""
    silent = answering(lambda questions: jnp.zeros((*questions.shape[:-1], 1), jnp.int32))
    everywhere = jnp.ones(KEYS.shape, bool)
    for protocol in (INSTANCES["debate"], INSTANCES["direct"]):
        asked = parts(TASK, PROBLEMS.contexts, silent, honest(TASK, PROBLEMS.contexts))
        tree = play(protocol, PROBLEMS.questions, everywhere, KEYS, asked)
        assert (zero_sum(tree) <= 0).all()
