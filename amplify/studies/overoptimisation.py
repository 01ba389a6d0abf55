"""What happens to gold when a policy is optimised against a reward model: by reinforcement learning
along its training, and by best-of-n.

Gao, Schulman and Hilton 2022 (arXiv:2210.10760); ensembles: Coste et al. 2023 (arXiv:2310.02743).
Peaks are found by gold, which nobody has outside of such a world: they are *oracle* peaks.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from amplify.errors import AmplifyError
from amplify.evaluation.measures import GOLD
from amplify.evaluation.statistics.scaling_laws import ScalingLaw, best_of_n_kl_bound, fit
from amplify.store import Store
from amplify.studies.best_of_n import curve, score_reference
from amplify.studies.search import Search, measure_search, read_search, samples_in
from amplify.studies.seeds import Criterion, over_seeds, say, seconds_taken

FREE, PENALTY, ENSEMBLE = "one-model", "penalty", "five-models"
"""The arms: no penalty and one reward model; a penalty; no penalty and several reward models."""
ARMS = (FREE, PENALTY, ENSEMBLE)
NS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 8192)
"""For which n best-of-n is computed."""
FITTED, PREDICTED = 256, (1024, 8192)
"""Largest n that Gao's form is fitted to, and those that it predicts."""
CONTEXTS, ANSWERS = 4, max(NS)
"""Contexts of which best-of-n is the mean, and answers sampled for each, or more: as many as
reinforcement learning samples."""


class Look(NamedTuple):
    """One look at the policy during reinforcement learning."""

    step: int
    kl: float  # to the reference policy, in nats; mean over the steps since the last look
    proxy: float  # reward, in standard deviations of the reference policy's; likewise
    gold: float  # mean over held-out questions


class Run(NamedTuple):
    """What was measured in a cell."""

    looks: list[Look]
    gold: list[float]  # of best-of-n, for each of NS
    proxy: list[float]
    search: Search  # best-of-n for as many samples as reinforcement learning has used
    seconds: float  # that its rounds and this measurement took, copied stages left out

    @property
    def peak(self) -> Look:
        """The look with the highest gold."""
        return max(self.looks, key=lambda look: look.gold)

    @property
    def end(self) -> Look:
        """The last look."""
        return self.looks[-1]

    def best_of(self, n: int) -> float:
        """Returns the gold of best-of-n."""
        return self.gold[NS.index(n)]


def measure(store: Store, number: int) -> dict[str, Any]:
    """Reads the training log of a cell, and takes the best of many answers; see `studies.study`.

    Args:
        store: the cell.
        number: its last round.

    Raises:
        AmplifyError: the training log has no gold or no KL.
    """
    began, this = time.monotonic(), store.round(number)
    looks = [
        (row["step"], row["kl"], row["reward"], *row["accuracy"][GOLD.name].values())
        for row in this.training_curve()
        if GOLD.name in row.get("accuracy", {}) and "kl" in row
    ]
    if not looks:
        raise AmplifyError(f"{this.path}: its training log has no gold beside KL")
    steps = [look[0] for look in looks]
    answers = max(ANSWERS, samples_in(store.experiment, steps[-1]))
    scored = score_reference(store, number, CONTEXTS, answers)
    search = measure_search(store.experiment, scored, steps, NS)
    seconds = seconds_taken(store, number, began)
    return {"looks": looks, **curve(scored, NS), "search": search, "seconds": seconds}


def read(results: Mapping[str, Any]) -> Run:
    """Returns what `measure` returned, as read from a file."""
    looks = [Look(*look) for look in results["looks"]]
    search = read_search(results["search"])
    return Run(looks, results["gold"], results["proxy"], search, results["seconds"])


def best_of_n_law(runs: Sequence[Run]) -> tuple[ScalingLaw, float]:
    """Fits Gao's form to the mean gold over seeds of best-of-n, up to n = `FITTED`.

    Returns:
        The law, for gold above that of the reference policy; and the gold of that.
    """
    few = [place for place, n in enumerate(NS) if n <= FITTED]
    gold = np.mean([run.gold for run in runs], axis=0)
    kl = np.array([best_of_n_kl_bound(NS[place]) for place in few])
    return fit("best_of_n", kl, gold[few] - gold[0]), float(gold[0])


def predicted(law: ScalingLaw, base: float, n: int) -> float:
    """Returns the gold of best-of-n that a law predicts."""
    return base + float(law.predict(np.array([best_of_n_kl_bound(n)]))[0])


def reinforcement_law(
    looks: Sequence[Look], base: float, of: str = "gold"
) -> tuple[ScalingLaw, Float[np.ndarray, " looks"]]:
    """Fits Gao's form to gold, or to the proxy, along reinforcement learning.

    Args:
        looks: from a KL of .25 nats on, as the form has no value at 0.
        base: gold, or the proxy, of the reference policy.
        of: "gold" or "proxy".

    Returns:
        The law, and the KL of the looks that it was fitted to.
    """
    far = [look for look in looks if look.kl > 0.25]
    kl = np.array([look.kl for look in far])
    return fit("reinforcement", kl, np.array([getattr(look, of) for look in far]) - base), kl


def criteria(runs: Mapping[str, Sequence[Run]]) -> list[Criterion]:
    """Compares the table with what is expected of it.

    Args:
        runs: of each arm, in the same order of seeds; three seeds or more.
    """
    free, penalty, ensemble = (runs[arm] for arm in (FREE, PENALTY, ENSEMBLE))
    seeds = len(free)
    hacked = [r.peak.gold >= 1 and r.end.gold < 0 and r.end.proxy > 3 for r in free]
    lost = over_seeds([run.peak.gold - run.end.gold for run in penalty])
    pairs = zip(free, penalty, ensemble, strict=True)
    below, gain = map(
        over_seeds,
        zip(
            *((f.peak.gold - p.end.gold, e.peak.gold - f.peak.gold) for f, p, e in pairs),
            strict=True,
        ),
    )
    law, base = best_of_n_law(free)
    n = PREDICTED[0]
    wrong = predicted(law, base, n) - over_seeds([run.best_of(n) for run in free]).estimate
    return [
        Criterion(
            "without a penalty, gold peaks at 1 sd or more and ends below 0 with the proxy above 3,"
            " in 9 of 10 seeds",
            f"{sum(hacked)} of {seeds}",
            sum(hacked) >= 0.9 * seeds,
        ),
        Criterion(
            "with the penalty, gold ends within .1 of its own peak",
            f"{say(lost)} below",
            lost.estimate <= 0.1,
        ),
        Criterion(
            "with the penalty, gold ends no more than .2 below the peak without",
            f"{say(below)} below",
            below.estimate <= 0.2,
        ),
        Criterion(
            "several reward models raise the peak by .2 or more, interval above 0",
            say(gain),
            gain.estimate >= 0.2 and gain.low is not None and gain.low > 0,
        ),
        Criterion(
            f"Gao's form, fitted to best of {FITTED} and fewer, predicts best of {n:,} within .2",
            f"{wrong:+.2f}",
            abs(wrong) <= 0.2,
        ),
    ]
