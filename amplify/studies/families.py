"""What becomes of gold in families of claims that nobody reviewed, when a policy is trained against
a reward model that learned from reviews of other families only.

Reviews are of drafts: about all families, or about those in focus and nothing else. In all arms
gold is divided in the same way, see `tasks.essays.world`: what the claims in focus are worth by
themselves, and what all others add, insights between the two included. Gold is read here and in
evals; no signal sees it.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from amplify.errors import AmplifyError
from amplify.evaluation.measures import GOLD, GOLD_FOCUS, GOLD_OTHER, OUTSIDE
from amplify.evaluation.statistics import Proportion
from amplify.report.curve import mean_of
from amplify.store import Store
from amplify.studies.seeds import over_seeds, seconds_taken

ALL, SOME = "all", "some"
PENALTY = "penalty"
ARMS = (ALL, SOME, f"{ALL}-{PENALTY}", f"{SOME}-{PENALTY}")
"""Which families are reviewed; without a KL penalty, and with one."""
PAIRS = ((ARMS[0], ARMS[1]), (ARMS[2], ARMS[3]))
"""Arms that differ in the families that are reviewed only."""


class Look(NamedTuple):
    """One look at the policy during reinforcement learning."""

    step: int
    reward: float  # in standard deviations of the reference policy's; mean since the last look
    kl: float  # to the reference policy, in nats; likewise
    gold: float
    focus: float  # gold of families in focus
    other: float  # gold of the others
    outside: float  # share of claims of the others


MEASURED = Look._fields[1:]
"""What a look measures."""


class Run(NamedTuple):
    """What was measured in a cell."""

    looks: list[Look]
    reviews: int
    seconds: float

    @property
    def end(self) -> Look:
        """The last look."""
        return self.looks[-1]


def measure(store: Store, number: int) -> dict[str, Any]:
    """Reads the parts of gold along the training of a cell; see `studies.study`.

    Args:
        store: the cell.
        number: its last round.

    Raises:
        AmplifyError: the training log has no gold of families in focus.
    """
    began, this = time.monotonic(), store.round(number)
    names = [measure.name for measure in (GOLD, GOLD_FOCUS, GOLD_OTHER, OUTSIDE)]
    looks = [
        [row["step"], row["reward"], row["kl"], *(mean_of(row, name) for name in names)]
        for row in this.training_curve()
        if "accuracy" in row and "kl" in row
    ]
    if not looks or any(value is None for look in looks for value in look):
        raise AmplifyError(
            f"{this.path}: its training log has no gold of families in focus: set task.focus"
        )
    reviews = this.record["stages"]["reviews/data"]["reviews"]
    return {"looks": looks, "reviews": reviews, "seconds": seconds_taken(store, number, began)}


def read(results: Mapping[str, Any]) -> Run:
    """Returns what `measure` returned, as read from a file."""
    looks = [Look(*look) for look in results["looks"]]
    return Run(looks, results["reviews"], results["seconds"])


def difference(runs: Mapping[str, Sequence[Run]], pair: tuple[str, str], name: str) -> Proportion:
    """Returns how much more the second of two arms has at the end, paired by seed.

    Args:
        runs: of each arm, for the same seeds.
        pair: two arms.
        name: one of `MEASURED`.
    """
    one, two = (runs[arm] for arm in pair)
    pairs = zip(one, two, strict=True)
    return over_seeds([getattr(b.end, name) - getattr(a.end, name) for a, b in pairs])
