"""Lets people review the answers of a policy, as `preferences.review_by_judge` lets a judge, and
score those of an audit.

Reviews are put up as questions of the task `Reviewing`, so that all that pages and log do for
answers holds for reviews: overlap, checks, undoing, decisions of whoever runs the experiment, and
replay. Who wrote what is not shown, and the order of answers is drawn by chance. A review that was
withdrawn or set aside was not obtained.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int

from amplify import words
from amplify.experiment.sections import Experiment
from amplify.models.reward_model import RewardModelConfig
from amplify.overseers.human import HumanReviewers
from amplify.overseers.judge import Judge, JudgeConfig
from amplify.overseers.reviewers import draw_order
from amplify.oversight.people.collecting import (
    Gathered,
    closed_when_recorded,
    collect,
    recorded_by_people,
)
from amplify.oversight.people.questions import Places, all_places
from amplify.oversight.reviews.preferences import Reviewed, does, review_keys
from amplify.oversight.reviews.samples import Samples
from amplify.oversight.work import Work
from amplify.people.impressions import write_impressions
from amplify.runtime import calls
from amplify.tasks.reviews import LOWEST, Reviewing
from amplify.types import Problems


class PeopleScores(NamedTuple):
    """What people said about the answers of an audit."""

    value: Float32[np.ndarray, "rows per_context"]  # LOWEST to HIGHEST; 0 where there is none
    obtained: Bool[np.ndarray, "rows per_context"]
    facts: Mapping[str, Any]  # entries for the round's record
    trees: list[dict[str, Any]]  # interactions to save


def review_by_people(
    config: RewardModelConfig,
    work: Work,
    stage: str,
    reviews: int,
    problems: Problems,
    samples: Samples,
) -> Reviewed:
    """Waits for people's reviews of answers.

    Args:
        config: says what is reviewed.
        work: the round so far. If the stage's data was recorded, people are not asked again.
        stage: full name of the stage that asks.
        reviews: how many are wanted; if fewer answers differ, those of all that do.
        problems: what was asked.
        samples: the answers.

    Raises:
        AmplifyError: the pages cannot be served.
    """
    keys, number = review_keys(work.experiment, problems), samples.answers.shape[2]
    order = np.asarray(draw_order(keys, number))
    shown = np.take_along_axis(samples.answers, order[..., None], axis=2)
    rows, columns, _, length = shown.shape
    put_up = _with_answers(problems, shown.reshape(rows, columns, number * length))
    places = all_places(_reviewing(work, number), put_up)
    people = _ask(work, stage, put_up, shown, places, min(reviews, len(places)))
    value, obtained = np.zeros(order.shape[:2], np.int32), np.zeros(order.shape[:2], bool)
    facts, trees = {}, []
    if people is not None:
        at = people.rows, people.columns
        said = people.answers[:, 0] - len(work.experiment.task.vocabulary)
        value[at] = said + LOWEST if number == 1 else order[*at, said]
        obtained[at] = True
        # Where the answers begin in the signal, in which each answer is a row of its own.
        trees = [tree | {"column": tree["column"] * number} for tree in people.trees]
        facts = people.facts
    described = f"Round {work.this.number}: people {does(config)}."
    return Reviewed(value, obtained, obtained.astype(np.float32), facts, trees, described)


def score_by_people(
    work: Work,
    stage: str,
    problems: Problems,
    answers: Int[np.ndarray, "rows per_context answer_length"],
    drawn: Bool[np.ndarray, "rows per_context"],
) -> PeopleScores:
    """Waits for people's scores of the answers of an audit that were drawn.

    Each is scored by itself, in an order drawn by chance over all of them, so that nobody can tell
    which of a check's two policies gave it.

    Args:
        work: the round so far. If the stage's data was recorded, people are not asked again.
        stage: full name of the stage that asks.
        problems: what was asked.
        answers: one to each question.
        drawn: which are to be scored.

    Raises:
        AmplifyError: the pages cannot be served, or no answer was scored.
    """
    value, obtained = np.zeros(drawn.shape, np.float32), np.zeros(drawn.shape, bool)
    places = [(int(row), int(column)) for row, column in np.argwhere(drawn)]
    put_up = _with_answers(problems, answers)
    people = _ask(work, stage, put_up, answers[:, :, None], places, len(places))
    if people is None:
        return PeopleScores(value, obtained, {}, [])
    at = people.rows, people.columns
    value[at] = people.answers[:, 0] - len(work.experiment.task.vocabulary) + LOWEST
    obtained[at] = True
    return PeopleScores(value, obtained, people.facts, people.trees)


def _reviewing(work: Work, candidates: int) -> Any:
    return Reviewing(work.experiment.task, candidates)


def _with_answers(
    problems: Problems, answers: Int[np.ndarray, "contexts questions length"]
) -> Problems:
    """Reviews as questions, which consist of a question and of answers to it."""
    texts = [jax.device_get(problems.questions), answers]
    return problems._replace(questions=jnp.asarray(np.concatenate(texts, axis=-1)))


def _ask(
    work: Work,
    stage: str,
    put_up: Problems,
    shown: Int[np.ndarray, "contexts questions candidates answer_length"],
    among: Places,
    items: int,
) -> Gathered | None:
    """Lets people review the answers at some places; None if there are none."""
    if not items:
        return None
    people, task = work.experiment.overseer, _reviewing(work, shown.shape[2])
    assert isinstance(people, HumanReviewers)
    reviewing = dataclasses.replace(work.experiment, task=task, overseer=people.asked(task, items))
    if closed_when_recorded(work.this, stage) is not None:
        gathered = recorded_by_people(reviewing, work.this, stage, put_up)
    else:
        if people.config.people == "simulated":
            _prepare_crowd(work, reviewing, put_up, shown, among)
        gathered = collect(reviewing, work.this, stage, put_up, None, work.watch, among)
    assert gathered is not None
    calls.count(calls.PEOPLE, gathered.facts["human_answers"])
    return gathered


def _prepare_crowd(
    work: Work,
    reviewing: Experiment,
    put_up: Problems,
    shown: Int[np.ndarray, "contexts questions candidates answer_length"],
    among: Places,
) -> None:
    """Writes down what simulated people take the answers to be worth, who have no judgement of
    their own: they go by what a judge sees who checks everything.
    """
    experiment = work.experiment
    questions = put_up.questions[..., : experiment.task.question_length]
    judge = Judge(experiment.task, JudgeConfig())
    made = jax.jit(judge.impressions)(
        {}, put_up.contexts, questions, jnp.asarray(shown), review_keys(experiment, put_up)
    )
    seen = jax.device_get(made.worth)
    tokens = jax.device_get(put_up.questions)
    write_impressions(
        work.this.path.parent,
        {words.format_tokens(reviewing.task, tokens[at]): tuple(seen[at].tolist()) for at in among},
    )
