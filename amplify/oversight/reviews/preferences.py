"""Reviews of a policy's answers: the signal that a reward model is fitted to.

Of each question, as many answers as a reviewer sees at a time (see `samples`) are reviewed: by a
judge here, or by people (see `people.reviewing`). In the signal each answer is a row of its own,
and the answers to one question are neighbours. `predicting` has the objectives.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.models.reward_model import FOLDS, RewardModelConfig
from amplify.overseers.reviewers import Reviewer
from amplify.oversight.restore import load_overseer
from amplify.oversight.reviews.counting import Consulted, count_reviews
from amplify.oversight.reviews.predicting import CHOSEN, TARGET
from amplify.oversight.reviews.samples import REVIEWS, Samples
from amplify.oversight.work import WEIGHT, Work
from amplify.records.record import phases
from amplify.tasks.batching import fold_in
from amplify.tasks.problems import answer_keys, columns_in_chunks
from amplify.training import dataset
from amplify.types import Problems, Roles

SCORE = "score"
SCORES = RewardModelConfig(reviews_as="scores")
"""Reviews that score single answers, as in an audit, whatever the reward model learned from."""

DESCRIPTIONS = {
    "answers": (
        "Tokens of each answer that was reviewed, padded with 0. Answers to the same question that"
        " were reviewed together are neighbours."
    ),
    "fold": "Part of the reviews that a review belongs to; member i of an ensemble never sees i.",
    "weight": "Multiplies the loss of each review; 0 if it was not obtained.",
    CHOSEN: "1 for the answer that the reviewer found best, 0 for the others.",
    SCORE: "The reviewer's score of the answer; 0 if it was not obtained.",
    TARGET: "The score, in standard deviations from the mean of all scores: what is predicted.",
}
"""Of the columns of reviews."""


class Reviewed(NamedTuple):
    """What reviewers said about samples."""

    value: Shaped[np.ndarray, "contexts questions"]  # the place of the best answer, or a score
    obtained: Bool[np.ndarray, "contexts questions"]  # False: `value` is meaningless
    weight: Float[np.ndarray, "contexts questions"]  # how much the review weighs if it was obtained
    facts: Mapping[str, Any]  # entries for the round's record
    trees: list[dict[str, Any]]  # interactions to save
    description: str


def columns_of(config: RewardModelConfig) -> tuple[str, ...]:
    """The columns of reviews that a reward model is trained on.

    Args:
        config: of the reward model.
    """
    predicted = CHOSEN if config.reviews_as == "preferences" else TARGET
    read = ("context",) if config.reads_context else ()
    return (*read, "questions", "answers", predicted, "fold")


def review_keys(experiment: Experiment, problems: Problems) -> Key[Array, "batch questions"]:
    """Returns the keys of whoever reviews the samples of each question.

    Args:
        experiment: its seed.
        problems: what is asked.
    """
    return _review_keys(jax.random.key(experiment.seed), problems)


def _review_keys(root: Key[Array, ""], problems: Problems) -> Key[Array, "batch questions"]:
    return fold_in(answer_keys(root, problems.seeds, problems.questions.shape[1]), 2)


def review_by_judge(
    config: RewardModelConfig, work: Work, problems: Problems, samples: Samples
) -> Reviewed:
    """Lets the experiment's judge review answers.

    Args:
        config: says what is reviewed.
        work: the round so far.
        problems: what was asked.
        samples: the answers.

    Raises:
        AmplifyError: if the judge failed to review too often.
    """
    experiment = work.experiment
    judge: Any = experiment.overseer
    roles = {"overseer": load_overseer(experiment, work.roles)}
    function = functools.partial(
        _review_compiled if judge.traced else _review,
        judge,
        config,
        roles,
        jax.random.key(experiment.seed),
    )
    place = experiment.mesh.here.row_sharding
    with work.watch("reviewing", len(problems.seeds)) as advance:
        found = columns_in_chunks(function, problems, samples.answers, advance=advance, place=place)
    consulted = Consulted(found["looks"].sum(), found["asks"].sum())
    count_reviews(judge, experiment.task, config, found["obtained"], consulted)
    said = f"Round {work.this.number}: a judge {does(config, 's')}."
    return Reviewed(found["value"], found["obtained"], found["weight"], {}, [], said)


def _review(
    judge: Reviewer,
    config: RewardModelConfig,
    roles: Roles,
    root: Key[Array, ""],
    problems: Problems,
    answers: Int[Array, "batch questions candidates answer_length"],
) -> dict[str, Array]:
    asked, keys = (roles, problems.contexts, problems.questions), _review_keys(root, problems)
    if config.reviews_as == "scores":
        scores = judge.score(*asked, answers[:, :, 0], keys)
        value, sure = scores.value, jnp.ones(scores.value.shape)
        obtained, consulted = (
            scores.obtained & jnp.isfinite(value),
            Consulted(scores.looks, scores.asks),
        )
    else:
        choices = judge.choose(*asked, answers, keys)
        value, obtained = choices.best, choices.obtained
        consulted = Consulted(choices.looks, choices.asks)
        sure = choices.confidence if config.confidence else jnp.ones(value.shape)
    return {
        "value": jnp.where(obtained, value, jnp.zeros_like(value)),
        "obtained": obtained,
        "weight": jnp.where(obtained, sure, 0.0),
        **consulted.of_each(value),
    }


_review_compiled = jax.jit(_review, static_argnums=(0, 1))


def does(config: RewardModelConfig, ending: str = "") -> str:
    """What reviewers do, in words.

    Args:
        config: says what is reviewed.
        ending: of the verb: "s" for one reviewer.
    """
    if config.reviews_as == "scores":
        return f"score{ending} answers"
    if config.candidates == 2:
        return f"compare{ending} two answers"
    return f"choose{ending} the best of {config.candidates} answers"


def facts_of(config: RewardModelConfig, reviewed: Reviewed) -> dict[str, Any]:
    """Returns entries for the round's record: how many reviews there are, and what was read.

    Args:
        config: says what is reviewed.
        reviewed: the reviews.
    """
    number = int(reviewed.obtained.sum())
    return {"reviews": number, "answers_read": number * config.shown, **reviewed.facts}


def as_signal(
    config: RewardModelConfig, problems: Problems, samples: Samples, reviewed: Reviewed
) -> dict[str, np.ndarray]:
    """Returns the columns of reviews; of scores without `TARGET`, which needs those of all rounds.

    Args:
        config: says what is reviewed.
        problems: what was asked.
        samples: the answers.
        reviewed: what reviewers said of them.

    Raises:
        AmplifyError: see `check_informative`.
    """
    check_informative(config, samples, reviewed)
    contexts, questions = jax.device_get((problems.contexts, problems.questions))
    rows, _, number, length = samples.answers.shape
    columns = {
        "context": contexts,
        "questions": np.repeat(questions, number, axis=1),
        "answers": samples.answers.reshape(rows, -1, length),
        "fold": np.repeat(samples.fold, number, axis=1),
        WEIGHT: np.repeat(
            np.where(reviewed.obtained, reviewed.weight, 0).astype(np.float32), number, axis=1
        ),
    }
    if config.reviews_as == "scores":
        return columns | {SCORE: reviewed.value.astype(np.float32)}
    best = (np.arange(number) == reviewed.value[..., None]) & reviewed.obtained[..., None]
    return columns | {CHOSEN: best.astype(np.int32).reshape(rows, -1)}


def with_earlier(work: Work, columns: dict[str, np.ndarray], phase: str) -> dict[str, np.ndarray]:
    """Appends the latest reviews before these, which contain those before them, and standardises
    the scores of all.

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
            rows = [_in_one_column(row) for row in dataset.read(folder.phase(names[-1]).data)]
            earlier = {
                name: np.stack([row.get(name, np.ones_like(column[0])) for row in rows])
                for name, column in columns.items()  # weights that are all 1 are not stored
            }
            columns = {
                name: np.concatenate([column, earlier[name]]) for name, column in columns.items()
            }
            break
    if SCORE not in columns:
        return columns
    return columns | {TARGET: standardise(columns[SCORE], columns[WEIGHT] != 0)}


