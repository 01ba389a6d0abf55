import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.errors import AmplifyError
from amplify.models.fact_transformer import FactTransformerConfig
from amplify.reading.experiment_file import parse_experiment
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.problems import draw_problems

CONFIG = FactTransformerConfig(width=16, heads=2)


@dataclasses.dataclass(frozen=True)
class Spelled(Wildcard):
    """Wildcard search whose answers are three tokens, to exercise answers of several tokens."""

    @property
    def answer_length(self):
        return 3


def test_the_loss_is_the_log_probability_of_the_answers_that_were_given():
    """Decoding token by token and training on whole answers must be the same model."""
    assistant = CONFIG.build(Spelled(3))
    params = jax.jit(assistant.init)(jax.random.key(0))
    problems = draw_problems(assistant.task, 0, 1, "train", 4, [1, 2])
    memory = jax.jit(assistant.encode)(params, problems.contexts)
    keys = jax.random.split(jax.random.key(3), (4, 2))
    answers = jax.jit(assistant.answer)(params, memory, problems.questions, keys)
    batch = {
        "context": problems.contexts,
        "questions": problems.questions,
        "answers": answers.tokens,
    }
    loss, metrics = jax.jit(assistant.loss)(params, batch)
    np.testing.assert_allclose(float(loss), -float(jnp.mean(answers.log_prob)), rtol=1e-5)
    np.testing.assert_allclose(float(metrics["loss"]), float(loss))


def test_earlier_tokens_of_an_answer_sway_later_ones_and_not_the_other_way_round():
    assistant = CONFIG.build(Spelled(3))
    params = jax.jit(assistant.init)(jax.random.key(0))
    problems = draw_problems(assistant.task, 0, 1, "train", 2, [1])
    network, memory = (
        assistant._merge(params),
        jax.jit(assistant.encode)(params, problems.contexts),
    )

    def log_probs(answer, place):
        answers = jnp.broadcast_to(jnp.array(answer, jnp.int32), (2, 1, 3))
        queries = assistant._query(problems.questions, answers, place)
        return np.asarray(network.log_probs(memory, queries))

    assert not np.allclose(log_probs([4, 0, 0], 1), log_probs([5, 0, 0], 1))
    assert not np.allclose(
        log_probs([0, 0, 0], 0), log_probs([0, 0, 0], 1)
    )  # "?" said, or nothing yet
    assert np.array_equal(log_probs([4, 0, 0], 1), log_probs([4, 7, 7], 1))


def test_encoding_once_gives_what_encoding_for_every_question_gives():
    assistant = CONFIG.build(Wildcard(3))
    params = jax.jit(assistant.init)(jax.random.key(0))
    problems = draw_problems(assistant.task, 0, 1, "train", 3, [1, 2, 3, 2])
    memory = jax.jit(assistant.encode)(params, problems.contexts)
    once = jax.jit(assistant.answer)(params, memory, problems.questions, None)
    repeated = jnp.repeat(problems.contexts, 4, axis=0)
    every_time = jax.jit(assistant.answer)(
        params,
        jax.jit(assistant.encode)(params, repeated),
        problems.questions.reshape(12, 1, 3),
        None,
    )
    assert once.tokens.reshape(-1).tolist() == every_time.tokens.reshape(-1).tolist()
    np.testing.assert_allclose(
        once.log_prob.reshape(-1), every_time.log_prob.reshape(-1), rtol=1e-5
    )


def test_heads_that_do_not_divide_the_width_are_refused_by_name(tmp_path):
    table = {
        "task": {"kind": "wildcard"},
        "assistant": {"kind": "fact-transformer", "width": 64, "heads": 5},
        "overseer": {"kind": "simulated"},
    }
    with pytest.raises(AmplifyError, match=r"assistant.heads must divide assistant.width"):
        parse_experiment(table, tmp_path / "experiment.toml")
