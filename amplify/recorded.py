"""An experiment as its records tell it, for comparisons: no code of its folder is run.

Stands in for `experiment.Experiment` where only its values and its task's classes are read.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class RecordedTask:
    classes: tuple[str, ...]
    """Labels of questions, easiest first; none if the records do not say."""


@dataclasses.dataclass(frozen=True)
class RecordedSearch(RecordedTask):
    """Of a task whose contexts are found; see `types.SearchedTask`."""

    def find(self, questions: Any) -> Any:
        raise NotImplementedError

    supports = find


@dataclasses.dataclass(frozen=True)
class RecordedExperiment:
    task: RecordedTask
    values: Mapping[str, Any]


def recorded_experiment(records: Sequence[Mapping[str, Any]]) -> Any:
    """What rounds recorded of their experiment: its values, and of its task the classes. Nothing
    else of it can be asked for.
    """
    last: Mapping[str, Any] = next((record for record in reversed(records) if record), {})
    told = last.get("task", {})
    kind = RecordedSearch if told.get("searched") else RecordedTask
    task = kind(tuple(told.get("classes", ())))
    return RecordedExperiment(task, last.get("experiment", {}))
