"""Expert iteration against a reward model: the assistant samples several answers to each question,
and learns to give the one that the reward model ranks best.

Anthony, Tian and Barber 2017 (arXiv:1705.08439). With one iteration from the reference policy, this
distils best-of-n sampling (Stiennon et al. 2020, arXiv:2009.01325, appendix B).
"""

import dataclasses
import functools
import math
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree
from pydantic import Field

from amplify.models.reward_model import RewardModel
from amplify.oversight.reinforcement.rollouts import (
    REWARD_MODEL,
    Normaliser,
    normaliser_of,
)
from amplify.oversight.restore import load, phase_stream
from amplify.oversight.work import Made, Work
from amplify.runtime import calls
from amplify.tasks.problems import answer_keys, columns_in_chunks, draw_problems
from amplify.trees.amplification import contexts_for
from amplify.types import Assistant, Problems, Roles, Task

BEST_OF = "best_of"
"""What the phases are called, followed by the number of the iteration: best_of_2."""


@dataclasses.dataclass(frozen=True)
class ExpertIteration:
    """`[oversight.expert_iteration]` of an experiment file."""

    samples: Annotated[int, Field(ge=2)] = 16
    """Answers to each question, of which the assistant learns the best one."""
    iterations: Annotated[int, Field(ge=1)] = 3
    """Iterations in a round, each of `training.steps` steps. The first samples the reference
    policy, the others the assistant that the one before trained; 1 distils best-of-n."""

    @property
    def kl_bound(self) -> float:
        """The largest KL divergence, in nats, of the best of n samples from the policy that is
        sampled; smaller where answers tie (Beirami et al. 2024, arXiv:2401.01879).
        """
        return math.log(self.samples) - (self.samples - 1) / self.samples


def best_answers(
    config: ExpertIteration, model: RewardModel, name: str, work: Work, sampled: str
) -> Made:
    """Samples answers to the round's questions, and keeps the best one to each.

    Args:
        config: how many.
        model: the reward model.
        name: of the phase.
        work: the round so far.
        sampled: the role whose answers are sampled.
    """
    experiment = work.experiment
    assistant, key = experiment.assistant, jax.random.key(experiment.seed)
    problems = draw_problems(
        experiment.task,
        experiment.seed,
        phase_stream(name, work.this.number),
        "train",
        experiment.questions.contexts,
        experiment.all_depths,
        apart=experiment.evals.apart,
    )
    roles = {REWARD_MODEL: load(experiment, model, work.roles[REWARD_MODEL])}
    function = functools.partial(
        _best_of,
        experiment.task,
        assistant,
        model,
        config.samples,
        load(experiment, assistant, work.roles[sampled]),
        roles,
        normaliser_of(experiment, model, work.roles),
        key,
    )
    place = experiment.mesh.here.row_sharding
    with work.watch("sampling", len(problems.seeds)) as advance:
        found = columns_in_chunks(function, problems, advance=advance, place=place)
    calls.count(calls.ASSISTANT, config.samples * found["best_reward"].size)
    contexts, questions, seeds = jax.device_get(
        (problems.contexts, problems.questions, problems.seeds)
    )
    facts = {
        "best_reward": float(found["best_reward"].mean()),
        "kl_bound": config.kl_bound,
    }
    columns = {
        "context": contexts,
        "questions": questions,
        "answers": found["answers"],
        "problem_seed": seeds,
    }
    said = f"The best of {config.samples} answers to each question, by the reward model."
    return Made(columns, [], {"best_of": facts}, said)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _best_of(
    task: Task,
    assistant: Assistant,
    model: RewardModel,
    samples: int,
    policy: PyTree[Array],
    roles: Roles,
    normaliser: Normaliser,
    root: Key[Array, ""],
    problems: Problems,
) -> dict[str, Array]:
    contexts, questions = problems.contexts, problems.questions
    read = contexts_for(task, contexts, questions)
    memory = assistant.encode(policy, read)
    keys = answer_keys(root, problems.seeds, questions.shape[1])
    keys = jax.vmap(jax.vmap(lambda key: jax.random.split(key, samples)))(keys)
    repeated = jnp.repeat(questions, samples, axis=1)
    answers = assistant.answer(policy, memory, repeated, keys.reshape(repeated.shape[:2])).tokens
    rewards = model.rewards(roles[REWARD_MODEL], read, repeated, answers)
    rewards = model.combine(normaliser(rewards))
    chosen, best = choose_best(answers.reshape(*keys.shape, -1), rewards.reshape(keys.shape))
    return {"answers": chosen, "best_reward": best}


def choose_best(
    answers: Int[Array, "batch questions samples answer_length"],
    rewards: Float[Array, "batch questions samples"],
) -> tuple[Int[Array, "batch questions answer_length"], Float[Array, "batch questions"]]:
    """Chooses the answer with the highest reward; of equal ones the first.

    Args:
        answers: several to each question.
        rewards: of each. A reward that is not a number is never the best one.

    Returns:
        The answers and their rewards.
    """
    ranked = jnp.where(jnp.isnan(rewards), -jnp.inf, rewards)
    index = jnp.argmax(ranked, axis=-1, keepdims=True)
    chosen = jnp.take_along_axis(answers, index[..., None], axis=-2)[..., 0, :]
    return chosen, jnp.take_along_axis(ranked, index, axis=-1)[..., 0]
