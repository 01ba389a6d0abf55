"""Audits of a policy while it is trained: every few steps, the judge scores some of its answers.

The reward model scores all of a large number of answers, the judge some of them, and the mean of
what the judge would say of all is estimated from both, see `statistics.audits`. The reward model
has not seen the scores. `statistics.alarm` decides what follows: it may ask for a check, which
reviews new answers of the current policy and of the best audited one.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree
from pydantic import Field

from amplify.evaluation.statistics.alarm import (
    AlarmRules,
    Check,
    Look,
    Watch,
    best_look,
    known_best,
    watch,
)
from amplify.evaluation.statistics.audits import (
    AuditEstimate,
    draw,
    estimate,
    sampling_probabilities,
)
from amplify.models.reward_model import RewardModel
from amplify.overseers.judge import Judge
from amplify.oversight.preferences import JUDGE, REVIEWS
from amplify.oversight.reinforcement import REFERENCE, REWARD_MODEL, Normaliser, measure_rewards
from amplify.oversight.restore import load, phase_stream
from amplify.oversight.work import Made, Work
from amplify.records.record import ASSISTANT, DATA, Record, phases
from amplify.runtime import calls
from amplify.tasks.batching import fold_in
from amplify.tasks.problems import (
    CONTEXTS_PER_CHUNK,
    answer_keys,
    chunk_rows,
    draw_problems,
    map_in_chunks,
)
from amplify.trees.amplification import contexts_for
from amplify.types import Assistant, Problems, Roles, Task

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]

LOOK, CHECK = "audit", "check"
"""What phases of audits are called, followed by the number of steps before them: audit_40."""


@dataclasses.dataclass(frozen=True)
class Audit:
    """`[oversight.audit]` of an experiment file."""

    every: Annotated[int, Field(ge=0)] = 0
    """Steps of reinforcement learning between two audits; 0: there are no audits."""
    answers: Count = 512
    """Answers that the reward model scores at each audit, of which the judge scores some."""
    reviews: Positive = 24.0
    """Expected number of answers that the judge scores at each audit. Each is drawn independently,
    so that the number varies; if it is at least `answers`, all are."""
    draw: Literal["random", "active"] = "random"
    """How answers are drawn: all with the same probability, or with probabilities in proportion to
    the disagreement of the reward model's members."""
    budget: Count = 800
    """Scores until the next restart, those of checks included."""
    check_reviews: Annotated[int, Field(ge=2)] = 80
    """Answers of each of two policies that the judge scores if the value seems to have fallen."""
    checks: Count = 3
    """Checks until the next restart, at most."""
    error_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Probability of a false alarm until the next restart, at most."""
    on_alarm: Literal["report", "stop", "return", "restart"] = "return"
    """What follows when the audited value has fallen. report: nothing. stop: training ends. return:
    training ends, and the round's assistant is the best audited policy, as it is without an alarm.
    restart: the judge compares answers of the current policy, the reward model learns from these
    reviews too, and training begins again with the reference policy; the round ends as with
    return."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """Restarts in a round, at most."""
    relabel: Count = 500
    """Comparisons at each restart."""

    @property
    def rules(self) -> AlarmRules:
        """When to check, and when to sound the alarm."""
        return AlarmRules(
            error_rate=self.error_rate,
            checks=self.checks,
            check_reviews=self.check_reviews,
            budget=self.budget,
        )

    @property
    def returns(self) -> bool:
        """Whether a round ends with the best audited policy."""
        return self.on_alarm in ("return", "restart")

    def check_steps(self, steps: int) -> None:
        """Checks that the budget suffices.

        Args:
            steps: of reinforcement learning in a round, without restarts.

        Raises:
            ValueError: for too small a budget.
        """
        looks, reviews = len(self.segments(steps)), min(self.reviews, self.answers)
        if self.every and looks * reviews > self.budget:
            raise ValueError(
                f"oversight.audit.budget = {self.budget} does not suffice for {looks} audits of"
                f" {reviews:g} reviews: increase it, or oversight.audit.every"
            )

    def segments(self, steps: int) -> list[int]:
        """Returns the numbers of steps before each audit, which add up to `steps`."""
        every = self.every or steps
        return [min(every, steps - done) for done in range(0, steps, every)]


def steps_before(phase: str) -> int:
    """Returns the number of steps that the name of a phase ends with, such as `audit_40`."""
    return int(phase.rpartition("_")[2])


class History(NamedTuple):
    """The audits of a round, in the order in which they were made."""

    looks: list[Look]
    checks: list[Check]


def read_history(record: Record, since: int = 0) -> History:
    """Reads the audits in a round's record.

    Args:
        record: of the round.
        since: audits of policies with this number of steps or fewer are left out.
    """
    history = History([], [])
    for stage, entry in record.get("stages", {}).items():
        phase, _, last = stage.rpartition("/")
        if last != DATA or not {LOOK, CHECK} & {*entry} or steps_before(phase) <= since:
            continue
        step = steps_before(phase)
        if found := entry.get(LOOK):
            history.looks.append(Look(step, found["proxy"], _read_estimate(found["audited"])))
        if found := entry.get(CHECK):
            best, current = (_read_estimate(found[name]) for name in ("best", "current"))
            history.checks.append(Check(found["best_step"], step, best, current))
    return history


def restarts(record: Record) -> list[int]:
    """Returns the numbers of steps before each restart of a round."""
    return [steps_before(name) for name in phases(record) if name.startswith(f"{REVIEWS}_")]


def last_restart(record: Record) -> int:
    """Returns the number of steps before the last restart; 0 if there was none."""
    return max(restarts(record), default=0)


def decide(record: Record, rules: AlarmRules, since: int = 0) -> Watch:
    """Decides what follows from the audits so far; see `statistics.alarm.watch`.

    Args:
        record: of the round.
        rules: of the alarm.
        since: number of steps before the last restart.
    """
    return watch(*read_history(record, since), rules)


def best_step(record: Record) -> int | None:
    """Returns the number of steps of the best audited policy; None: no audit has a value."""
    best = best_look(read_history(record).looks)
    return None if best is None else best.step


def _read_estimate(found: Mapping[str, Any] | None) -> AuditEstimate | None:
    return None if found is None else AuditEstimate(**found)


@dataclasses.dataclass(frozen=True)
class Auditor:
    """Whoever makes an audit: a judge, with a reward model that scores beside it."""

    audit: Audit
    model: RewardModel
    judge: Judge

    def look(self, phase: str, work: Work) -> Made:
        """Audits the current policy.

        Args:
            phase: the name of the audit.
            work: the round so far.
        """
        experiment = work.experiment
        per_context = experiment.questions.per_context
        rows = -(-self.audit.answers // per_context)
        columns = self._answer_and_score(phase, work, work.roles[ASSISTANT], rows)
        disagreement = columns.pop("disagreement").ravel()
        probability = sampling_probabilities(
            disagreement.size,
            self.audit.reviews,
            disagreement if self.audit.draw == "active" else None,
        )
        keys = _item_keys(columns["problem_seed"], per_context, steps_before(phase))
        reviewed = draw(probability, keys, experiment.seed)
        found = {
            "proxy": float(columns["proxy"].mean()),
            "audited": _estimated(columns, reviewed, probability),
        }
        return _made(columns, reviewed, probability, {LOOK: found}, "The judge audits a policy.")

    def check(self, phase: str, work: Work, since: int) -> Made:
        """Reviews new answers of the current policy, and of the best audited one.

        Args:
            phase: the name of the check.
            work: the round so far.
            since: number of steps before the last restart.
        """
        history = read_history(work.this.record, since)
        best = best_look(history.looks)
        assert best is not None  # or there would be no check
        handles = {steps_before(phase): work.roles[ASSISTANT]}
        known = known_best(best.step, history.checks)
        if known is None:
            handles[best.step] = work.checkpoint(policy_of(best.step))
        reviews = [
            self._review_each(f"{phase}_{step}", work, handle) for step, handle in handles.items()
        ]
        estimates = [_estimated(*review) for review in reviews]
        found = {
            "best_step": best.step,
            "current": estimates[0],
            "best": estimates[1] if known is None else dataclasses.asdict(known),
        }
        tables, reviewed, probability = zip(*reviews, strict=True)
        columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
        said = "The judge compares the current policy with the best audited one."
        joined = np.concatenate(reviewed), np.concatenate(probability)
        return _made(columns, *joined, {CHECK: found}, said)

    def _review_each(self, name: str, work: Work, handle: Any) -> tuple[dict[str, Any], Any, Any]:
        """Reviews one answer in each of `check_reviews` contexts."""
        columns = self._answer_and_score(name, work, handle, self.audit.check_reviews)
        columns.pop("disagreement")
        rows, per_context = columns["proxy"].shape
        reviewed = np.arange(per_context) == (np.arange(rows) % per_context)[:, None]
        return columns, reviewed.ravel(), np.full(rows * per_context, 1 / per_context)

    def _answer_and_score(
        self, name: str, work: Work, handle: Any, rows: int
    ) -> dict[str, np.ndarray]:
        """Answers new questions, and scores the answers by the reward model and by the judge.

        The simulated judge scores all answers, of which those that are not reviewed are dropped.
        """
        experiment = work.experiment
        assistant = experiment.assistant
        problems = draw_problems(
            experiment.task,
            experiment.seed,
            phase_stream(name, work.this.number),
            "train",
            rows,
            experiment.all_depths,
            apart=experiment.evals.apart,
        )
        roles = {
            REWARD_MODEL: load(experiment, self.model, work.roles[REWARD_MODEL]),
            REFERENCE: load(experiment, assistant, work.roles[REFERENCE]),
        }
        key = jax.random.key(experiment.seed)
        function = functools.partial(
            _answer_and_score,
            experiment.task,
            assistant,
            self.model,
            self.judge,
            load(experiment, assistant, handle),
            roles,
            measure_rewards(experiment, self.model, roles, key),
            key,
        )
        place = experiment.mesh.here.row_sharding
        size = chunk_rows(rows, CONTEXTS_PER_CHUNK, place)
        chunks = map_in_chunks(function, size, problems, advance=lambda rows: None, place=place)
        found = list(chunks)
        columns = {key: np.concatenate([chunk[key] for chunk in found]) for key in found[0]}
        calls.count(calls.ASSISTANT, columns["proxy"].size)
        contexts, questions, seeds = jax.device_get(
            (problems.contexts, problems.questions, problems.seeds)
        )
        return {"context": contexts, "questions": questions, "problem_seed": seeds, **columns}


def policy_of(step: int) -> str:
    """Returns the name of the policy's checkpoint after some steps, see `Work.checkpoint`."""
    return f"reinforcement_{step}/{ASSISTANT}"


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _answer_and_score(
    task: Task,
    assistant: Assistant,
    model: RewardModel,
    judge: Judge,
    policy: PyTree[Array],
    roles: Roles,
    normaliser: Normaliser,
    root: Key[Array, ""],
    problems: Problems,
) -> dict[str, Array]:
    contexts, questions = problems.contexts, problems.questions
    memory = assistant.encode(policy, contexts_for(task, contexts, questions))
    keys = answer_keys(root, problems.seeds, questions.shape[1])
    answers = assistant.answer(policy, memory, questions, fold_in(keys, 0)).tokens
    rewards = normaliser(model.rewards(roles[REWARD_MODEL], questions, answers))
    scores = judge.score({}, contexts, questions, answers, fold_in(keys, 1))
    return {
        "answers": answers,
        "proxy": model.combine(rewards),
        "disagreement": rewards.std(axis=0),
        "score": scores.value,
    }


