"""The alarm with other numbers of reviews: the logged audits of a run are reviewed again and again.

An audit keeps all answers that the reward model scored. The judge scores those, too, that were not
drawn, and the run is watched anew with reviews drawn from all of them: fewer, or more, than there
were. Nothing is trained. The reward model's help is the prediction-powered estimate; without it,
values are plain means of reviews, and the reward model only says whether its score rose.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from amplify.errors import AmplifyError
from amplify.evaluation.statistics.alarm import (
    AlarmRules,
    Check,
    Look,
    known_best,
    reviews_used,
    watch,
)
from amplify.evaluation.statistics.audits import AuditEstimate, estimate
from amplify.overseers.reviewers import Reviewer
from amplify.oversight.audits.audit import LOOK, steps_before
from amplify.oversight.audits.auditor import score_drawn
from amplify.records.record import DATA
from amplify.store import Store
from amplify.training import dataset

BUDGETS = (100, 200, 400, 800, 1600, 3200)
"""Reviews in a run, at most. Looks and checks have the shares of the shipped rules. Those that take
more answers than an audit has are left out."""
IN_LOOKS, IN_CHECK = 0.75, 0.1
"""Shares of the budget: of all looks together, and of each policy in a check."""
REPEATS = 10
"""Draws of reviews for each budget."""


class Pool(NamedTuple):
    """All answers of one audit, scored by the reward model and by the judge."""

    step: int
    proxy: Float[np.ndarray, " answers"]
    value: Float[np.ndarray, " answers"]
    context: Int[np.ndarray, " answers"]  # number of the context that an answer is about


def read_pools(store: Store, number: int) -> list[Pool]:
    """Reads the audits of a round, and lets the judge score all of their answers.

    Args:
        store: an experiment with a simulated judge.
        number: of the round.

    Raises:
        AmplifyError: the judge is not simulated, or an audit's data is damaged.
    """
    this, experiment = store.round(number), store.experiment
    judge = experiment.overseer
    if not isinstance(judge, Reviewer) or not judge.traced:
        raise AmplifyError(f"{store.path}: only a simulated judge scores all answers of audits")
    found, columns = [], ("problem_seed", "context", "questions", "answers", "proxy")
    for stage in this.record["stages"]:
        phase, _, last = stage.rpartition("/")
        if last != DATA or not phase.startswith(f"{LOOK}_"):
            continue
        data = dataset.read(this.phase(phase).data)
        stored = [data[row] for row in range(len(data))]
        table = {name: np.stack([row[name] for row in stored]) for name in columns}
        rows, per_context = table["proxy"].shape
        every = np.ones((rows, per_context), bool)
        value = score_drawn(experiment, judge, store.roles(this), table, every).value
        contexts = np.repeat(np.arange(rows), per_context)
        proxy, scores = (one.ravel().astype(np.float64) for one in (table["proxy"], value))
        found.append(Pool(steps_before(phase), proxy, scores, contexts))
    return found


class Outcome(NamedTuple):
    """What became of a run that was watched with some reviews."""

    alarm: int | None  # step
    reviews: int  # until the alarm, or the last step


def outcomes(
    pools: Sequence[Pool],
    planned: int,
    rules: AlarmRules,
    seed: int,
    budgets: Sequence[int] = BUDGETS,
    repeats: int = REPEATS,
) -> dict[str, dict[str, list[Outcome]]]:
    """Watches a run several times with each number of reviews, with and without help.

    Args:
        pools: the audits of the run, in the order of their steps.
        planned: audits of a run whose checks leave reviews for all of them.
        rules: of the alarm, whose budget and reviews in a check are replaced.
        seed: of the draws, which are the same with and without help.
        budgets: reviews in a run, at most.
        repeats: for each number.

    Returns:
        Outcomes by help, "helped" or "alone", and by budget.
    """
    answers = min(len(pool.value) for pool in pools)
    budgets = [
        budget
        for budget in budgets
        if per_look(budget, planned) + rules_for(rules, budget).check_reviews <= answers
    ]
    return {
        name: {
            str(budget): [
                replay(
                    pools,
                    per_look(budget, planned),
                    rules_for(rules, budget),
                    helped,
                    (seed, budget, repeat),
                )
                for repeat in range(repeats)
            ]
            for budget in budgets
        }
        for name, helped in (("helped", True), ("alone", False))
    }


def rules_for(rules: AlarmRules, budget: int) -> AlarmRules:
    """Returns the rules with another budget, and the same share of it in each check."""
    reviews = max(2, round(IN_CHECK * budget))
    return dataclasses.replace(rules, budget=budget, check_reviews=reviews)


def per_look(budget: int, looks: int) -> int:
    """Returns the reviews in each look.

    Args:
        budget: reviews in a run, at most.
        looks: in a run.
    """
    return max(1, int(IN_LOOKS * budget / looks))


def replay(
    pools: Sequence[Pool],
    reviews: int,
    rules: AlarmRules,
    helped: bool,
    seed: tuple[int, ...],
) -> Outcome:
    """Watches a run until the alarm or its last step.

    Args:
        pools: the audits of the run, in the order of their steps.
        reviews: in each look.
        rules: of the alarm.
        helped: whether the reward model helps to estimate values.
        seed: decides which answers are reviewed.
    """
    random = np.random.default_rng(seed)
    drawn = [random.permutation(len(pool.value)) for pool in pools]
    place = {pool.step: index for index, pool in enumerate(pools)}

    def look(index: int) -> AuditEstimate:
        return _reviewed(pools[index], drawn[index][:reviews], helped)

    def check(step: int) -> AuditEstimate:
        index = place[step]
        new = drawn[index][reviews : reviews + rules.check_reviews]
        return _reviewed(pools[index], new, helped)

    looks: list[Look] = []
    checks: list[Check] = []
    for index, pool in enumerate(pools):
        if reviews_used(looks, checks) + reviews > rules.budget:
            break
        looks.append(Look(pool.step, float(pool.proxy.mean()), look(index)))
        said = watch(looks, checks, rules)
        if said.status == "check":
            assert said.best_step is not None  # or nothing could be compared
            best = known_best(said.best_step, checks) or check(said.best_step)
            checks.append(Check(said.best_step, pool.step, best, check(pool.step)))
            said = watch(looks, checks, rules)
        if said.status == "alarm":
            return Outcome(pool.step, reviews_used(looks, checks))
    return Outcome(None, reviews_used(looks, checks))


def _reviewed(pool: Pool, items: Int[np.ndarray, " reviews"], helped: bool) -> AuditEstimate:
    audited: Bool[np.ndarray, " answers"] = np.zeros(len(pool.value), bool)
    audited[items] = True
    probability = np.full(len(audited), len(items) / len(audited))
    return estimate(
        pool.proxy,
        pool.value,
        audited,
        probability,
        cluster=pool.context,
        tuning=None if helped else 0,
    )
