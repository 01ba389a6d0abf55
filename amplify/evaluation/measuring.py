"""Evaluates a round: takes its measures on held-out problems.

`measures_of` returns the measures of an experiment; `evaluate` takes them. Results are kept item by
item for paired comparisons. All rounds of an experiment have the same items.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Float, Int, Key, PyTree

from amplify.evaluation.measures import (
    ALONE,
    ALONE_IF_FOUND,
    AMPLIFIED,
    BEATS_DRAFT,
    CEILING,
    CONSISTENT,
    FOUND,
    GOLD,
    GOLD_FOCUS,
    GOLD_OTHER,
    LIVE,
    OUTSIDE,
    Measure,
)
from amplify.evaluation.scoring import (
    assistant_is_right,
    overseer_measures,
    record_calls,
    score_answers,
)
from amplify.models.abilities import gives_answers
from amplify.overseers.human import learner_of
from amplify.overseers.language_model import check_unanswered
from amplify.runtime import calls
from amplify.task_abilities import gold_of, gold_parts_of, knows_truth, rule_of, search_of
from amplify.tasks.problems import CONTEXTS_PER_CHUNK, chunk_rows, map_in_chunks
from amplify.types import (
    DONT_KNOW,
    FAILED,
    Assistant,
    OverseerKind,
    Problems,
    Roles,
    Task,
    Team,
)
from amplify.words import format_tokens

CHUNK = CONTEXTS_PER_CHUNK
"""Largest number of contexts that are evaluated at a time."""


def measures_of(task: Task, assistant: Assistant, overseer: OverseerKind) -> tuple[Measure, ...]:
    """Returns the measures of an experiment, in the order in which they are shown.

    For a task whose answers are more or less good, it is what they are worth, and what their parts
    are worth if the task has a focus. For a task without a truth, the only measure is the agreement
    of the assistant with its overseer. An overseer that judges answers without giving any has no
    measures of its own. For a task that searches for contexts, the recall of the search is
    measured, too.

    Args:
        task: the task.
        assistant: the model.
        overseer: the overseer.
    """
    costly = is_costly(overseer)
    learns = learner_of(overseer) is not None
    right = (
        ALONE,
        dataclasses.replace(AMPLIFIED, costly=costly),
        dataclasses.replace(CEILING, costly=costly, constant=not learns),
    )
    if gold_of(task):
        parts = (GOLD_FOCUS, GOLD_OTHER, OUTSIDE) if gold_parts_of(task) else ()
        return (GOLD, BEATS_DRAFT, *parts)
    if not knows_truth(task):
        return (dataclasses.replace(CONSISTENT, costly=costly),)
    if not gives_answers(overseer):
        return (ALONE,)
    found = (FOUND, ALONE_IF_FOUND) if search_of(task) else ()
    return right + found


def all_measures(
    task: Task, assistant: Assistant, overseer: OverseerKind, oversight: Any
) -> tuple[Measure, ...]:
    """Returns the measures of an experiment, and after them those that its oversight declares.

    Args:
        task: the task.
        assistant: the model.
        overseer: the overseer.
        oversight: its `measures`, if it has any, need a task that knows the truth.
    """
    own = getattr(oversight, "measures", ()) if knows_truth(task) else ()
    return (*measures_of(task, assistant, overseer), *own)


def is_costly(overseer: OverseerKind) -> bool:
    """Returns whether answers of an overseer cost something.

    Such overseers are called from Python: servers, language models and people.
    """
    return not overseer.traced


@dataclasses.dataclass(frozen=True)
class Item:
    """One held-out question with its answer and its measures: a line of `evals.jsonl`.

    Right or wrong is written as true or false, and read as 1 or 0.
    """

    split: str
    problem: str  # the seed of the problem, "stream:index"
    context: str  # digest of the context; items with the same one are dependent
    question: str
    label: str  # the question's class
    truth: str | None  # None: the task knows no truth
    answer: str  # the assistant's, without the overseer: its most likely one, or what gold is of
    probability: float  # of that answer
    measures: Mapping[str, bool | float]  # by name; missing values are left out

    def as_row(self) -> dict[str, Any]:
        """Returns the line as a dictionary."""
        row = {key: value for key, value in vars(self).items() if key not in ("label", "measures")}
        if self.truth is None:
            del row["truth"]
        return {"class": self.label, **row, **self.measures}


def evaluate(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    weights: Roles,
    problems: Problems,
    seed: int,
    *,
    split: str,
    skip: Collection[str] = (),
    advance: Callable[[int], Any] = lambda rows: None,
    place: Sharding | None = None,
    also: Callable[[Problems], Mapping[str, Float[np.ndarray, "batch questions"]]] | None = None,
) -> list[Item]:
    """Takes the measures of all distinct questions of every problem.

    Problems may have equal contexts. Their items then have the same digest, and statistics count
    duplicates once.

    Args:
        task: the task.
        assistant: the model.
        overseer: the overseer.
        weights: parameters of the assistant and the overseer.
        problems: contexts and questions.
        seed: the experiment's seed.
        split: name of the split, for the items.
        skip: measures that are not taken because they are copied, see `constant_measures`.
        advance: called with the number of contexts evaluated, for a progress bar.
        place: sharding of the contexts; None: the default device.
        also: takes further measures of the problems, with NaN where there is no value.

    Returns:
        The items, in the order of the problems and their questions.

    Raises:
        AmplifyError: if the overseer fails to answer too many questions.
    """
    root = jax.random.key(seed)
    names = [measure.name for measure in measures_of(task, assistant, overseer)]
    wanted = [name for name in overseer_measures(task, overseer) if name not in skip]
    team = Team(task, assistant, overseer)
    function = functools.partial(score_answers, team, wanted, weights, root)
    size = chunk_rows(len(problems.seeds), CHUNK, place)
    chunks = list(map_in_chunks(function, size, problems, advance=advance, place=place))
    scored = jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
    record_calls(scored)
    scored |= _compared(task, scored)
    further = {} if also is None else also(problems)
    scored |= further
    names += further
    if "amplified_answer" in scored:
        check_unanswered(overseer, scored["amplified_answer"])
    seeds, questions = jax.device_get((problems.seeds, problems.questions))
    digests = [context_digest(context) for context in jax.device_get(problems.contexts)]
    return [
        Item(
            split=split,
            problem="{}:{}".format(*seeds[row]),
            context=digests[row],
            question=format_tokens(task, questions[row, column]),
            label=task.classes[scored["class"][row, column]],
            truth=format_tokens(task, scored["truth"][row, column]) if "truth" in scored else None,
            answer=format_tokens(task, scored["answer"][row, column]),
            probability=round(float(scored["probability"][row, column]), 4),
            measures={
                name: value
                for name in names
                if name in scored
                if math.isfinite(value := scored[name][row, column].item())
            },
        )
        for row, column in _distinct(questions)
    ]


def context_digest(context: Int[np.ndarray, "facts fact_length"]) -> str:
    """Returns a digest of a context's facts, which does not depend on their order."""
    facts = np.ascontiguousarray(context, dtype=np.int64)
    ordered = facts[np.lexsort(facts.T[::-1])]
    return hashlib.sha256(repr(facts.shape).encode() + ordered.tobytes()).hexdigest()[:16]


