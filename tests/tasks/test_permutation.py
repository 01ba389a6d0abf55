import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from amplify.tasks.algorithmic.permutation import Permutation
from tests.tasks.common import play, say

TASK = Permutation(symbols=7, bits=4)


def context_of(image: list[int]) -> jnp.ndarray:
    return jnp.array([[1 + x, 1 + y] for x, y in enumerate(image)], jnp.int32)


@given(st.permutations(range(7)), st.integers(1, 7), st.integers(0, 15))
def test_the_truth_is_the_permutation_applied_k_times(image, x, k):
    at = x - 1
    for _ in range(k):
        at = image[at]
    assert say(TASK, context_of(image), f"{x}^{k}") == str(at + 1)


@given(st.permutations(range(7)), st.randoms(), st.integers(0, 15))
def test_neither_the_order_of_facts_nor_padding_matters(image, random, k):
    facts = context_of(image[:7]).tolist()
    random.shuffle(facts)
    assert say(TASK, jnp.array(facts), f"3^{k}") == say(TASK, context_of(image), f"3^{k}")


def test_contexts_of_a_size_permute_so_many_symbols_drawn_from_all():
    draw = jax.jit(jax.vmap(lambda key: TASK.draw_context_of_size(key, jnp.int32(3))))
    contexts = np.asarray(draw(jax.random.split(jax.random.key(0), 200)))
    seen = set()
    for context in contexts:
        facts = [tuple(fact) for fact in context.tolist() if fact != [0, 0]]
        assert len(facts) == 3
        assert {x for x, _ in facts} == {y for _, y in facts}
        seen |= {x for x, _ in facts}
    assert seen == set(range(1, 8))


def test_questions_are_about_symbols_that_are_there():
    context = TASK.draw_context_of_size(jax.random.key(1), jnp.int32(2))
    there = {x for x, _ in context.tolist() if x}
    draw = jax.jit(jax.vmap(lambda key: TASK.draw_question(key, context, jnp.int32(2))))
    questions = np.asarray(draw(jax.random.split(jax.random.key(2), 64)))
    assert set(questions[:, 0].tolist()) == there


def test_golden_decomposition():
    assert play(TASK, "2^13", ["5", "1", "7"]) == (["2^6", "5^6", "1^1"], "7")
    assert play(TASK, "2^12", ["5", "1"]) == (["2^6", "5^6"], "1")


@pytest.mark.parametrize("answers", [["?"], ["4", "?"], ["4", "4", "?"]])
def test_an_overseer_who_is_not_told_does_not_know_and_asks_no_further(answers):
    assert play(TASK, "2^13", answers)[1] == "?"


@pytest.mark.parametrize(
    "fields", [{"bits": 0}, {"bits": 1}, {"symbols": 1}, {"symbols": 0}, {"bits": 17}]
)
def test_sizes_that_cannot_work_are_refused(fields):
    with pytest.raises(ValidationError, match=r"greater than or equal to|less than or equal to"):
        TypeAdapter(Permutation).validate_python(fields)
