"""Reviews of pairs of answers, and the objective that teaches a reward model to predict them.

Bradley and Terry 1952: a reward is a number such that the difference between two rewards is the
log-odds that one answer is preferred. Christiano et al. 2017 (arXiv:1706.03741), section 2.2.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key, PyTree, Shaped

from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.models.reward_model import FOLDS, RewardModel
from amplify.overseers.reviewers import Reviewer
from amplify.oversight.work import WEIGHT, Work
from amplify.records.record import phases
from amplify.runtime import calls
from amplify.tasks.batching import fold_in
from amplify.tasks.problems import answer_keys, columns_in_chunks
from amplify.training import dataset
from amplify.training.phase import Metrics
from amplify.trees.amplification import contexts_for
from amplify.types import Assistant, Problems, Roles, Task

COLUMNS = ("questions", "answers", "others", "prefers_first", "fold")
"""Columns of reviews that a reward model is trained on: of two answers to each question, whether
the first is preferred, and the fold that the review belongs to."""
REVIEWS = "reviews"
"""Name of the phase that trains the reward model on comparisons; after a restart: `reviews_40`."""
JUDGE = "judge"
"""The part that reviews, in the ledger."""


@dataclasses.dataclass(frozen=True)
class PredictPreferences:
    """Objective of a reward model: the cross-entropy of preferences, by Bradley and Terry's model.

    Member i of the ensemble is trained on all folds but fold i, and measured on that one.
    """

    model: RewardModel

    def __call__(
        self, params: PyTree[Array], frozen: Roles, batch: dict[str, Array]
    ) -> tuple[Array, Metrics]:
        first, second = (
            self.model.rewards(params, batch["questions"], batch[name])
            for name in ("answers", "others")
        )
        margin = first - second
        wanted, fold, weight = (
            jnp.broadcast_to(column, margin.shape)
            for column in (
                batch["prefers_first"].astype(margin.dtype),
                batch["fold"],
                batch.get(WEIGHT, jnp.ones(batch["fold"].shape, margin.dtype)),
            )
        )
        held_out = fold == jnp.arange(len(margin), dtype=fold.dtype)[:, None, None]
        reviewed = weight != 0
        losses = weight * optax.sigmoid_binary_cross_entropy(margin, wanted)
        loss = _mean(losses, ~held_out & reviewed)
        right = (margin > 0) == (wanted > 0.5)
        return loss, {
            "loss": loss,
            "accuracy_on_held_out_reviews": _mean(
                right.astype(margin.dtype), held_out & reviewed, otherwise=0.5
            ),
            "disagreement": jnp.mean(jnp.std(margin, axis=0)),
            "answered": jnp.sum(reviewed[0]).astype(margin.dtype),
        }


def _mean(values: Array, where: Array, otherwise: float = 0.0) -> Array:
    number = jnp.sum(where)
    mean = jnp.sum(values, where=where) / jnp.maximum(number, 1).astype(values.dtype)
    return jnp.where(number > 0, mean, otherwise)


def compare_samples(
    experiment: Experiment,
    params: PyTree[Array],
    judge: Reviewer,
    roles: Roles,
    problems: Problems,
    advance: Any = lambda rows: None,
) -> dict[str, np.ndarray]:
    """Samples two answers to every question, and lets the judge compare them.

    Args:
        experiment: its task, assistant and seed.
        params: of the assistant that is sampled.
        judge: who compares.
        roles: parameters of the models that judge, by role.
        problems: what is asked; they decide every draw, however they are batched.
        advance: called with the number of contexts done, for a progress bar.

    Returns:
        Columns with a row for each context: "context" and COLUMNS.
    """
    task, root = experiment.task, jax.random.key(experiment.seed)
    sample = functools.partial(_sample_pairs, task, experiment.assistant, params, root)

    def compare(problems: Problems) -> dict[str, Array]:
        columns, keys = sample(problems)
        pairs = (columns["answers"], columns["others"])
        asked = (problems.contexts, problems.questions)
        ask = functools.partial(_compare, judge) if judge.traced else judge.compare
        found = ask(roles, *asked, *pairs, keys)
        prefers = jnp.where(found.obtained, found.prefers_first, False).astype(jnp.int32)
        return columns | {"prefers_first": prefers, WEIGHT: found.obtained.astype(jnp.float32)}

    place = experiment.mesh.here.row_sharding
    columns = columns_in_chunks(compare, problems, advance=advance, place=place)
    count_reviews(judge, columns[WEIGHT])
    return as_signal(problems, columns)


def sample_pairs(
    experiment: Experiment, params: PyTree[Array], problems: Problems
) -> dict[str, np.ndarray]:
    """Samples the two answers to every question that `compare_samples` lets a judge compare.

    Args:
        experiment: its task, assistant and seed.
        params: of the assistant that is sampled.
        problems: what is asked.

    Returns:
        Columns with a row for each context: "answers", "others" and "fold".
    """
    root = jax.random.key(experiment.seed)
    sample = functools.partial(_sample_pairs, experiment.task, experiment.assistant, params, root)
    place = experiment.mesh.here.row_sharding
    return columns_in_chunks(lambda chunk: sample(chunk)[0], problems, place=place)


def review_keys(experiment: Experiment, problems: Problems) -> Key[Array, "batch questions"]:
    """Returns the keys of whoever reviews the samples of each question.

    Args:
        experiment: its seed.
        problems: what is asked.
    """
    root = jax.random.key(experiment.seed)
    return fold_in(answer_keys(root, problems.seeds, problems.questions.shape[1]), 2)


def as_signal(problems: Problems, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns all columns of reviews, and counts the answers that were compared.

    Args:
        problems: what was asked.
        columns: "answers", "others", "fold", "prefers_first" and `WEIGHT`.

    Raises:
        AmplifyError: see `check_informative`.
    """
    calls.count(calls.ASSISTANT, 2 * columns["fold"].size)
    check_informative(columns)
    contexts, questions = jax.device_get((problems.contexts, problems.questions))
    return {"context": contexts, "questions": questions, **columns}


