"""What an experiment is checked for before its first round, beyond what its file alone tells.

Reading an experiment file must cost next to nothing, so whatever builds a search index, opens a
tokenizer or compiles something is done here: once, before round 0 and before anything is written.
Later rounds are not checked again: what they read cannot have changed since. `launch` calls it.
"""

from pathlib import Path

from amplify.errors import prefix_errors
from amplify.experiment.sections import Experiment
from amplify.models.abilities import preparer_of
from amplify.reading.own_classes import check_names
from amplify.reading.own_code import failing_as
from amplify.reading.own_tasks import check_functions
from amplify.reading.probing import Trial


def check_ready(experiment: Experiment, path: Path) -> None:
    """Builds what the experiment needs, and tries the functions of a task of its own.

    Args:
        path: the experiment file, which errors name.

    Raises:
        AmplifyError: for the first thing that cannot be used.
    """
    task, kind = experiment.task, experiment.values["task.kind"]
    for part in (task, experiment.assistant, experiment.overseer):
        if (prepare := preparer_of(part)) is not None:
            with prefix_errors(path):
                prepare()
    if (folder := experiment.places.get("task.source")) is not None:
        source = folder / kind.partition(":")[0]
        with failing_as(source, kind):
            check_names(task, f"{path}: {kind}")
            check_functions(Trial(task, source), apart=experiment.evals.apart)
