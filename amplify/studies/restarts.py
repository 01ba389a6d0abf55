"""Audited training that begins again from the reference policy, against all reviews at once.

Both methods have the same number of reviews, audits included, and of attempts: runs of
reinforcement learning from the reference policy. *Restarts* compares answers of each attempt before
the next one, and the reward model learns from these, too. *At once* spends all comparisons on
answers of the reference policy, and its attempts, against one reward model, differ by their random
numbers alone. Audits choose one attempt of each. Each method has the KL penalty of the same grid
that is best for it on the seeds for tuning. Christiano et al. 2017 (arXiv:1706.03741), section 3.3,
compare queries throughout training with those made before it.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amplify.errors import AmplifyError
from amplify.evaluation.measures import GOLD
from amplify.evaluation.statistics import Proportion
from amplify.evaluation.statistics.alarm import reviews_used
from amplify.oversight.audits.audit import best_step, read_history
from amplify.oversight.reviews.samples import REVIEWS
from amplify.records.record import DATA, Record
from amplify.report.curve import evaluated_rows, mean_of
from amplify.store import Store
from amplify.studies.seeds import Criterion, over_seeds, say, seconds_taken

RESTARTS, AT_ONCE = "restarts", "at-once"
METHODS = (RESTARTS, AT_ONCE)
BETAS = (0.03, 0.1, 0.3)
"""Penalties that both methods are tried with: reward that a nat of KL costs."""


def arm_of(method: str, beta: float) -> str:
    """Returns the name of an arm, which ends with its beta in hundredths."""
    return f"{method}-{round(100 * beta)}"


ARMS = tuple(arm_of(method, beta) for method in METHODS for beta in BETAS)
TUNING = range(10)
"""Seeds, and so worlds, on which beta is chosen; no other result is of these."""
Arms = Mapping[str, Mapping[int, "Run"]]
"""The runs of each arm, by seed."""


class Run(NamedTuple):
    """What was measured in a cell."""

    golds: list[float]
    """Of the policy that each attempt ends with."""
    values: list[float | None]
    """What the audit after each attempt says it is worth; None: it has no review."""
    chosen: int  # the attempt whose policy audits choose, from 0
    comparisons: int
    audited: int  # scores of single answers
    steps: int  # of reinforcement learning, in all attempts
    seconds: float

    @property
    def gold(self) -> float:
        """Of the policy that audits choose."""
        return self.golds[self.chosen]

    @property
    def reviews(self) -> int:
        """Comparisons and scores."""
        return self.comparisons + self.audited


def measure(store: Store, number: int) -> dict[str, Any]:
    """Reads the audits of a cell beside gold, and counts its reviews; see `studies.study`.

    Args:
        store: the cell.
        number: its last round.

    Raises:
        AmplifyError: the round has no audits, or no gold at some of them.
    """
    began, this = time.monotonic(), store.round(number)
    golds = {row["step"]: mean_of(row, GOLD.name) for row in evaluated_rows(this.training_curve())}
    history, best = read_history(this.record), best_step(this.record)
    steps = [look.step for look in history.looks]
    if best is None or any(golds.get(step) is None for step in steps):
        raise AmplifyError(f"{this.path}: needs audits, and gold at each of them")
    return {
        "golds": [golds[step] for step in steps],
        "values": [look.audited.value if look.audited else None for look in history.looks],
        "chosen": steps.index(best),
        "comparisons": _comparisons(this.record),
        "audited": reviews_used(*history),
        "steps": max(golds),
        "seconds": seconds_taken(store, number, began),
    }


def _comparisons(record: Record) -> int:
    """Comparisons before training and at all restarts."""
    stages = record["stages"].items()
    made = [e for name, e in stages if name.startswith(REVIEWS) and name.endswith(f"/{DATA}")]
    return sum(entry["reviews"] for entry in made)


def read(results: Mapping[str, Any]) -> Run:
    """Returns what `measure` returned, as read from a file."""
    return Run(**results)


def tuned_on(runs: Arms) -> list[int]:
    """Returns the seeds for tuning that are done in all arms."""
    return [seed for seed in TUNING if all(seed in runs[arm] for arm in ARMS)]


def best_arm(runs: Arms, method: str) -> str:
    """Returns the arm of a method with the highest gold, in the mean of the seeds for tuning.

    Args:
        runs: of each arm, by seed.
        method: one of `METHODS`.

    Raises:
        AmplifyError: if no seed for tuning is done in all arms.
    """
    seeds = tuned_on(runs)
    if not seeds:
        raise AmplifyError(
            f"seeds {TUNING[0]} to {TUNING[-1]} choose beta, and must come first: none is done"
        )
    arms = [arm_of(method, beta) for beta in BETAS]
    return max(arms, key=lambda arm: np.mean([runs[arm][seed].gold for seed in seeds]))


def wanted(runs: Arms, seed: int) -> Sequence[str]:
    """Returns the arms that a seed needs: all for tuning, and the best of each method otherwise.

    Args:
        runs: of each arm, by seed, so far.
        seed: the cell's.

    Raises:
        AmplifyError: as in `best_arm`.
    """
    return ARMS if seed in TUNING else tuple(best_arm(runs, method) for method in METHODS)


class Pair(NamedTuple):
    """Both methods with one seed, which beta was not chosen on."""

    seed: int
    restarts: Run
    at_once: Run

    @property
    def gain(self) -> float:
        """How much more gold restarts end with."""
        return self.restarts.gold - self.at_once.gold

    @property
    def equal(self) -> bool:
        """Whether both have the same number of reviews, and of steps."""
        one, two = self.restarts, self.at_once
        return (one.reviews, one.steps) == (two.reviews, two.steps)


def pairs(runs: Arms) -> list[Pair]:
    """Returns the pairs of seeds that are not for tuning; none before beta is chosen.

    Args:
        runs: of each arm, by seed.
    """
    if not tuned_on(runs):
        return []
    one, two = (runs[best_arm(runs, method)] for method in METHODS)
    return [Pair(seed, one[seed], two[seed]) for seed in one if seed not in TUNING and seed in two]


def gain(of: Sequence[Pair]) -> Proportion:
    """Returns how much more gold restarts end with, paired by seed; three seeds or more."""
    return over_seeds([pair.gain for pair in of])


def criteria(of: Sequence[Pair]) -> list[Criterion]:
    """Compares the pairs with what is expected of them.

    Args:
        of: three pairs or more.
    """
    found, equal = gain(of), sum(pair.equal for pair in of)
    return [
        Criterion(
            "restarts end with more gold than all reviews at once, interval above 0",
            say(found),
            found.low is not None and found.low > 0,
        ),
        Criterion(
            "both have as many reviews, audits included, and as many steps",
            f"{equal} of {len(of)}",
            equal == len(of),
        ),
    ]
