"""How many reviews a policy takes to reach some gold: with a judge who scores every attempt, with a
reward model of some comparisons, and with a reward model whose policy is chosen by audits.

Reviews are counted alike: a comparison of two answers is one, and so is a score of one answer.
Christiano et al. 2017 (arXiv:1706.03741).
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from amplify.errors import AmplifyError
from amplify.evaluation.measures import GOLD
from amplify.evaluation.statistics import Proportion
from amplify.evaluation.statistics.alarm import reviews_used
from amplify.oversight.audits.audit import best_step, read_history
from amplify.oversight.reviews.counting import JUDGE_SCORES
from amplify.report.curve import evaluated_rows, mean_of
from amplify.runtime.calls import METRIC
from amplify.store import Store
from amplify.studies.seeds import over_seeds, seconds_taken

JUDGED, MODEL, AUDITED = "judge", "model", "audited"
"""Methods. An arm of the last two is called after its comparisons, such as model-200."""
COMPARISONS = (200, 1000, 5000, 20000)
ARMS = (JUDGED, *(f"{method}-{n}" for method in (MODEL, AUDITED) for n in COMPARISONS))
TARGETS = (1.0, 2.0)
"""Gold to be reached, in standard deviations of drafts."""


class Run(NamedTuple):
    """What was measured in a cell."""

    path: list[tuple[int, float]]
    """Scores of attempts so far, and gold, along reinforcement learning."""
    reviews: int  # comparisons and audits; 0 if the judge scores every attempt
    gold: float  # of the policy that the round ends with
    seconds: float


def measure(store: Store, number: int) -> dict[str, Any]:
    """Reads gold along the training of a cell, and how many reviews it took; see `studies.study`.

    Args:
        store: the cell.
        number: its last round.

    Raises:
        AmplifyError: the training log has no gold, or none of the policy that audits chose.
    """
    began, this = time.monotonic(), store.round(number)
    log = this.training_curve()
    golds = {row["step"]: mean_of(row, GOLD.name) for row in evaluated_rows(log)}
    scores, path = 0, []
    for row in log:
        scores += row.get(f"{METRIC}{JUDGE_SCORES}", 0)
        if (gold := golds.get(row["step"])) is not None:
            path.append((scores, gold))
    chosen = best_step(this.record) or max(golds, default=0)
    if golds.get(chosen) is None:
        raise AmplifyError(f"{this.path}: its training log has no gold at step {chosen}")
    compared = this.record["stages"]["reviews/data"]["reviews"]
    reviews = compared + reviews_used(*read_history(this.record))
    return {
        "path": path,
        "reviews": 0 if scores else reviews,
        "gold": golds[chosen],
        "seconds": seconds_taken(store, number, began),
    }


def read(results: Mapping[str, Any]) -> Run:
    """Returns what `measure` returned, as read from a file."""
    path = [(int(scores), float(gold)) for scores, gold in results["path"]]
    return Run(path, results["reviews"], results["gold"], results["seconds"])


class Needed(NamedTuple):
    """Reviews that reach a target."""

    reviews: float
    at_most: bool  # the fewest that were tried reach it already


def needed(runs: Mapping[str, Sequence[Run]], method: str, target: float) -> Needed | None:
    """Returns the reviews at which the mean gold over seeds reaches a target.

    Args:
        runs: of each arm, for the same seeds.
        method: `JUDGED`, `MODEL` or `AUDITED`.
        target: of gold.

    Returns:
        The reviews, interpolated: along training if the judge scores every attempt, else between
        the logarithms of reviews; None: the target is not reached.
    """
    if method == JUDGED:
        paths = np.array([run.path for run in runs[JUDGED]])
        scores, gold = np.append(0.0, paths[0, :, 0]), np.append(0.0, paths[..., 1].mean(axis=0))
        return _crossing(scores, gold, target, logarithmic=False)  # drafts have a gold of 0
    arms = [runs[f"{method}-{n}"] for n in COMPARISONS]
    reviews = np.array([np.mean([run.reviews for run in arm]) for arm in arms])
    gold = np.array([np.mean([run.gold for run in arm]) for arm in arms])
    return _crossing(reviews, gold, target, logarithmic=True)


def _crossing(
    reviews: Float[np.ndarray, " tried"],
    gold: Float[np.ndarray, " tried"],
    target: float,
    *,
    logarithmic: bool,
) -> Needed | None:
    """Where gold first reaches the target."""
    reached = np.flatnonzero(gold >= target)
    if not len(reached):
        return None
    after = int(reached[0])
    if after == 0:
        return Needed(float(reviews[0]), at_most=True)
    places = np.log(reviews) if logarithmic else reviews
    share = (target - gold[after - 1]) / (gold[after] - gold[after - 1])
    place = places[after - 1] + share * (places[after] - places[after - 1])
    return Needed(float(np.exp(place) if logarithmic else place), at_most=False)


def ratio(runs: Mapping[str, Sequence[Run]], method: str, target: float) -> Proportion | None:
    """Returns how many times as many reviews the judge takes who scores every attempt.

    The interval is Student's on jackknife pseudo-values of the logarithm, over seeds.

    Args:
        runs: of each arm, for the same seeds; three or more.
        method: `MODEL` or `AUDITED`.
        target: of gold.

    Returns:
        The ratio; None: the target is not reached by both, with any one seed left out.
    """
    seeds = len(runs[JUDGED])
    whole = _log_ratio(runs, method, target)
    parts = [
        _log_ratio({arm: [*of[:n], *of[n + 1 :]] for arm, of in runs.items()}, method, target)
        for n in range(seeds)
    ]
    if whole is None:
        return None
    known = [part for part in parts if part is not None]
    if len(known) < seeds:
        return None
    found = over_seeds([seeds * whole - (seeds - 1) * part for part in known])
    low, high = (None if end is None else float(np.exp(end)) for end in (found.low, found.high))
    return found._replace(estimate=float(np.exp(whole)), low=low, high=high)


def _log_ratio(runs: Mapping[str, Sequence[Run]], method: str, target: float) -> float | None:
    judged, other = needed(runs, JUDGED, target), needed(runs, method, target)
    if judged is None or other is None:
        return None
    return float(np.log(judged.reviews / other.reviews))