def _compared(
    task: Task, scored: Mapping[str, Any]
) -> dict[str, Float[np.ndarray, "batch questions"]]:
    """Measures that compare texts, for tasks without a truth."""
    if knows_truth(task) or "amplified_answer" not in scored:
        return {}
    return {CONSISTENT.name: same_answers(task, scored["answer"], scored["amplified_answer"])}


def same_answers(
    task: Task,
    alone: Int[np.ndarray, "batch questions answer_length"],
    amplified: Int[np.ndarray, "batch questions answer_length"],
) -> Float[np.ndarray, "batch questions"]:
    """Returns whether the assistant and the overseer give the same answers, by the task's rule.

    Args:
        task: the task.
        alone: the assistant's own answers.
        amplified: the overseer's answers with the assistant's help.

    Returns:
        1 if the answers are the same, 0 if they differ or one is "don't know", and NaN if no answer
        of the overseer was obtained.
    """
    rule = rule_of(task)

    def same(one: Int[np.ndarray, " length"], two: Int[np.ndarray, " length"]) -> float:
        if FAILED in two:
            return math.nan
        both_know = np.any(one != DONT_KNOW) and np.any(two != DONT_KNOW)
        return float(both_know and rule.same(format_tokens(task, one), format_tokens(task, two)))

    pairs = zip(*(side.reshape(-1, side.shape[-1]) for side in (alone, amplified)), strict=True)
    return np.array([same(*pair) for pair in pairs]).reshape(alone.shape[:-1])


def evaluate_during_training(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    weights: Roles,
    student: PyTree[Array],
    problems: Problems,
    root: Key[Array, ""],
    *,
    asks: bool = True,
) -> dict[str, Any]:
    """Takes the means of measures on a few problems.

    Args:
        task: the task.
        assistant: the model.
        overseer: the overseer.
        weights: parameters that answer: the assistant's target network, and the overseer's.
        student: the assistant's live parameters, of which the target network is the average.
        problems: contexts and questions.
        root: key from which, with the problems' seeds, all samples are drawn.
        asks: whether the overseer is asked; if not, its measures are left out.

    Returns:
        `{"accuracy": {measure: {class: mean}}}`, with the names of `measures_of` and, for tasks
        with a truth, LIVE. Classes without values are left out.
    """
    team = Team(task, assistant, overseer)
    wanted = overseer_measures(task, overseer) if asks else ()
    scored = jax.device_get(score_answers(team, wanted, weights, root, problems))
    record_calls(scored)
    scored |= _compared(task, scored)
    names = [measure.name for measure in measures_of(task, assistant, overseer)]
    seen = {name: scored[name] for name in names if name in scored}
    if knows_truth(task):
        seen[LIVE.name] = jax.device_get(assistant_is_right(team, student, problems))
        calls.count(calls.ASSISTANT, seen[LIVE.name].size)
    return {
        "accuracy": {
            name: {
                label: round(float(values[of_class].mean()), 4)
                for index, label in enumerate(task.classes)
                if (of_class := (scored["class"] == index) & np.isfinite(values)).any()
            }
            for name, values in seen.items()
        }
    }


def _distinct(
    questions: Int[np.ndarray, "batch questions question_length"],
) -> list[tuple[int, int]]:
    """(row, column) of each question that does not occur earlier in its row."""
    places = []
    for row, asked in enumerate(questions):
        _, first = np.unique(asked, axis=0, return_index=True)
        places += [(row, int(column)) for column in np.sort(first)]
    return places
