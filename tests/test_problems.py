import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.errors import AmplifyError
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.problems import (
    SPLITS,
    _bucket,
    answer_keys,
    chunk_rows,
    draw_for_training,
    draw_problems,
    map_in_chunks,
    redraw_problems,
)
from amplify.training.mesh import Mesh

TASK = Wildcard(3)  # 256 different contexts: draws are bound to repeat some


def distinct(problems):
    return {tuple(map(tuple, context)) for context in np.asarray(problems.contexts).tolist()}


def test_no_context_is_in_two_splits_even_when_contexts_repeat():
    drawn = {
        split: distinct(draw_problems(TASK, 0, stream, split, 64, [1]))
        for split, stream in (("train", 1), ("select", 0), ("final", 0))
    }
    assert len(drawn["select"]) < 64  # repeated, or this test shows nothing
    assert not drawn["train"] & drawn["select"]
    assert not drawn["train"] & drawn["final"]
    assert not drawn["select"] & drawn["final"]


@pytest.mark.parametrize("seed", [1, 7])
def test_contexts_held_out_under_one_seed_are_not_trained_on_under_another(seed):
    """So `[evals] seed` may differ from `seed`."""
    held_out = [distinct(draw_problems(TASK, 0, 0, split, 64, [1])) for split in SPLITS]
    trained = distinct(draw_problems(TASK, seed, 1, "train", 512, [1]))
    assert len(trained) > 100  # most of the 256: some would be held out
    assert not any(trained & contexts for contexts in held_out)
    while_training, _ = draw_for_training(TASK, jax.random.key(seed), 512, [1])
    streamed = {tuple(map(tuple, context)) for context in np.asarray(while_training).tolist()}
    assert len(streamed) > 100
    assert not any(streamed & contexts for contexts in held_out)


@given(st.permutations(range(8)), st.integers(0, 2**32 - 1))
def test_the_split_of_a_context_does_not_depend_on_the_order_of_its_facts(order, seed):
    context = TASK.draw_context(jax.random.key(seed))
    assert int(_bucket(context)) == int(_bucket(context[jnp.array(order)]))


def test_a_sixteenth_of_contexts_falls_in_each_bucket():
    contexts = jax.vmap(Wildcard(4).draw_context)(jax.random.split(jax.random.key(0), 16_000))
    counts = np.bincount(np.asarray(jax.vmap(_bucket)(contexts)), minlength=16)
    assert (abs(counts - 1000) < 5 * np.sqrt(1000)).all()


def test_problems_are_drawn_again_from_their_seeds_alone():
    first = draw_problems(TASK, 3, 2, "train", 10, [1, 2, 3])
    again = redraw_problems(TASK, 3, first.seeds[4:7], [1, 2, 3])
    assert np.array_equal(first.contexts[4:7], again.contexts)
    assert np.array_equal(first.questions[4:7], again.questions)


def test_more_problems_begin_with_the_same_problems():
    few, many = (draw_problems(TASK, 0, 1, "train", count, [2]) for count in (5, 1500))
    assert np.array_equal(few.seeds, many.seeds[:5])
    assert len(np.unique(many.seeds, axis=0)) == 1500


@pytest.mark.parametrize("other", [(1, 1), (0, 2)])
def test_another_seed_or_round_draws_other_problems(other):
    seed, stream = other
    ours = np.asarray(draw_problems(Wildcard(4), 0, 1, "train", 50, [2]).contexts)
    theirs = np.asarray(draw_problems(Wildcard(4), seed, stream, "train", 50, [2]).contexts)
    assert (ours != theirs).any(axis=(1, 2)).mean() > 0.9


def test_questions_have_the_depths_asked_for():
    problems = draw_problems(TASK, 0, 1, "train", 20, [1, 3, 2])
    wildcards = (np.asarray(problems.questions) == 3).sum(axis=-1)
    assert (wildcards == [1, 3, 2]).all()


def test_a_task_with_too_few_contexts_is_refused_in_one_line():
    with pytest.raises(AmplifyError, match=r"too few different contexts for evals\.final"):
        draw_problems(Wildcard(1), 0, 0, "final", 10, [1])


@given(st.integers(1, 40), st.integers(1, 12))
def test_chunks_put_together_are_the_whole_and_have_one_shape(rows, size):
    shapes, told = set(), []
    column = np.arange(rows)

    def double(values):
        shapes.add(values.shape)
        return 2 * values

    parts = list(map_in_chunks(double, size, column, advance=told.append))
    assert np.concatenate(parts).tolist() == (2 * column).tolist()
    assert shapes == {(size,)}
    assert sum(told) == rows


@given(st.integers(1, 300), st.sampled_from([64, 128]))
def test_few_rows_come_in_a_chunk_that_is_hardly_larger(rows, most):
    size = chunk_rows(rows, most)
    assert size == most <= rows or rows <= size < 2 * rows
    assert most % size == 0


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_each_device_has_a_row_of_a_chunk(rows):
    place = Mesh(data=2).row_sharding
    assert jax.device_put(np.zeros(chunk_rows(rows, 64, place)), place).sharding == place


def test_an_answers_key_depends_on_its_problem_and_question_alone():
    problems = draw_problems(TASK, 0, 1, "train", 6, [1, 1, 1])
    keys = jax.random.key_data(answer_keys(jax.random.key(0), problems.seeds, 3))
    part = jax.random.key_data(answer_keys(jax.random.key(0), problems.seeds[2:4], 2))
    assert np.array_equal(keys[2:4, :2], part)
    assert len(np.unique(np.asarray(keys).reshape(-1, 2), axis=0)) == 18