def _item_keys(seeds: np.ndarray, per_context: int, step: int) -> list[tuple[int, ...]]:
    """What identifies each answer of an audit, whatever the policy."""
    return [
        (step, int(stream), int(index), sample)
        for stream, index in seeds
        for sample in range(per_context)
    ]


def _estimated(
    columns: Mapping[str, np.ndarray], reviewed: np.ndarray, probability: np.ndarray
) -> dict[str, Any] | None:
    """The estimate for the record; None if no answer was reviewed."""
    if not reviewed.any():
        return None
    rows, per_context = columns["proxy"].shape
    found = estimate(
        columns["proxy"].ravel(),
        columns["score"].ravel(),
        reviewed,
        probability,
        cluster=np.repeat(np.arange(rows), per_context),
    )
    return dataclasses.asdict(found)


def _made(
    columns: dict[str, np.ndarray],
    reviewed: np.ndarray,
    probability: np.ndarray,
    facts: dict[str, Any],
    description: str,
) -> Made:
    """The signal: all answers, with the scores of those that were reviewed."""
    shape = columns["proxy"].shape
    calls.count(JUDGE, int(reviewed.sum()))
    columns = columns | {
        "score": np.where(reviewed.reshape(shape), columns["score"], 0).astype(np.float32),
        "reviewed": reviewed.reshape(shape).astype(np.int32),
        "probability": probability.reshape(shape).astype(np.float32),
    }
    facts = {"reviews": int(reviewed.sum()), **facts}
    return Made(columns, [], facts, description, DESCRIPTIONS)


DESCRIPTIONS = {
    "proxy": "The reward model's score of each answer, in standard deviations of drafts.",
    "score": "The judge's score of each answer; 0 if it was not reviewed.",
    "reviewed": "1 if the judge scored the answer, else 0.",
    "probability": "Probability with which the answer was drawn for review.",
}
"""Of the columns of an audit."""
