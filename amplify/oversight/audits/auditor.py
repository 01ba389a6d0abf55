"""Makes an audit: a policy answers new questions, the reward model scores all of its answers, and
the judge or people those that were drawn. See `audit`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key, PyTree, UInt32

from amplify.evaluation.statistics.alarm import (
    best_look,
    known_best,
)
from amplify.evaluation.statistics.audits import (
    draw,
    estimate,
    sampling_probabilities,
)
from amplify.experiment.sections import Experiment
from amplify.models.reward_model import RewardModel
from amplify.overseers.human import HumanReviewers
from amplify.overseers.reviewers import Reviewer
from amplify.oversight.audits.audit import (
    CHECK,
    LOOK,
    Audit,
    last_restart,
    policy_of,
    read_history,
    steps_before,
)
from amplify.oversight.people.reviewing import score_by_people
from amplify.oversight.reinforcement.rollouts import REWARD_MODEL, Normaliser, normaliser_of
from amplify.oversight.restore import load, load_overseer, phase_stream
from amplify.oversight.reviews.counting import Consulted, count_reviews
from amplify.oversight.reviews.preferences import SCORES
from amplify.oversight.work import Made, Work
from amplify.records.record import ASSISTANT
from amplify.records.round_folder import Handle
from amplify.runtime import calls
from amplify.tasks.batching import fold_in
from amplify.tasks.problems import answer_keys, columns_in_chunks, draw_problems
from amplify.trees.amplification import contexts_for
from amplify.types import Assistant, Problems, Roles, Task


@dataclasses.dataclass(frozen=True)
class Auditor:
    """Whoever makes an audit: a judge or people, with a reward model that scores beside them."""

    audit: Audit
    model: RewardModel
    judge: Reviewer | HumanReviewers

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
        drawn = draw(probability, keys, work.experiment.seed)
        reviewed = self._review(phase, work, columns, drawn, probability)
        found = {
            "proxy": float(columns["proxy"].mean()),
            "audited": _estimated(columns | reviewed.columns),
        }
        said = f"{self._who} a policy."
        return _made(columns, reviewed, {LOOK: found}, said)

    def check(self, phase: str, work: Work) -> Made:
        """Reviews new answers of the current policy, and of the best audited one.

        Args:
            phase: the name of the check.
            work: the round so far.
        """
        record, steps = work.this.record, steps_before(phase)
        history = read_history(record, last_restart(record, steps), until=f"{LOOK}_{steps}")
        best = best_look(history.looks)
        assert best is not None  # or there would be no check
        handles = {steps: work.roles[ASSISTANT]}
        known = known_best(best.step, history.checks)
        if known is None:
            handles[best.step] = work.checkpoint(policy_of(best.step))
        tables = [
            self._answer(f"{phase}_{step}", work, handle, self.audit.check_reviews)
            for step, handle in handles.items()
        ]
        columns = {name: np.concatenate([one[name] for one in tables]) for name in tables[0]}
        columns.pop("disagreement")
        sizes = [len(one["proxy"]) for one in tables]
        reviewed = self._review_one_each(phase, work, columns, sizes)
        both = columns | reviewed.columns
        estimates = [
            _estimated({name: column[rows] for name, column in both.items()})
            for rows in _consecutive(sizes)
        ]
        found = {
            "best_step": best.step,
            "current": estimates[0],
            "best": estimates[1] if known is None else dataclasses.asdict(known),
        }
        said = f"{self._who} the current policy and the best audited one."
        return _made(columns, reviewed, {CHECK: found}, said)

    @property
    def _who(self) -> str:
        return "People audit" if isinstance(self.judge, HumanReviewers) else "The judge audits"

    def _review_one_each(
        self, phase: str, work: Work, columns: Mapping[str, np.ndarray], sizes: Sequence[int]
    ) -> "_Reviewed":
        """Reviews one answer in each context, of all policies at once, so that people may not know
        which is whose; `sizes` are their numbers of contexts.
        """
        per_context = columns["proxy"].shape[1]
        row = np.concatenate([np.arange(size) for size in sizes])
        drawn = np.arange(per_context) == (row % per_context)[:, None]
        probability = np.full(drawn.size, 1 / per_context)
        return self._review(phase, work, columns, drawn.ravel(), probability)

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
        roles = {REWARD_MODEL: load(experiment, self.model, work.roles[REWARD_MODEL])}
        function = functools.partial(
            _answer,
            experiment.task,
            assistant,
            self.model,
            load(experiment, assistant, handle),
            roles,
            normaliser_of(experiment, self.model, work.roles),
            key,
        )
        place = experiment.mesh.here.row_sharding
        columns = columns_in_chunks(function, problems, place=place)
        calls.count(calls.ASSISTANT, columns["proxy"].size)
        contexts, questions, seeds = jax.device_get(
            (problems.contexts, problems.questions, problems.seeds)
        )
        return {"context": contexts, "questions": questions, "problem_seed": seeds, **columns}

    def _review(
        self,
        phase: str,
        work: Work,
        columns: Mapping[str, np.ndarray],
        drawn: Bool[np.ndarray, " items"],
        probability: Float[np.ndarray, " items"],
    ) -> "_Reviewed":
        """Lets the judge or people score the answers that were drawn."""
        shape = columns["proxy"].shape
        drawn = drawn.reshape(shape)
        if isinstance(self.judge, HumanReviewers):
            asked = [columns[name] for name in ("problem_seed", "context", "questions")]
            problems = Problems(*map(jnp.asarray, asked))
            stage = f"{phase}/data"
            people = score_by_people(work, stage, problems, columns["answers"], drawn)
            value, obtained = people.value, people.obtained.astype(np.int32)
            facts, trees = people.facts, people.trees
        else:
            scored = score_drawn(work.experiment, self.judge, work.roles, columns, drawn)
            if drawn.any():
                reviews = (scored.obtained[drawn], scored.consulted)
                count_reviews(self.judge, work.experiment.task, SCORES, *reviews)
            value, obtained, facts, trees = scored.value, scored.obtained, {}, []
        probability = probability.astype(np.float32).reshape(shape)
        found = {"score": value, "reviewed": obtained, "probability": probability}
        return _Reviewed(found, facts, trees)


class _Reviewed(NamedTuple):
    """What was said about the answers of an audit."""

    columns: dict[str, np.ndarray]  # further columns of its signal
    facts: Mapping[str, Any]  # entries for the round's record
    trees: list[dict[str, Any]]  # interactions to save


class Scored(NamedTuple):
    """A judge's scores of an audit's answers, all 0 where there is none."""

    value: Float32[np.ndarray, "rows per_context"]
    obtained: Int32[np.ndarray, "rows per_context"]
    consulted: Consulted  # numbers of parts of all answers that were checked, and asked about


def score_drawn(
    experiment: Experiment,
    judge: Reviewer,
    roles: Mapping[str, Handle],
    columns: Mapping[str, np.ndarray],
    drawn: Bool[np.ndarray, "rows per_context"],
) -> Scored:
    """Lets a judge score some answers of an audit.

    A score depends on the answer, its problem and its place, and not on which others are drawn.

    Args:
        experiment: the judge's.
        judge: scores.
        roles: checkpoints, by role; read only if the judge is a model.
        columns: of the audit: problem_seed, context, questions and answers.
        drawn: which answers.
    """
    score, obtained = np.zeros(drawn.shape, np.float32), np.zeros(drawn.shape, np.int32)
    row, column = np.nonzero(drawn)
    if not len(row):
        return Scored(score, obtained, Consulted(0, 0))
    function = functools.partial(
        _score_compiled if judge.traced else _score,
        judge,
        drawn.shape[1],
        {"overseer": load_overseer(experiment, roles)},
        jax.random.key(experiment.seed),
    )
    found = columns_in_chunks(
        function,
        columns["problem_seed"][row],
        column.astype(np.int32),
        columns["context"][row],
        columns["questions"][row, column][:, None],
        columns["answers"][row, column][:, None],
        place=experiment.mesh.here.row_sharding,
    )
    score[row, column] = np.where(found["obtained"], found["value"], 0)[:, 0]
    obtained[row, column] = found["obtained"][:, 0]
    return Scored(score, obtained, Consulted(found["looks"].sum(), found["asks"].sum()))


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
    read = contexts_for(task, contexts, questions)
    memory = assistant.encode(policy, read)
    keys = answer_keys(root, problems.seeds, questions.shape[1])
    answers = assistant.answer(policy, memory, questions, fold_in(keys, 0)).tokens
    rewards = normaliser(model.rewards(roles[REWARD_MODEL], read, questions, answers))
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
    return {
        "value": found.value,
        "obtained": found.obtained & jnp.isfinite(found.value),
        **Consulted(found.looks, found.asks).of_each(found.value),
    }


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


def _consecutive(sizes: Sequence[int]) -> list[slice]:
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _made(
    columns: dict[str, np.ndarray], reviewed: _Reviewed, found: dict[str, Any], description: str
) -> Made:
    """The signal: all answers, with the scores of those that were reviewed."""
    number = int(reviewed.columns["reviewed"].sum())
    facts = {"reviews": number, **reviewed.facts, **found}
    return Made(columns | reviewed.columns, reviewed.trees, facts, description, DESCRIPTIONS)


DESCRIPTIONS = {
    "proxy": "The reward model's score of each answer, in standard deviations of drafts.",
    "score": "The judge's score of each answer, or people's; 0 if it was not reviewed.",
    "reviewed": "1 if the answer was drawn and scored, else 0.",
    "probability": "Probability with which the answer was drawn for review.",
}
"""Of the columns of an audit."""
