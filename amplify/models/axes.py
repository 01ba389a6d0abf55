"""Logical axis names of parameters, declared where a parameter is created.

A name says what an axis counts (`embed`, `heads`, `mlp`, ...); `mesh.RULES` maps names to the axes
of a device mesh. Names are stored as the `out_sharding` metadata of `flax.nnx` variables, so that a
parameter's gradients, optimizer moments and moving averages have them too.
"""

from typing import Any

from flax import nnx

STACKED = {nnx.PARTITION_NAME: "layers"}
"""`transform_metadata` for `nnx.vmap` over layers: names the leading axis that it adds."""


def axes(*names: str | None) -> dict[str, Any]:
    """Makes the metadata of an `nnx.Param` that names its axes.

    Args:
        names: one for each axis; None for an axis that is never sharded.
    """
    # Not eager: parameters are also created without a mesh, and sharded by `Mesh.place`.
    return {"out_sharding": names, "eager_sharding": False}
