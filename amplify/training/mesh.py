"""Where arrays lie when there are several devices: contexts are spread over `data` and `fsdp`, and
weights over `fsdp` and `tensor`.

Parameters name their axes where they are created (see `axes`), and one table here says over which
mesh axis each name is spread. Functions are written as for one device, and the compiler partitions
them (GSPMD, Xu et al. 2021, arXiv:2105.04663). A mesh changes results by rounding alone, so it is
no part of an experiment's identity, and what was saved on one is restored onto another.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.linen.spmd import logical_to_mesh_axes
from jax.sharding import (
    AbstractMesh,
    AxisType,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)
from jaxtyping import PyTree
from pydantic import Field

from amplify.errors import AmplifyError
from amplify.runtime import processes

ROWS = ("data", "fsdp")
"""The mesh axes that a batch's contexts are spread over."""
RULES = (
    ("vocabulary", "tensor"),
    ("heads", "tensor"),
    ("key_heads", "tensor"),
    ("mlp", "tensor"),
    ("nearby", "tensor"),
    ("pointer", "tensor"),
    ("embed", "fsdp"),
    ("rank", "fsdp"),
    ("rank", "tensor"),
)
"""Logical axis of a parameter -> mesh axis, in order of precedence. A rule applies if its mesh axis
divides the length evenly and is not taken by another axis of the same parameter. An axis to which
no rule applies is replicated: layers, which are scanned, and norms, which are small, have none.
"""

Names = tuple[str | None, ...]
"""Of a parameter's axes."""
Devices = Annotated[int, Field(ge=1)]


