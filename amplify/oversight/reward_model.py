"""Reward modelling: a judge compares some answers, a reward model learns to predict its judgement,
and the assistant is trained against the reward model by reinforcement learning.

Christiano et al. 2017 (arXiv:1706.03741); Leike et al. 2018 (arXiv:1811.07871).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import jax
import numpy as np
import optax
from jaxtyping import Array, Key, PyTree
from pydantic import Field

from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.models.fact_transformer import FactTransformer
from amplify.models.reward_model import RewardModel, RewardModelConfig
from amplify.models.value_model import ValueModel
from amplify.overseers.judge import Judge, JudgeConfig
from amplify.oversight.amplification import ImitateAnswers
from amplify.oversight.ppo import (
    PPO,
    VALUE,
    ClippedPolicy,
    ClippedValue,
    ProximalRollouts,
)
from amplify.oversight.preferences import COLUMNS, PredictPreferences, compare_samples
from amplify.oversight.reinforcement import (
    REFERENCE,
    REWARD_MODEL,
    Penalty,
    PolicyGradient,
    Rollouts,
)
from amplify.oversight.restore import load
from amplify.oversight.work import Made, Work, draw_batch
from amplify.records.round_folder import RoundFolder
from amplify.task_abilities import draft_of
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import draw_problems
from amplify.training import dataset
from amplify.training.phase import Metrics, Phase, RoleState, Source, Trained, Update
from amplify.types import Roles, Task

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]

DRAFTS, REVIEWS, REINFORCEMENT = "drafts", "reviews", "reinforcement"
"""Names of phases."""


@dataclasses.dataclass(frozen=True)
class Fitting:
    """How a reward model is fitted: AdamW, with cosine decay of the learning rate."""

    steps: Count = 300
    """Number of training steps."""
    learning_rate: Positive = 3e-3
    """At the first step."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decay of the weights per step, as a multiple of the learning rate."""

    def make_optimizer(self) -> optax.GradientTransformation:
        """Makes the optimizer."""
        schedule = optax.cosine_decay_schedule(self.learning_rate, self.steps)
        descent = optax.adamw(schedule, weight_decay=self.weight_decay)
        return optax.chain(optax.clip_by_global_norm(1.0), descent)


@dataclasses.dataclass(frozen=True)
class DraftFitting(Fitting):
    """How the reference policy is fitted to drafts, likewise."""

    steps: Count = 400
    """Number of training steps."""
    learning_rate: Positive = 2e-3
    """At the first step."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decay of the weights per step, as a multiple of the learning rate."""


@dataclasses.dataclass(frozen=True)
class Drafts(Source):
    """Drafts, which the reference policy imitates: answers of somebody who does not know what is
    right.
    """

    experiment: Experiment
    traced = True

    def begin(self, work: Work | None, carried: Roles) -> tuple[()]:
        """There is no state."""
        return ()

    def next(
        self,
        frozen: Roles,
        live: Mapping[str, RoleState],
        state: PyTree[Array],
        key: Key[Array, ""],
    ) -> tuple[PyTree[Array], dict[str, Update], Metrics]:
        """Writes a draft for each of a batch of questions."""
        draft = draft_of(self.experiment.task)
        assert draft is not None  # checked when the experiment file was read
        draw_key, draft_key = jax.random.split(key)
        contexts, questions = draw_batch(self.experiment, draw_key)
        keys = jax.random.split(draft_key, questions.shape[:2])
        answers = vmap_questions(draft)(contexts, questions, keys)
        batch = {"context": contexts, "questions": questions, "answers": answers}
        return (), dict.fromkeys(live, Update(batch)), {}


