"""Audits of a policy while it is trained: every few steps, the judge scores some of its answers.

The reward model scores all of a large number of answers, the judge some of them, and the mean of
what the judge would say of all is estimated from both, see `statistics.audits`. The reward model
has not seen the scores. `statistics.alarm` decides what follows: it may ask for a check, which
reviews new answers of the current policy and of the best audited one.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt32
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
from amplify.experiment.sections import Experiment
from amplify.models.reward_model import RewardModel
from amplify.overseers.judge import Reviewer
from amplify.oversight.preferences import REVIEWS, count_reviews
from amplify.oversight.reinforcement import REFERENCE, REWARD_MODEL, Normaliser, measure_rewards
from amplify.oversight.restore import load, load_overseer, phase_stream
from amplify.oversight.work import Made, Work
from amplify.records.record import ASSISTANT, DATA, Record, phases
from amplify.records.round_folder import Handle
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
    judge: Reviewer

    def look(self, phase: str, work: Work) -> Made:
        """Audits the current policy.

        Args:
            phase: the name of the audit.
            work: the round so far.
        """
        per_context = work.experiment.questions.per_context
        columns = self._answer(
            phase, work, work.roles[ASSISTANT], -(-self.audit.answers // per_context)
        )
        disagreement = columns.pop("disagreement").ravel()
        probability = sampling_probabilities(
            disagreement.size,
            self.audit.reviews,
            disagreement if self.audit.draw == "active" else None,
        )
        keys = _item_keys(columns["problem_seed"], per_context, steps_before(phase))
        reviewed = draw(probability, keys, work.experiment.seed)
        columns |= self._review(work, columns, reviewed, probability)
        found = {"proxy": float(columns["proxy"].mean()), "audited": _estimated(columns)}
        return _made(columns, {LOOK: found}, "The judge audits a policy.")

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
        tables = [
            self._review_one_each(f"{phase}_{step}", work, handle)
            for step, handle in handles.items()
        ]
        estimates = [_estimated(columns) for columns in tables]
        found = {
            "best_step": best.step,
            "current": estimates[0],
            "best": estimates[1] if known is None else dataclasses.asdict(known),
        }
        columns = {name: np.concatenate([one[name] for one in tables]) for name in tables[0]}
        said = "The judge compares the current policy with the best audited one."
        return _made(columns, {CHECK: found}, said)

    def _review_one_each(self, name: str, work: Work, handle: Handle) -> dict[str, np.ndarray]:
        """Reviews one answer in each of `check_reviews` contexts."""
        columns = self._answer(name, work, handle, self.audit.check_reviews)
        columns.pop("disagreement")
        rows, per_context = columns["proxy"].shape
        reviewed = np.arange(per_context) == (np.arange(rows) % per_context)[:, None]
        probability = np.full(reviewed.size, 1 / per_context)
        return columns | self._review(work, columns, reviewed.ravel(), probability)

    def _answer(self, name: str, work: Work, handle: Handle, rows: int) -> dict[str, np.ndarray]:
        """Lets a policy answer new questions, and the reward model score the answers."""
        experiment = work.experiment
        assistant, key = experiment.assistant, jax.random.key(experiment.seed)
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
        function = functools.partial(
            _answer,
            experiment.task,
            assistant,
            self.model,
            load(experiment, assistant, handle),
            roles,
            measure_rewards(experiment, self.model, roles, key),
            key,
        )
        columns = _in_chunks(function, experiment, problems)
        calls.count(calls.ASSISTANT, columns["proxy"].size)
        contexts, questions, seeds = jax.device_get(
            (problems.contexts, problems.questions, problems.seeds)
        )
        return {"context": contexts, "questions": questions, "problem_seed": seeds, **columns}

    def _review(
        self,
        work: Work,
        columns: Mapping[str, np.ndarray],
        drawn: Bool[np.ndarray, " items"],
        probability: Float[np.ndarray, " items"],
    ) -> dict[str, np.ndarray]:
        """Lets the judge score the answers that were drawn; returns further columns."""
        shape, judge = columns["proxy"].shape, self.judge
        row, column = np.nonzero(drawn.reshape(shape))
        score, obtained = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        if len(row):
            roles = {"overseer": load_overseer(work.experiment, work.roles)}
            function = functools.partial(
                _score_compiled if judge.traced else _score,
                judge,
                shape[1],
                roles,
                jax.random.key(work.experiment.seed),
            )
            found = _in_chunks(
                function,
                work.experiment,
                columns["problem_seed"][row],
                column.astype(np.int32),
                columns["context"][row],
                columns["questions"][row, column][:, None],
                columns["answers"][row, column][:, None],
            )
            score[row, column] = np.where(found["obtained"], found["value"], 0)[:, 0]
            obtained[row, column] = found["obtained"][:, 0]
            count_reviews(judge, obtained[row, column])
        probability = probability.astype(np.float32).reshape(shape)
        return {"score": score, "reviewed": obtained, "probability": probability}


def _in_chunks(
    function: Callable[..., Any], experiment: Experiment, *columns: Any
) -> dict[str, np.ndarray]:
    place = experiment.mesh.here.row_sharding
    size = chunk_rows(len(jax.tree.leaves(columns)[0]), CONTEXTS_PER_CHUNK, place)
    chunks = list(map_in_chunks(function, size, *columns, advance=lambda rows: None, place=place))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def policy_of(step: int) -> str:
    """Returns the name of the policy's checkpoint after some steps, see `Work.checkpoint`."""
    return f"reinforcement_{step}/{ASSISTANT}"


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _answer(
    task: Task,
    assistant: Assistant,
    model: RewardModel,
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
    return {
        "answers": answers,
        "proxy": model.combine(rewards),
        "disagreement": rewards.std(axis=0),
    }


def _score(
    judge: Reviewer,
    per_context: int,
    roles: Roles,
    root: Key[Array, ""],
    seeds: UInt32[Array, "answers 2"],
    column: Int[Array, " answers"],
    contexts: Int[Array, "answers facts fact_length"],
    questions: Int[Array, "answers 1 question_length"],
    answers: Int[Array, "answers 1 answer_length"],
) -> dict[str, Array]:
    """Scores one answer in each row; its key depends on its problem and column only."""
    keys = fold_in(answer_keys(root, seeds, per_context), 1)
    keys = keys[jnp.arange(len(column)), column][:, None]
    found = judge.score(roles, contexts, questions, answers, keys)
    return {"value": found.value, "obtained": found.obtained}


_score_compiled = jax.jit(_score, static_argnums=(0, 1))


def _item_keys(
    seeds: UInt32[np.ndarray, "rows 2"], per_context: int, step: int
) -> list[tuple[int, ...]]:
    """What identifies each answer of an audit, whatever the policy."""
    return [
        (step, int(stream), int(index), sample)
        for stream, index in seeds
        for sample in range(per_context)
    ]


def _estimated(columns: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """The estimate for the record; None if no review was obtained."""
    reviewed = columns["reviewed"].ravel() == 1
    if not reviewed.any():
        return None
    rows, per_context = columns["proxy"].shape
    found = estimate(
        columns["proxy"].ravel(),
        columns["score"].ravel(),
        reviewed,
        columns["probability"].ravel().astype(np.float64),
        cluster=np.repeat(np.arange(rows), per_context),
    )
    return dataclasses.asdict(found)


def _made(columns: dict[str, np.ndarray], facts: dict[str, Any], description: str) -> Made:
    """The signal: all answers, with the scores of those that were reviewed."""
    facts = {"reviews": int(columns["reviewed"].sum()), **facts}
    return Made(columns, [], facts, description, DESCRIPTIONS)


DESCRIPTIONS = {
    "proxy": "The reward model's score of each answer, in standard deviations of drafts.",
    "score": "The judge's score of each answer; 0 if it was not reviewed.",
    "reviewed": "1 if the answer was drawn and the judge scored it, else 0.",
    "probability": "Probability with which the answer was drawn for review.",
}
"""Of the columns of an audit."""