def _in_one_column(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of comparisons, which earlier versions stored with the answers in two columns."""
    if "others" not in row:
        return dict(row)
    pairs = np.stack([row["answers"], row["others"]], axis=1)
    first = np.asarray(row["prefers_first"])
    shared = [name for name in ("questions", "fold", WEIGHT) if name in row]
    return {
        "context": row["context"],
        **{name: np.repeat(row[name], 2, axis=0) for name in shared},
        "answers": pairs.reshape(-1, pairs.shape[-1]),
        CHOSEN: np.stack([first, 1 - first], axis=-1).reshape(-1),
    }


def standardise(
    scores: Float[np.ndarray, "contexts questions"], where: Bool[np.ndarray, "contexts questions"]
) -> Float[np.ndarray, "contexts questions"]:
    """Scores in standard deviations from the mean; 0 where there is none.

    Args:
        scores: as reviewers said them.
        where: True for those that were obtained, which are not all equal.
    """
    given = scores[where].astype(np.float64)
    found = (scores - given.mean()) / given.std()
    return np.where(where, found, 0).astype(np.float32)


def check_informative(config: RewardModelConfig, samples: Samples, reviewed: Reviewed) -> None:
    """Checks that a reward model can learn something from reviews.

    Args:
        config: says what is reviewed.
        samples: the answers.
        reviewed: what reviewers said of them.

    Raises:
        AmplifyError: if there are fewer than two reviews in a fold, no two different answers were
            compared, or all scores are equal.
    """
    scored, obtained = config.reviews_as == "scores", reviewed.obtained
    answers = samples.answers
    same = (answers == answers[:1, :1] if scored else answers == answers[:, :, :1]).all((2, 3))
    if not same.all() and (number := int(obtained.sum())) < 2 * FOLDS:
        raise AmplifyError(
            f"a reward model needs at least {2 * FOLDS} reviews, got {number}:"
            " increase oversight.reviews"
        )
    if same[obtained].all():
        which = "all answers that were scored" if scored else _which(config.candidates)
        raise AmplifyError(
            f"{which} are equal, so that no reward model can be learned:"
            " the assistant always gives the same answer; increase assistant.temperature"
        )
    if scored and np.ptp(values := reviewed.value[obtained]) == 0:
        raise AmplifyError(
            f"all {values.size} scores are {values[0]:g}, so that no reward model can be learned:"
            " the reviewer finds every answer equally good"
        )


def _which(candidates: int) -> str:
    if candidates == 2:
        return "the two answers of every comparison"
    return f"the {candidates} answers of every choice"
