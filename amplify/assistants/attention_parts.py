"""What attention is given: queries, and parts that they attend to, with where tokens stand."""

import dataclasses
from typing import NamedTuple

from jaxtyping import Array, Float, Int

NOWHERE = -1
"""Position of what is only there to fill up a shape."""

Queries = Float[Array, "batch key_heads n length group head_width"]
"""Of n sequences; `group` query heads share a key head."""
LogSumExp = Float[Array, "batch key_heads n length group"]
"""Of each query's scores, in float32."""
KeysAndValues = tuple[Float[Array, "..."], Float[Array, "..."]]
"""Of one layer."""


class Places(NamedTuple):
    """Where tokens stand."""

    positions: Int[Array, "batch #n length"]  # NOWHERE: padding
    segments: Int[Array, "batch n length"] | None = None  # tokens see their own segment alone

    def of(self, tokens: slice) -> "Places":
        """Of some tokens."""
        segments = None if self.segments is None else self.segments[:, :, tokens]
        return Places(self.positions[:, :, tokens], segments)


class Part(NamedTuple):
    """Keys and values, and where their tokens stand.

    Those of the sequences themselves have an axis `n`, those of a shared past have not.
    """

    keys: Float[Array, "batch key_heads *n seen head_width"]
    values: Float[Array, "batch key_heads *n seen head_width"]
    places: Places

    @property
    def shared(self) -> bool:
        return self.keys.ndim == 4

    def until(self, end: int) -> "Part":
        """The first tokens."""
        return Part(self.keys[..., :end, :], self.values[..., :end, :], self.places.of(slice(end)))


@dataclasses.dataclass(frozen=True)
class Rules:
    """What of attention is known when it is compiled."""

    scale: float  # of the scores
    cap: float | None = None  # scores are squeezed into -cap..cap
    windowed: bool = True  # False: the window is wider than whatever is seen
    in_order: bool = False  # the sequence has no past, and its padding comes last


def compact(array: Float[Array, "*b seen head_width"]) -> Float[Array, "*c seen head_width"]:
    """Without leading axes of length 1. Products then read a cache as it lies in memory: where XLA
    finds such an axis, it updates a second copy of the cache, of another shape.
    """
    return array.reshape(*(size for size in array.shape[:-2] if size > 1), *array.shape[-2:])
