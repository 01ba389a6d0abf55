"""The answers that a round's data set is made of: the overseer's, and people's in their place.

Answers are a pure function of problems, weights and what people said, so that a round can be
replayed. `stages` and `replay` call it.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from amplify import words
from amplify.experiment.sections import Experiment
from amplify.overseers.human import Human
from amplify.overseers.language_model import check_failed
from amplify.oversight.draws import draw_round
from amplify.oversight.loading import load_weights
from amplify.oversight.people.answerer import Answerer
from amplify.oversight.people.collecting import Gathered, collect
from amplify.oversight.people.questions import human
from amplify.oversight.work import Made, Work
from amplify.runtime import calls
from amplify.runtime.progress import Watch
from amplify.trees.chunks import Amplified, amplify_problems
from amplify.types import FAILED, Problems, Weights

SAMPLED_TREES = 50
"""Decomposition trees kept in `interactions.jsonl`; any other can be recomputed."""


def amplified_answers(
    experiment: Experiment,
    number: int,
    weights: Weights,
    digest: str,
    problems: Problems,
    people: Gathered | None,
    watch: Watch,
) -> Made:
    """The answers to a round's questions: a pure function of its arguments.

    Args:
        number: of the round.
        digest: of the assistant's weights.
        people: what people answered, which takes the place of what the overseer beside them did.
    """
    with watch("amplifying", len(problems.seeds)) as advance:
        chunks = list(amplify_as_in(experiment, weights, problems, advance=advance))
    answers = np.concatenate([chunk.answers for chunk in chunks])
    trees = sample_trees(experiment, problems, chunks[0])
    failed = check_failed(experiment.overseer, answers)
    helped = int(sum(chunk.assistant_answers.sum() for chunk in chunks))
    facts = {"overseer_answers": answers[..., 0].size - failed, "assistant_answers": helped}
    if people is not None:
        answers, trees = _with_people(experiment, people, answers, trees)
        facts = _count_with_people(experiment, people, facts)
        calls.count(calls.PEOPLE, people.facts["human_answers"])
        calls.count(calls.ASSISTANT, people.facts["sub_questions"])
    columns = {
        "context": np.concatenate([chunk.read for chunk in chunks]),
        "questions": jax.device_get(problems.questions),
        "answers": answers,
        "classes": np.concatenate([chunk.classes for chunk in chunks]),
        "problem_seed": jax.device_get(problems.seeds).astype(np.int64),
        "parent": np.full(len(answers), digest),
    }
    told = f"Round {number}: questions answered by an overseer with {digest}."
    return Made(columns, trees, facts | ({"failed": failed} if failed else {}), told)


def amplify_as_in(
    experiment: Experiment, weights: Weights, problems: Problems, **how: Any
) -> Iterator[Amplified]:
    """Amplified answers by an experiment's overseer and assistant, a chunk at a time.

    Args:
        how: as for `amplify_problems`.
    """
    usual: dict[str, Any] = {
        "sub_answers": experiment.sub_answers,
        "place": experiment.mesh.here.row_sharding,
    }
    return amplify_problems(
        experiment.task,
        experiment.assistant,
        experiment.overseer,
        weights,
        problems,
        experiment.seed,
        **(usual | how),
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


def ask_people(work: Work) -> Gathered | None:
    """What people answer of a round's questions, with the best assistant's help; None where no
    people oversee. At once, if they have.
    """
    experiment = work.experiment
    if not isinstance(experiment.overseer, Human):
        return None
    problems, assistant = draw_round(experiment, work.this.number), work.roles["assistant"]

    def answerer() -> Answerer:
        weights = load_weights(experiment, work.roles)
        return Answerer(experiment, weights, assistant.digest, problems)

    return collect(experiment, work.this, problems, answerer, work.watch)


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
