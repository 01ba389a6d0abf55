"""Lets people compare the answers of a policy.

Comparisons are put up as questions of the task `Comparisons`, so that all that pages and log do for
answers holds for reviews: overlap, checks, undoing, decisions of whoever runs the experiment, and
replay. Who wrote what is not shown, and the order of two answers is drawn by chance. A comparison
that was withdrawn or set aside is a review that was not obtained.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from amplify import words
from amplify.experiment.sections import Experiment
from amplify.overseers.human import HumanReviewers
from amplify.overseers.judge import Judge, JudgeConfig
from amplify.overseers.reviewers import draw_order
from amplify.oversight.people.collecting import (
    Gathered,
    closed_when_recorded,
    collect,
    recorded_by_people,
)
from amplify.oversight.people.questions import all_places
from amplify.oversight.preferences import as_signal, review_keys, sample_pairs, with_earlier
from amplify.oversight.work import WEIGHT, Made, Work
from amplify.people.impressions import write_impressions
from amplify.runtime import calls
from amplify.tasks.reviews import Comparisons
from amplify.types import Problems


def review_by_people(phase: str, work: Work, params: PyTree[Array], problems: Problems) -> Made:
    """Samples two answers to every question, and waits for people's comparisons.

    Args:
        phase: the name of the phase, of which a round has one that asks people.
        work: the round so far. If its data was recorded, people are not asked again.
        params: of the assistant that is sampled.
        problems: what is asked.

    Raises:
        AmplifyError: the pages cannot be served, or there are too few reviews to learn from.
    """
    columns = sample_pairs(work.experiment, params, problems)
    swapped = np.asarray(draw_order(review_keys(work.experiment, problems)))
    people = _compare(work, problems, columns, swapped)
    prefers = np.zeros(swapped.shape, np.int32)
    weight = np.zeros(swapped.shape, np.float32)
    facts, trees = {}, []
    if people is not None:
        at = people.rows, people.columns
        said_b = people.answers[:, 0] - len(work.experiment.task.vocabulary)
        prefers[at], weight[at] = said_b == swapped[at], 1
        calls.count(calls.PEOPLE, people.facts["human_answers"])
        facts, trees = people.facts, people.trees
    signal = as_signal(problems, columns | {"prefers_first": prefers, WEIGHT: weight})
    return Made(
        with_earlier(work, signal, phase),
        trees,
        {"reviews": int(weight.sum())} | facts,
        f"Round {work.this.number}: people compare two answers.",
    )


def _compare(
    work: Work,
    problems: Problems,
    columns: dict[str, np.ndarray],
    swapped: Int[np.ndarray, "batch questions"],
) -> Gathered | None:
    """Lets people compare as many pairs as the experiment wants, or all different ones if there are
    fewer; None if there are none.
    """
    second = swapped[..., None] == 1
    shown = [
        np.where(second, columns["others"], columns["answers"]),
        np.where(second, columns["answers"], columns["others"]),
    ]
    asked = np.concatenate([jax.device_get(problems.questions), *shown], axis=-1)
    put_up = problems._replace(questions=jnp.asarray(asked))
    comparisons: Any = Comparisons(work.experiment.task)
    places = all_places(comparisons, put_up)
    if not places:
        return None
    people = work.experiment.overseer
    assert isinstance(people, HumanReviewers)
    items = min(people.config.items, len(places))
    reviewing = dataclasses.replace(
        work.experiment, task=comparisons, overseer=people.asked(comparisons, items)
    )
    if closed_when_recorded(work.this) is not None:
        return recorded_by_people(reviewing, work.this, put_up)
    if people.config.people == "simulated":
        _prepare_crowd(work, reviewing, put_up, shown)
    return collect(reviewing, work.this, put_up, None, work.watch)


def _prepare_crowd(
    work: Work, reviewing: Experiment, put_up: Problems, shown: list[np.ndarray]
) -> None:
    """Writes down what simulated people take the answers to be worth, who have no judgement of
    their own: they go by what a judge sees who checks everything.
    """
    experiment = work.experiment
    questions = put_up.questions[..., : experiment.task.question_length]
    judge = Judge(experiment.task, JudgeConfig())
    first, second = jax.device_get(
        jax.jit(judge.impressions)(
            put_up.contexts, questions, *map(jnp.asarray, shown), review_keys(experiment, put_up)
        )
    )
    tokens = jax.device_get(put_up.questions)
    write_impressions(
        work.this.path.parent,
        {
            words.format_tokens(reviewing.task, tokens[at]): (float(first[at]), float(second[at]))
            for at in all_places(reviewing.task, put_up)
        },
    )
