"""Lets people review the answers of a policy, as `preferences.review_by_judge` lets a judge.

Reviews are put up as questions of the task `Reviewing`, so that all that pages and log do for
answers holds for reviews: overlap, checks, undoing, decisions of whoever runs the experiment, and
replay. Who wrote what is not shown, and the order of answers is drawn by chance. A review that was
withdrawn or set aside was not obtained.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

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
from amplify.oversight.people.questions import all_places
from amplify.oversight.reviews.preferences import Reviewed, Samples, does, review_keys
from amplify.oversight.work import Work
from amplify.people.impressions import write_impressions
from amplify.runtime import calls
from amplify.tasks.reviews import LOWEST, Reviewing
from amplify.types import Problems


def review_by_people(
    config: RewardModelConfig, work: Work, problems: Problems, samples: Samples
) -> Reviewed:
    """Waits for people's reviews of answers.

    Args:
        config: says what is reviewed.
        work: the round so far. If its data was recorded, people are not asked again. A round has
            one phase that asks people.
        problems: what was asked.
        samples: the answers.

    Raises:
        AmplifyError: the pages cannot be served.
    """
    keys, number = review_keys(work.experiment, problems), samples.answers.shape[2]
    order = np.asarray(draw_order(keys, number))
    shown = np.take_along_axis(samples.answers, order[..., None], axis=2)
    people = _ask(work, problems, shown)
    value, obtained = np.zeros(order.shape[:2], np.int32), np.zeros(order.shape[:2], bool)
    facts, trees = {}, []
    if people is not None:
        at = people.rows, people.columns
        said = people.answers[:, 0] - len(work.experiment.task.vocabulary)
        value[at] = said + LOWEST if number == 1 else order[*at, said]
        obtained[at] = True
        calls.count(calls.PEOPLE, people.facts["human_answers"])
        # Where the answers begin in the signal, in which each answer is a row of its own.
        trees = [tree | {"column": tree["column"] * number} for tree in people.trees]
        facts = people.facts
    described = f"Round {work.this.number}: people {does(config)}."
    return Reviewed(value, obtained, obtained.astype(np.float32), facts, trees, described)


def _ask(
    work: Work,
    problems: Problems,
    shown: Int[np.ndarray, "contexts questions candidates answer_length"],
) -> Gathered | None:
    """Lets people review as many questions' answers as the experiment wants, or all different ones
    if there are fewer; None if there are none.
    """
    rows, columns, number, _ = shown.shape
    texts = [jax.device_get(problems.questions), shown.reshape(rows, columns, -1)]
    put_up = problems._replace(questions=jnp.asarray(np.concatenate(texts, axis=-1)))
    task: Any = Reviewing(work.experiment.task, number)
    places = all_places(task, put_up)
    if not places:
        return None
    people = work.experiment.overseer
    assert isinstance(people, HumanReviewers)
    items = min(people.config.items, len(places))
    reviewing = dataclasses.replace(work.experiment, task=task, overseer=people.asked(task, items))
    if closed_when_recorded(work.this) is not None:
        return recorded_by_people(reviewing, work.this, put_up)
    if people.config.people == "simulated":
        _prepare_crowd(work, reviewing, put_up, shown)
    return collect(reviewing, work.this, put_up, None, work.watch)


def _prepare_crowd(
    work: Work,
    reviewing: Experiment,
    put_up: Problems,
    shown: Int[np.ndarray, "contexts questions candidates answer_length"],
) -> None:
    """Writes down what simulated people take the answers to be worth, who have no judgement of
    their own: they go by what a judge sees who checks everything.
    """
    experiment = work.experiment
    questions = put_up.questions[..., : experiment.task.question_length]
    judge = Judge(experiment.task, JudgeConfig())
    made = jax.jit(judge.impressions)(
        put_up.contexts, questions, jnp.asarray(shown), review_keys(experiment, put_up)
    )
    seen = jax.device_get(made.worth)
    tokens = jax.device_get(put_up.questions)
    write_impressions(
        work.this.path.parent,
        {
            words.format_tokens(reviewing.task, tokens[at]): tuple(seen[at].tolist())
            for at in all_places(reviewing.task, put_up)
        },
    )
