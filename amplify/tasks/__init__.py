"""Tasks: one file each. `TASKS` names those that an experiment file may choose."""

from amplify.tasks.wildcard import Wildcard

TASKS = {"wildcard": Wildcard}
