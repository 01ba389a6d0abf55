"""REINFORCE with a learned baseline: samples of the live assistant, rewarded while it trains."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from amplify.oversight.work import draw_batch
from amplify.runtime.calls import metric
from amplify.tasks.batching import vmap_questions
from amplify.training.phase import Phase, Source, Trained, Update


@dataclasses.dataclass(frozen=True)
class PolicyGradient:
    assistant: Any

    def __call__(self, params, frozen, batch):
        memory = self.assistant.encode(params, batch["context"])
        said = self.assistant.log_prob(params, memory, batch["questions"], batch["answers"])
        loss = -jnp.mean(batch["advantage"] * jnp.sum(said, axis=-1))
        return loss, {"loss": loss, "answered": jnp.float32(batch["advantage"].size)}


@dataclasses.dataclass(frozen=True)
class Baseline:
    vocabulary: int  # expected reward by the first token of a question: model and objective

    def init(self, key):
        return {"value": jnp.zeros(self.vocabulary)}

    def __call__(self, params, frozen, batch):
        error = params["value"][batch["questions"][..., 0]] - batch["reward"]
        loss = jnp.mean(jnp.square(error))
        return loss, {"loss": loss, "answered": jnp.float32(error.size)}


@dataclasses.dataclass(frozen=True)
class Rollouts(Source):
    experiment: Any
    traced = True

    def begin(self, work, carried):
        return jnp.zeros(())  # reward so far

    def next(self, frozen, live, state, key):
        task, assistant = self.experiment.task, self.experiment.assistant
        draw_key, answer_key = jax.random.split(key)
        contexts, questions = draw_batch(self.experiment, draw_key)
        params, keys = live["assistant"].params, jax.random.split(answer_key, questions.shape[:2])
        said = assistant.answer(params, assistant.encode(params, contexts), questions, keys).tokens
        reward = vmap_questions(task.is_right)(contexts, questions, said).astype(jnp.float32)
        batch = {"context": contexts, "questions": questions, "answers": said, "reward": reward}
        batch["advantage"] = reward - live["baseline"].params["value"][questions[..., 0]]
        logged = {metric("assistant"): jnp.int32(reward.size), "reward": jnp.mean(reward)}
        return state + jnp.mean(reward), dict.fromkeys(live, Update(batch)), logged

    def carry(self, state):
        return {"baseline": {"reward": state}}

    def facts(self, carried, state, log):
        return {"reward": float(jax.device_get(state)), "rounds_before": len(carried)}


@dataclasses.dataclass(frozen=True)
class Reinforce:
    def roles(self, experiment):
        model, training = Baseline(len(experiment.task.vocabulary)), experiment.training
        assistant = experiment.assistant  # without a target network: its live weights answer
        policy = Trained("assistant", assistant, PolicyGradient(assistant), training)
        return [policy, Trained("baseline", model, model, training, keeps_optimizer=True)]

    def phases(self, experiment, this):
        trained, schedule = tuple(self.roles(experiment)), experiment.training.schedule
        yield Phase("reinforcement", trained, schedule, Rollouts(experiment))

    def signal(self, phase, work):
        raise NotImplementedError("the one phase has a source")
