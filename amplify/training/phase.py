"""Phases of a round: each makes one training signal and trains one role, several, or none on it.

Phases are frozen and hashable, so that equal phases of different rounds share one compiled training
step.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import optax
from jaxtyping import Array, Bool, Int, Key, PyTree

from amplify.types import Roles

Metrics = dict[str, Array]


@runtime_checkable
class Model(Protocol):
    """A model as pure functions of its parameters."""

    def __hash__(self) -> int: ...

    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        """Draws untrained parameters."""


@runtime_checkable
class Objective(Protocol):
    """A loss to be minimised."""

    def __hash__(self) -> int: ...

    def __call__(
        self, params: PyTree[Array], frozen: Roles, batch: Any
    ) -> tuple[Array, dict[str, Array]]:
        """Computes the loss, and metrics to log.

        Args:
            params: parameters of the role that is trained.
            frozen: parameters of the roles that are not.
            batch: arrays with one leading axis of rows.

        Returns:
            The mean loss over the answered questions of the batch; and metrics: "answered", the
            number of these questions, and means over them.
        """


@runtime_checkable
class MakesOptimizer(Protocol):
    """Hashable options of an optimizer."""

    def __hash__(self) -> int: ...

    def make_optimizer(self) -> optax.GradientTransformation:
        """Makes the optimizer."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a phase trains one role."""

    role: str
    model: Model
    objective: Objective
    options: MakesOptimizer
    horizon: int = 1
    """Steps over which the target network averages the weights; 1: no target network is kept."""
    accumulate: int = 1
    """Microbatches that a batch is split into; gradients are accumulated over them."""
    keeps_optimizer: bool = False
    """Whether training continues with the optimizer state of the role's last phase."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Number of steps of a phase, and intervals in steps."""

    steps: int
    batch: int
    """Rows of a stored signal in a batch."""
    log_every: int
    look_every: int
    """Steps between two evaluations on held-out problems."""
    checkpoint_every: int


class RoleState(NamedTuple):
    """The training state of a role."""

    step: Int[Array, ""]  # number of updates
    params: PyTree[Array]
    target: PyTree[Array] | None  # moving average of params
    optimizer: PyTree[Array]

    @property
    def answering(self) -> PyTree[Array]:
        """The parameters that answer questions: those of the target network, if there is one."""
        return self.params if self.target is None else self.target


class Update(NamedTuple):
    """What a role is trained on in one step."""

    batch: Any
    where: Bool[Array, ""] | None = None  # False: skip the update; None: never skip


@runtime_checkable
class Source(Protocol):
    """A training signal that is made while training.

    Methods with a body are defaults, which implementations may inherit.
    """

    traced: bool
    """Whether `next` is compiled with the update. False: it is called from Python before it."""

    def abstract(self) -> PyTree[Any]:
        """Returns the shapes and dtypes of the source's state, without allocating it."""
        return jax.eval_shape(lambda: self.begin(None, {}))

    def begin(self, work: Any, carried: Roles) -> PyTree[Array]:
        """Makes the source's state before the first step.

        Args:
            work: what the round has (see `oversight.work`); None: only the shapes of the state are
                needed.
            carried: what `carry` of the last round returned, by role.
        """

    def next(
        self,
        frozen: Roles,
        live: Mapping[str, RoleState],
        state: PyTree[Array],
        key: Key[Array, ""],
    ) -> tuple[PyTree[Array], dict[str, Update], Metrics]:
        """Makes the batches of one step.

        Args:
            frozen: parameters of the roles that the phase does not train.
            live: states of the roles that it trains, before this step.
            state: the source's state.
            key: consumed.

        Returns:
            The source's next state, the update of each trained role, and metrics to log.
        """

    def carry(self, state: PyTree[Array]) -> dict[str, PyTree[Array]]:
        """Returns what the next round's `begin` gets, by the role whose checkpoint stores it."""
        return {}

    def abstract_carry(self) -> dict[str, PyTree[Any]]:
        """Returns the shapes and dtypes of what `carry` returns."""
        return jax.eval_shape(lambda: self.carry(self.begin(None, {})))

    def facts(
        self, carried: Roles, state: PyTree[Array], log: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Returns facts for the round's record, after training, such as counts of calls.

        Args:
            carried: what `begin` got.
            state: the source's final state.
            log: rows of the training log.
        """
        return {}

    def sample(self, work: Any, live: Mapping[str, RoleState], state: PyTree[Array]) -> Any:
        """Returns a sample of the signal for the round's folder, an `oversight.work.Made`; None:
        nothing is kept.
        """
        return None


@dataclasses.dataclass(frozen=True)
class Begin:
    """Initial weights of a role that does not begin with its own."""

    role: str
    """The role."""
    checkpoint: str
    """Where they come from: "reference" is that role's last checkpoint, "warmup/assistant" the
    assistant's after the phase `warmup` of this round."""
    model: Model | None = None
    """The model of the checkpoint, if it is another one than the role's, whose method
    `begin_with(params)` then makes the role's parameters of the checkpoint's."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """What one phase of a round trains, and on which signal."""

    name: str
    """Unique in its round: names its stages, its folder and its stream of random numbers."""
    trains: tuple[Trained, ...]
    """The roles that are trained. The metrics of the first are logged."""
    schedule: Schedule
    source: Source | None = None
    """None: the signal is stored in a data set before training."""
    columns: tuple[str, ...] = ("context", "questions", "answers")
    """Columns of a stored signal that are trained on, beside `weight` where the signal has it."""
    frozen: tuple[tuple[str, Model], ...] = ()
    """Roles that its source and objectives read but that it does not train, with their models."""
    begins: tuple[Begin, ...] = ()
    """Initial weights of roles that do not begin with their own."""
    continues: bool = False
    """Whether training continues exactly where an earlier phase of the round ended, with its
    optimizer state."""

    @property
    def program(self) -> "Phase":
        """The phase without what its compiled step does not depend on: equal ones share a step."""
        schedule = Schedule(steps=0, batch=0, log_every=0, look_every=0, checkpoint_every=0)
        return Phase("", self.trains, schedule, self.source)