def with_earlier(work: Work, columns: dict[str, np.ndarray], phase: str) -> dict[str, np.ndarray]:
    """Appends the latest reviews before these, which contain those before them.

    Args:
        work: the round so far. Its earlier phases come first, then the best round.
        columns: of the reviews of a phase.
        phase: its name.
    """
    rounds = [work.this, work.best] if work.best.number else [work.this]
    for folder in rounds:
        names = [name for name in phases(folder.record) if name.startswith(REVIEWS)]
        if folder is work.this and phase in names:  # it is made again
            names = names[: names.index(phase)]
        if names:
            rows = list(dataset.read(folder.phase(names[-1]).data))
            earlier = {
                name: np.stack([row.get(name, np.ones_like(column[0])) for row in rows])
                for name, column in columns.items()  # weights that are all 1 are not stored
            }
            return {
                name: np.concatenate([column, earlier[name]]) for name, column in columns.items()
            }
    return columns


def count_reviews(judge: Reviewer, obtained: Shaped[np.ndarray, "..."]) -> None:
    """Counts reviews in the ledger, and checks that enough were obtained. Of a language model, its
    prompts are counted instead, elsewhere.

    Args:
        judge: who reviewed.
        obtained: not 0 for each review that was obtained.

    Raises:
        AmplifyError: if the judge failed to review too often.
    """
    if judge.traced:
        calls.count(JUDGE, obtained.size)
    check = getattr(judge, "check", None)
    if check is not None:
        check(int((obtained != 0).sum()), obtained.size)


_compare = jax.jit(lambda judge, *parts: judge.compare(*parts), static_argnums=0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample_pairs(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    root: Key[Array, ""],
    problems: Problems,
) -> tuple[dict[str, Array], Key[Array, "batch questions"]]:
    """Two answers to each question and a fold for their review; and the judge's keys."""
    contexts, questions = problems.contexts, problems.questions
    memory = assistant.encode(params, contexts_for(task, contexts, questions))
    keys = answer_keys(root, problems.seeds, questions.shape[1])
    first, second = (
        assistant.answer(params, memory, questions, fold_in(keys, number)).tokens
        for number in range(2)
    )
    draw_fold = jax.vmap(jax.vmap(lambda key: jax.random.randint(key, (), 0, FOLDS)))
    folds = draw_fold(fold_in(keys, 3))
    return {"answers": first, "others": second, "fold": folds}, fold_in(keys, 2)


def check_informative(columns: Mapping[str, np.ndarray]) -> None:
    """Checks that a reward model can learn something from comparisons.

    Args:
        columns: `COLUMNS` and `WEIGHT`, which is 0 if a review was not obtained.

    Raises:
        AmplifyError: if there are fewer than two reviews in a fold, or no two different answers
            were compared.
    """
    obtained, same = columns[WEIGHT] != 0, (columns["answers"] == columns["others"]).all(axis=-1)
    if not same.all() and (number := int(obtained.sum())) < 2 * FOLDS:
        raise AmplifyError(
            f"a reward model needs at least {2 * FOLDS} reviews, got {number}:"
            " increase oversight.reviews"
        )
    if same[obtained].all():
        raise AmplifyError(
            "the two answers of every comparison are equal, so that no reward model can be learned:"
            " the assistant always gives the same answer; increase assistant.temperature"
        )
