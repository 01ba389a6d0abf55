"""A step of reinforcement learning beside TRL's RLOO trainer: the same Llama, step by step in turn.

On both sides, a step draws new prompts, samples answers to them at temperature 1 from the same
4,096 tokens, none of which ends an answer, and takes one step of Adam. A sample's advantage is its
share of even tokens minus the mean share of its prompt's other samples (RLOO: Ahmadian et al. 2024,
arXiv:2402.14740), in standard deviations of the batch. The loss is the mean of advantage times
log-probability: TRL's ratio of probabilities is 1 in the only update of a batch, so nothing is
clipped. There is no penalty for KL. The first batch that TRL draws must have the same advantages
under our reward, and the same gradient under our objective.

What differs is how the two are made. Ours reads a prompt once for all its samples, and scores them
with a reference model, to report the KL divergence. TRL reads it for each sample; scores the
samples again with the policy; tokenizes prompts and decodes answers; on a CPU, computes the logits
of prompts, too; and accumulates the gradient over microbatches, so that it fits into memory.
"""

import dataclasses
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers

from amplify.models.language_model import LanguageModel, LanguageModelConfig
from amplify.models.reward_model import RewardModel, RewardModelConfig
from amplify.oversight.reinforcement.rollouts import (
    REFERENCE,
    REWARD_MODEL,
    Penalty,
    PolicyGradient,
    Rollouts,
    whiten,
)
from amplify.reading.experiment_file import read_experiment
from amplify.runtime import threads
from amplify.runtime.calls import ASSISTANT
from amplify.training.mesh import ONE_DEVICE
from amplify.training.options import Training
from amplify.training.phase import Phase, Trained
from amplify.training.step import TrainState, begin, fresh_role, make_step, stored_step
from amplify.types import Roles
from tests.benchmarks import llama
from tests.benchmarks.llama import ANSWER, BEGIN, SEPARATOR, VOCABULARY, Shapes
from tests.tiny import JUDGED_ESSAYS, tiny_experiment

PROMPTS, SAMPLES, NEW = 8, 16, 64
MICROBATCHES = 8
"""Of TRL's update."""
TURNS = 6
"""The first compiles and is not counted."""
PARTS = "step", "rollout", "update"
TRAINING = Training(
    steps=TURNS,
    batch=PROMPTS,
    learning_rate=1e-4,
    final_learning_rate=1.0,
    warmup_steps=0,
    b2=0.999,
)


@dataclasses.dataclass(frozen=True)
class Prompts(Shapes):
    """Random contexts, with the same question about each as often as a prompt is sampled."""

    answer_length: int = NEW

    def draw_context(self, key):
        return jax.random.randint(key, (1, self.fact_length), 1, BEGIN)

    def draw_question(self, key, context, depth):
        return jnp.ones(1, jnp.int32)


@dataclasses.dataclass(frozen=True)
class EndlessModel(LanguageModel):
    """Task token 0, which ends an answer, has probability 0; id 0 is task token `VOCABULARY`."""

    def _sampling_log_probs(self, logits):
        is_end = jnp.arange(logits.shape[-1]) == 0
        return super()._sampling_log_probs(jnp.where(is_end, -jnp.inf, logits))


@dataclasses.dataclass(frozen=True)
class EvenTokens(RewardModel):
    """The share of even tokens, less the leave-one-out baseline."""

    def rewards(self, params, contexts, questions, answers):
        share = jnp.mean(answers % 2 == 0, axis=-1)
        others = (jnp.sum(share, axis=-1, keepdims=True) - share) / (SAMPLES - 1)
        return (share - others)[None]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL uses names that transformers renames
def test_a_step_beside_trl(tmp_path):
    """Prompts of 512 tokens; and of 16, where there is next to nothing to share."""
    pytest.importorskip("trl", reason="pip install -e '.[bench]'")
    measured = {length: measure(tmp_path / str(length), length) for length in (512, 16)}
    print(f"\n\n{PROMPTS} prompts, {SAMPLES} samples of {NEW} tokens each: median seconds")
    print("prompt  part       ours     TRL   ratio")
    for length, seconds in measured.items():
        for part in PARTS:
            mine, theirs = seconds["our " + part], seconds["their " + part]
            print(f"{length:6}  {part:7} {mine:7.2f} {theirs:7.2f} {theirs / mine:7.2f}")


