import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.tasks.algorithmic.assignments import Assignments
from amplify.words import format_tokens
from tests.tasks.common import overseen, play, say

TASK = Assignments(variables=9, values=3)
DRAW = jax.jit(lambda seed, size: TASK.draw_context_of_size(jax.random.key(seed), size))


def solve(facts: list[str]) -> dict[str, str]:
    """Every variable's value, from the facts as people read them."""
    values, table, left = {}, {}, {}
    for fact in facts:
        if fact.startswith("f("):
            table[fact.split(" = ")[0]] = fact.split(" = ")[1]
        elif ":=" in fact:
            variable, call = fact.split(" := ")
            left[variable] = call[2:-1].split(", ")
        else:
            variable, value = fact.split(" = ")
            values[variable] = value
    while left:
        for variable, (y, z) in list(left.items()):
            if y in values and z in values:
                values[variable] = table[f"f({values[y]}, {values[z]})"]
                del left[variable]
    return values


def facts_of(context) -> list[str]:
    return [format_tokens(TASK, fact) for fact in np.asarray(context) if fact.any()]


@given(st.integers(0, 10_000), st.integers(4, 9))
def test_the_truth_is_what_solving_the_facts_by_hand_gives(seed, size):
    context = DRAW(seed, jnp.int32(size))
    solved = solve(facts_of(context))
    assert len(solved) == size
    for variable, value in solved.items():
        assert say(TASK, context, f"value {variable}") == value


@given(st.integers(0, 10_000), st.randoms())
def test_the_order_of_facts_does_not_matter(seed, random):
    context = DRAW(seed, jnp.int32(9))
    order = list(range(TASK.facts))
    random.shuffle(order)
    shuffled = context[jnp.array(order)]
    for variable in ("x1", "x9"):
        assert say(TASK, context, f"value {variable}") == say(TASK, shuffled, f"value {variable}")


def test_depth_counts_the_levels_that_a_value_needs():
    """x4 := f(x1, x2), x5 := f(x4, x1), with x1 to x3 given."""
    words = [
        "value x1 1", "value x2 2", "value x3 3", "A x4 x1 x2", "A x5 x4 x1", "f 1 2 3", "f 3 1 2",
    ]  # fmt: skip
    tokens = {word: token for token, word in enumerate(TASK.vocabulary)}
    facts = [[*(tokens[word] for word in text.split()), 0][:4] for text in words]
    padding = [[0, 0, 0, 0]] * (TASK.facts - len(facts))
    context = jnp.array([*facts, *padding], jnp.int32)
    assert TASK._graph(context).depth[1:7].tolist() == [1, 1, 1, 2, 3, 0]
    assert say(TASK, context, "value x5") == "2"
    assert say(TASK, context, "value x6") == "?"


def test_golden_decomposition():
    asked = ["A x4", "value x1", "B x4", "value x2", "f 1 2"]
    assert play(TASK, "value x4", ["x1", "1", "x2", "2", "3"]) == (asked, "3")
    assert play(TASK, "value x1", ["2"]) == (["A x1"], "2")


@pytest.mark.parametrize(
    "answers", [["?"], ["A"], ["x1", "x2"], ["x1", "1", "2"], ["x1", "1", "x2", "f"]]
)
def test_a_sub_answer_of_the_wrong_type_gives_dont_know_and_ends_the_asking(answers):
    assert play(TASK, "value x4", answers)[1] == "?"


def test_whatever_the_assistant_says_the_answer_is_a_value_or_dont_know():
    tree, right = overseen(TASK, wrong=0.5)
    first = 1 + TASK.variables
    answers = tree.answer[..., 0]
    assert ((answers == 0) | ((answers >= first) & (answers < first + TASK.values))).all()
    assert 0.2 < right.mean() < 1


@pytest.mark.parametrize("values", [9, 12])
def test_as_many_values_as_variables_are_refused(values):
    with pytest.raises(ValueError, match=r"values must be fewer than variables \(9\), got"):
        Assignments(variables=9, values=values)
