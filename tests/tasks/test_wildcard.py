import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.errors import AmplifyError
from amplify.overseers.simulated import Simulated
from amplify.tasks.algorithmic.wildcard import FIRST_NUMBER, Wildcard
from amplify.trees.amplification import amplified, true_answers, with_environment
from amplify.types import DONT_KNOW
from amplify.words import format_tokens, read_question

patterns = st.integers(1, 5).flatmap(
    lambda letters: st.tuples(
        st.text("ab*", min_size=letters, max_size=letters),
        st.lists(st.sampled_from([-1, 1]), min_size=2**letters, max_size=2**letters),
    )
)


def context_of(task: Wildcard, values: list[int]) -> jnp.ndarray:
    words = list(itertools.product((1, 2), repeat=task.letters))
    facts = [[*word, task.zero + value] for word, value in zip(words, values, strict=True)]
    return jnp.array(facts, jnp.int32)


@given(patterns)
def test_the_truth_is_the_sum_over_every_matching_word(drawn):
    pattern, values = drawn
    task = Wildcard(len(pattern))
    words = ["".join(word) for word in itertools.product("ab", repeat=task.letters)]
    total = sum(
        value
        for word, value in zip(words, values, strict=True)
        if all(p in ("*", w) for p, w in zip(pattern, word, strict=True))
    )
    question = jnp.asarray(read_question(task, pattern))
    truth = np.asarray(task.truth(context_of(task, values), question))
    assert format_tokens(task, truth) == (f"{total:+d}" if total else "0")


@given(patterns, st.randoms())
def test_the_order_of_facts_cannot_matter_to_the_truth(drawn, random):
    pattern, values = drawn
    task = Wildcard(len(pattern))
    context, order = context_of(task, values), list(range(task.facts))
    random.shuffle(order)
    question = jnp.asarray(read_question(task, pattern))
    shuffled = context[jnp.array(order)]
    assert task.truth(context, question).tolist() == task.truth(shuffled, question).tolist()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_amplified_to_its_own_depth_a_question_needs_no_assistant(depth):
    """The recursion bottoms out in the environment: with depth = wildcards, an assistant that knows
    nothing is enough.
    """
    task = Wildcard(4)
    context = task.draw_context(jax.random.key(3))[None]
    drawn = jax.vmap(lambda k: task.draw_question(k, context[0], jnp.int32(depth)))
    questions = drawn(jax.random.split(jax.random.key(4), 8))[None]
    where, keys = jnp.ones((1, 8), bool), jax.random.split(jax.random.key(5), (1, 8))

    def knows_nothing(questions, where, keys):
        told = true_answers(task, context)(questions, where, keys)
        return told._replace(answer=jnp.zeros_like(told.answer))

    def answers(levels):
        respond = amplified(task, Simulated(task).using(), knows_nothing, context, levels)
        return jax.jit(respond)(questions, where, keys).answer

    truth = true_answers(task, context)(questions, where, keys).answer
    assert answers(depth).tolist() == truth.tolist()
    assert not answers(depth - 1).any()


def test_golden_decomposition():
    task = Wildcard(3)
    question = jnp.asarray(read_question(task, "a**"))
    strategy = task.strategy(question)
    first = next(strategy).question
    second = strategy.send(jnp.array([task.zero + 2])).question
    assert (format_tokens(task, np.asarray(first)), format_tokens(task, np.asarray(second))) == (
        "aa*",
        "ab*",
    )
    with pytest.raises(StopIteration) as end:
        strategy.send(jnp.array([task.zero - 1]))
    assert format_tokens(task, np.asarray(end.value.value)) == "+1"


@pytest.mark.parametrize("wrong", [DONT_KNOW, 1, 3, FIRST_NUMBER - 1])
def test_a_sub_answer_that_is_no_number_gives_dont_know(wrong):
    task = Wildcard(3)
    strategy = task.strategy(jnp.asarray(read_question(task, "*bb")))
    next(strategy)
    strategy.send(jnp.array([wrong]))
    with pytest.raises(StopIteration) as end:
        strategy.send(jnp.array([task.zero]))
    assert end.value.value.tolist() == [DONT_KNOW]


def test_a_sum_out_of_range_gives_dont_know():
    task = Wildcard(2)
    strategy = task.strategy(jnp.asarray(read_question(task, "**")))
    next(strategy)
    strategy.send(jnp.array([task.zero + 4]))
    with pytest.raises(StopIteration) as end:
        strategy.send(jnp.array([task.zero + 1]))
    assert end.value.value.tolist() == [DONT_KNOW]


@pytest.mark.parametrize("text", ["", "ab", "abab*", "abc", "+1ab", "0ab"])
def test_what_is_no_pattern_is_refused_in_one_line(text):
    with pytest.raises(AmplifyError, match="a pattern is 3 of the letters a, b and"):
        read_question(Wildcard(3), text)


def test_environment_answers_single_words():
    task = Wildcard(2)
    context = context_of(task, [1, -1, -1, 1])[None]
    respond = with_environment(task, context, true_answers(task, context))
    questions = jnp.array([[[1, 2], [2, 2]]])
    sub = respond(questions, jnp.ones((1, 2), bool), jax.random.split(jax.random.key(0), (1, 2)))
    assert [format_tokens(task, np.asarray(a)) for a in sub.answer[0]] == ["-1", "+1"]
