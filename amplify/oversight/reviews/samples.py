"""Answers that are reviewed: a policy's, or drafts.

Where reviews are to be of some kinds of answers only, the policy's will not do: nearly all of its
essays make claims of many families. So a writer of drafts keeps to these kinds, see
`task_abilities.focused_draft_of`. In the first round that is nearly the same, because the policy
has only imitated drafts.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree

from amplify.experiment.sections import Experiment
from amplify.models.reward_model import FOLDS
from amplify.oversight.restore import phase_stream
from amplify.oversight.work import Work
from amplify.runtime import calls
from amplify.task_abilities import Draft, draft_of, focused_draft_of
from amplify.tasks.batching import fold_in, vmap_questions
from amplify.tasks.problems import answer_keys, columns_in_chunks, draw_problems
from amplify.trees.amplification import contexts_for
from amplify.types import Assistant, Problems, Task

REVIEWS = "reviews"
"""Name of the phase that trains the reward model on reviews; after a restart: `reviews_40`."""
ReviewsOf = Literal["policy", "drafts", "focused-drafts"]
"""Whose answers are reviewed."""


class Samples(NamedTuple):
    """Answers to be reviewed."""

    answers: Int[np.ndarray, "contexts questions candidates answer_length"]
    fold: Int[np.ndarray, "contexts questions"]  # that the review belongs to


def draw_problems_to_review(work: Work, phase: str, reviews: int) -> Problems:
    """Draws the questions whose answers are reviewed.

    Args:
        work: the round so far.
        phase: name of the phase that they belong to.
        reviews: number of reviews, rounded up to whole contexts.
    """
    experiment, number = work.experiment, work.this.number
    return draw_problems(
        experiment.task,
        experiment.seed,
        number if phase == REVIEWS else phase_stream(phase, number),
        "train",
        -(-reviews // experiment.questions.per_context),
        experiment.all_depths,
        apart=experiment.evals.apart,
    )


def sample_answers(
    experiment: Experiment, params: PyTree[Array], problems: Problems, number: int
) -> Samples:
    """Samples a policy's answers to every question.

    Args:
        experiment: its task, assistant and seed.
        params: of the assistant that is sampled.
        problems: what is asked; they decide every draw, however they are batched.
        number: of answers to each question.
    """
    root = jax.random.key(experiment.seed)
    sample = functools.partial(_sample, experiment.task, experiment.assistant, number, params, root)
    found = columns_in_chunks(sample, problems, place=experiment.mesh.here.row_sharding)
    calls.count(calls.ASSISTANT, number * found["fold"].size)
    return Samples(found["answers"], found["fold"])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sample(
    task: Task,
    assistant: Assistant,
    number: int,
    params: PyTree[Array],
    root: Key[Array, ""],
    problems: Problems,
) -> dict[str, Array]:
    contexts, questions = problems.contexts, problems.questions
    memory = assistant.encode(params, contexts_for(task, contexts, questions))
    return _write(
        lambda keys: assistant.answer(params, memory, questions, keys).tokens,
        number,
        root,
        problems,
    )


def write_drafts(
    experiment: Experiment, problems: Problems, number: int, kind: ReviewsOf
) -> Samples:
    """Writes drafts as answers to every question.

    Args:
        experiment: its task, which has such drafts, and its seed.
        problems: what is asked; they decide every draw, however they are batched.
        number: of drafts for each question.
        kind: "drafts", or "focused-drafts", which are about what the task has in focus only.
    """
    draft = (draft_of if kind == "drafts" else focused_draft_of)(experiment.task)
    assert draft is not None  # checked when the experiment file was read
    write = functools.partial(_write_drafts, draft, number, jax.random.key(experiment.seed))
    found = columns_in_chunks(write, problems, place=experiment.mesh.here.row_sharding)
    return Samples(found["answers"], found["fold"])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _write_drafts(
    draft: Draft, number: int, root: Key[Array, ""], problems: Problems
) -> dict[str, Array]:
    asked = (problems.contexts, problems.questions)
    return _write(lambda keys: vmap_questions(draft)(*asked, keys), number, root, problems)


def _write(
    answer: Callable[[Key[Array, "batch questions"]], Int[Array, "batch questions answer_length"]],
    number: int,
    root: Key[Array, ""],
    problems: Problems,
) -> dict[str, Array]:
    """Several answers to each question, and the fold that their review belongs to."""
    keys = answer_keys(root, problems.seeds, problems.questions.shape[1])
    # 2 is the reviewer's and 3 that of folds.
    answers = [answer(fold_in(keys, place + 2 * (place > 1))) for place in range(number)]
    draw_fold = jax.vmap(jax.vmap(lambda key: jax.random.randint(key, (), 0, FOLDS)))
    return {"answers": jnp.stack(answers, axis=2), "fold": draw_fold(fold_in(keys, 3))}


def check_reviews_of(reviews_of: ReviewsOf, task: Task, *, only_reviews: bool) -> None:
    """Checks that a task has the answers that are to be reviewed, and that nothing else is.

    Args:
        reviews_of: `oversight.reviews_of`.
        task: the task.
        only_reviews: whether nobody but the reward model sees answers of the policy.

    Raises:
        ValueError: if not.
    """
    if reviews_of != "focused-drafts":
        return
    named = 'oversight.reviews_of = "focused-drafts"'
    if focused_draft_of(task) is None:
        raise ValueError(f"{named} needs a task with a focus: set task.focus, which essays have")
    if not only_reviews:
        raise ValueError(
            f'{named} needs oversight.audit.every = 0 and oversight.reward = "reward-model":'
            " audits, and a judge who rewards, see answers that are not in focus"
        )
