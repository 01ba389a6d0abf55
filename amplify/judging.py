"""The verdict of a round: how it compares with the best one before it."""

import dataclasses
from typing import Any

from amplify.errors import AmplifyError
from amplify.evaluation.items import SELECT, Items, both_measured, is_share
from amplify.evaluation.statistics import carried_error_rate, judge
from amplify.experiment.sections import Experiment
from amplify.records.round_folder import RoundFolder, read_items


def judge_round(experiment: Experiment, best: RoundFolder, this: RoundFolder) -> dict[str, Any]:
    """Compares a round with the best earlier one by the gate's measure, on items of `select`.

    Args:
        experiment: the experiment, for its gate.
        best: the best round before it, which is its parent.
        this: the round.

    Raises:
        AmplifyError: as in `comparable`.
    """
    measure = experiment.gate.measure
    before, after = comparable(best, this, measure)
    directly_before = best.number == this.number - 1
    verdict = judge(
        before.column(measure),
        after.column(measure),
        after.clusters,
        after.question,
        round_number=this.number,
        error_rate=experiment.gate.error_rate,
        worthwhile=experiment.gate.worthwhile,
        carried=carried_error_rate(best.verdict if directly_before else None),
        agreement=training_agreement(this),
    )
    return {"against": best.number, "measure": measure, **dataclasses.asdict(verdict)}


def comparable(best: RoundFolder, this: RoundFolder, measure: str) -> tuple[Items, Items]:
    """Returns the items of `select` that have a value of a measure in both rounds, in pairs.

    Args:
        best: the best round so far.
        this: the round to judge.
        measure: name of a measure with values in 0..1.

    Returns:
        The items of each round; row i of both is the same question about the same context.

    Raises:
        AmplifyError: if there are no such items, or a value is outside 0..1.
    """
    before, after = (read_items(round_).only(SELECT) for round_ in (best, this))
    pairs = both_measured(before, after, measure)
    if pairs is None:
        raise AmplifyError(
            f"{this.evals}: no question has a value of {measure}, the measure that the gate"
            f" compares, both in this round and in round {best.number}"
        )
    if not all(is_share(items.column(measure)) for items in pairs):
        raise AmplifyError(f"{this.evals}: {measure} must be 0 to 1 for the gate to compare it")
    return pairs


def training_agreement(this: RoundFolder) -> float | None:
    """Returns the share of its training answers that the assistant reproduced after training."""
    last = this.training_curve()[-1:]
    return float(last[0]["agreement"]) if last and "agreement" in last[0] else None
