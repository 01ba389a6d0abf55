"""Makes the answers of a round's data set: the overseer's, some of them replaced by people's.

The answers are a pure function of problems, weights and what people said, so a round can be
replayed. Kinds of oversight and `replay` call this module.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from amplify import words
from amplify.experiment.sections import Experiment
from amplify.models.abilities import simulates_person
from amplify.overseers.human import Human
from amplify.overseers.language_model import check_unanswered
from amplify.oversight.draws import draw_round
from amplify.oversight.people.answerer import Answerer
from amplify.oversight.people.collecting import Gathered, collect
from amplify.oversight.people.questions import human
from amplify.oversight.restore import load_weights
from amplify.oversight.work import Made, Work
from amplify.runtime import calls, effort
from amplify.runtime.progress import Watch
from amplify.trees.chunks import Amplified, amplify_problems
from amplify.types import FAILED, Problems, Roles

DISTILLATION = "distillation"
"""The phase whose signal is answers to a round's questions."""
AMPLIFIED = f"{DISTILLATION}/data"
"""The stage that makes them. People are asked in its name, also where an overseer learns from what
they do before."""
SAMPLED_TREES = 50
"""Decomposition trees saved in `interactions.jsonl`; any other can be recomputed."""


def amplified_answers(
    experiment: Experiment,
    number: int,
    weights: Roles,
    digest: str,
    problems: Problems,
    people: Gathered | None,
    watch: Watch,
) -> Made:
    """Answers a round's questions: a pure function of its arguments.

    Args:
        experiment: its overseer answers, with its assistant's help.
        number: of the round.
        weights: of the assistant and the overseer.
        digest: of the assistant's weights.
        problems: of the round.
        people: answers by people, which replace the overseer's; None: no people oversee.
        watch: shows progress in problems.

    Raises:
        AmplifyError: too many questions got no answer.
    """
    with watch("amplifying", len(problems.seeds)) as advance:
        chunks = list(amplify_for(experiment, weights, problems, advance=advance))
    if simulates_person(experiment.overseer):
        for chunk in chunks:
            effort.count_all(effort.of_answers(chunk.calls))
    answers = np.concatenate([chunk.answers for chunk in chunks])
    trees = sample_trees(experiment, problems, chunks[0])
    failed = check_unanswered(experiment.overseer, answers)
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
    description = f"Round {number}: questions answered by an overseer with {digest}."
    return Made(columns, trees, facts | ({"failed": failed} if failed else {}), description)


def amplify_for(
    experiment: Experiment, weights: Roles, problems: Problems, **options: Any
) -> Iterator[Amplified]:
    """Yields amplified answers by an experiment's overseer and assistant, a chunk at a time.

    Args:
        experiment: its task, models, seed and mesh.
        weights: of the assistant and the overseer.
        problems: to answer.
        options: of `amplify_problems`, in place of the experiment's.
    """
    defaults: dict[str, Any] = {
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
        **(defaults | options),
    )


def _with_people(
    experiment: Experiment,
    people: Gathered,
    answers: Int[np.ndarray, "rows questions answer_length"],
    trees: list[dict[str, Any]],
) -> tuple[Int[np.ndarray, "rows questions answer_length"], list[dict[str, Any]]]:
    """Replaces answers and trees by those of people."""
    alone = human(experiment).people_only
    answers = np.full_like(answers, FAILED) if alone else answers.copy()
    answers[people.rows, people.columns] = people.answers
    theirs = set(zip(people.rows.tolist(), people.columns.tolist(), strict=True))
    others = [tree for tree in trees if (tree["row"], tree["column"]) not in theirs]
    return answers, people.trees + ([] if alone else others)


def _count_with_people(
    experiment: Experiment, people: Gathered, facts: dict[str, int]
) -> dict[str, Any]:
    """Counts answers; if only people's answers are trained on, the others' are not counted."""
    answered = len(people.rows)
    total = answered if human(experiment).people_only else facts["overseer_answers"]
    helped = 0 if human(experiment).people_only else facts["assistant_answers"]
    asked = people.facts["sub_questions"]
    return {**people.facts, "overseer_answers": total, "assistant_answers": helped + asked}


def ask_people(work: Work) -> Gathered | None:
    """Waits for people's answers to a round's questions; returns at once if they are complete.

    Args:
        work: the round so far; its assistant helps people.

    Returns:
        The answers; None if no people oversee the experiment.
    """
    experiment = work.experiment
    if not isinstance(experiment.overseer, Human):
        return None
    problems, assistant = draw_round(experiment, work.this.number), work.roles["assistant"]

    def answerer() -> Answerer:
        weights = load_weights(experiment, work.roles)
        return Answerer(experiment, weights, assistant.digest, problems)

    return collect(experiment, work.this, AMPLIFIED, problems, answerer, work.watch)


def sample_trees(
    experiment: Experiment, problems: Problems, first: Amplified
) -> list[dict[str, Any]]:
    """Returns the decomposition tree of one question for each of the first problems.

    Args:
        experiment: its task writes the trees as text.
        problems: all of them.
        first: the answers to the first chunk of problems.
    """
    contexts, labels = jax.device_get(problems.contexts), experiment.task.classes
    places = [(row, row % experiment.questions.per_context) for row in range(len(first.answers))]
    return [
        {"row": row, "column": column, "class": labels[first.classes[row, column]]}
        | words.describe_tree(experiment.task, contexts[row], first.trees, row, column)
        | words.describe_context(experiment.task, contexts[row])
        for row, column in places[:SAMPLED_TREES]
    ]
