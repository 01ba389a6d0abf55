"""Positions as rotations of queries and keys: Su et al. 2021 (arXiv:2104.09864); and how models are
stretched to longer contexts than they were trained on.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class Rotary:
    """Positions as rotations of queries and keys."""

    theta: float
    scaling: Literal["default", "linear", "llama3"] = "default"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    trained_positions: int = 8192  # before the scaling of Llama 3

    def frequencies(self, head_width: int) -> np.ndarray:
        """Radians a position, of shape (head_width / 2,)."""
        plain = self.theta ** -(np.arange(0, head_width, 2, dtype=np.float32) / head_width)
        if self.scaling == "default":
            return plain
        if self.scaling == "linear":
            return plain / self.factor
        # Llama 3 slows down what turns less than `low` times within the positions trained on,
        # leaves what turns more than `high` times, and goes from one to the other in between.
        turns = self.trained_positions * plain / (2 * np.pi)
        low, high = self.low_frequency_factor, self.high_frequency_factor
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return (kept + (1 - kept) / self.factor) * plain


def rotations(
    positions: Int[Array, "*b"], frequencies: Float[Array, " half"]
) -> tuple[Float[Array, "*b 1 half"], Float[Array, "*b 1 half"]]:
    """Cosines and sines by which the heads of each token are turned."""
    angles = jnp.einsum("...,f->...f", positions.astype(jnp.float32), frequencies)[..., None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "*b heads head_width"],
    rotation: tuple[Float[Array, "*b 1 half"], Float[Array, "*b 1 half"]],
) -> Float[Array, "*b heads head_width"]:
    """Turns pairs of a head's numbers, each one from its first half and one from its second."""
    cos, sin = (part.astype(x.dtype)[..., None, :] for part in rotation)
    halves = x.reshape(*x.shape[:-1], 2, -1)
    # The halves change places by an index, and not by putting slices together: that is one loop.
    swapped = jax.lax.rev(halves, (halves.ndim - 2,))
    sin = jnp.concatenate([-sin, sin], axis=-2)
    return (halves * cos + swapped * sin).reshape(x.shape)
