"""An experiment as its records tell it, for comparisons: no code of its folder is run.

Stands in for `sections.Experiment` where only its values, its measures and its task's classes are
read.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from amplify.evaluation.measures import Measure, recorded


@dataclasses.dataclass(frozen=True)
class RecordedTask:
    classes: tuple[str, ...]
    """Labels of questions, easiest first; none if the records do not say."""


@dataclasses.dataclass(frozen=True)
class RecordedExperiment:
    task: RecordedTask
    measures: Sequence[Measure]
    values: Mapping[str, Any]


def recorded_experiment(records: Sequence[Mapping[str, Any]]) -> Any:
    """What rounds recorded of their experiment: its values, its measures, and of its task the
    classes. Nothing else of it can be asked for.
    """
    last: Mapping[str, Any] = next((record for record in reversed(records) if record), {})
    task = RecordedTask(tuple(last.get("task", {}).get("classes", ())))
    return RecordedExperiment(task, recorded(last), last.get("experiment", {}))
