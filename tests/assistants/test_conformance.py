"""Every assistant must pass this; broken ones must not (see the `Broken...` fakes)."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.models.fact_transformer import FactTransformer, FactTransformerConfig
from amplify.models.language_model import LanguageModelConfig
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.problems import draw_problems
from amplify.types import Answers, Assistant

TASK = Wildcard(3)
SMALL = FactTransformerConfig(width=16, heads=2, encoder_layers=1, decoder_layers=2)
FACT_TRANSFORMERS: list[Assistant] = [
    SMALL.build(TASK),
    dataclasses.replace(SMALL, encoder_layers=0, temperature=0.5).build(TASK),
]
SMALL_MODEL = LanguageModelConfig(width=16, heads=2, key_heads=1, layers=2)
ASSISTANTS: list[Assistant] = [
    *FACT_TRANSFORMERS,
    SMALL_MODEL.build(TASK),
    dataclasses.replace(SMALL_MODEL, temperature=0.7, top_p=0.9).build(TASK),
]


@dataclasses.dataclass(frozen=True)
class BrokenSampler(FactTransformer):
    """Samples a whole batch from the first item's key."""

    def answer(self, params, memory, questions, keys):
        if keys is None:
            return super().answer(params, memory, questions, keys)
        shape = keys.shape
        return super().answer(params, memory, questions, jax.random.split(keys[0, 0], shape))


@dataclasses.dataclass(frozen=True)
class BrokenProbability(FactTransformer):
    """Gives the probability at temperature 1, whatever it sampled at."""

    def answer(self, params, memory, questions, keys):
        answers = super().answer(params, memory, questions, keys)
        return Answers(answers.tokens, answers.log_prob / 2)


def compiled(assistant: Assistant) -> SimpleNamespace:
    return SimpleNamespace(
        encode=jax.jit(assistant.encode),
        answer=jax.jit(assistant.answer),
        gradient=jax.jit(jax.value_and_grad(assistant.loss, has_aux=True)),
    )


def setting(assistant: Assistant):
    problems = draw_problems(TASK, 0, 1, "train", 6, [1, 2, 3, 1])
    keys = jax.random.split(jax.random.key(5), (6, 4))
    # Far from uniform, so that a wrong probability shows.
    params = jax.tree.map(lambda leaf: 2 * leaf, jax.jit(assistant.init)(jax.random.key(0)))
    return params, problems, keys


def check_regrouping(assistant: Assistant) -> None:
    params, problems, keys = setting(assistant)
    assistant = compiled(assistant)
    memory = assistant.encode(params, problems.contexts)
    together = assistant.answer(params, memory, problems.questions, keys)
    for row in range(6):
        one = slice(row, row + 1)
        alone = assistant.encode(params, problems.contexts[one])
        for column in range(4):
            item = slice(column, column + 1)
            answer = assistant.answer(params, alone, problems.questions[one, item], keys[one, item])
            assert answer.tokens[0, 0].tolist() == together.tokens[row, column].tolist()
            np.testing.assert_allclose(
                answer.log_prob[0, 0], together.log_prob[row, column], rtol=1e-4, atol=1e-5
            )


def check_probabilities(assistant: Assistant) -> None:
    """Frequencies of many samples of one question are the probabilities that come with them."""
    params, problems, _ = setting(assistant)
    assistant = compiled(assistant)
    memory = assistant.encode(params, problems.contexts[:1])
    questions = jnp.broadcast_to(problems.questions[:1, :1], (1, 20_000, TASK.question_length))
    keys = jax.random.split(jax.random.key(9), (1, 20_000))
    answers = assistant.answer(params, memory, questions, keys)
    tokens, first, counts = np.unique(
        np.asarray(answers.tokens)[0, :, 0], return_index=True, return_counts=True
    )
    probability = np.exp(np.asarray(answers.log_prob)[0, first])
    error = 5 * np.sqrt(probability * (1 - probability) / 20_000)
    assert len(tokens) > 1
    assert (np.abs(counts / 20_000 - probability) <= error + 1e-4).all()


@pytest.mark.parametrize("assistant", ASSISTANTS)
def test_what_is_batched_together_cannot_matter(assistant):
    check_regrouping(assistant)


