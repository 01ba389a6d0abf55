"""Logical names for the axes of parameters, declared where a parameter is created.

A name says what an axis counts (`embed`, `heads`, `mlp`, ...), not where it goes: `mesh.RULES` maps
names to the axes of a device mesh. The names are the `out_sharding` metadata of `flax.nnx`
variables, so they travel with a parameter into its gradients, optimizer moments and averages.
"""

from typing import Any

from flax import nnx

STACKED = {nnx.PARTITION_NAME: "layers"}
"""`transform_metadata` for `nnx.vmap` over layers: names the axis that it adds in front."""


def axes(*names: str | None) -> dict[str, Any]:
    """Metadata for `nnx.Param` that names its axes.

    Args:
        names: one for each axis; None for an axis that is never sharded.
    """
    # Not eager: parameters are also created where there is no mesh, and placed by `Mesh.place`.
    return {"out_sharding": names, "eager_sharding": False}
