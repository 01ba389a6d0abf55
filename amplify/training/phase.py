"""A phase of a round: it makes one training signal, and trains one role on it, several together, or
none.

Everything here is frozen and hashable, so that equal phases of different rounds share one compiled
step.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import optax
from jaxtyping import Array, Bool, Int, Key, PyTree

Roles = Mapping[str, PyTree[Array]]
"""Parameters by role: "assistant", "overseer", ..."""
Metrics = dict[str, Array]


@runtime_checkable
class Model(Protocol):
    def __hash__(self) -> int: ...

    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        """Untrained parameters."""


@runtime_checkable
class Objective(Protocol):
    """What training minimises."""

    def __hash__(self) -> int: ...

    def __call__(
        self, params: PyTree[Array], frozen: Roles, batch: Any
    ) -> tuple[Array, dict[str, Array]]:
        """The loss, and metrics to log.

        Args:
            params: of the role that is trained.
            frozen: parameters of the roles that are not.
            batch: rows with one leading axis.

        Returns:
            A mean over the answered questions of the batch, and metrics: "answered", their number,
            and means over the same questions.
        """


@runtime_checkable
class MakesOptimizer(Protocol):
    def __hash__(self) -> int: ...

    def make_optimizer(self) -> optax.GradientTransformation: ...


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a phase trains one role."""

    role: str
    model: Model
    objective: Objective
    options: MakesOptimizer
    horizon: int = 1
    """Steps over which the target network averages the weights; 1: there is no target network."""
    accumulate: int = 1
    """Microbatches that a batch is taken in, one after another."""
    keeps_optimizer: bool = False
    """Whether the optimizer goes on from where the role's last phase left it."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Steps of a phase, and between two log rows, looks at held-out problems, and checkpoints."""

    steps: int
    batch: int
    """Rows of a stored signal that a step takes."""
    log_every: int
    look_every: int
    checkpoint_every: int


class RoleState(NamedTuple):
    """A role in training."""

    step: Int[Array, ""]  # updates taken
    params: PyTree[Array]
    target: PyTree[Array] | None  # moving average of params
    optimizer: PyTree[Array]

    @property
    def answering(self) -> PyTree[Array]:
        """The parameters that answer questions: the target network's, if there is one."""
        return self.params if self.target is None else self.target


class Update(NamedTuple):
    """What a role is trained on in one step."""

    batch: Any
    where: Bool[Array, ""] | None = None  # whether it is; None: it is


@runtime_checkable
class Source(Protocol):
    """A training signal that is made while training. Kinds inherit what they do not say."""

    traced: bool
    """Whether `next` is compiled with the update; if not, it is called from Python before it."""

    def abstract(self) -> PyTree[Any]:
        """Shapes and dtypes of its state, nothing allocated."""
        return jax.eval_shape(lambda: self.begin(None, {}))

    def begin(self, work: Any, carried: Roles) -> PyTree[Array]:
        """Its state before the first step.

        Args:
            work: what the round has (see `oversight.work`); None where shapes are all that is asked
                for.
            carried: what sources before this one carried, by role.
        """

    def next(
        self,
        frozen: Roles,
        live: Mapping[str, RoleState],
        state: PyTree[Array],
        key: Key[Array, ""],
    ) -> tuple[PyTree[Array], dict[str, Update], Metrics]:
        """Its next state, what each role is trained on, and metrics to log. Consumes the key.

        Args:
            frozen: parameters of the roles that the phase does not train.
            live: the roles that it trains, as they are before this step.
        """

    def carry(self, state: PyTree[Array]) -> dict[str, PyTree[Array]]:
        """What the next round's `begin` is given, by the role in whose checkpoint it is kept."""
        return {}

    def abstract_carry(self) -> dict[str, PyTree[Any]]:
        """Shapes and dtypes of what it carries."""
        return jax.eval_shape(lambda: self.carry(self.begin(None, {})))

    def facts(
        self, carried: Roles, state: PyTree[Array], log: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """What the record says when training has ended: counts since `carried` of what was asked
        of whom, among them.
        """
        return {}

    def sample(self, work: Any, live: Mapping[str, RoleState], state: PyTree[Array]) -> Any:
        """What the round's folder keeps of the signal, as `oversight.work.Made`; None: nothing."""
        return None


@dataclasses.dataclass(frozen=True)
class Phase:
    name: str
    """Unique in its round: it names stages, a folder, and a stream of random numbers."""
    trains: tuple[Trained, ...]
    """The first one's metrics are logged."""
    schedule: Schedule
    source: Source | None = None
    """None: the signal is stored in a data set before training."""
    columns: tuple[str, ...] = ("context", "questions", "answers")
    """Of a stored signal, those that are trained on; and `weight`, where the signal has it."""
    frozen: tuple[tuple[str, Model], ...] = ()
    """Roles, with their models, that its source and objectives read and that it does not train."""
