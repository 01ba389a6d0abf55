"""What an experiment is checked for before its first round, beyond what its file alone tells.

Reading an experiment file must cost next to nothing, so whatever builds a search index, opens a
tokenizer or compiles something is done here: once, before round 0 and before anything is written.
Rounds after it need no check, for what they read is the experiment's identity. `running` calls it.
"""

from pathlib import Path

from amplify.errors import naming
from amplify.experiment import Experiment
from amplify.types import Prepares


def check_ready(experiment: Experiment, path: Path) -> None:
    """Builds what the experiment needs before its first round.

    Args:
        path: the experiment file, which errors name.

    Raises:
        AmplifyError: for the first thing that cannot be used.
    """
    for part in (experiment.task, experiment.assistant, experiment.overseer):
        if isinstance(part, Prepares):
            with naming(path):
                part.prepare()
