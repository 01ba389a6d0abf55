"""What a debate makes of a judge who sees a few pixels of an image; see `protocols.revealing`.

The judge is the assistant of a finished round, and stays as it is. All pixels that may be shown are
tried, so that nothing is sampled: the honest side and the liar play perfectly.
"""

import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.oversight.draws import draw_held_out
from amplify.oversight.restore import load_assistant
from amplify.protocols.revealing import (
    HONEST,
    LIAR,
    honest_side_wins,
    places_in_sets,
    sets_of,
    turns,
)
from amplify.store import Store
from amplify.studies.seeds import seconds_taken
from amplify.tasks.problems import SPLITS
from amplify.types import Assistant
from amplify.words import read_answer

TWO, THREE = "two-pixels", "three-pixels"
ARMS = (TWO, THREE)
FIRST_PLACE = 1
"""Token of the first place that a question may show; the others follow."""


class Run(NamedTuple):
    """Shares of images that the judge gets right, in a cell; a mean over who begins."""

    random: float  # any pixels
    alone: float  # those that the honest side chooses alone
    free: float  # debate: the liar wins if the judge says anything else
    committed: float  # debate: the liar named the digit that suits it best, before the first pixel
    random_lie: float  # debate: the liar named any other digit
    random_committed: float  # any pixels; the judge chooses between the truth and the best lie
    images: int  # number of images held out
    seconds: float  # that its rounds and this measurement took

    @property
    def gain(self) -> float:
        """What a debate adds to random pixels."""
        return self.committed - self.random


def measure(store: Store, number: int) -> dict[str, Any]:
    """Plays the debates about all held-out images; see `studies.study`.

    Args:
        store: the cell.
        number: its last round, whose assistant judges.

    Raises:
        AmplifyError: the task does not say which parts of a context may be shown.
    """
    began, experiment = time.monotonic(), store.experiment
    task: Any = experiment.task
    if not hasattr(task, "may_show") or not hasattr(task, "choices"):
        raise AmplifyError(f"{store.path}: debates by revealing need a task such as rounds/digits")
    judge = load_assistant(experiment, store.roles(store.round(number)))
    contexts = _held_out(store)
    found = _play_all(experiment, judge, contexts)
    return {
        **{name: float(value.mean()) for name, value in found.items()},
        "images": len(contexts),
        "seconds": seconds_taken(store, number, began),
    }


def read(results: Mapping[str, Any]) -> Run:
    """Returns what `measure` returned, as read from a file."""
    return Run(**results)


def _held_out(store: Store) -> Int[Array, "images facts fact_length"]:
    """The different contexts of both held-out splits."""
    experiment = store.experiment
    drawn = [
        np.asarray(draw_held_out(experiment, split, getattr(experiment.evals, split)).contexts)
        for split in SPLITS
    ]
    return jnp.asarray(np.unique(np.concatenate(drawn), axis=0))


def _play_all(
    experiment: Experiment,
    judge: PyTree[Array],
    contexts: Int[Array, "images facts fact_length"],
) -> dict[str, Float[np.ndarray, " images"]]:
    """Plays the debates about images, one image at a time to bound memory."""
    task: Any = experiment.task
    answers = jnp.asarray([read_answer(task, choice) for choice in task.choices])
    parts = task.may_show(contexts[0]).shape[0]
    sets, places = (
        jnp.asarray(of(parts, task.question_length)) for of in (sets_of, places_in_sets)
    )
    play = functools.partial(_play, task, experiment.assistant, judge, answers, sets, places)
    found: dict[str, Array] = jax.lax.map(play, contexts)
    return {name: np.asarray(value) for name, value in found.items()}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _play(
    task: Any,
    assistant: Assistant,
    judge: PyTree[Array],
    answers: Int[Array, "choices answer_length"],
    sets: Int[Array, "sets shown"],
    places: Int[Array, "*parts"],
    context: Int[Array, "facts fact_length"],
) -> dict[str, Float[Array, ""]]:
    """Shares of what is judged right about one context."""
    log_prob = _opinions(assistant, judge, answers, sets, context)
    truth = jnp.all(answers == task.truth(context, FIRST_PLACE + sets[0])[None], axis=-1)
    of_truth = jnp.sum(jnp.where(truth[None], log_prob, 0.0), axis=-1, keepdims=True)
    believes = (of_truth > log_prob) | truth[None]  # rather than each other answer
    right = jnp.all(believes, axis=-1)
    may_show = task.may_show(context)
    possible = jnp.all(may_show[sets], axis=-1)
    allowed = (places >= 0) & possible[jnp.maximum(places, 0)]

    def won(convinced: Bool[Array, " sets"]) -> Float[Array, ""]:
        """Share of debates that the honest side wins, over who begins."""
        table = convinced[jnp.maximum(places, 0)]
        wins = [
            honest_side_wins(table, allowed, turns(places.ndim, first)) for first in (HONEST, LIAR)
        ]
        return jnp.mean(jnp.stack(wins).astype(jnp.float32), axis=0)

    against = jax.vmap(won)(believes.T)  # each lie
    by_chance = jnp.mean(believes.astype(jnp.float32), axis=0, where=possible[:, None])
    return {
        "random": jnp.mean(right.astype(jnp.float32), where=possible),
        "alone": jnp.any(right & possible).astype(jnp.float32),
        "free": won(right),
        "committed": jnp.min(against),
        "random_lie": jnp.mean(against, where=~truth),
        "random_committed": jnp.min(by_chance),
    }


def _opinions(
    assistant: Assistant,
    judge: PyTree[Array],
    answers: Int[Array, "choices answer_length"],
    sets: Int[Array, "sets shown"],
    context: Int[Array, "facts fact_length"],
) -> Float[Array, "sets choices"]:
    """How probable the judge finds each answer, after each set of parts, as a logarithm."""
    questions = FIRST_PLACE + sets[None]
    memory = assistant.encode(judge, context[None])

    def opinion(answer: Int[Array, " answer_length"]) -> Float[Array, " sets"]:
        given = jnp.broadcast_to(answer, (*questions.shape[:2], len(answer)))
        return jnp.sum(assistant.log_prob(judge, memory, questions, given), axis=-1)[0]

    return jax.vmap(opinion, out_axes=1)(answers)
