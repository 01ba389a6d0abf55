"""What a model may have beside what every assistant or overseer has (`types.Assistant`,
`types.OverseerKind`): weights from elsewhere, parameters that stay as they are, rows of its own
form, something to prepare.

An ability is a method of the model; a model that lacks it, or has None in its place, does without.
Nothing is inherited. Whoever needs an ability asks for it here and gets it as a value, or what is
done without it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from amplify.types import Place


def loader_of(model: Any) -> Callable[[Place], PyTree[Array] | None] | None:
    """How a model's weights are read, where they come from somewhere.

    Args:
        model: has, or lacks, a method `load(place)`; the argument says where each parameter goes.

    Returns:
        The method. It returns the weights, in the shape of those that `init` draws, or None if they
        are to be drawn; and raises AmplifyError if they cannot be read. None where a model has no
        such method.
    """
    return getattr(model, "load", None)


def exporter_of(model: Any) -> Callable[[PyTree[Array], Path], None] | None:
    """How a model's weights are written as a folder that other libraries open.

    Args:
        model: has, or lacks, a method `export(params, out)`.

    Returns:
        The method, which raises AmplifyError if the folder is there already, or there is nothing to
        make it like. None where a model has no such method.
    """
    return getattr(model, "export", None)


def preparer_of(part: Any) -> Callable[[], None] | None:
    """How a task, an assistant or an overseer builds what takes a while, such as a search index or
    a tokenizer. It is built on first use, so that an experiment file is read at once; rounds have
    it built, and whatever needs it checked, before the first one writes anything.

    Args:
        part: has, or lacks, a method `prepare()`.

    Returns:
        The method, which raises AmplifyError if that fails, or if the values of the experiment file
        do not suit it. None where there is nothing to build.
    """
    return getattr(part, "prepare", None)


def gives_answers(overseer: Any) -> bool:
    """Whether an overseer answers questions; otherwise it only judges the answers of others.

    Args:
        overseer: its `using` is a method, or None.
    """
    return getattr(overseer, "using", None) is not None


def simulates_person(overseer: Any) -> bool:
    """Whether an overseer stands for a person, so that what it does counts as human effort.

    Args:
        overseer: its `simulates_person` is True, or it has none.
    """
    return getattr(overseer, "simulates_person", False)


def layout_of(model: Any) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """The form in which a model trains on a data set's rows.

    Args:
        model: has, or lacks, a method `lay_out(rows)`.

    Returns:
        The method: it takes all rows at once, as columns, to columns with an entry for each row,
        which the loss takes in their place. Without one, rows stay as they are.
    """
    return getattr(model, "lay_out", None) or dict


class Trainable(NamedTuple):
    """Which of a model's parameters are trained."""

    split: Callable[[PyTree[Array]], tuple[PyTree[Array], PyTree[Array]]]
    """Takes all parameters to those that are trained, and those that stay as they are."""
    join: Callable[[PyTree[Array], PyTree[Array]], PyTree[Array]]
    """Takes the two parts to all parameters again."""


EVERYTHING = Trainable(lambda params: (params, ()), lambda trained, kept: trained)
"""All parameters are trained."""


def trainable_of(model: Any) -> Trainable:
    """Which of a model's parameters are trained.

    Args:
        model: has, or lacks, methods `split(params)` and `join(trained, kept)`.

    Returns:
        EVERYTHING where it does not say.
    """
    split, join = (getattr(model, name, None) for name in Trainable._fields)
    return EVERYTHING if split is None or join is None else Trainable(split, join)


class Chosen(NamedTuple):
    """What a model chose of an answer."""

    tokens: Bool[Array, "*b answer_length"]
    """True for the tokens that it chose, its end included; False for padding after the end."""
    ended: Bool[Array, "*b"]
    """False: the answer is as long as an answer may be, and the model did not end it."""


def chooser_of(model: Any) -> Callable[[Int[Array, "*b answer_length"]], Chosen]:
    """Which tokens of its answers a model chooses, and whether it ended them.

    Args:
        model: has, or lacks, a method `chosen(answers)`.

    Returns:
        The method. A model without one always chooses all tokens, so that none of its answers is
        unfinished.
    """

    def everything(answers: Int[Array, "*b answer_length"]) -> Chosen:
        return Chosen(jnp.ones(answers.shape, bool), jnp.ones(answers.shape[:-1], bool))

    return getattr(model, "chosen", None) or everything
