"""Questions with their answers as a language model is trained on them: several to a line, each in a
segment of its own that sees the context and itself, and no other.

Questions are of many lengths; one to a line, most lines would be half empty. What is packed is
trained on as if it were not: positions are counted from the context's end, whatever stands in front
in the line. Works on a whole data set at once, in numpy, before training begins.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

PADDING = -1
"""In every field below: nothing is there."""
STEP = 8
"""Lines are a multiple of so many tokens, so that few shapes are ever compiled for."""


class Packed(NamedTuple):
    """Contexts and the lines that follow them, in tokens of the model."""

    context: Int[Array, "batch length"]
    tokens: Int[Array, "batch lines room"]
    distances: Int[Array, "batch lines room"]  # of a token from the context's end, from 1 on
    segments: Int[Array, "batch lines room"]  # number of the question, counted in its context
    places: Int[Array, "batch lines said"]  # in the line: after which token a word is to be said
    words: Int[Array, "batch lines said"]  # which, of the task's tokens
    weights: Float[Array, "batch lines said"] | None = None  # of each word's loss; None: all 1


class Fit(NamedTuple):
    """Where each question goes."""

    line: Int[np.ndarray, "batch questions"]
    start: Int[np.ndarray, "batch questions"]  # in the line


def pack(loose: Packed) -> dict[str, np.ndarray]:
    """The same questions, given one to a line, in fewer lines and without padding between them: the
    fields of a `Packed`.
    """
    context, tokens, distances, segments, places, words = map(np.asarray, loose[:-1])
    there, said = tokens != PADDING, words != PADDING
    fit, room = best_fit(there.sum(axis=-1))
    number = np.cumsum(there, axis=-1) - 1  # of a token, counted in its question
    places = fit.start[..., None] + np.take_along_axis(number, np.maximum(places, 0), -1)
    token_to = _targets(there, fit.line, fit.start)
    word_to = _targets(said, fit.line, _before_in_line(fit, said.sum(axis=-1)))

    most = 1 + int(word_to.place.max())  # words said in a line

    def moved(field: np.ndarray, kept: np.ndarray, to: Targets, length: int) -> np.ndarray:
        new = np.full((len(field), 1 + fit.line.max(), length), PADDING, field.dtype)
        new[to] = field[kept]
        return new

    weights = {}
    if loose.weights is not None:
        weights["weights"] = moved(np.asarray(loose.weights), said, word_to, most)
    return weights | {
        "context": _as_long_as_needed(context),
        "tokens": moved(tokens, there, token_to, room),
        "distances": moved(distances, there, token_to, room),
        "segments": moved(segments, there, token_to, room),
        "places": moved(places, said, word_to, most),
        "words": moved(words, said, word_to, most),
    }


def best_fit(lengths: Int[np.ndarray, "batch questions"]) -> tuple[Fit, int]:
    """The room of a line, and how questions fill lines, so that all together are shortest."""
    longest = -(-int(lengths.max(initial=1)) // STEP) * STEP
    tried = [(room, _first_fit(lengths, room)) for room in range(longest, 4 * longest + 1, STEP)]
    room, fit = min(tried, key=lambda one: one[0] * int(one[1].line.max() + 1))
    return fit, room


def _first_fit(lengths: Int[np.ndarray, "batch questions"], room: int) -> Fit:
    """Each question goes into the first line that has room for it, the longest first."""
    rows = np.arange(len(lengths))
    used, line, start = np.zeros_like(lengths), np.zeros_like(lengths), np.zeros_like(lengths)
    for question in np.argsort(-lengths, axis=1, kind="stable").T:  # one of each context at a time
        length = lengths[rows, question]
        into = np.argmax(used + length[:, None] <= room, axis=1)
        line[rows, question], start[rows, question] = into, used[rows, into]
        used[rows, into] += length
    return Fit(line, start)


def _before_in_line(
    fit: Fit, counts: Int[np.ndarray, "batch questions"]
) -> Int[np.ndarray, "batch questions"]:
    """How many of `counts` the questions have that stand before each in its line."""
    same_line = fit.line[:, :, None] == fit.line[:, None]
    earlier = fit.start[:, None] < fit.start[:, :, None]
    return np.einsum("bij,bj->bi", same_line & earlier, counts)


class Targets(NamedTuple):
    """Where each entry goes, as an index."""

    context: Int[np.ndarray, " entries"]
    line: Int[np.ndarray, " entries"]
    place: Int[np.ndarray, " entries"]


def _targets(
    there: Bool[np.ndarray, "batch questions n"],
    line: Int[np.ndarray, "batch questions"],
    start: Int[np.ndarray, "batch questions"],
) -> Targets:
    """Of all that is there, in the order of `field[there]`."""
    place = start[..., None] + np.cumsum(there, axis=-1) - 1
    context, question, _ = np.nonzero(there)
    return Targets(context, line[context, question], place[there])


def _as_long_as_needed(tokens: Int[np.ndarray, "batch length"]) -> Int[np.ndarray, "batch shorter"]:
    """Without the padding that all end with; in steps."""
    longest = -(-int((tokens != PADDING).sum(axis=-1).max(initial=1)) // STEP) * STEP
    return tokens[:, :longest]
