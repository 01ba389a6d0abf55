"""The answers that a round's data set is made of: the overseer's, and people's in their place.

Answers are a pure function of problems, weights and what people said, so that a round can be
replayed. `stages` and `replay` call it.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from amplify import dataset, words
from amplify.chunks import Amplified, amplify_problems
from amplify.experiment import Experiment
from amplify.loading import load_assistant, load_overseer
from amplify.overseers.human import Human
from amplify.overseers.language_model import check_failed
from amplify.people.collection import Gathered, collect
from amplify.people.putting import human
from amplify.people.worker import Worker
from amplify.progress import Watch
from amplify.store import RoundFolder
from amplify.types import FAILED, Problems, Weights

SAMPLED_TREES = 50
"""Decomposition trees kept in `interactions.jsonl`; any other can be recomputed."""


class MadeData(NamedTuple):
    """A round's data set, before it is written."""

    columns: dict[str, np.ndarray]
    trees: list[dict[str, Any]]  # those that people made, and a sample of the others
    facts: dict[str, Any]  # for the record


def amplified_answers(
    experiment: Experiment,
    weights: Weights,
    digest: str,
    problems: Problems,
    people: Gathered | None,
    watch: Watch,
) -> MadeData:
    """The answers to a round's questions: a pure function of its arguments.

    Args:
        digest: of the assistant's weights.
        people: what people answered, which takes the place of what the overseer beside them did.
    """
    with watch("amplifying", len(problems.seeds)) as advance:
        chunks = list(
            amplify_problems(
                experiment.task,
                experiment.assistant,
                experiment.overseer,
                weights,
                problems,
                experiment.seed,
                sub_answers=experiment.questions.sub_answers,
                advance=advance,
                place=experiment.mesh.here.of_rows,
            )
        )
    answers = np.concatenate([chunk.answers for chunk in chunks])
    trees = sample_trees(experiment, problems, chunks[0])
    failed = check_failed(experiment.overseer, answers)
    helped = int(sum(chunk.assistant_answers.sum() for chunk in chunks))
    facts = {"overseer_answers": answers[..., 0].size - failed, "assistant_answers": helped}
    if people is not None:
        answers, trees = _with_people(experiment, people, answers, trees)
        facts = _count_with_people(experiment, people, facts)
    columns = {
        "context": np.concatenate([chunk.read for chunk in chunks]),
        "questions": jax.device_get(problems.questions),
        "answers": answers,
        "classes": np.concatenate([chunk.classes for chunk in chunks]),
        "problem_seed": jax.device_get(problems.seeds).astype(np.int64),
        "parent": np.full(len(answers), digest),
    }
    return MadeData(columns, trees, facts | ({"failed": failed} if failed else {}))


def write_data(folder: Path, number: int, digest: str, made: MadeData) -> str:
    """Writes a round's data set; returns its digest, the same for the same answers."""
    return dataset.write(
        folder,
        made.columns,
        name="amplified_answers",
        description=f"Round {number}: questions answered by an overseer with {digest}.",
    )


def _with_people(
    experiment: Experiment,
    people: Gathered,
    answers: Int[np.ndarray, "rows questions answer_length"],
    trees: list[dict[str, Any]],
) -> tuple[Int[np.ndarray, "rows questions answer_length"], list[dict[str, Any]]]:
    """Answers and trees, people's in place of the others'."""
    alone = human(experiment).alone
    answers = np.full_like(answers, FAILED) if alone else answers.copy()
    answers[people.rows, people.columns] = people.answers
    theirs = set(zip(people.rows.tolist(), people.columns.tolist(), strict=True))
    others = [tree for tree in trees if (tree["row"], tree["column"]) not in theirs]
    return answers, people.trees + ([] if alone else others)


def _count_with_people(
    experiment: Experiment, people: Gathered, facts: dict[str, int]
) -> dict[str, Any]:
    """Who answered how much; where only people are learned from, the others' answers are none."""
    answered = len(people.rows)
    total = answered if human(experiment).alone else facts["overseer_answers"]
    helped = 0 if human(experiment).alone else facts["assistant_answers"]
    asked = people.facts["sub_questions"]
    return {**people.facts, "overseer_answers": total, "assistant_answers": helped + asked}


def ask_people(
    experiment: Experiment,
    best: RoundFolder,
    this: RoundFolder,
    problems: Problems,
    watch: Watch,
) -> Gathered | None:
    """What people answer of a round's questions, with the best assistant's help; None where no
    people oversee. At once, if they have.
    """
    if not isinstance(experiment.overseer, Human):
        return None

    def worker() -> Worker:
        params, digest = load_assistant(experiment, best)
        return Worker(
            experiment, Weights(params, load_overseer(experiment, best)), digest, problems
        )

    return collect(experiment, this, problems, worker, watch)


def sample_trees(
    experiment: Experiment, problems: Problems, first: Amplified
) -> list[dict[str, Any]]:
    """The tree of one question each of the first problems."""
    contexts, labels = jax.device_get(problems.contexts), experiment.task.classes
    places = [(row, row % experiment.questions.per_context) for row in range(len(first.answers))]
    return [
        {"row": row, "column": column, "class": labels[first.classes[row, column]]}
        | words.tree(experiment.task, contexts[row], first.trees, row, column)
        for row, column in places[:SAMPLED_TREES]
    ]