def test_a_sampler_that_shares_keys_is_caught():
    with pytest.raises(AssertionError):
        check_regrouping(BrokenSampler(SMALL, TASK))


@pytest.mark.parametrize("assistant", ASSISTANTS)
def test_sampled_answers_come_as_often_as_their_probability_says(assistant):
    check_probabilities(assistant)


def test_a_wrong_probability_is_caught():
    with pytest.raises(AssertionError):
        check_probabilities(BrokenProbability(SMALL, TASK))


@dataclasses.dataclass(frozen=True)
class BrokenLogProb(FactTransformer):
    """Gives log-probabilities at temperature 1, whatever was sampled at."""

    def log_prob(self, params, memory, questions, answers):
        cold = dataclasses.replace(self, config=dataclasses.replace(self.config, temperature=1.0))
        return FactTransformer.log_prob(cold, params, memory, questions, answers)


def check_log_prob(assistant: Assistant) -> None:
    """Each token has one, and together they are what the sampler said; their gradient is that of
    the distribution sampled from.
    """
    params, problems, keys = setting(assistant)
    memory = assistant.encode(params, problems.contexts)
    answers = assistant.answer(params, memory, problems.questions, keys)

    def total(params):
        memory = assistant.encode(params, problems.contexts)
        found = assistant.log_prob(params, memory, problems.questions, answers.tokens)
        assert found.shape == answers.tokens.shape
        return jnp.sum(found), found

    (_, found), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    np.testing.assert_allclose(jnp.sum(found, -1), answers.log_prob, rtol=1e-4, atol=1e-5)
    # Along the gradient, of length 1, the sum grows by the gradient's length.
    length = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
    moved = jax.jit(
        lambda step: total(jax.tree.map(lambda p, g: p + step * g / length, params, gradient))[0]
    )
    np.testing.assert_allclose((moved(1e-3) - moved(-1e-3)) / 2e-3, length, rtol=0.02)


@pytest.mark.parametrize("assistant", ASSISTANTS)
def test_log_probabilities_of_samples_are_the_samplers(assistant):
    check_log_prob(assistant)


def test_log_probabilities_of_another_distribution_are_caught():
    with pytest.raises(AssertionError):
        check_log_prob(BrokenLogProb(dataclasses.replace(SMALL, temperature=0.5), TASK))


@pytest.mark.parametrize("assistant", FACT_TRANSFORMERS)
def test_the_order_of_facts_cannot_matter(assistant):
    params, problems, _ = setting(assistant)
    assistant = compiled(assistant)
    shuffled = problems.contexts[:, jax.random.permutation(jax.random.key(2), TASK.facts)]
    answers, others = (
        assistant.answer(params, assistant.encode(params, contexts), problems.questions, None)
        for contexts in (problems.contexts, shuffled)
    )
    np.testing.assert_allclose(answers.log_prob, others.log_prob, rtol=1e-4)
    assert answers.tokens.tolist() == others.tokens.tolist()


@pytest.mark.parametrize("assistant", ASSISTANTS)
def test_without_keys_the_likeliest_answer_is_given(assistant):
    params, problems, _ = setting(assistant)
    assistant = compiled(assistant)
    memory = assistant.encode(params, problems.contexts)
    best = assistant.answer(params, memory, problems.questions, None)
    for seed in range(8):
        keys = jax.random.split(jax.random.key(seed), (6, 4))
        sampled = assistant.answer(params, memory, problems.questions, keys)
        assert bool(jnp.all(sampled.log_prob <= best.log_prob + 1e-5))


@pytest.mark.parametrize("assistant", ASSISTANTS)
def test_the_loss_falls_when_its_gradient_is_followed(assistant):
    params, problems, _ = setting(assistant)
    assistant = compiled(assistant)
    batch = {
        "context": problems.contexts,
        "questions": problems.questions,
        "answers": jnp.full((6, 4, 1), TASK.zero, jnp.int32),
    }
    (loss, metrics), gradient = assistant.gradient(params, batch)
    step = jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)
    assert float(assistant.gradient(step, batch)[0][0]) < float(loss)
    assert 0 <= float(metrics["agreement"]) <= 1