@dataclasses.dataclass(frozen=True)
class RewardModelling:
    """Oversight by a reward model: `[oversight] kind = "reward-model"`."""

    reviews: Count = 1000
    """Comparisons of two answers that the judge makes in each round."""
    reward_model: RewardModelConfig = dataclasses.field(default_factory=RewardModelConfig)
    """The reward model."""
    fitting: Fitting = dataclasses.field(default_factory=Fitting)
    """How the reward model is fitted to the reviews."""
    fitting_batch: Count = 128
    """Reviews in a batch."""
    drafts: DraftFitting = dataclasses.field(default_factory=DraftFitting)
    """How the reference policy is fitted to drafts, in the first round."""
    penalty: Penalty = dataclasses.field(default_factory=Penalty)
    """How leaving the reference policy is penalised."""
    method: Literal["policy-gradient", "ppo"] = "policy-gradient"
    """How the assistant is trained against the reward model."""
    ppo: PPO = dataclasses.field(default_factory=PPO)
    """Used if `method` is "ppo"."""

    def adapt_overseer(self, task: Task, overseer: Any) -> Any:
        """Checks that the overseer judges answers, and that the task has drafts.

        Raises:
            ValueError: if not.
        """
        if not isinstance(overseer, JudgeConfig):
            raise ValueError(
                'oversight.kind = "reward-model" needs somebody who compares answers:'
                " overseer.kind must be judge"
            )
        if draft_of(task) is None:
            raise ValueError(
                'oversight.kind = "reward-model" needs a task with drafts, which the first policy'
                f" imitates, but {type(task).__name__} has none"
            )
        return overseer

    def roles(self, experiment: Experiment) -> list[Trained]:
        """Returns the roles that rounds train and round 0 initialises."""
        policy = self._policy(experiment)
        return [*policy, self._reference(experiment), self._reward(experiment)]

    def phases(self, experiment: Experiment, this: RoundFolder) -> Iterator[Phase]:
        """Yields the phases of a round, in order.

        Args:
            experiment: whose assistant is trained.
            this: the round's folder, with the stages that are done.
        """
        schedule = experiment.training.schedule
        if not this.record["parent"]["round"]:
            yield Phase(
                DRAFTS,
                (self._reference(experiment),),
                dataclasses.replace(schedule, steps=self.drafts.steps),
                Drafts(experiment),
            )
        rows = max(1, self.fitting_batch // experiment.questions.per_context)
        yield Phase(
            REVIEWS,
            (self._reward(experiment),),
            dataclasses.replace(schedule, steps=self.fitting.steps, batch=rows),
            columns=COLUMNS,
        )
        yield self._reinforcement(experiment)

    def signal(self, phase: Phase, work: Work) -> Made:
        """Lets the judge compare answers of the best policy so far, and adds the reviews of earlier
        rounds.

        Args:
            phase: the one that trains the reward model.
            work: the round and its roles.
        """
        experiment, number = work.experiment, work.this.number
        per_context = experiment.questions.per_context
        problems = draw_problems(
            experiment.task,
            experiment.seed,
            number,
            "train",
            -(-self.reviews // per_context),
            experiment.all_depths,
            apart=experiment.evals.apart,
        )
        sampled = "assistant" if work.best.number else REFERENCE
        params = load(experiment, experiment.assistant, work.roles[sampled])
        with work.watch("reviewing", len(problems.seeds)) as advance:
            columns = compare_samples(experiment, params, _judge(experiment), problems, advance)
        facts = {"reviews": int(columns["fold"].size)}
        columns = _with_earlier(work, columns)
        return Made(columns, [], facts, f"Round {number}: a judge compares two answers.")

    def _model(self, experiment: Experiment) -> RewardModel:
        return RewardModel(self.reward_model, experiment.task)

    def _reinforcement(self, experiment: Experiment) -> Phase:
        rollouts = Rollouts(experiment, self._model(experiment), self.penalty)
        source: Source = rollouts
        if self.method == "ppo":
            source = ProximalRollouts(rollouts, self._value(experiment), self.ppo)
        policy, schedule = tuple(self._policy(experiment)), experiment.training.schedule
        return Phase(REINFORCEMENT, policy, schedule, source, frozen=rollouts.frozen)

    def _policy(self, experiment: Experiment) -> list[Trained]:
        """The roles that reinforcement learning trains."""
        model, training = experiment.assistant, experiment.training
        if self.method == "policy-gradient":
            gradient = PolicyGradient(model)
            return [Trained("assistant", model, gradient, training, begins=REFERENCE)]
        clipped, value = ClippedPolicy(model, self.ppo.clip), self._value(experiment)
        predict = ClippedValue(value, self.ppo.value_clip)
        return [
            Trained("assistant", model, clipped, training, begins=REFERENCE),
            Trained(VALUE, value, predict, training),
        ]

    def _value(self, experiment: Experiment) -> ValueModel:
        if not isinstance(experiment.assistant, FactTransformer):
            raise AmplifyError(
                'oversight.method = "ppo" has a value network for assistant.kind ='
                ' "fact-transformer" only; use "policy-gradient"'
            )
        return ValueModel(experiment.assistant.config, experiment.task)

    def _reference(self, experiment: Experiment) -> Trained:
        model = experiment.assistant
        return Trained(REFERENCE, model, ImitateAnswers(model), self.drafts)

    def _reward(self, experiment: Experiment) -> Trained:
        model = self._model(experiment)
        return Trained(REWARD_MODEL, model, PredictPreferences(model), self.fitting)


def _judge(experiment: Experiment) -> Judge:
    judge = experiment.overseer
    assert isinstance(judge, Judge)  # checked when the experiment file was read
    return judge


def _with_earlier(work: Work, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Appends the reviews of the best round so far, which contain those before it."""
    if not work.best.number:
        return columns
    rows = list(dataset.read(work.best.phase(REVIEWS).data))
    return {
        name: np.concatenate([column, np.stack([row[name] for row in rows])])
        for name, column in columns.items()
    }
