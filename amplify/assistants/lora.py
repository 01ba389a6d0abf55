"""Low-rank adaptation: maps of low rank beside linear ones, trained in their stead. Hu et al. 2021
(arXiv:2106.09685).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx


class LoRA(NamedTuple):
    """Sizes of the maps: `x @ low_in @ low_out * (alpha / rank)` is added to `x @ kernel`."""

    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def with_lora_merged(lora: LoRA | None, params: nnx.State) -> dict[str, Any]:
    """Parameters of the same model without LoRA: its maps are added to those beside them."""

    def merged(params: Mapping[str, Any]) -> dict[str, Any]:
        if lora is None or "low_in" not in params:
            return {k: merged(v) if isinstance(v, Mapping) else v for k, v in params.items()}
        low = jnp.matmul(params["low_in"], params["low_out"]) * lora.scale
        rest = {k: v for k, v in params.items() if k not in ("low_in", "low_out")}
        return rest | {"kernel": params["kernel"] + low}

    return merged(nnx.to_pure_dict(params))
