"""Checks across sections of an experiment file."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amplify import words
from amplify.answers import collapse_spaces
from amplify.errors import AmplifyError, prefix_errors
from amplify.evaluation.measures import Measure
from amplify.experiment.sections import Curriculum, Gate, Questions
from amplify.experiment.validation import quote_value, suggestion
from amplify.overseers.human import HumanConfig
from amplify.overseers.language_model import LanguageModelOverseerConfig
from amplify.overseers.learned import FIRST_DEMONSTRATIONS, LearnedConfig
from amplify.task_abilities import choices_of, knows_truth, search_of, sizes_of, strategy_of
from amplify.tasks.problems import CONTEXTS_PER_CHUNK
from amplify.training.mesh import Mesh
from amplify.training.options import Training
from amplify.types import Task

MAX_INT32 = 2**31 - 1
NO_TRUTH = "the task's truth and is_right are None"


def check_sections(sections: Mapping[str, Any], overseer_kind: str, path: Path) -> None:
    """Checks that the sections fit together.

    Args:
        sections: the experiment's sections by name.
        overseer_kind: the value of `overseer.kind`.
        path: the experiment file.

    Raises:
        AmplifyError: for the first conflict.
    """
    task, overseer, training = (sections[name] for name in ("task", "overseer", "training"))
    _check_counts(sections, path)
    _check_steps(sections["questions"], training, path)
    _check_items(overseer, sections["questions"], path)
    _check_mesh(sections["mesh"], training, path)
    _check_strategy(task, overseer, overseer_kind, path)
    _check_truth(task, sections["oversight"], path)
    _check_demonstrations(overseer, training, path)
    _check_contexts(task, training, path)
    _check_choices(task, path)
    _check_streaming_overseer(overseer, training, path)
    _check_curriculum(task, sections["curriculum"], training, path)
    check = getattr(sections["oversight"], "check_sections", None)
    if check is not None:
        with prefix_errors(path):
            check(sections)


def check_gate(measures: Sequence[Measure], gate: Gate, task: Task, path: Path) -> None:
    """Checks that the gate compares a measure in 0..1 that evals take and that rounds can change.

    Args:
        measures: those of the experiment.
        gate: its section.
        task: the experiment's.
        path: the experiment file.

    Raises:
        AmplifyError: if it does not; lists the measures that it could compare.
    """
    comparable = [m.name for m in measures if m.share and not m.constant]
    if gate.measure not in comparable:
        why = "" if knows_truth(task) else f" ({NO_TRUTH}, so accuracy is not measured)"
        raise AmplifyError(
            f"{path}: gate.measure must be one of {', '.join(comparable)}, the measures of this"
            f" experiment that rounds can change{why};"
            f" got {quote_value(gate.measure)}{suggestion(gate.measure, comparable)}"
        )


def check_gold(task: Task, given: Mapping[str, Any], path: Path) -> None:
    """Checks that the file asks for gold items only if the task knows the truth.

    The default share of gold items is ignored for other tasks.

    Args:
        task: the experiment's.
        given: the keys of `[overseer]` in the file.
        path: the experiment file.

    Raises:
        AmplifyError: if it asks for gold items without a truth.
    """
    if given.get("gold") and not knows_truth(task):
        raise AmplifyError(
            f"{path}: overseer.gold must be 0: gold items need known answers, and {NO_TRUTH};"
            f" got {quote_value(given['gold'])}"
        )


def _check_truth(task: Task, oversight: Any, path: Path) -> None:
    """True sub-answers need a task that knows the truth."""
    if getattr(oversight, "sub_answers", "assistant") == "truth" and not knows_truth(task):
        raise AmplifyError(
            f"{path}: oversight.kind: true sub-answers need a task that knows the truth, but truth"
            f" and is_right of {type(task).__name__} are None"
        )


def _check_counts(sections: Mapping[str, Any], path: Path) -> None:
    """Devices count steps and contexts in 32 bits."""
    for name in ("questions", "training", "curriculum", "evals"):
        counts = dataclasses.asdict(sections[name])
        counts.pop("seed", None)
        for key, value in counts.items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int) and number > MAX_INT32:
                    raise AmplifyError(
                        f"{path}: {name}.{key} must be at most {MAX_INT32}, got {number}"
                    )


def _check_items(overseer: Any, questions: Questions, path: Path) -> None:
    asked = questions.contexts * questions.per_context
    if type(overseer) is HumanConfig and overseer.items > asked:
        raise AmplifyError(
            f"{path}: overseer.items must be at most {asked}, the questions of a round"
            f" (questions.contexts x questions.per_context); got {overseer.items}"
        )


def _check_steps(questions: Questions, training: Training, path: Path) -> None:
    for name in ("checkpoint_every", "look_every"):
        if getattr(training, name) % training.log_every:
            raise AmplifyError(
                f"{path}: training.{name} must be a multiple of training.log_every"
                f" ({training.log_every}), got {getattr(training, name)}"
            )
    if training.batch % training.accumulate:
        raise AmplifyError(
            f"{path}: training.accumulate must divide training.batch ({training.batch}),"
            f" got {training.accumulate}"
        )
    if training.batch > questions.contexts:
        raise AmplifyError(
            f"{path}: training.batch must be at most questions.contexts"
            f" ({questions.contexts}), got {training.batch}"
        )


def _check_mesh(mesh: Mesh, training: Training, path: Path) -> None:
    at_once = math.gcd(training.batch // training.accumulate, CONTEXTS_PER_CHUNK)
    if at_once % mesh.row_shares:
        raise AmplifyError(
            f"{path}: mesh.data x mesh.fsdp must divide training.batch / training.accumulate"
            f" ({training.batch // training.accumulate}) and {CONTEXTS_PER_CHUNK}, the number of"
            f" contexts answered at a time; got {mesh.row_shares}"
        )


def _check_demonstrations(overseer: Any, training: Training, path: Path) -> None:
    if not isinstance(overseer, LearnedConfig):
        return
    least = -(-FIRST_DEMONSTRATIONS // training.batch)
    if overseer.steps < least:
        raise AmplifyError(
            f"{path}: overseer.steps must be at least {least}, for {FIRST_DEMONSTRATIONS}"
            f" demonstrations, one a context of each batch; got {overseer.steps}"
        )


def _check_strategy(task: Any, overseer: Any, kind: str, path: Path) -> None:
    """Simulated and learned overseers need the task's strategy, which is optional."""
    follows = kind in ("simulated", "learned")
    if type(overseer) is HumanConfig:  # and does not only compare answers
        follows = "simulated" in (overseer.people, overseer.others)
    if follows and strategy_of(task) is None:
        raise AmplifyError(
            f"{path}: overseer.kind {kind!r} needs a task with a strategy to follow or to learn"
            f" from, but {type(task).__name__} has none"
        )


