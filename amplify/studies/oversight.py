"""What every mechanism of oversight is worth at equal human effort, on a task whose truth is known.

Nobody's truth is used but for evals. What people do, simulated here, is counted round by round in
the ledger and priced by `[prices]`. Arms need not take equally long: all are read at one *budget*,
the seconds that the cheapest takes for all of its rounds, by interpolation between their rounds.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amplify.evaluation.items import ALL, FINAL
from amplify.evaluation.statistics import Proportion
from amplify.experiment.sections import Prices
from amplify.files.json_lines import read_lines
from amplify.records.record import phases
from amplify.records.round_folder import RoundFolder
from amplify.report import results
from amplify.runtime import effort
from amplify.store import Store
from amplify.studies.seeds import over_seeds

TRUTH = "truth"
ARMS = (TRUTH, "amplification", "reward-model", "direct", "consultancy", "debate")
"""The first one is an oracle: its sub-answers are true, which nobody could know."""
SIGNALS = ("amplified", "judged")
"""The measures that say how often a training signal is right."""
AGREEMENT = "accuracy_on_held_out_reviews"
"""The same of reward models, in their training log."""
FACTORS = (0.5, 2.0)
"""By which each price is multiplied, to see what depends on it."""


class Reached(NamedTuple):
    """What was reached after a round, and what all rounds so far took."""

    effort: Mapping[str, int]  # what people did, by action
    device_seconds: float  # without compilation
    right: Mapping[str, float]  # share of answers of the best assistant so far, by class
    signal: float | None  # how often the round's training signal was right


class Run(NamedTuple):
    """What was measured in a cell."""

    prices: Prices
    rounds: list[Reached]  # from the untrained one on

    def seconds(self, prices: Prices) -> list[float]:
        """What people's work up to each round takes."""
        return [prices.seconds(one.effort) for one in self.rounds]

    def right(self, label: str, budget: float, prices: Prices) -> float:
        """The share of right answers for a budget, interpolated between rounds.

        Args:
            label: class of questions, or all of them.
            budget: in seconds of people's work.
            prices: of actions.
        """
        shares = [one.right[label] for one in self.rounds]
        return float(np.interp(budget, self.seconds(prices), shares))


def measure(store: Store, number: int) -> dict[str, Any]:
    """Reads what the rounds of a cell took and reached; see `studies.study`.

    Args:
        store: the cell.
        number: its last round.
    """
    rows = [row for row in results(store) if row["split"] == FINAL]
    done: Counter[str] = Counter()
    seconds, reached = 0.0, []
    for n in range(number + 1):
        this, best = store.round(n), store.best_before(n + 1).number
        done.update(effort.of_record(this.record))
        ledger = this.record["ledger"]
        if n:  # the untrained round costs evals only
            seconds += ledger["seconds"] - ledger["compile_seconds"]
        right = {row["class"]: row["alone"] for row in rows if row["round"] == best}
        overall = next(row for row in rows if (row["round"], row["class"]) == (n, ALL))
        signal = _signal(this, overall) if n else None
        reached.append([dict(done), round(seconds, 1), right, signal])
    return {"prices": dataclasses.asdict(store.experiment.prices), "rounds": reached}


def _signal(this: RoundFolder, overall: Mapping[str, Any]) -> float | None:
    """How often the training signal of a round was right; None: nobody measured it."""
    logs = [this.phase(name).metrics for name in phases(this.record)]
    rows = [row for log in logs if log.exists() for row in read_lines(log) if AGREEMENT in row]
    if rows:
        return float(rows[-1][AGREEMENT])
    return next((overall[name] for name in SIGNALS if overall.get(name) is not None), None)


def read(found: Mapping[str, Any]) -> Run:
    """Returns what `measure` returned, as read from a file."""
    return Run(Prices(**found["prices"]), [Reached(*one) for one in found["rounds"]])


def budget(runs: Mapping[str, Sequence[Run]], prices: Prices) -> float:
    """The human seconds that every arm takes for all of its rounds, with every seed.

    Args:
        runs: of each arm.
        prices: of actions.
    """
    return min(run.seconds(prices)[-1] for of in runs.values() for run in of)


def accuracies(
    runs: Mapping[str, Sequence[Run]], label: str, prices: Prices
) -> dict[str, list[float]]:
    """Returns shares of right answers at equal human effort, by arm and seed.

    Args:
        runs: of each arm.
        label: class of questions, or all of them.
        prices: of actions.
    """
    most = budget(runs, prices)
    return {arm: [run.right(label, most, prices) for run in of] for arm, of in runs.items()}


def share_over_seeds(shares: Sequence[float]) -> Proportion:
    """Returns the mean of shares, with Student's interval over seeds, cut off at 0 and 1.

    Args:
        shares: one for each seed.
    """
    found = over_seeds(shares)
    if found.low is None or found.high is None:
        return found
    return found._replace(low=max(0.0, found.low), high=min(1.0, found.high))


def ranking(runs: Mapping[str, Sequence[Run]], prices: Prices) -> list[str]:
    """The arms but for the oracle, by their mean share of right answers at equal effort; the
    highest first.

    Args:
        runs: of each arm.
        prices: of actions.
    """
    means = {arm: sum(of) / len(of) for arm, of in accuracies(runs, ALL, prices).items()}
    return sorted((arm for arm in means if arm != TRUTH), key=lambda arm: -means[arm])


def other_prices(prices: Prices, used: Sequence[str]) -> Iterator[tuple[str, Prices]]:
    """Yields prices of which one is halved or doubled, with a description.

    Args:
        prices: those that are changed.
        used: the actions whose prices matter.
    """
    for action in used:
        for factor in FACTORS:
            price = factor * getattr(prices, action)
            yield f"{action} {price:g} s", dataclasses.replace(prices, **{action: price})


def actions(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """The actions that people took in any arm, in the order of price lists."""
    used = {action for of in runs.values() for run in of for action in run.rounds[-1].effort}
    return [action for action in effort.ACTIONS if action in used]
