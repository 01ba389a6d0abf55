import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.tasks.algorithmic.union_find import UnionFind
from amplify.words import format_tokens
from tests.tasks.common import overseen, play, say

TASK = UnionFind(variables=8, values=3)
DRAW = jax.jit(lambda seed, size: TASK.draw_context_of_size(jax.random.key(seed), size))
TRUTH = jax.jit(TASK.truth)


def climb(facts: list[str]) -> dict[str, tuple[str, str, int]]:
    """Each variable's value, parent and depth, by walking from the roots."""
    found, equal = {}, []
    for fact in facts:
        if fact.startswith("equal"):
            equal.append(fact.split()[1:])
        else:
            variable, value = fact.split(" = ")
            found[variable] = value, variable, 0
    while len(found) < len(facts):
        for x, y in [*equal, *(pair[::-1] for pair in equal)]:
            if x in found and y not in found:
                found[y] = found[x][0], x, found[x][2] + 1
    return found


@given(st.integers(0, 10_000), st.integers(4, 8), st.randoms())
def test_the_truth_is_what_walking_from_the_roots_gives(seed, size, random):
    context = np.asarray(DRAW(seed, jnp.int32(size)))
    facts = [format_tokens(TASK, fact) for fact in context if fact.any()]
    found = climb(facts)
    assert len(found) == size
    assert len({value for value, parent, depth in found.values() if depth == 0}) == 3
    order = list(range(TASK.facts))
    random.shuffle(order)  # neither the order of facts nor that of an edge's ends matters
    shuffled = jnp.asarray(context[order])
    for variable, (value, parent, depth) in found.items():
        assert say(TASK, shuffled, f"V {variable}") == value
        assert say(TASK, shuffled, f"P {variable}") == parent
        assert say(TASK, shuffled, f"D {variable}") == str(depth)


def test_golden_decompositions():
    assert play(TASK, "V x1", ["v2"]) == (["given x1"], "v2")
    assert play(TASK, "V x1", ["none", "x2", "v1"]) == (["given x1", "P x1", "V x2"], "v1")
    assert play(TASK, "D x1", ["none", "x2", "2"]) == (["given x1", "P x1", "D x2"], "3")
    assert play(TASK, "D x1", ["v1"]) == (["given x1"], "0")
    asked = [
        "given x1", "P x1", "P x1", "next x1", "equal x1 x2", "equal x1 x5", "D x2", "D x3",
    ]  # fmt: skip
    told = ["none", "x2", "x5", "x3", "yes", "no", "4", "2"]
    assert play(TASK, "P x1", told) == (asked, "x3")
    assert play(TASK, "P x1", ["v1"]) == (["given x1"], "x1")


@pytest.mark.parametrize(
    ("question", "answers"),
    [("V x1", ["x2"]), ("V x1", ["none", "v1"]), ("V x1", ["none", "x2", "0"]),
     ("D x1", ["none", "x2", "v1"]), ("P x1", ["none", "yes", "1", "?"])],
)  # fmt: skip
def test_sub_answers_of_the_wrong_type_give_dont_know(question, answers):
    assert play(TASK, question, answers)[1] == "?"


def test_search_over_poor_proposals_is_right_more_often_than_they_are():
    tree, right = overseen(TASK, wrong=0.5, count=256)
    is_parent = tree.question[..., 0] == TASK._words[4]
    assert right[is_parent].mean() > 0.6
    answers = tree.answer[is_parent][:, 0]
    assert (answers <= TASK.variables).all()


def test_random_neighbours_depend_on_the_items_own_key_alone():
    context = DRAW(0, jnp.int32(8))
    question = jnp.array([TASK._words[7], 4, 0], jnp.int32)
    keys = jax.random.split(jax.random.key(0), 32)
    draw = jax.jit(jax.vmap(lambda key: TASK.environment(context, question, key)))
    assert draw(keys)[::-1].tolist() == draw(keys[::-1]).tolist()


@pytest.mark.parametrize("values", [8, 9])
def test_as_many_values_as_variables_are_refused(values):
    with pytest.raises(ValueError, match=r"values must be fewer than variables \(8\), got"):
        UnionFind(variables=8, values=values)