@dataclasses.dataclass(frozen=True)
class Mesh:
    """`[mesh]` of an experiment file: devices along each axis."""

    data: Devices = 1
    """Each works on a share of the contexts."""
    fsdp: Devices = 1
    """Each works on a share of the contexts and keeps a share of the weights, which others ask for
    layer by layer."""
    tensor: Devices = 1
    """Each works on a share of every layer."""

    @property
    def size(self) -> int:
        return self.data * self.fsdp * self.tensor

    @property
    def row_shares(self) -> int:
        """How many parts a batch of contexts is spread over: they must divide it."""
        return self.data * self.fsdp

    @property
    def of_rows(self) -> Sharding:
        """Where a batch lies whose first axis counts contexts."""
        return self._sharding(PartitionSpec(ROWS))

    def of_parameter(self, names: Names, shape: tuple[int, ...]) -> PartitionSpec:
        """Over which mesh axes a parameter of that shape is spread, by the names of its axes."""
        lengths = dict(zip(names, shape, strict=True))
        applying = tuple(
            (name, axis)
            for name, axis in RULES
            if name in lengths and self._spreads(lengths[name], axis)
        )
        return logical_to_mesh_axes(names, applying) or PartitionSpec()

    def specs(self, tree: PyTree[Any]) -> PyTree[PartitionSpec]:
        """Over which mesh axes each leaf of a state is spread; moments and averages are like their
        parameter. What names no axes is replicated.
        """

        def of(names: Names | None, leaf: Any) -> PartitionSpec:
            return PartitionSpec() if names is None else self.of_parameter(names, leaf.shape)

        return _map_named(of, tree)

    def of_tree(self, tree: PyTree[Any]) -> PyTree[Sharding]:
        """Where each leaf of a state lies."""
        return jax.tree.map(self._sharding, self.specs(tree))

    def shares(self, tree: PyTree[Any]) -> "Shares":
        """How much of a state each device holds, by shapes alone: nothing is allocated, and the
        devices need not be there.
        """
        sizes = dataclasses.asdict(self)
        mesh = AbstractMesh(tuple(sizes.values()), tuple(sizes))

        def share(leaf: Any, spec: PartitionSpec) -> int:
            return math.prod(NamedSharding(mesh, spec).shard_shape(leaf.shape))

        leaves, specs = jax.tree.leaves(tree), jax.tree.leaves(self.specs(tree))
        held = zip(leaves, specs, strict=True)
        return Shares(
            sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
            sum(share(leaf, spec) * leaf.dtype.itemsize for leaf, spec in held),
        )

    def undivided(self, tree: PyTree[Any]) -> list[str]:
        """The axes of parameters, as `name length`, that are replicated although there are rules
        for them, because no rule's mesh axis divides them evenly.
        """
        found = set()

        def of(names: Names | None, leaf: Any) -> None:
            for name, length in zip(names or (), leaf.shape, strict=bool(names)):
                over = [axis for rule, axis in RULES if rule == name and getattr(self, axis) > 1]
                if over and not any(self._spreads(length, axis) for axis in over):
                    found.add(f"{name} {length}")

        _map_named(of, tree)
        return sorted(found)

    def place(self, tree: PyTree[Any]) -> PyTree[Any]:
        """The tree's leaves in their places; of shapes alone, shapes that say where they lie."""
        return jax.tree.map(_put, tree, self.of_tree(tree))

    def place_rows(self, batch: PyTree[Any]) -> PyTree[Any]:
        """A batch in its place: each process puts what lies on its own devices."""
        return jax.tree.map(lambda leaf: _put(leaf, self.of_rows), batch)

    def spread_rows(self, batch: PyTree[Any]) -> PyTree[Any]:
        """The same inside a compiled function. Rows that do not divide evenly stay as they are."""
        if self.size == 1 or any(len(leaf) % self.row_shares for leaf in jax.tree.leaves(batch)):
            return batch
        return jax.lax.with_sharding_constraint(batch, self.of_rows)

    @property
    def here(self) -> "Mesh":
        """The part of this process, for what each does by itself: the same mesh if there is one."""
        if not processes.are_several():
            return self
        devices = jax.local_device_count()
        tensor = math.gcd(self.tensor, devices)
        fsdp = math.gcd(self.fsdp, devices // tensor)
        return Mesh(devices // tensor // fsdp, fsdp, tensor)

    def bring_here(self, tree: PyTree[Any]) -> PyTree[Any]:
        """A tree that is spread over all processes, on the devices of this one."""
        if not processes.are_several():
            return tree
        return self.here.place(jax.tree.map(processes.whole, tree))

    def compile_step(
        self, step: Callable[..., Any], *, donates: int, returns: Callable[[], PyTree[Any]]
    ) -> Callable[..., Any]:
        """Compiles a step from a state to the next, which comes out in the places where it went in:
        the next call runs the same program.

        Args:
            step: called with the same shapes every time.
            donates: which of its arguments is the state.
            returns: what has the shapes that it returns, None where the place does not matter.
                Called only where states are spread.
        """
        if self == ONE_DEVICE:
            return jax.jit(step, donate_argnums=donates)
        out = self.of_tree(returns())
        return processes.compiled_together(jax.jit(step, donate_argnums=donates, out_shardings=out))

    def _spreads(self, length: int, axis: str) -> bool:
        devices = getattr(self, axis)
        return devices > 1 and length % devices == 0

    def _sharding(self, spec: PartitionSpec) -> Sharding:
        if self.size == 1:
            return SingleDeviceSharding(jax.local_devices()[0])
        return NamedSharding(_devices(self), spec)


class Shares(NamedTuple):
    """Bytes of a state."""

    all: int
    per_device: int


def _map_named(function: Any, tree: PyTree[Any]) -> PyTree[Any]:
    """`function(names, leaf)` of each leaf; names are None where it is no parameter, nor of the
    shape of one.
    """

    def of(node: Any) -> Any:
        names = node.get_metadata().get("out_sharding") if _is_variable(node) else None

        def of_leaf(leaf: Any) -> Any:
            return function(names if names and len(names) == leaf.ndim else None, leaf)

        return jax.tree.map(of_leaf, node)

    return jax.tree.map(of, tree, is_leaf=_is_variable)


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _put(leaf: Any, sharding: Sharding) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding))
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    numbers = processes.whole(leaf)
    with jax.transfer_guard("allow"):  # this puts shares where they go, and jax knows it as no put
        return jax.make_array_from_callback(numbers.shape, sharding, lambda index: numbers[index])


ONE_DEVICE = Mesh()


@functools.cache
def _devices(mesh: Mesh) -> jax.sharding.Mesh:
    """All of them, or so many of this process. Raises AmplifyError if there are not enough."""
    sizes = dataclasses.asdict(mesh)
    if mesh.size > jax.device_count():
        product = " x ".join(f"{name} {size}" for name, size in sizes.items())
        raise AmplifyError(
            f"the experiment's mesh takes {mesh.size} devices ({product}), and there are"
            f" {jax.device_count()} here: change [mesh], which is no part of the experiment's"
            " identity"
        )
    everywhere = mesh.size == jax.device_count()
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=jax.devices() if everywhere else jax.local_devices()[: mesh.size],
    )
