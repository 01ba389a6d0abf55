"""Sequence packing: several questions with their answers in one sequence, each in its own segment.

Questions have many lengths; with one per sequence, most of a batch would be padding. A packed
question is trained on as if it stood alone: its tokens attend to the context and to their own
segment, and positions count from the end of the context. Packs a whole data set at once, in NumPy,
before training begins.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from amplify.models.attention.attention_parts import PADDING

LENGTH_MULTIPLE = 8
"""Lengths of packed sequences are a multiple of this, so that few shapes are compiled."""


class Packed(NamedTuple):
    """Contexts, and the sequences of questions with answers that follow them.

    Token ids are the model's, except for those of `targets`, which are the task's. PADDING marks
    padding in every field but the weights.
    """

    context: Int[Array, "batch context_length"]
    tokens: Int[Array, "batch sequences length"]
    positions: Int[Array, "batch sequences length"]  # relative to the end of the context, from 1
    segments: Int[Array, "batch sequences length"]  # number of the question about its context
    target_indices: Int[Array, "batch sequences targets"]  # of the token that predicts each target
    targets: Int[Array, "batch sequences targets"]  # tokens of the answers
    weights: Float[Array, "batch sequences targets"] | None = None  # of the loss; None: all are 1


class Placement(NamedTuple):
    """Where each question goes."""

    sequence: Int[np.ndarray, "batch questions"]
    start: Int[np.ndarray, "batch questions"]  # index of the question's first token


def pack(unpacked: Packed) -> dict[str, np.ndarray]:
    """Packs questions into fewer sequences, without padding between their tokens.

    Args:
        unpacked: one question in each sequence.

    Returns:
        The fields of a `Packed`, by name; without `weights` if there are none.
    """
    context, tokens, positions, segments, indices, targets = map(np.asarray, unpacked[:-1])
    is_token, is_target = tokens != PADDING, targets != PADDING
    placement, length = choose_packing(is_token.sum(axis=-1))
    number = np.cumsum(is_token, axis=-1) - 1  # of a token in its question
    indices = placement.start[..., None] + np.take_along_axis(number, np.maximum(indices, 0), -1)
    token_places = _places(is_token, placement.sequence, placement.start)
    first_target = _count_before(placement, is_target.sum(axis=-1))
    target_places = _places(is_target, placement.sequence, first_target)
    target_count = 1 + int(target_places.position.max())

    def move(field: np.ndarray, kept: np.ndarray, places: Places, length: int) -> np.ndarray:
        packed = np.full((len(field), 1 + placement.sequence.max(), length), PADDING, field.dtype)
        packed[places] = field[kept]
        return packed

    weights = {}
    if unpacked.weights is not None:
        given = np.asarray(unpacked.weights)
        weights["weights"] = move(given, is_target, target_places, target_count)
    return weights | {
        "context": _trim_padding(context),
        "tokens": move(tokens, is_token, token_places, length),
        "positions": move(positions, is_token, token_places, length),
        "segments": move(segments, is_token, token_places, length),
        "target_indices": move(indices, is_target, target_places, target_count),
        "targets": move(targets, is_target, target_places, target_count),
    }


def choose_packing(lengths: Int[np.ndarray, "batch questions"]) -> tuple[Placement, int]:
    """Chooses the sequence length that needs the fewest tokens, padding included.

    Args:
        lengths: tokens of each question with its answer.

    Returns:
        Where each question goes, and the length of a sequence.
    """
    longest = -(-int(lengths.max(initial=1)) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    candidates = [
        (length, _first_fit_decreasing(lengths, length))
        for length in range(longest, 4 * longest + 1, LENGTH_MULTIPLE)
    ]
    length, placement = min(candidates, key=lambda one: one[0] * int(one[1].sequence.max() + 1))
    return placement, length


def _first_fit_decreasing(
    lengths: Int[np.ndarray, "batch questions"], sequence_length: int
) -> Placement:
    """Puts each question into the first sequence that has room for it, the longest first."""
    rows = np.arange(len(lengths))
    used, sequence, start = (np.zeros_like(lengths) for _ in range(3))
    for question in np.argsort(-lengths, axis=1, kind="stable").T:  # one of each context at a time
        length = lengths[rows, question]
        into = np.argmax(used + length[:, None] <= sequence_length, axis=1)
        sequence[rows, question], start[rows, question] = into, used[rows, into]
        used[rows, into] += length
    return Placement(sequence, start)


def _count_before(
    placement: Placement, counts: Int[np.ndarray, "batch questions"]
) -> Int[np.ndarray, "batch questions"]:
    """For each question, the sum of `counts` over the questions before it in its sequence."""
    same_sequence = placement.sequence[:, :, None] == placement.sequence[:, None]
    earlier = placement.start[:, None] < placement.start[:, :, None]
    return np.einsum("bij,bj->bi", same_sequence & earlier, counts)


class Places(NamedTuple):
    """Where entries go, as an index into an array of sequences."""

    context: Int[np.ndarray, " entries"]
    sequence: Int[np.ndarray, " entries"]
    position: Int[np.ndarray, " entries"]


def _places(
    kept: Bool[np.ndarray, "batch questions n"],
    sequence: Int[np.ndarray, "batch questions"],
    start: Int[np.ndarray, "batch questions"],
) -> Places:
    """Where the entries of `field[kept]` go, in their order."""
    position = start[..., None] + np.cumsum(kept, axis=-1) - 1
    context, question, _ = np.nonzero(kept)
    return Places(context, sequence[context, question], position[kept])


def _trim_padding(tokens: Int[np.ndarray, "batch length"]) -> Int[np.ndarray, "batch shorter"]:
    """Cuts off padding that all rows end with, up to a multiple of LENGTH_MULTIPLE."""
    longest = int((tokens != PADDING).sum(axis=-1).max(initial=1))
    return tokens[:, : -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE]
