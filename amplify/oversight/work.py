"""The interface of oversight: what it gets to make a signal, and what it returns."""

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
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
    """What a phase has to work with: the round so far."""

    experiment: Experiment
    this: RoundFolder
    best: RoundFolder
    """The parent: the best round so far."""
    roles: Mapping[str, Handle]
    """Checkpoints of the roles after all earlier phases, in this round or in previous ones."""
    watch: Watch

    def checkpoint(self, name: str) -> Handle:
        """Returns a checkpoint by name.

        Args:
            name: a role, or "PHASE/ROLE" for the role at the end of a phase of this round.
        """
        phase, _, role = name.rpartition("/")
        return Handle(role, self.this, phase) if phase else self.roles[role]


@runtime_checkable
class Oversight(Protocol):
    """A way to make training signals: a frozen dataclass whose fields are the keys of `[oversight]`
    in an experiment file.

    Five more members are optional. `sub_answers`, "assistant" (the default) or "truth", says who
    answers an overseer's sub-questions. `adapt_overseer(task, overseer)` receives the task and the
    overseer's section of the experiment file; it returns the section that this oversight needs, or
    raises ValueError if the two do not fit together. `check_sections(sections)` receives all
    sections by name, and raises ValueError if the oversight does not fit them. `measures` declares
    what evals measure beside `measuring.measures_of`, and `measure_held_out(experiment, weights,
    problems)` returns their values: by name, an array with the axes `batch questions`, NaN where
    there is no value.
    """

    def __hash__(self) -> int: ...

    def roles(self, experiment: Experiment) -> list[Trained]:
        """Returns the roles that rounds train and round 0 initialises."""

    def phases(self, experiment: Experiment, this: RoundFolder) -> Iterator[Phase]:
        """Yields the phases of a round, in order.

        Each phase is requested when the phases before it are done, and must depend on nothing but
        their entries in the round's record, so that a resumed round has the same phases.

        Args:
            experiment: the experiment.
            this: the round's folder.
        """

    def signal(self, phase: Phase, work: Work) -> "Made":
        """Makes the signal of a phase that has no source.

        Args:
            phase: one that `phases` yielded.
            work: the round so far.
        """


class Made(NamedTuple):
    """A training signal, before it is written."""

    columns: dict[str, np.ndarray]
    """Columns of the data set, with one leading axis of rows. `weight`, which multiplies the loss
    of each answer, may be left out if all weights are 1; it is 0 if no answer was obtained. An
    answer of `types.FAILED` counts as not obtained whatever its weight.
    """
    trees: list[dict[str, Any]]
    """Interactions to save: those of people, and a sample of the others."""
    facts: dict[str, Any]
    """Entries for the round's record."""
    description: str
    """Of the data set."""
    descriptions: Mapping[str, str] = MappingProxyType({})
    """Descriptions of columns that are not in `readable.DESCRIPTIONS`, by name."""


def check_stored(kind: str, sections: Mapping[str, Any]) -> None:
    """Checks that an experiment stores its signals.

    Args:
        kind: of oversight, which needs that.
        sections: of the experiment file, by name.

    Raises:
        ValueError: if they are streamed.
    """
    if (targets := sections["training"].targets) != "stored":
        raise ValueError(
            f'oversight.kind = "{kind}" needs training.targets = "stored", got {targets!r}'
        )


WEIGHT = "weight"


def without_ones(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the columns of a signal as they are written: without weights that are all 1.

    Args:
        columns: of the signal, with one leading axis of rows.

    Raises:
        ValueError: a weight is not finite.
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
    """Draws a training batch of new contexts with questions of all depths, sharded over the mesh.

    May be called inside a compiled step.

    Args:
        experiment: its task, batch size and mesh.
        key: consumed.
        size: of the contexts, if the task has sizes; None: full size.

    Returns:
        Contexts, and questions about each.
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
