"""Strategies that ask others beside the assistant: the environment by name, and further parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify import words
from amplify.errors import AmplifyError
from amplify.models.fact_transformer import FactTransformerConfig
from amplify.tasks.algorithmic.wildcard import WILDCARD, A, Wildcard
from amplify.tasks.problems import draw_problems
from amplify.trees.amplification import amplified, true_answers
from amplify.trees.counting import count_calls
from amplify.trees.driving import driven
from amplify.trees.scanning import amplify_by_scan
from amplify.types import OTHERS, Ask, Interaction

TASK = Wildcard(3)
MODEL = FactTransformerConfig(width=16, heads=2).build(TASK)  # which is never asked
PROBLEMS = draw_problems(TASK, 0, 1, "train", 4, [2, 3])
KEYS = jax.random.split(jax.random.key(1), (4, 2))
EVERYWHERE = jnp.ones((4, 2), bool)


def saying(token: int, code: int, questions, where, keys) -> Interaction:
    answer = jnp.full((*where.shape, 1), token)
    return Interaction(questions, answer, jnp.full(where.shape, code))


PARTS = {
    "con": functools.partial(saying, 2, OTHERS),
    "pro": functools.partial(saying, 3, OTHERS + 1),
}


def judge(questions, keys):
    """Hears both sides, and rules for the larger token."""
    pro = yield Ask(questions, to="pro")
    con = yield Ask(questions, where=pro[..., 0] > 1, to="con")
    return jnp.maximum(pro, con)


def looks(to: str):
    """Looks up the first point that a pattern matches."""

    def strategy(questions, keys):
        answer = yield Ask(jnp.where(questions == WILDCARD, A, questions), to=to)
        return answer

    return strategy


def tree_of(overseer, parts=None, depth: int = 1, upper=None) -> Interaction:
    helper = true_answers(TASK, PROBLEMS.contexts)
    upper = upper or functools.partial(amplify_by_scan, answer_length=1)
    parts = {} if parts is None else parts
    respond = amplified(TASK, overseer, helper, PROBLEMS.contexts, depth, upper, parts)
    return jax.jit(respond)(PROBLEMS.questions, EVERYWHERE, KEYS)


@pytest.mark.parametrize("depth", [1, 2])
def test_each_part_is_asked_and_named(depth):
    tree = jax.device_get(tree_of(judge, PARTS, depth))
    assert (tree.answer == 3).all()
    shown = words.describe_tree(
        TASK, np.asarray(PROBLEMS.contexts)[0], tree, 0, 1, parts=tuple(PARTS)
    )
    assert [step["by"] for step in shown["steps"]] == ["pro", "con"]
    calls = count_calls(tree, EVERYWHERE)
    assert int(calls["assistant"].sum()) == 0


def test_the_environment_is_asked_by_name_or_because_a_question_is_primitive():
    by_name, by_kind = (tree_of(looks(to)) for to in ("environment", "assistant"))
    assert by_name.answer.tolist() == by_kind.answer.tolist()
    for tree in (by_name, by_kind):
        assert int(count_calls(tree, EVERYWHERE)["environment"].sum()) == 8


def test_a_driven_overseer_may_ask_the_environment_by_name():
    respond = driven(TASK, MODEL, looks("environment"), None, PROBLEMS.contexts, 1, "truth")
    tree = respond(PROBLEMS.questions, EVERYWHERE, KEYS)
    assert tree.answer.tolist() == tree_of(looks("environment")).answer.tolist()


def test_a_part_that_is_not_there_is_one_clear_line():
    with pytest.raises(AmplifyError, match=r"asks the part 'jury'; parts are assistant, env.*con"):
        tree_of(looks("jury"), PARTS)
