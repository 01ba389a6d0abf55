"""The simulated overseer: the task's own strategy, which stands in for a person and never sees a
context.
"""

import dataclasses

from jaxtyping import Array, Int, Key

from amplify.types import Overseer, Strategy, Task


@dataclasses.dataclass(frozen=True)
class SimulatedConfig:
    """`[overseer]` of an experiment file."""

    def build(self, task: Task) -> Overseer:
        return Simulated(task)


@dataclasses.dataclass(frozen=True)
class Simulated:
    task: Task

    def __call__(
        self, questions: Int[Array, "*b question_length"], keys: Key[Array, "*b"]
    ) -> Strategy:
        return self.task.strategy(questions)
