"""Checks before an experiment's first round that need more than its file.

Reading an experiment file must be fast, so everything that builds a search index, opens a tokenizer
or compiles a function is checked here: once, before round 0, and before anything is written. Called
by `launch`.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from amplify.errors import AmplifyError, prefix_errors
from amplify.experiment.sections import Experiment
from amplify.experiment.validation import quote_value
from amplify.models.abilities import preparer_of
from amplify.reading.own_classes import check_names
from amplify.reading.own_code import errors_in_one_line
from amplify.reading.own_tasks import check_functions
from amplify.reading.probing import TaskProbe


def check_ready(experiment: Experiment, path: Path) -> None:
    """Prepares the task, the models and the overseer, and tests the functions of a custom task.

    Args:
        experiment: the experiment.
        path: the experiment file.

    Raises:
        AmplifyError: for the first problem.
    """
    task, kind = experiment.task, experiment.values["task.kind"]
    for part in (task, experiment.assistant, experiment.overseer):
        if (prepare := preparer_of(part)) is not None:
            with prefix_errors(path):
                prepare()
    if (folder := experiment.places.get("task.source")) is not None:
        source = folder / kind.partition(":")[0]
        with _naming_options(experiment), errors_in_one_line(source, kind):
            check_names(task, f"{path}: {kind}")
            check_functions(TaskProbe(task, source), apart=experiment.evals.apart)


@contextlib.contextmanager
def _naming_options(experiment: Experiment) -> Iterator[None]:
    """Ends errors in the block with the options of the task, one of which may be their cause."""
    options = {
        key: value
        for key, value in experiment.values.items()
        if key.startswith("task.") and key not in ("task.kind", "task.source")
    }
    try:
        yield
    except AmplifyError as error:
        if not options:
            raise
        told = ", ".join(f"{key} = {quote_value(value)}" for key, value in options.items())
        raise AmplifyError(f"{error} (with {told})") from None
