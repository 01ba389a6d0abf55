"""Types and shapes shared by the implementations of attention."""

import dataclasses
from typing import NamedTuple

from jaxtyping import Array, Float, Int

PADDING = -1
"""Value of token ids, position ids and segment ids that only fill up a shape."""

Queries = Float[Array, "batch key_heads n length group head_width"]
"""Queries of `n` sequences; `group` query heads share a key head (grouped-query attention)."""
LogSumExp = Float[Array, "batch key_heads n length group"]
"""Log-sum-exp of each query's scores, in float32."""
KeysAndValues = tuple[Float[Array, "..."], Float[Array, "..."]]
"""Keys and values of one layer."""


class TokenPositions(NamedTuple):
    """Position ids and segment ids of tokens. PADDING marks padding."""

    positions: Int[Array, "batch #n length"]
    segments: Int[Array, "batch n length"] | None = None  # tokens attend within their segment

    def take(self, tokens: slice) -> "TokenPositions":
        """Returns the ids of a slice of the tokens."""
        segments = None if self.segments is None else self.segments[:, :, tokens]
        return TokenPositions(self.positions[:, :, tokens], segments)


class KVBlock(NamedTuple):
    """Keys and values of one layer, with their positions.

    A block of the sequences themselves has an axis `n`; a prefix that all `n` sequences of a batch
    row share has none.
    """

    keys: Float[Array, "batch key_heads *n key_length head_width"]
    values: Float[Array, "batch key_heads *n key_length head_width"]
    positions: TokenPositions

    @property
    def is_shared(self) -> bool:
        """Whether all sequences of a batch row attend to the same keys."""
        return self.keys.ndim == 4

    def first(self, count: int) -> "KVBlock":
        """Returns the block's first `count` tokens."""
        positions = self.positions.take(slice(count))
        return KVBlock(self.keys[..., :count, :], self.values[..., :count, :], positions)


@dataclasses.dataclass(frozen=True)
class AttentionOptions:
    """What is static when attention is compiled."""

    scale: float
    """Multiplies the scores."""
    cap: float | None = None
    """Soft cap: scores become `cap * tanh(scores / cap)`."""
    windowed: bool = True
    """False: the sliding window is longer than any sequence and need not be applied."""
    is_causal: bool = False
    """Whether query i simply attends to keys 0..i: positions count up from the first token, padding
    comes last, and there is no prefix."""


def drop_unit_axes(
    array: Float[Array, "*b key_length head_width"],
) -> Float[Array, "*c key_length head_width"]:
    """Drops leading axes of length 1.

    Matrix products then read a KV cache in the layout that it has in memory. With such axes, XLA
    updates a second copy of the cache, of another shape.
    """
    return array.reshape(*(size for size in array.shape[:-2] if size > 1), *array.shape[-2:])
