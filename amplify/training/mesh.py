"""Sharding: contexts over the mesh axes `data` and `fsdp`, weights over `fsdp` and `tensor`.

Parameters name their axes where they are created (see `axes`), and `RULES` maps these names to mesh
axes. Functions are written as for one device, and the compiler partitions them (GSPMD, Xu et al.
2021, arXiv:2105.04663). A mesh changes results only by rounding, so it is not part of an
experiment's identity, and a checkpoint that was saved on one mesh can be restored on another.
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
"""The mesh axes that a batch's contexts are sharded over."""
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
"""Maps logical axes of parameters to mesh axes, in order of precedence. A rule applies if the mesh
axis divides the axis's length evenly and no other axis of the parameter uses it. An axis to which
no rule applies is replicated: there are none for layers, which are scanned, and norms, which are
small.
"""

Names = tuple[str | None, ...]
"""Logical names of a parameter's axes."""
Devices = Annotated[int, Field(ge=1)]


@dataclasses.dataclass(frozen=True)
class Mesh:
    """`[mesh]` of an experiment file: the number of devices along each mesh axis."""

    data: Devices = 1
    """Data parallelism: each device takes a share of the contexts."""
    fsdp: Devices = 1
    """Fully sharded data parallelism: each device takes a share of the contexts and stores a share
    of the weights, which are gathered layer by layer."""
    tensor: Devices = 1
    """Tensor parallelism: each device computes a share of every layer."""

    @property
    def size(self) -> int:
        """Number of devices."""
        return self.data * self.fsdp * self.tensor

    def check_devices(self) -> None:
        """Checks that there are as many devices as the mesh needs.

        Raises:
            AmplifyError: if there are fewer.
        """
        if self.size > jax.device_count():
            sizes = dataclasses.asdict(self)
            product = " x ".join(f"{name} {size}" for name, size in sizes.items())
            raise AmplifyError(
                f"the experiment's mesh needs {self.size} devices ({product}), but there are"
                f" {jax.device_count()}: change [mesh], which is not part of the experiment's"
                " identity"
            )

    @property
    def row_shares(self) -> int:
        """Number of shards of a batch of contexts, which must divide the batch size."""
        return self.data * self.fsdp

    @property
    def row_sharding(self) -> Sharding:
        """Sharding of arrays whose first axis counts contexts."""
        return self._sharding(PartitionSpec(ROWS))

    def partition_spec(self, names: Names, shape: tuple[int, ...]) -> PartitionSpec:
        """Returns the mesh axes that a parameter is sharded over.

        Args:
            names: logical names of its axes.
            shape: its shape.
        """
        lengths = dict(zip(names, shape, strict=True))
        applying = tuple(
            (name, axis)
            for name, axis in RULES
            if name in lengths and self._divides(lengths[name], axis)
        )
        return logical_to_mesh_axes(names, applying) or PartitionSpec()

    def specs(self, tree: PyTree[Any]) -> PyTree[PartitionSpec]:
        """Returns the partition spec of each leaf of a state.

        Optimizer moments and moving averages are sharded like their parameter. Leaves without
        logical axis names are replicated.
        """

        def of(names: Names | None, leaf: Any) -> PartitionSpec:
            return PartitionSpec() if names is None else self.partition_spec(names, leaf.shape)

        return _map_named(of, tree)

    def shardings(self, tree: PyTree[Any]) -> PyTree[Sharding]:
        """Returns the sharding of each leaf of a state."""
        return jax.tree.map(self._sharding, self.specs(tree))

    def shares(self, tree: PyTree[Any]) -> "Shares":
        """Computes how much of a state each device holds.

        Only shapes are used: nothing is allocated, and the devices need not exist.
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

    def replicated_axes(self, tree: PyTree[Any]) -> list[str]:
        """Returns the axes of parameters, as `name length`, that are replicated because no mesh
        axis divides them evenly, although there are rules for them.
        """
        found = set()

        def of(names: Names | None, leaf: Any) -> None:
            for name, length in zip(names or (), leaf.shape, strict=bool(names)):
                over = [axis for rule, axis in RULES if rule == name and getattr(self, axis) > 1]
                if over and not any(self._divides(length, axis) for axis in over):
                    found.add(f"{name} {length}")

        _map_named(of, tree)
        return sorted(found)

    def place(self, tree: PyTree[Any]) -> PyTree[Any]:
        """Puts each leaf of a state where its sharding says; adds shardings to abstract leaves."""
        return jax.tree.map(_put, tree, self.shardings(tree))

    def place_rows(self, batch: PyTree[Any]) -> PyTree[Any]:
        """Puts a batch on the devices; each process transfers only the shards of its own."""
        return jax.tree.map(lambda leaf: _put(leaf, self.row_sharding), batch)

    def spread_rows(self, batch: PyTree[Any]) -> PyTree[Any]:
        """Shards a batch inside a compiled function, unless its rows do not divide evenly."""
        if self.size == 1 or any(len(leaf) % self.row_shares for leaf in jax.tree.leaves(batch)):
            return batch
        return jax.lax.with_sharding_constraint(batch, self.row_sharding)

    @property
    def here(self) -> "Mesh":
        """The mesh of this process's devices, for what each process computes alone."""
        if not processes.are_several():
            return self
        devices = jax.local_device_count()
        tensor = math.gcd(self.tensor, devices)
        fsdp = math.gcd(self.fsdp, devices // tensor)
        return Mesh(devices // tensor // fsdp, fsdp, tensor)

    def bring_here(self, tree: PyTree[Any]) -> PyTree[Any]:
        """Gathers a tree that is sharded over all processes onto the devices of this one."""
        if not processes.are_several():
            return tree
        return self.here.place(jax.tree.map(processes.to_numpy, tree))

    def compile_step(
        self, step: Callable[..., Any], *, donates: int, returns: Callable[[], PyTree[Any]]
    ) -> Callable[..., Any]:
        """Compiles a step from a state to the next, with the same sharding, so that the next call
        runs the same program.

        Args:
            step: a function that is always called with the same shapes.
            donates: index of the argument that is the state.
            returns: makes a tree with the shapes that the step returns, None where the sharding
                does not matter. Called only if states are sharded.
        """
        if self == ONE_DEVICE:
            return jax.jit(step, donate_argnums=donates)
        out = self.shardings(returns())
        return processes.compile_before_running(
            jax.jit(step, donate_argnums=donates, out_shardings=out)
        )

    def _divides(self, length: int, axis: str) -> bool:
        devices = getattr(self, axis)
        return devices > 1 and length % devices == 0

    def _sharding(self, spec: PartitionSpec) -> Sharding:
        if self.size == 1:
            return SingleDeviceSharding(jax.local_devices()[0])
        return NamedSharding(_devices(self), spec)


class Shares(NamedTuple):
    """Size of a state in bytes, in total and on each device."""

    all: int
    per_device: int


def _map_named(function: Any, tree: PyTree[Any]) -> PyTree[Any]:
    """Maps each leaf by `function(names, leaf)`. Names are None where a leaf has none, or where it
    has more or fewer axes than names.
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
    numbers = processes.to_numpy(leaf)
    with jax.transfer_guard("allow"):  # jax does not count this as an explicit transfer
        return jax.make_array_from_callback(numbers.shape, sharding, lambda index: numbers[index])


ONE_DEVICE = Mesh()


@functools.cache
def _devices(mesh: Mesh) -> jax.sharding.Mesh:
    """The mesh over all devices, or over the first devices of this process."""
    sizes = dataclasses.asdict(mesh)
    mesh.check_devices()
    everywhere = mesh.size == jax.device_count()
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=jax.devices() if everywhere else jax.local_devices()[: mesh.size],
    )
