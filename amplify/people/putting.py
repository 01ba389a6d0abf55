"""Which of a round's questions are put up to people, and how: the events that open it.

Everything follows from the experiment and the round's problems, so that a round that was stopped
puts up the same items under the same names. Knows nothing of who answers them.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from amplify import words
from amplify.amplification import over_questions
from amplify.errors import AmplifyError
from amplify.experiment import Experiment
from amplify.overseers.human import Human
from amplify.people.queue import New
from amplify.types import ChoiceTask, Problems, Task, rule_of


def put_up(experiment: Experiment, number: int, problems: Problems, parent: str) -> list[New]:
    """Opens the round: an event for it and one for each question. The same whenever it is made.

    Args:
        parent: digest of the weights that people will be helped by.
    """
    config, task = human(experiment).config, experiment.task
    places = choose_places(experiment, number, problems)
    guide = Path(config.guide).read_text(encoding="utf-8") if config.guide else ""
    told = {"lease": config.lease, "guide": guide, "title": "Answer questions"}
    events = [new_event("opened", number, request=f"opened:{number}", body=told)]
    rows, columns = np.array(places).T
    questions = jax.device_get(problems.questions)[rows, columns]
    contexts, asked = problems.contexts[rows], jnp.asarray(questions[:, None])
    truths = jax.device_get(over_questions(task.truth)(contexts, asked))[:, 0]
    classes = jax.device_get(over_questions(task.class_of)(contexts, asked))[:, 0]
    names = [identify(experiment, number, *place) for place in places]
    is_gold = np.array([chance(name, "gold") < config.gold for name in names])
    right = right_words(task, contexts[is_gold], questions[is_gold])
    for place, (row, column) in enumerate(places):
        name = names[place]
        body: New = {
            "question": words.shown(task, questions[place]),
            "label": task.classes[classes[place]],
            "row": row,
            "column": column,
            "budget": config.asks,
            "overlap": config.overlap,
            "withheld": chance(name, "withheld") < config.withheld,
            "choices": task.choices if isinstance(task, ChoiceTask) else (),
            "rule": rule_of(task).as_row(),
        }
        if is_gold[place]:
            body["gold"] = words.shown(task, truths[place])
            body["also_right"] = [word for word in next(right) if word != body["gold"]]
        facts = {"item": name, "checkpoint": parent, "request": f"put:{name}"}
        events.append(new_event("put", number, **facts, body=body))
    return events


def choose_places(experiment: Experiment, number: int, problems: Problems) -> list[tuple[int, int]]:
    """Row and column of the questions that people answer: drawn among all that are different."""
    wanted = human(experiment).config.items
    questions = jax.device_get(problems.questions)
    primitive = jax.device_get(experiment.task.is_primitive(problems.questions))
    places = [
        (row, int(column))
        for row, asked in enumerate(questions)
        for column in np.sort(np.unique(asked, axis=0, return_index=True)[1])
        if not primitive[row, column]
    ]
    if len(places) < wanted:
        raise AmplifyError(
            f"overseer.items must be at most {len(places)}, the different questions of round"
            f" {number}; got {wanted}"
        )
    bits = np.random.Philox(key=np.array([experiment.seed, number], np.uint64))
    order = np.argsort(bits.random_raw(len(places)), kind="stable")
    return [places[place] for place in order[:wanted]]


def right_words(
    task: Task,
    contexts: Array | np.ndarray,
    questions: Int[np.ndarray, "items question_length"],
) -> Iterator[list[str]]:
    """Of each question, the words that the task calls right: there may be several, such as the
    first steps of equally short paths. None where an answer is more than one word.
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


def identify(experiment: Experiment, *parts: Any) -> str:
    """A name that says nothing, the same whenever it is asked for."""
    return _hash(experiment.digest, *parts)[:12]


def chance(*parts: Any) -> float:
    """A number in 0..1 that depends on its arguments alone."""
    return int(_hash(*parts)[:13], 16) / 16**13


def _hash(*parts: Any) -> str:
    return hashlib.sha256(":".join(map(str, parts)).encode()).hexdigest()


def human(experiment: Experiment) -> Human:
    assert isinstance(experiment.overseer, Human)
    return experiment.overseer


def new_event(kind: str, number: int, **facts: Any) -> New:
    return {"kind": kind, "round": number, **facts}
