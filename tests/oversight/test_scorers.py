"""Every scorer must pass this; broken ones must not (see the `Broken...` fakes)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.models.fact_transformer import FactTransformerConfig
from amplify.overseers.reviewers import Scorer
from amplify.oversight.reviews.scorers import Gold, Likelihood
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import draw_problems
from amplify.types import Scores

TASK = Wildcard(3)
MODEL = FactTransformerConfig(width=16, heads=2).build(TASK)
ROLES = {"assistant": MODEL.init(jax.random.key(0))}
PROBLEMS = draw_problems(TASK, 0, 1, "train", 4, [1, 2, 3])
KEYS = jax.random.split(jax.random.key(5), (4, 3))
MEMORY = MODEL.encode(ROLES["assistant"], PROBLEMS.contexts)
SAID = MODEL.answer(ROLES["assistant"], MEMORY, PROBLEMS.questions, KEYS)
SCORERS: list[Scorer] = [Gold(TASK), Likelihood(TASK, MODEL)]


@dataclasses.dataclass(frozen=True)
class BrokenByRank(Gold):
    """Scores an answer by the others of its batch."""

    def score(self, roles, contexts, questions, candidates, keys):
        value = candidates[..., 0].astype(jnp.float32)
        return Scores(value - jnp.mean(value), jnp.ones(value.shape, bool))


def scores(scorer: Scorer, rows: slice) -> Scores:
    score = jax.jit(scorer.score) if scorer.traced else scorer.score
    asked = (PROBLEMS.contexts[rows], PROBLEMS.questions[rows])
    return score(ROLES, *asked, SAID.tokens[rows], KEYS[rows])


def check_scorer(scorer: Scorer) -> None:
    """It can be a part of what is compiled once, and an answer's score is its own."""
    assert hash(scorer) == hash(dataclasses.replace(scorer))
    together = scores(scorer, slice(None))
    assert together.value.shape == together.obtained.shape == (4, 3)
    assert together.obtained.dtype == bool
    assert np.isfinite(np.asarray(together.value)[together.obtained]).all()
    for row in range(4):
        alone = scores(scorer, slice(row, row + 1))
        np.testing.assert_allclose(alone.value[0], together.value[row], rtol=1e-5)
        assert (alone.obtained[0] == together.obtained[row]).all()


@pytest.mark.parametrize("scorer", SCORERS)
def test_the_score_of_an_answer_does_not_depend_on_its_batch(scorer):
    check_scorer(scorer)


def test_a_scorer_that_compares_with_the_batch_is_caught():
    with pytest.raises(AssertionError):
        check_scorer(BrokenByRank(TASK))


def test_gold_is_whether_an_answer_is_right():
    truth = vmap_questions(TASK.truth)(PROBLEMS.contexts, PROBLEMS.questions)
    found = Gold(TASK).score({}, PROBLEMS.contexts, PROBLEMS.questions, truth, KEYS)
    assert found.value.tolist() == [[1.0] * 3] * 4
    wrong = Gold(TASK).score({}, PROBLEMS.contexts, PROBLEMS.questions, truth * 0, KEYS)
    assert wrong.value.tolist() == [[0.0] * 3] * 4


def test_likelihood_is_what_the_sampler_said():
    found = scores(Likelihood(TASK, MODEL), slice(None))
    np.testing.assert_allclose(found.value, SAID.log_prob, rtol=1e-5)
