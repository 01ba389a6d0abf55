"""Where things lie when there are several devices: contexts are spread over `data` and `fsdp`, and
weights over `fsdp` and `tensor`.

The compiler does the rest: functions are written as for one device (GSPMD, Xu et al. 2021,
arXiv:2105.04663). A mesh changes results by rounding alone, so it is no part of an experiment's
identity, and what was saved on one is restored onto another. Knows shapes and names of weights, and
nothing of what they are for.
"""

import dataclasses
import functools
import math
from typing import Annotated, Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jaxtyping import PyTree
from pydantic import Field

from amplify import processes
from amplify.errors import AmplifyError

ROWS = ("data", "fsdp")
"""The axes that a batch's contexts are spread over."""
ADDING = ("out", "down")
"""Linear maps that add to the residual stream: what they take in is spread over `tensor`, so that
nothing is moved between them and the map before."""

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

    def of_weight(self, path: str, shape: tuple[int, ...]) -> Sharding:
        """Where a parameter lies, or its moments, by what its path ends with. What is small, or
        does not divide evenly, is everywhere.
        """
        *_, owner, kind = ["", "", *path.split(".")]
        if len(shape) < 2 or kind not in ("kernel", "embedding"):
            return self._sharding(PartitionSpec())
        into_tensor = kind == "embedding" or owner in ADDING
        axes = ("tensor", "fsdp") if into_tensor else ("fsdp", "tensor")
        spread = (
            axis if length % getattr(self, axis) == 0 else None
            for axis, length in zip(axes, shape[-2:], strict=True)
        )
        return self._sharding(PartitionSpec(*[None] * (len(shape) - 2), *spread))

    def of_tree(self, tree: PyTree[Any]) -> PyTree[Sharding]:
        """The place of each leaf of a state, by its path."""

        def of(path: tuple[Any, ...], leaf: Any) -> Sharding:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            return self.of_weight(name.removesuffix(".value"), leaf.shape)  # flax names it so

        return jax.tree_util.tree_map_with_path(of, tree)

    def place(self, tree: PyTree[Any]) -> PyTree[Any]:
        """The tree's leaves in their places; of shapes alone, shapes that say where they lie."""
        return jax.tree.map(_put, tree, self.of_tree(tree))

    def place_rows(self, batch: PyTree[Any]) -> PyTree[Any]:
        """A batch in its place: each process puts what lies on its own devices."""
        return jax.tree.map(lambda leaf: _put(leaf, self.of_rows), batch)

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

    def _sharding(self, spec: PartitionSpec) -> Sharding:
        if self.size == 1:
            return SingleDeviceSharding(jax.local_devices()[0])
        return NamedSharding(_devices(self), spec)


def _put(leaf: Any, sharding: Sharding) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
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
