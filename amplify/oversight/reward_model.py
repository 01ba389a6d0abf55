"""Reward modelling: a judge reviews some answers, a reward model learns to predict its judgement,
and the assistant is trained against the reward model by reinforcement learning.

Christiano et al. 2017 (arXiv:1706.03741); Leike et al. 2018 (arXiv:1811.07871).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.models.fact_transformer import FactTransformer
from amplify.models.language_model import LanguageModel, LanguageModelConfig
from amplify.models.language_value import LanguageValueModel
from amplify.models.reward_model import RewardModel, RewardModelConfig
from amplify.models.value_model import ValueModel
from amplify.overseers.human import HumanConfig, HumanReviewConfig, HumanReviewers
from amplify.overseers.judge import JudgeConfig
from amplify.overseers.language_judge import LanguageModelJudgeConfig
from amplify.overseers.language_model import LanguageModelOverseerConfig
from amplify.overseers.reviewers import Reviewer
from amplify.oversight.amplification import ImitateAnswers, trained_assistant
from amplify.oversight.audits.audit import (
    CHECK,
    LOOK,
    RESTART,
    Audit,
    affords_look,
    best_step,
    decide,
    policy_of,
)
from amplify.oversight.audits.auditor import Auditor
from amplify.oversight.people.reviewing import review_by_people
from amplify.oversight.reinforcement.drafts import DraftFitting, Drafts, Fitting
from amplify.oversight.reinforcement.expert_iteration import BEST_OF, ExpertIteration, best_answers
from amplify.oversight.reinforcement.ppo import (
    PPO,
    VALUE,
    ClippedPolicy,
    ClippedValue,
    ProximalRollouts,
)
from amplify.oversight.reinforcement.rollouts import (
    REFERENCE,
    REWARD_MODEL,
    Penalty,
    PolicyGradient,
    Rollouts,
)
from amplify.oversight.restore import load
from amplify.oversight.reviews import samples
from amplify.oversight.reviews.predicting import PredictChoices, PredictScores
from amplify.oversight.reviews.preferences import (
    DESCRIPTIONS,
    as_signal,
    columns_of,
    facts_of,
    review_by_judge,
    with_earlier,
)
from amplify.oversight.work import Made, Work
from amplify.records.record import ASSISTANT
from amplify.records.round_folder import RoundFolder
from amplify.task_abilities import draft_of
from amplify.training.phase import Begin, Phase, Source, Trained
from amplify.types import Task

Count = Annotated[int, Field(ge=1)]

EXPERT_ITERATION = "expert-iteration"
DRAFTS, REINFORCEMENT, BEST_AUDITED = "drafts", "reinforcement", "best_audited"
"""Names of phases. With audits, reinforcement is divided into `reinforcement_20`,
`reinforcement_40`, ..., where the number counts the steps of the round up to their end. The last
phase returns to the best audited policy."""


@dataclasses.dataclass(frozen=True)
class RewardModelling:
    """Oversight by a reward model: `[oversight] kind = "reward-model"`."""

    reviews: Count = 1000
    """Reviews in each round: comparisons of two answers, unless `reward_model` says otherwise."""
    reviews_of: samples.ReviewsOf = "policy"
    """Which answers are reviewed: the policy's or, in every round, drafts. focused-drafts: drafts
    about the task's `focus`, so that nobody reviews any others; then there are no audits."""
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
    method: Literal["policy-gradient", "ppo", "expert-iteration"] = "policy-gradient"
    """How the assistant is trained against the reward model."""
    reward: Literal["reward-model", "judge"] = "reward-model"
    """Who rewards the assistant's answers. judge: the judge scores every one of them, which no
    person could; an upper bound for what reviews can teach. The reward model is fitted to its
    comparisons all the same, and helps audits. Only a simulated judge, and policy gradient."""
    ppo: PPO = dataclasses.field(default_factory=PPO)
    """Used if `method` is "ppo"."""
    expert_iteration: ExpertIteration = dataclasses.field(default_factory=ExpertIteration)
    """Used if `method` is "expert-iteration", which has no penalty and no audits."""
    audit: Audit = dataclasses.field(default_factory=Audit)
    """Audits during reinforcement learning."""

    def adapt_overseer(self, task: Task, overseer: Any) -> Any:
        """Returns the section of a judge.

        Raises:
            ValueError: if the overseer cannot judge, or the task has no drafts.
        """
        if not isinstance(overseer, JudgeConfig | LanguageModelOverseerConfig | HumanConfig):
            raise ValueError(
                'oversight.kind = "reward-model" needs somebody who reviews answers:'
                " overseer.kind must be human, judge or language-model"
            )
        if self.reward_model.confidence and not isinstance(overseer, JudgeConfig):
            raise ValueError(
                'oversight.reward_model.confidence must be false unless overseer.kind = "judge":'
                " nobody else says how sure they are"
            )
        if draft_of(task) is None:
            raise ValueError(
                'oversight.kind = "reward-model" needs a task with drafts, which the first policy'
                f" imitates, but {type(task).__name__} has none"
            )
        alone = not self.audit.every and self.reward == "reward-model"
        samples.check_reviews_of(self.reviews_of, task, only_reviews=alone)
        if self.reward == "judge" and (not isinstance(overseer, JudgeConfig) or overseer.helper):
            raise ValueError(
                'oversight.reward = "judge" needs overseer.kind = "judge", without a helper: the'
                " judge scores every answer while the assistant is trained"
            )
        if isinstance(overseer, LanguageModelOverseerConfig):
            return LanguageModelJudgeConfig(**vars(overseer))
        if isinstance(overseer, HumanConfig):
            return self._reviewers(overseer)
        return overseer

    def _reviewers(self, people: HumanConfig) -> HumanReviewConfig:
        """People whom no assistant helps, and who review answers without knowing any."""
        alone = {"asks": 0, "others": "nobody", "gold": 0.0, "withheld": 0.0}
        return HumanReviewConfig(**vars(people) | alone | {"items": self.reviews})

    def check_sections(self, sections: Mapping[str, Any]) -> None:
        """Checks that the policy has a KL divergence, that batches can be divided, and that the
        audits' budget suffices.

        Raises:
            ValueError: if not.
        """
        if getattr(sections["assistant"], "top_p", 1.0) < 1:
            raise ValueError(
                'oversight.kind = "reward-model" needs assistant.top_p = 1: the KL divergence from'
                " a reference policy that leaves tokens out is infinite"
            )
        rows = sections["training"].batch // sections["mesh"].row_shares
        if self.method == "ppo" and rows % self.ppo.minibatches:
            raise ValueError(
                f"oversight.ppo.minibatches must divide training.batch / (mesh.data x mesh.fsdp)"
                f" ({rows}), got {self.ppo.minibatches}"
            )
        if self.reward_model.initial == "reference" and not isinstance(
            sections["assistant"], LanguageModelConfig
        ):
            raise ValueError(
                'oversight.reward_model.initial = "reference" needs assistant.kind ='
                ' "language-model": no other network can begin with the reference policy\'s'
            )
        if self.audit.every and self.method == EXPERT_ITERATION:
            raise ValueError(
                f'oversight.audit.every must be 0 if oversight.method = "{EXPERT_ITERATION}":'
                " only reinforcement learning is audited"
            )
        if self.reward == "judge" and self.method != "policy-gradient":
            raise ValueError(
                'oversight.reward = "judge" needs oversight.method = "policy-gradient", got'
                f" {self.method!r}"
            )
        self.audit.check_steps(sections["training"].steps)

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
        if not this.record["parent"]["round"]:
            schedule = dataclasses.replace(experiment.training.schedule, steps=self.drafts.steps)
            yield Phase(DRAFTS, (self._reference(experiment),), schedule, Drafts(experiment))
        yield self._first_reviews(experiment, this)
        if self.method == EXPERT_ITERATION:
            yield from self._iterations(experiment)
        elif self.audit.every:
            yield from self._audited(experiment, this)
        else:
            yield self._reinforcement(experiment, REINFORCEMENT, experiment.training.steps)

    def _audited(self, experiment: Experiment, this: RoundFolder) -> Iterator[Phase]:
        """Yields the phases of reinforcement learning with audits, see `Audit.on_alarm`."""
        audit, restarted, done = self.audit, 0, 0
        for attempt in range(1 + audit.restarts):
            fell = False
            for steps in audit.segments(experiment.training.steps):
                fresh, done = done == restarted, done + steps
                yield self._reinforcement(
                    experiment, f"{REINFORCEMENT}_{done}", steps, continues=not fresh
                )
                if not affords_look(this.record, audit, restarted, done):
                    continue
                look, check = f"{LOOK}_{done}", f"{CHECK}_{done}"
                yield self._without_training(experiment, look)
                said = decide(this.record, audit.rules, restarted, until=look)
                if said.status == "check":
                    yield self._without_training(experiment, check)
                    said = decide(this.record, audit.rules, restarted, until=check)
                fell = said.status in ("alarm", "decline")
                if fell and audit.on_alarm != "report":
                    break
            again = audit.on_alarm == "restart" and (fell or audit.restart_at == "end")
            if not again or attempt == audit.restarts:
                break
            yield self._restart(experiment, done)
            restarted = done
        if audit.returns and (best := best_step(this.record)) is not None:
            yield self._return_to(experiment, policy_of(best))

    def _iterations(self, experiment: Experiment) -> Iterator[Phase]:
        """Yields the phases of expert iteration."""
        for number in range(1, self.expert_iteration.iterations + 1):
            yield Phase(
                f"{BEST_OF}_{number}",
                tuple(self._policy(experiment)),
                experiment.training.schedule,
                begins=(Begin(ASSISTANT, REFERENCE),) if number == 1 else (),
            )

    def signal(self, phase: Phase, work: Work) -> Made:
        """Lets answers be reviewed or audited; or chooses the best ones.

        Args:
            phase: one that stores its signal.
            work: the round so far.
        """
        model = self._model(work.experiment)
        kind, _, count = phase.name.rpartition("_")
        if kind == BEST_OF:
            sampled = REFERENCE if count == "1" else ASSISTANT
            return best_answers(self.expert_iteration, model, phase.name, work, sampled)
        if kind in (LOOK, CHECK):
            people = work.experiment.overseer
            judge = people if isinstance(people, HumanReviewers) else _judge(work.experiment)
            auditor = Auditor(self.audit, model, judge)
            return (auditor.look if kind == LOOK else auditor.check)(phase.name, work)
        return self._review(phase, work)

    def _review(self, phase: Phase, work: Work) -> Made:
        """Lets a judge or people review answers; of the policy's: at first those of the best policy
        of earlier rounds, and at a restart those of the current one.
        """
        experiment, config = work.experiment, self.reward_model
        restarts = phase.name != samples.REVIEWS
        number = self.audit.relabel if restarts else self.reviews
        problems = samples.draw_problems_to_review(work, phase.name, number)
        if self.reviews_of == "policy":
            sampled = ASSISTANT if restarts or work.best.number else REFERENCE
            params = load(experiment, experiment.assistant, work.roles[sampled])
            shown = samples.sample_answers(experiment, params, problems, config.shown)
        else:
            shown = samples.write_drafts(experiment, problems, config.shown, self.reviews_of)
        if isinstance(experiment.overseer, HumanReviewers):
            stage = f"{phase.name}/data"
            reviewed = review_by_people(config, work, stage, number, problems, shown)
        else:
            reviewed = review_by_judge(config, work, problems, shown)
        columns = as_signal(config, problems, shown, reviewed)
        return Made(
            with_earlier(work, columns, phase.name),
            reviewed.trees,
            facts_of(config, reviewed),
            reviewed.description,
            DESCRIPTIONS,
        )

    def _model(self, experiment: Experiment) -> RewardModel:
        config = self.reward_model
        scorer = self._value(experiment) if config.network == "policy" else None
        return RewardModel(config, experiment.task, scorer)

    def _first_reviews(self, experiment: Experiment, this: RoundFolder) -> Phase:
        """The phase at whose beginning the reward model is new, in the first round."""
        phase = self._reviews(experiment, samples.REVIEWS)
        if this.record["parent"]["round"] or self.reward_model.initial == "random":
            return phase
        begin = Begin(REWARD_MODEL, REFERENCE, experiment.assistant)
        return dataclasses.replace(phase, begins=(begin,))

    def _reviews(self, experiment: Experiment, name: str) -> Phase:
        """The phase that trains the reward model on reviews."""
        rows = max(1, self.fitting_batch // experiment.questions.per_context)
        schedule = experiment.training.schedule
        schedule = dataclasses.replace(schedule, steps=self.fitting.steps, batch=rows)
        return Phase(
            name, (self._reward(experiment),), schedule, columns=columns_of(self.reward_model)
        )

    def _reinforcement(
        self, experiment: Experiment, name: str, steps: int, *, continues: bool = False
    ) -> Phase:
        judge = _judge(experiment) if self.reward == "judge" else None
        rollouts = Rollouts(experiment, self._model(experiment), self.penalty, judge)
        source: Source = rollouts
        if self.method == "ppo":
            source = ProximalRollouts(rollouts, self._value(experiment), self.ppo)
        return Phase(
            name,
            tuple(self._policy(experiment)),
            dataclasses.replace(experiment.training.schedule, steps=steps),
            source,
            frozen=rollouts.frozen,
            begins=() if continues else (Begin(ASSISTANT, REFERENCE),),
            continues=continues,
        )

    def _restart(self, experiment: Experiment, steps: int) -> Phase:
        """A phase after which training begins again: with new reviews, or one without steps."""
        if self.audit.relabel:
            return self._reviews(experiment, f"{samples.REVIEWS}_{steps}")
        return self._reinforcement(experiment, f"{RESTART}_{steps}", steps=0)

    def _return_to(self, experiment: Experiment, policy: str) -> Phase:
        """A phase without steps, after which the assistant is an earlier policy."""
        begun = self._reinforcement(experiment, BEST_AUDITED, steps=0)
        return dataclasses.replace(begun, begins=(Begin(ASSISTANT, policy),))

    def _without_training(self, experiment: Experiment, name: str) -> Phase:
        """A phase that only makes a signal: an audit."""
        return Phase(name, (), experiment.training.schedule)

    def _policy(self, experiment: Experiment) -> list[Trained]:
        """The roles that reinforcement learning trains."""
        model, training = experiment.assistant, experiment.training
        if self.method == EXPERT_ITERATION:
            return [trained_assistant(model, training)]
        if self.method == "policy-gradient":
            gradient = PolicyGradient(model)
            return [Trained(ASSISTANT, model, gradient, training)]
        clipped, value = ClippedPolicy(model, self.ppo.clip), self._value(experiment)
        predict = ClippedValue(value, self.ppo.value_clip)
        return [
            Trained(ASSISTANT, model, clipped, training),
            Trained(VALUE, value, predict, training),
        ]

    def _value(self, experiment: Experiment) -> ValueModel | LanguageValueModel:
        policy = experiment.assistant
        if isinstance(policy, LanguageModel):
            return LanguageValueModel(policy)
        if isinstance(policy, FactTransformer):
            return ValueModel(policy.config, experiment.task)
        raise AmplifyError(
            'oversight.method = "ppo" and oversight.reward_model.network = "policy" need'
            ' assistant.kind = "fact-transformer" or "language-model", got'
            f" {type(policy).__name__}"
        )

    def _reference(self, experiment: Experiment) -> Trained:
        model = experiment.assistant
        return Trained(REFERENCE, model, ImitateAnswers(model), self.drafts)

    def _reward(self, experiment: Experiment) -> Trained:
        model = self._model(experiment)
        scored = self.reward_model.reviews_as == "scores"
        predict = PredictScores(model) if scored else PredictChoices(model)
        return Trained(REWARD_MODEL, model, predict, self.fitting)


def _judge(experiment: Experiment) -> Reviewer:
    judge = experiment.overseer
    assert isinstance(judge, Reviewer)  # checked when the experiment file was read
    return judge