def measure(folder: Path, length: int) -> dict[str, float]:
    """Median seconds of each part of both sides, which take turns."""
    llama.write(folder)
    clock = Clock()
    ours = Ours(clock, *our_phase(folder, length))
    trainer = their_trainer(folder, length, Turns(clock, ours))
    sample, batches = trainer._generate_and_score_completions, []

    def timed_sample(prompts):
        batches.append(clock.time("their rollout", sample, prompts))
        return batches[-1]

    trainer._generate_and_score_completions = timed_sample
    before = their_weights(trainer)
    trainer.train()
    ours.check()
    check_their_work(trainer, batches, before)
    check_same_gradient(ours, batches[0], trainer.state.log_history[0]["grad_norm"])
    return {part: statistics.median(seconds[1:]) for part, seconds in clock.seconds.items()}


class Clock:
    """The seconds that each part took, turn by turn."""

    def __init__(self):
        self.seconds = defaultdict(list)

    def time(self, part: str, function: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        result = jax.block_until_ready(function(*arguments))
        self.seconds[part].append(time.perf_counter() - began)
        return result


class Ours:
    """Our side: in each turn a whole step, which is one program, and then its halves."""

    def __init__(self, clock: Clock, phase: Phase, frozen: Roles, state: TrainState):
        self.clock, self.phase, self.frozen, self.state = clock, phase, frozen, state
        self.step = make_step(phase, frozen, jax.random.key(0))
        self.roll_out, self.update = jax.jit(phase.source.next), stored_step(phase)
        self.losses = []

    def take_turn(self):
        self.state, metrics = self.clock.time("our step", self.step, self.state)
        self.losses.append(float(metrics["loss"]))
        rollout = self.frozen, self.state.roles, self.state.source, jax.random.key(len(self.losses))
        _, updates, _ = self.clock.time("our rollout", self.roll_out, *rollout)
        batch = updates[ASSISTANT].batch
        assert batch["answers"].shape == (PROMPTS, SAMPLES, NEW)
        assert (batch["answers"] != 0).all()
        update = self.frozen, self.state, batch
        self.state, metrics = self.clock.time("our update", self.update, *update)
        self.losses.append(float(metrics["loss"]))

    def check(self):
        """Losses are finite, and all weight matrices have changed."""
        assert len(self.losses) == 2 * TURNS
        assert np.isfinite(self.losses).all()
        params = self.state.roles[ASSISTANT].params, self.frozen[REFERENCE]
        assert not any(jax.tree.leaves(jax.tree.map(jnp.array_equal, *params)))


class Turns(transformers.TrainerCallback):
    """Gives us a turn before each of TRL's steps, and times these."""

    def __init__(self, clock: Clock, ours: Ours):
        self.seconds, self.ours, self.began = clock.seconds, ours, 0.0

    def on_step_begin(self, *_, **__):
        self.ours.take_turn()
        self.began = time.perf_counter()

    def on_step_end(self, *_, **__):
        step = time.perf_counter() - self.began
        self.seconds["their step"].append(step)
        self.seconds["their update"].append(step - self.seconds["their rollout"][-1])


def our_phase(folder: Path, length: int) -> tuple[Phase, Roles, TrainState]:
    """The phase, the roles that it does not train, and the state before its first step."""
    task = Prompts(fact_length=length - 4)  # beside the question and three tokens of the format
    greedy, params = llama.ours(folder, task)
    ids = tuple(number % VOCABULARY for number in range(VOCABULARY + 1))
    form = greedy.format._replace(vocabulary=ids)
    policy = EndlessModel(LanguageModelConfig(), task, greedy.architecture, form)
    tiny = read_experiment(tiny_experiment(folder / "tiny", JUDGED_ESSAYS) / "experiment.toml")
    experiment = dataclasses.replace(
        tiny,
        task=task,
        assistant=policy,
        training=TRAINING,
        questions=dataclasses.replace(tiny.questions, per_context=SAMPLES),
        evals=dataclasses.replace(tiny.evals, apart=False),
    )
    source = Rollouts(experiment, EvenTokens(RewardModelConfig(), task), Penalty())
    trained = Trained(ASSISTANT, policy, PolicyGradient(policy), TRAINING)
    phase = Phase("reinforcement", (trained,), TRAINING.schedule, source, frozen=source.frozen)
    state = begin(phase, {ASSISTANT: fresh_role(trained, params)}, source.begin(None, {}))
    return phase, {REWARD_MODEL: None, REFERENCE: params}, ONE_DEVICE.place(state)


def their_trainer(folder: Path, length: int, turns: transformers.TrainerCallback):
    """TRL's trainer, with a tokenizer whose end the model has no logit for."""
    import trl
    from datasets import Dataset

    contexts = np.random.default_rng(0).integers(1, BEGIN, (TURNS * PROMPTS, length - 4))
    prompts = [[BEGIN, *context, SEPARATOR, 1, ANSWER] for context in contexts]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = None
    trainer = trl.RLOOTrainer(
        model=model,
        reward_funcs=even_tokens,
        args=trl.RLOOConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=PROMPTS * SAMPLES // MICROBATCHES,
            gradient_accumulation_steps=MICROBATCHES,
            num_generations=SAMPLES,
            max_completion_length=NEW,
            beta=0.0,
            normalize_advantages=True,
            max_steps=TURNS,
            learning_rate=TRAINING.learning_rate,
            lr_scheduler_type="constant",
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": [" ".join(map(str, one)) for one in prompts]}),
        processing_class=llama.tokenizer(end=VOCABULARY),
        callbacks=[turns],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    torch.set_num_threads(our_threads())
    return trainer


def our_threads() -> int:
    """The number of threads that XLA has."""
    return int(os.environ.get(threads.VARIABLE, threads.cores()))


def even_tokens(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """TRL's reward: the share of even tokens."""
    return np.mean(np.array(completion_ids) % 2 == 0, axis=-1).tolist()


def their_weights(trainer) -> list[torch.Tensor]:
    return [one.detach().clone() for one in trainer.model.parameters()]


def check_their_work(trainer, batches: list[dict], before: list[torch.Tensor]) -> None:
    """TRL generated all tokens, its losses are finite, and it changed every weight matrix, in
    float32 and on as many threads as we have.
    """
    assert trainer.model.dtype == torch.float32
    assert torch.get_num_threads() == our_threads()
    for batch in batches:
        assert batch["completion_ids"].shape == (PROMPTS * SAMPLES, NEW)
        assert batch["completion_mask"].all()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == TURNS
    assert np.isfinite(losses).all()
    assert not any(map(torch.equal, before, their_weights(trainer)))


def check_same_gradient(ours: Ours, batch: dict, norm: float) -> None:
    """TRL's first batch has the same advantages and gradient on our side.

    Args:
        ours: with the weights that TRL began with.
        batch: the samples.
        norm: of TRL's gradient.
    """
    phase, frozen = ours.phase, ours.frozen
    names = ("prompt_ids", "completion_ids", "advantages")
    shape = (PROMPTS, SAMPLES, -1)
    prompts, ids, theirs = (batch[name].numpy().reshape(shape) for name in names)
    columns = {
        "context": jnp.int32(prompts[:, :1, 1:-3]),
        "questions": jnp.int32(prompts[..., -2:-1]),
        "answers": jnp.int32(np.where(ids == 0, VOCABULARY, ids)),
    }
    normaliser = phase.source.begin(None, {}).normaliser
    advantage = whiten(phase.source.reward(frozen, normaliser, *columns.values()))
    unbiased = np.sqrt(1 - 1 / advantage.size)  # TRL estimates the variance of more than the batch
    np.testing.assert_allclose(advantage * unbiased, theirs[..., 0], atol=5e-3)
    gradient = jax.jit(jax.grad(phase.trains[0].objective, has_aux=True))
    found, _ = gradient(frozen[REFERENCE], frozen, columns | {"advantage": theirs[..., 0]})
    assert float(optax.tree.norm(found)) == pytest.approx(norm, rel=1e-3)
