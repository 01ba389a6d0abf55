"""An experiment reconstructed from its records, so that comparisons run no code of its folder."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from amplify.evaluation.measures import Measure, recorded_measures


@dataclasses.dataclass(frozen=True)
class RecordedTask:
    """The parts of a task that comparisons need."""

    classes: tuple[str, ...]
    """Labels of questions, easiest first; empty if the records contain none."""


@dataclasses.dataclass(frozen=True)
class RecordedExperiment:
    """The parts of an experiment that comparisons need."""

    task: RecordedTask
    measures: Sequence[Measure]
    values: Mapping[str, Any]
    prices: Any
    """What the experiment file says today: rounds do not record prices."""


def recorded_experiment(records: Sequence[Mapping[str, Any]], prices: Any) -> Any:
    """Reconstructs an experiment from the last of its records.

    Args:
        records: of the experiment's rounds, ascending.
        prices: of people's work, `sections.Prices`.

    Returns:
        A RecordedExperiment, which stands in for `sections.Experiment` where only its values, its
        measures, its prices and its task's classes are read.
    """
    last: Mapping[str, Any] = next((record for record in reversed(records) if record), {})
    task = RecordedTask(tuple(last.get("task", {}).get("classes", ())))
    return RecordedExperiment(task, recorded_measures(last), last.get("experiment", {}), prices)
