"""What oversight is given to make a signal with, and what it makes."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from amplify.experiment.sections import Experiment
from amplify.records.round_folder import Handle, RoundFolder
from amplify.runtime.progress import Watch
from amplify.tasks.problems import draw_for_training
from amplify.training.phase import Phase, Trained


@dataclasses.dataclass(frozen=True)
class Work:
    """A round, as a phase finds it."""

    experiment: Experiment
    this: RoundFolder
    best: RoundFolder
    """The round that this one is trained from."""
    roles: Mapping[str, Handle]
    """As the phases before this one left them, in this round or in earlier ones."""
    watch: Watch


@runtime_checkable
class Oversight(Protocol):
    """A way to make training signals: a frozen dataclass, whose fields are the keys of
    `[oversight]` in an experiment file.

    Two more members are optional. `sub_answers`, "assistant" or "truth", says who answers an
    overseer's sub-questions; "assistant" if it is not there. `adapt_overseer(task, overseer)` takes
    the task and the overseer's section of the experiment file, and returns that section as this
    oversight needs it, or raises ValueError if they do not fit together.
    """

    def __hash__(self) -> int: ...

    def roles(self, experiment: Experiment) -> list[Trained]:
        """The roles that rounds train, as round 0 initialises them."""

    def phases(self, experiment: Experiment, this: RoundFolder) -> Iterator[Phase]:
        """A round's phases, in order. A function of what the round's record says of the phases
        before: each is asked for once those are done.
        """

    def signal(self, phase: Phase, work: Work) -> "Made":
        """The signal of a phase that has no source."""


class Made(NamedTuple):
    """A signal, before it is written."""

    columns: dict[str, np.ndarray]
    """Of a data set, with one leading axis of rows. `weight`, a number for each answer by which its
    loss is multiplied, may be left out where all are 1; 0: no answer was obtained. An answer of
    `types.FAILED` is none whatever its weight.
    """
    trees: list[dict[str, Any]]
    """Interactions that are kept: all that people made, and a sample of the others."""
    facts: dict[str, Any]
    """For the record."""
    description: str


WEIGHT = "weight"


def without_ones(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of a signal as they are written: without weights that are all 1.

    Raises:
        ValueError: if a weight is no finite number.
    """
    weight = columns.get(WEIGHT)
    if weight is None:
        return dict(columns)
    if not np.isfinite(weight).all():
        raise ValueError("every weight of a signal must be a finite number")
    kept = {name: column for name, column in columns.items() if name != WEIGHT}
    return kept if (weight == 1).all() else kept | {WEIGHT: weight.astype(np.float32)}


def draw_batch(
    experiment: Experiment, key: Key[Array, ""], size: Int[Array, ""] | None = None
) -> tuple[Int[Array, "batch facts fact_length"], Int[Array, "batch questions question_length"]]:
    """A training batch of new contexts with questions of all depths, spread over the mesh; for use
    inside a compiled step. Consumes the key.

    Args:
        size: of the contexts, where they come in sizes; None: full.
    """
    drawn = draw_for_training(
        experiment.task,
        key,
        experiment.training.batch,
        experiment.all_depths,
        size,
        apart=experiment.evals.apart,
    )
    spread: tuple[jax.Array, jax.Array] = experiment.mesh.spread_rows(drawn)
    return spread
