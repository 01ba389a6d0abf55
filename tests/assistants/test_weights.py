"""Weights of answers in the loss: every assistant must treat them alike."""

import jax
import numpy as np
import pytest

from amplify.models.fact_transformer import FactTransformerConfig
from amplify.models.language_model import LanguageModelConfig
from amplify.tasks.algorithmic.union_find import UnionFind
from amplify.tasks.problems import draw_problems
from amplify.training.step import mean_gradients
from amplify.types import FAILED

TASK = UnionFind(4)
ASSISTANTS = [
    FactTransformerConfig(width=16, heads=2).build(TASK),
    LanguageModelConfig(width=16, heads=2, key_heads=1, layers=1).build(TASK),
]


def batch(weight: np.ndarray | None) -> dict[str, np.ndarray]:
    problems = draw_problems(TASK, 0, 1, "train", 4, [1, 2, 1])
    shape = (*problems.questions.shape[:2], TASK.answer_length)
    answers = jax.random.randint(jax.random.key(0), shape, 1, len(TASK.vocabulary))
    columns = {
        "context": np.asarray(problems.contexts),
        "questions": np.asarray(problems.questions),
        "answers": np.asarray(answers),
    }
    return columns if weight is None else columns | {"weight": weight.astype(np.float32)}


def graded(assistant, rows: dict[str, np.ndarray], parts: int = 1):
    """Metrics and gradients of a batch."""
    params = assistant.init(jax.random.key(1))
    found = jax.jit(lambda params, rows: mean_gradients(assistant.loss, params, rows, parts))
    return found(params, jax.device_put(rows))


def assert_same(ours, theirs) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)


def multiplied(factor: float, tree):
    return jax.tree.map(lambda leaf: factor * leaf, tree)


ONES = np.ones((4, 3))
SOME = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1]])


@pytest.mark.parametrize("assistant", ASSISTANTS)
def test_weights_of_1_change_nothing(assistant):
    assert_same(graded(assistant, batch(ONES)), graded(assistant, batch(None)))


@pytest.mark.parametrize("assistant", ASSISTANTS)
def test_an_answer_of_weight_0_is_none(assistant):
    failed = batch(None)
    failed["answers"] = np.where(SOME[..., None] == 0, FAILED, failed["answers"])
    assert_same(graded(assistant, batch(SOME)), graded(assistant, failed))


@pytest.mark.parametrize("assistant", ASSISTANTS)
def test_losses_are_multiplied_and_their_number_is_not(assistant):
    metrics, gradients = graded(assistant, batch(ONES))
    for factor in (2.5, -1.0):
        theirs, scaled = graded(assistant, batch(factor * ONES))
        np.testing.assert_allclose(theirs["loss"], factor * metrics["loss"], rtol=1e-5)
        assert theirs["answered"] == 12
        assert theirs["agreement"] == metrics["agreement"]
        assert_same(multiplied(factor, gradients), scaled)


@pytest.mark.parametrize("assistant", ASSISTANTS)
@pytest.mark.parametrize("weight", [SOME, np.arange(-4, 8).reshape(4, 3) / 4])
def test_means_are_over_answers_with_a_weight_across_microbatches_too(assistant, weight):
    """Some microbatch has fewer of them than others."""
    assert_same(graded(assistant, batch(weight), parts=4), graded(assistant, batch(weight)))


def test_packed_answers_keep_their_weights():
    assistant, weight = ASSISTANTS[1], np.arange(12).reshape(4, 3) / 4
    loose = batch(weight)
    packed = assistant.lay_out(loose)
    assert packed["weights"].dtype == np.float32
    ours, theirs = graded(assistant, packed), graded(assistant, loose)
    assert_same((ours[0]["loss"], ours[1]), (theirs[0]["loss"], theirs[1]))
