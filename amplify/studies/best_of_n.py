"""Samples many answers of the reference policy of a finished round, and scores them by the round's
reward model and by gold: what best-of-n would give, without any training.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Key, PyTree

from amplify.errors import AmplifyError
from amplify.evaluation.statistics.scaling_laws import best_of_n_curve
from amplify.experiment.sections import Experiment
from amplify.models.reward_model import RewardModel
from amplify.oversight.draws import draw_held_out
from amplify.oversight.reinforcement.rollouts import REFERENCE, REWARD_MODEL, Normaliser
from amplify.oversight.restore import handle_of, load
from amplify.oversight.reward_model import RewardModelling
from amplify.store import Store
from amplify.task_abilities import gold_of
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import answer_keys
from amplify.trees.amplification import contexts_for
from amplify.types import Problems, Task

CHUNK = 256
"""Answers to each question that are sampled at a time."""


class Scored(NamedTuple):
    """Answers of the reference policy to the first question about some contexts."""

    proxy: Float32[np.ndarray, "contexts answers"]
    """The reward, with mean 0 and standard deviation 1 over all answers for each member of the
    ensemble."""
    gold: Float32[np.ndarray, "contexts answers"]
    """What each answer is worth."""


def score_reference(store: Store, number: int, contexts: int, answers: int) -> Scored:
    """Samples answers of the reference policy to held-out questions, and scores them.

    Args:
        store: an experiment with `oversight.kind = "reward-model"` and a task with gold.
        number: a finished round, whose reward model scores.
        contexts: number of contexts, of the final split.
        answers: to a question about each context; rounded up to a multiple of `CHUNK`.

    Raises:
        AmplifyError: the experiment has no reward model or no gold.
    """
    experiment = store.experiment
    oversight, gold = experiment.oversight, gold_of(experiment.task)
    if not isinstance(oversight, RewardModelling) or gold is None:
        raise AmplifyError(
            f"{store.path}: best-of-n by a reward model needs"
            ' oversight.kind = "reward-model" and a task with gold'
        )
    handles = store.roles(store.round(number))
    model = RewardModel(oversight.reward_model, experiment.task)
    params = {
        role: load(experiment, one, handle_of(handles, role))
        for role, one in ((REWARD_MODEL, model), (REFERENCE, experiment.assistant))
    }
    problems = draw_held_out(experiment, "final", contexts)
    rewards, found = _sample(experiment, model, params, problems, -(-answers // CHUNK))
    flat = rewards.reshape(len(rewards), -1)
    normaliser = Normaliser(flat.mean(axis=1), jnp.maximum(flat.std(axis=1), 1e-6))
    proxy = model.combine(normaliser(rewards))
    return Scored(*jax.device_get((proxy, found)))


def _sample(
    experiment: Experiment,
    model: RewardModel,
    params: dict[str, PyTree[Array]],
    problems: Problems,
    chunks: int,
) -> tuple[Float[Array, "members contexts answers"], Float[Array, "contexts answers"]]:
    keys = answer_keys(jax.random.key(experiment.seed), problems.seeds, chunks * CHUNK)
    by_chunk = jnp.moveaxis(keys.reshape(-1, chunks, CHUNK), 1, 0)
    rewards, gold = _score(experiment.task, experiment.assistant, model, params, problems, by_chunk)
    return (
        jnp.moveaxis(rewards, 0, 2).reshape(*rewards.shape[1:3], -1),
        jnp.moveaxis(gold, 0, 1).reshape(gold.shape[1], -1),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _score(
    task: Task,
    assistant: Any,
    model: RewardModel,
    params: dict[str, PyTree[Array]],
    problems: Problems,
    keys: Key[Array, "chunks contexts answers"],
) -> tuple[
    Float[Array, "chunks members contexts answers"], Float[Array, "chunks contexts answers"]
]:
    """Samples and scores an answer for each key, a chunk at a time to bound memory."""
    contexts, first = problems.contexts, problems.questions[:, :1]
    shape = (*keys.shape[1:], first.shape[-1])
    questions: Int[Array, "contexts answers question_length"] = jnp.broadcast_to(first, shape)
    read = contexts_for(task, contexts, questions)
    memory = assistant.encode(params[REFERENCE], read)
    gold = gold_of(task)
    assert gold is not None  # checked by `score_reference`

    def of_chunk(keys: Key[Array, "contexts answers"]) -> tuple[Array, Array]:
        tokens = assistant.answer(params[REFERENCE], memory, questions, keys).tokens
        rewards = model.rewards(params[REWARD_MODEL], read, questions, tokens)
        return rewards, vmap_questions(gold)(contexts, questions, tokens)

    return jax.lax.map(of_chunk, keys)


def curve(scored: Scored, ns: tuple[int, ...]) -> dict[str, list[float]]:
    """Returns the mean of gold and of the proxy of best-of-n by the proxy, over contexts.

    Args:
        scored: the answers.
        ns: for which n.
    """
    return {
        name: np.mean(
            [
                best_of_n_curve(proxy.astype(float), value.astype(float), ns)
                for proxy, value in zip(scored.proxy, values, strict=True)
            ],
            axis=0,
        ).tolist()
        for name, values in (("gold", scored.gold), ("proxy", scored.proxy))
    }
