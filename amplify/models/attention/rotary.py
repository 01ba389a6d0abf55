"""Rotary position embeddings (RoPE; Su et al. 2021, arXiv:2104.09864), and how they are scaled to
contexts longer than those trained on.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class Rotary:
    """The settings of a rotary embedding, as in a Hugging Face configuration."""

    theta: float
    scaling: Literal["default", "linear", "llama3"] = "default"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    trained_positions: int = 8192  # context length before the scaling of Llama 3

    def frequencies(self, head_width: int) -> np.ndarray:
        """Computes the rotation of each pair of a head's numbers, in radians per position.

        Args:
            head_width: numbers in the query of one head; even.

        Returns:
            An array of shape (head_width / 2,).
        """
        plain = self.theta ** -(np.arange(0, head_width, 2, dtype=np.float32) / head_width)
        if self.scaling == "default":
            return plain
        if self.scaling == "linear":
            return plain / self.factor
        # Llama 3 divides frequencies with fewer than `low` turns within the trained positions by
        # the factor, keeps those with more than `high` turns, and interpolates in between.
        turns = self.trained_positions * plain / (2 * np.pi)
        low, high = self.low_frequency_factor, self.high_frequency_factor
        share_kept = np.clip((turns - low) / (high - low), 0, 1)
        return (share_kept + (1 - share_kept) / self.factor) * plain


def rotations(
    positions: Int[Array, "*b"], frequencies: Float[Array, " half"]
) -> tuple[Float[Array, "*b 1 half"], Float[Array, "*b 1 half"]]:
    """Computes the cosines and sines by which the heads of each token are rotated.

    Args:
        positions: position ids.
        frequencies: radians per position.
    """
    angles = jnp.einsum("...,f->...f", positions.astype(jnp.float32), frequencies)[..., None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "*b heads head_width"],
    rotation: tuple[Float[Array, "*b 1 half"], Float[Array, "*b 1 half"]],
) -> Float[Array, "*b heads head_width"]:
    """Rotates pairs of a head's numbers, one from its first half and one from its second.

    Args:
        x: queries or keys.
        rotation: cosines and sines, from `rotations`.
    """
    cos, sin = (array.astype(x.dtype)[..., None, :] for array in rotation)
    halves = x.reshape(*x.shape[:-1], 2, -1)
    # Reversing an axis swaps the halves in one loop; concatenating slices would take two.
    swapped = jax.lax.rev(halves, (halves.ndim - 2,))
    sin = jnp.concatenate([-sin, sin], axis=-2)
    return (halves * cos + swapped * sin).reshape(x.shape)
