"""Chooses the questions of a stage that people answer, and writes them as text.

The result depends only on the experiment and the stage's problems, so an interrupted round
publishes the same items under the same names.
"""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from amplify import words
from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.overseers.human import Human
from amplify.people import assignment
from amplify.people.assignment import Question, WorkRules
from amplify.people.events import New
from amplify.people.items import RoundStage
from amplify.task_abilities import choices_of, knows_truth, rule_of
from amplify.tasks.batching import vmap_questions
from amplify.types import Problems, Task

Places = list[tuple[int, int]]
"""Row and column of questions in the problems of a stage."""


def human(experiment: Experiment) -> Human:
    """Returns the overseer of an experiment that people oversee."""
    assert isinstance(experiment.overseer, Human)
    return experiment.overseer


def work_rules(experiment: Experiment) -> WorkRules:
    """Returns the rules by which people work on an experiment's questions, as plain values."""
    config, task = human(experiment).config, experiment.task
    return WorkRules(
        experiment=experiment.digest,
        choices=choices_of(task),
        rule=rule_of(task),
        lease=config.lease,
        guide=Path(config.guide).read_text(encoding="utf-8") if config.guide else "",
        team=config.team,
        budget=config.asks,
        overlap=config.overlap,
        gold=config.gold if knows_truth(task) else 0.0,
        withheld=config.withheld,
        reviewed=config.reviewed,
        reviewers=config.reviewers,
        skips=config.skips,
        simulated_people=config.crowd.people if config.people == "simulated" else None,
    )


def open_stage(
    experiment: Experiment,
    stage: RoundStage,
    problems: Problems,
    checkpoint: str,
    among: Places | None = None,
) -> list[New]:
    """Returns the events that publish a stage's questions to people; the same every time.

    Args:
        experiment: overseen by people.
        stage: that asks.
        problems: of the stage.
        checkpoint: digest of the weights that will help people.
        among: see `choose_places`.

    Raises:
        AmplifyError: the round has too few different questions.
    """
    rules, task = work_rules(experiment), experiment.task
    places = choose_places(experiment, stage.round, problems, among)
    rows, columns = np.array(places).T
    questions = jax.device_get(problems.questions)[rows, columns]
    contexts, asked = problems.contexts[rows], jnp.asarray(questions[:, None])
    classes = jax.device_get(vmap_questions(task.class_of)(contexts, asked))[:, 0]
    names = [assignment.identify(rules, stage, *place) for place in places]
    is_gold = np.array([assignment.is_gold(rules, name) for name in names])
    gold_items: Iterator[tuple[str, list[str]]] = iter(())
    if is_gold.any():
        truths = jax.device_get(vmap_questions(task.truth)(contexts[is_gold], asked[is_gold]))[:, 0]
        right = right_words(task, contexts[is_gold], questions[is_gold])
        gold_items = zip((words.format_tokens(task, true) for true in truths), right, strict=True)
    put = []
    for place, (row, column) in enumerate(places):
        gold, accepted = next(gold_items) if is_gold[place] else (None, [])
        put.append(
            Question(
                name=names[place],
                row=row,
                column=column,
                text=words.format_tokens(task, questions[place]),
                label=task.classes[classes[place]],
                gold=gold,
                also_right=[word for word in accepted if word != gold],
            )
        )
    return assignment.put_up(rules, stage, put, checkpoint)


def choose_places(
    experiment: Experiment, number: int, problems: Problems, among: Places | None = None
) -> Places:
    """Draws the questions that people answer, in an order drawn by chance.

    Args:
        experiment: overseen by people; its seed determines the draw.
        number: of the round.
        problems: of one of its stages.
        among: row and column of the questions to draw from; None: all different ones that are not
            primitive.

    Returns:
        Row and column of each question.

    Raises:
        AmplifyError: there are fewer such questions than people should answer.
    """
    wanted = human(experiment).config.items
    places = all_places(experiment.task, problems) if among is None else among
    if len(places) < wanted:
        raise AmplifyError(
            f"overseer.items must be at most {len(places)}, the different questions of round"
            f" {number}; got {wanted}"
        )
    bits = np.random.Philox(key=np.array([experiment.seed, number], np.uint64))
    order = np.argsort(bits.random_raw(len(places)), kind="stable")
    return [places[place] for place in order[:wanted]]


def all_places(task: Task, problems: Problems) -> Places:
    """Returns row and column of all different questions that are not primitive, in order.

    Args:
        task: has the questions.
        problems: of a stage.
    """
    questions = jax.device_get(problems.questions)
    primitive = jax.device_get(task.is_primitive(problems.questions))
    return [
        (row, int(column))
        for row, asked in enumerate(questions)
        for column in np.sort(np.unique(asked, axis=0, return_index=True)[1])
        if not primitive[row, column]
    ]


def right_words(
    task: Task,
    contexts: Array | np.ndarray,
    questions: Int[np.ndarray, "items question_length"],
) -> Iterator[list[str]]:
    """Yields the words that are right answers to each question. There may be several, such as the
    first steps of equally short paths; there are none if answers have more than one token.

    Args:
        task: judges the words of its vocabulary.
        contexts: one for each question.
        questions: in tokens.
    """
    if task.answer_length > 1 or not len(questions):
        yield from ([] for _ in questions)
        return
    tokens = jnp.arange(1, len(task.vocabulary))[:, None]
    of_question = jax.vmap(task.is_right, (None, None, 0))
    is_right = jax.device_get(
        jax.jit(jax.vmap(of_question, (0, 0, None)))(contexts, questions, tokens)
    )
    for row in is_right:
        yield [task.vocabulary[token] for token in 1 + np.flatnonzero(row)]