def _check_contexts(task: Any, training: Training, path: Path) -> None:
    if training.targets == "streaming" and search_of(task):
        raise AmplifyError(
            f'{path}: training.targets must be "stored" for a task that searches for its contexts'
        )


def _check_choices(task: Task, path: Path) -> None:
    """Browsers send choices without surrounding spaces; the task must be able to read them."""
    seen: dict[str, str] = {}
    for choice in choices_of(task):
        other = seen.setdefault(collapse_spaces(choice), choice)
        if other != choice:
            raise AmplifyError(
                f"{path}: task: the choices {other!r} and {choice!r} look the same in a browser"
            )
        try:
            words.read_answer(task, choice)
        except AmplifyError as error:
            raise AmplifyError(
                f"{path}: task: the choice {choice!r} can never be chosen: {error}"
            ) from None


def _check_streaming_overseer(overseer: Any, training: Training, path: Path) -> None:
    slow = {LanguageModelOverseerConfig: "a language model oversees", HumanConfig: "people oversee"}
    if training.targets == "streaming" and type(overseer) in slow:
        raise AmplifyError(
            f'{path}: training.targets must be "stored" if {slow[type(overseer)]}: such an'
            " overseer cannot be asked at every step"
        )


def _check_curriculum(task: Task, curriculum: Curriculum, training: Training, path: Path) -> None:
    if not curriculum.start:
        return
    sizes = sizes_of(task)
    if training.targets != "streaming" or sizes is None:
        raise AmplifyError(
            f'{path}: curriculum.start needs training.targets = "streaming" and a task with'
            " contexts of several sizes"
        )
    if not sizes.smallest <= curriculum.start <= sizes.largest:
        raise AmplifyError(
            f"{path}: curriculum.start must be {sizes.smallest} to {sizes.largest},"
            f" got {curriculum.start}"
        )
