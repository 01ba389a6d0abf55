"""Low-rank adaptation (LoRA): adapters are trained, and the weights beside them are frozen.

Hu et al. 2021 (arXiv:2106.09685).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx


class LoRA(NamedTuple):
    """Size of the adapters: `x @ low_in @ low_out * (alpha / rank)` is added to `x @ kernel`."""

    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """Factor of the adapters' output."""
        return self.alpha / self.rank


def with_lora_merged(lora: LoRA | None, params: nnx.State) -> dict[str, Any]:
    """Adds the adapters to the kernels beside them.

    Args:
        lora: size of the adapters; None: there are none.
        params: parameters of a model with LoRA.

    Returns:
        Nested dicts of the parameters of the same model without LoRA.
    """

    def merge(params: Mapping[str, Any]) -> dict[str, Any]:
        if lora is None or "low_in" not in params:
            return {k: merge(v) if isinstance(v, Mapping) else v for k, v in params.items()}
        low = jnp.matmul(params["low_in"], params["low_out"]) * lora.scale
        others = {k: v for k, v in params.items() if k not in ("low_in", "low_out")}
        return others | {"kernel": params["kernel"] + low}

    return merge(nnx.to_pure_dict(params))
