"""The simulated overseer: the task's own strategy, which stands in for a person and never sees a
context.
"""

import dataclasses
from typing import Annotated, Any

from jaxtyping import Array, Int, Key
from pydantic import Field

from amplify.overseers.noisy import with_noise
from amplify.types import Overseer, SimulatedTask, Strategy


@dataclasses.dataclass(frozen=True)
class SimulatedConfig:
    """`[overseer]` of an experiment file."""

    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of its answers that are replaced by random ones."""

    def build(self, task: SimulatedTask) -> "Simulated":
        return Simulated(task, self.noise)


@dataclasses.dataclass(frozen=True)
class Simulated:
    task: SimulatedTask
    noise: float = 0.0

    traced = True
    replayable = True

    def using(self, params: Any = None) -> Overseer:
        """The overseer; it has no parameters."""
        return with_noise(self._strategy, self.noise, self.task)

    def _strategy(
        self, questions: Int[Array, "*b question_length"], keys: Key[Array, "*b"]
    ) -> Strategy:
        return self.task.strategy(questions)
