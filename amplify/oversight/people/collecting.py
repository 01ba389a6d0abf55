"""Collects people's answers as rows of a stage's data set.

`collect` answers people's sub-questions until every question has an answer. Then it closes the
stage in the log: later events no longer change it. `gather` is a pure function of the log up to
that event, so a stage can be replayed bit for bit. Any number of a round's stages may ask people,
one after the other. The package `people` has the log and the pages; code that needs the task or a
model is here.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from amplify import words
from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.overseers.human import Human
from amplify.oversight.people.answerer import Answerer
from amplify.oversight.people.parsing import read_answer
from amplify.oversight.people.questions import Places, human, open_stage, work_rules
from amplify.people.events import Closed, Event, new_event
from amplify.people.items import SUBMITTED, Assignment, Item, RoundStage, answer_of, chosen
from amplify.people.log import EVENTS, Log
from amplify.people.quality import agreement
from amplify.people.results import uplift
from amplify.people.round_loop import Helper, set_aside, wait_for_people
from amplify.people.rules import Queue
from amplify.people.stale import decided_since_closing
from amplify.records.round_folder import RoundFolder
from amplify.runtime.progress import Watch
from amplify.task_abilities import knows_truth
from amplify.types import ASSISTANT, OVERSEER, Interaction, Problems, Step


class Gathered(NamedTuple):
    """People's answers to a stage's questions, in the order of rows and columns."""

    rows: Int[np.ndarray, " items"]
    columns: Int[np.ndarray, " items"]
    answers: Int[np.ndarray, "items answer_length"]
    trees: list[dict[str, Any]]  # one for each answer, as in interactions.jsonl
    demonstrated: Interaction | None  # for an overseer to imitate; None if nobody may ask
    facts: dict[str, Any]  # entries for the round's record


def collect(
    experiment: Experiment,
    this: RoundFolder,
    stage: str,
    problems: Problems,
    answerer: Callable[[], Answerer] | None,
    watch: Watch,
    among: Places | None = None,
) -> Gathered:
    """Returns people's answers to a stage's questions, at once if the stage was closed before.

    Args:
        experiment: overseen by people.
        this: the round's folder.
        stage: full name, such as "distillation/data".
        problems: of the stage.
        answerer: loads the model that answers sub-questions; called only if people are asked. None:
            people may ask none.
        watch: shows how many questions have been answered.
        among: row and column of the questions to choose from; None: all different ones.

    Raises:
        AmplifyError: the stage has too few different questions, the pages cannot be served, or no
            question has an answer that counts.
    """
    folder, log = this.path.parent, Log(this.path.parent / EVENTS)
    try:
        queue = Queue(log.since())
        asked = queue.known_as(this.number, stage)
        if not _is_closed(queue, asked):
            helping = this.record["parent"]["digest"]
            log.append(*open_stage(experiment, asked, problems, helping, among))
            helper = helper_of(experiment, answerer and answerer())
            wait_for_people(work_rules(experiment), folder, asked, log, helper, watch)
            _close(experiment, log, asked, f"closed:{asked}")
        elif (decided := decided_since_closing(log.since(), asked)) is not None:
            # The data is made again: what was changed since the stage was closed counts now.
            _close(experiment, log, asked, f"closed:{asked}:{decided}")
        closed = Queue(log.since()).stages[asked].closed
        assert closed is not None
        return gather(experiment, asked, problems, log.since(), closed)
    finally:
        log.close()


def helper_of(experiment: Experiment, answerer: Answerer | None) -> Helper:
    """Returns what a stage that waits for people needs from a model and the task.

    Args:
        experiment: overseen by people.
        answerer: answers their sub-questions; None if they may ask none.
    """
    why_unreadable = functools.partial(_why_unreadable, experiment)
    if answerer is None:
        return Helper(lambda pending: [], why_unreadable)
    return Helper(answerer.answer, why_unreadable, answerer.warm_up)


def _why_unreadable(experiment: Experiment, answer: str) -> str:
    return read_answer(experiment.task, answer).problem


def _close(experiment: Experiment, log: Log, stage: RoundStage, request: str) -> None:
    """Closes a stage in the log, so that later events do not change it. First sets aside
    adjudicated answers that the task cannot parse.
    """
    queue = Queue(log.since())
    items = [queue.items[name] for name in queue.stages[stage].items]
    why_unreadable = functools.partial(_why_unreadable, experiment)
    log.append(
        *(event for item in items for event in set_aside(item, why_unreadable)),
        new_event(Closed(stage=stage.stage), stage.round, request=request),
    )


def _count_set_aside(roots: Sequence[Item], read: Mapping[str, Any]) -> dict[str, int]:
    """Counts items whose answer cannot be parsed; omitted if 0, as in older records."""
    unread = sum(item.withdrawn is None and item.id not in read for item in roots)
    return {"set_aside": unread} if unread else {}


def recorded_by_people(
    experiment: Experiment, this: RoundFolder, stage: str, problems: Problems
) -> Gathered | None:
    """Reads from the log what people had answered when a stage's data was made.

    Args:
        experiment: the experiment.
        this: the round's folder.
        stage: full name, such as "distillation/data".
        problems: of the stage.

    Returns:
        The answers; None if no people oversee the experiment.
    """
    if not isinstance(experiment.overseer, Human):
        return None
    closed = closed_when_recorded(this, stage)
    assert closed is not None  # data was made of what people answered
    log = Log(this.path.parent / EVENTS)
    try:
        asked = Queue(log.since()).known_as(this.number, stage)
        return gather(experiment, asked, problems, log.since(), closed)
    finally:
        log.close()


def closed_when_recorded(this: RoundFolder, stage: str) -> int | None:
    """Returns the event that had closed a stage when its data was made of people's answers.

    Args:
        this: the round's folder.
        stage: full name.

    Returns:
        Its id; None if no data was made yet.
    """
    closed: int | None = this.record["stages"].get(stage, {}).get("closed")
    return closed


def gather(
    experiment: Experiment,
    stage: RoundStage,
    problems: Problems,
    events: Iterable[Event],
    closed: int,
) -> Gathered:
    """Gathers what people answered before a stage was closed: a pure function of its arguments.

    Args:
        experiment: overseen by people.
        stage: that asked.
        problems: of the stage.
        events: the log.
        closed: id of the event that closed the stage.

    Raises:
        AmplifyError: no question has an answer that counts.
    """
    queue = Queue(itertools.takewhile(lambda event: event.id <= closed, events))
    items = [queue.items[name] for name in queue.stages[stage].items]
    roots = [item for item in items if item.review_of is None]
    task = experiment.task
    read = {
        item.id: tokens
        for item in roots
        if (answer := answer_of(item)) is not None
        and (tokens := read_answer(task, answer).tokens) is not None
    }
    kept = sorted(
        ((item, assignment) for item in roots if item.id in read and (assignment := chosen(item))),
        key=lambda pair: (pair[0].row, pair[0].column),
    )
    if not kept:
        raise AmplifyError(
            f"round {stage.round}: no question has an answer: all were withdrawn or set aside; see"
            " /admin/set-aside on the pages, and decide on some answers there"
        )
    answers = [read[item.id] for item, _ in kept]
    contexts = jax.device_get(problems.contexts)
    trees = [
        _tree(experiment, contexts[item.row], problems, item, assignment, answer)
        for (item, assignment), answer in zip(kept, answers, strict=True)
    ]
    assignments = [a for item in items for a in item.assignments.values()]
    return Gathered(
        np.array([item.row for item, _ in kept]),
        np.array([item.column for item, _ in kept]),
        np.stack(answers),
        trees,
        _as_interactions(experiment, problems, kept, np.stack(answers)),
        {
            "human_answers": sum(a.state == SUBMITTED for a in assignments),
            "human_seconds": round(sum(a.seconds for a in assignments), 1),
            "people": len({a.person for a in assignments}),
            "withdrawn": sum(item.withdrawn is not None for item in roots),
            **_count_set_aside(roots, read),
            "sub_questions": sum(e.by == "assistant" for a in assignments for e in a.kept),
            "agreement": agreement(queue, stage).alpha,
            "uplift": _uplift(experiment, queue, stage, problems),
            "closed": closed,
        },
    )


def _uplift(
    experiment: Experiment, queue: Queue, stage: RoundStage, problems: Problems
) -> dict[str, Any] | None:
    """Returns the effect of the assistant's help, for the record; None if there was no trial. If
    the task knows no truth, the only effect is on time.
    """
    questions = jax.device_get(problems.questions)

    def is_right(item: Item, assignment: Assignment) -> bool | None:
        answer = read_answer(experiment.task, assignment.answer or "").tokens
        if answer is None:
            return None
        context = jax.device_get(problems.contexts[item.row])
        return words.is_right(experiment.task, context, questions[item.row, item.column], answer)

    judges = knows_truth(experiment.task)
    found = uplift(queue, is_right if judges else None, stage)
    trial = found.accuracy if judges else found.seconds
    if not (trial.alone.answers and trial.helped.answers):
        return None
    return {
        name: {
            "helped": effect.helped._asdict(),
            "alone": effect.alone._asdict(),
            "difference": effect.difference,
            "interval": effect.interval,
        }
        for name, effect in found._asdict().items()
        if judges or name == "seconds"
    }


def _tree(
    experiment: Experiment,
    context: Int[np.ndarray, "facts fact_length"],
    problems: Problems,
    item: Item,
    assignment: Assignment,
    answer: Int[np.ndarray, " answer_length"],
) -> dict[str, Any]:
    task = experiment.task
    question = jax.device_get(problems.questions)[item.row, item.column]
    return {
        "row": item.row,
        "column": item.column,
        "class": item.label,
        "item": item.id,
        "person": assignment.person,
        "event": assignment.submitted,
        "question": item.question,
        "answer": words.format_tokens(task, answer),
        "by": "human",
        **words.correctness(task, context, question, answer),
        "steps": [
            {
                "question": exchange.text,
                "answer": exchange.answer,
                "by": exchange.by,
                **words.correctness(
                    task,
                    context,
                    np.array(exchange.tokens["question"], np.int32),
                    np.array(exchange.tokens["answer"], np.int32),
                ),
                "event": exchange.told,
                "steps": list(exchange.steps),
            }
            for exchange in assignment.kept
            if exchange.tokens
        ],
        **words.describe_context(task, context),
    }


def _as_interactions(
    experiment: Experiment,
    problems: Problems,
    kept: Sequence[tuple[Item, Assignment]],
    answers: Int[np.ndarray, "items answer_length"],
) -> Interaction | None:
    """Returns people's work as interactions that an overseer can imitate."""
    task, steps = experiment.task, []
    shape = (len(kept), task.question_length), (len(kept), task.answer_length)
    for number in range(human(experiment).config.asks):
        asked = np.zeros(len(kept), bool)
        question, answer = np.zeros(shape[0], np.int32), np.zeros(shape[1], np.int32)
        for row, (_, assignment) in enumerate(kept):
            told = [exchange.tokens for exchange in assignment.kept if exchange.tokens]
            if number < len(told):
                asked[row] = True
                question[row], answer[row] = told[number]["question"], told[number]["answer"]
        by = jnp.full(len(kept), ASSISTANT)
        sub = Interaction(jnp.asarray(question), jnp.asarray(answer), by)
        steps.append(Step(jnp.asarray(asked), sub))
    if not steps:
        return None
    questions = jnp.asarray(problems.questions)[
        jnp.asarray([item.row for item, _ in kept]), jnp.asarray([item.column for item, _ in kept])
    ]
    by = jnp.full(len(kept), OVERSEER)
    return Interaction(questions, jnp.asarray(answers), by, tuple(steps))


def _is_closed(queue: Queue, stage: RoundStage) -> bool:
    return stage in queue.stages and queue.stages[stage].closed is not None
