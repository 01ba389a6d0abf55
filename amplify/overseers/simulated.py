"""The simulated overseer: the task's own strategy, in place of a person."""

import dataclasses
from typing import Annotated, Any

from jaxtyping import Array, Int, Key
from pydantic import Field

from amplify.overseers.noisy import with_noise
from amplify.task_abilities import strategy_of
from amplify.types import Overseer, Strategy, Task


@dataclasses.dataclass(frozen=True)
class SimulatedConfig:
    """`[overseer]` of an experiment file."""

    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of answers that are replaced by random ones."""

    def build(self, task: Task) -> "Simulated":
        """Builds the overseer for a task that has a strategy."""
        return Simulated(task, self.noise)


@dataclasses.dataclass(frozen=True)
class Simulated:
    """An overseer that follows the task's strategy, with optional noise."""

    task: Task
    noise: float = 0.0

    traced = True
    replayable = True
    simulates_person = True

    def using(self, params: Any = None) -> Overseer:
        """The overseer, which has no parameters."""
        return with_noise(self._strategy, self.noise, self.task)

    def _strategy(
        self, questions: Int[Array, "*b question_length"], keys: Key[Array, "*b"]
    ) -> Strategy:
        decompose = strategy_of(self.task)
        assert decompose is not None  # checked when the experiment file is read
        return decompose(questions)
