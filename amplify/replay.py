"""Rebuilds a round's data set from its records, or shows what another overseer would change.

Answers of people are taken from the log, replies of a server from the round's exchanges; answers of
a simulated or learned overseer are recomputed. A replay asks nobody and changes nothing in the
round's folder.
"""

import dataclasses
import itertools
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.overseers.exchanges import replaying, replaying_with_server
from amplify.overseers.human import PassThrough
from amplify.overseers.simulated import Simulated
from amplify.oversight.draws import draw_round
from amplify.oversight.make_data import AMPLIFIED, DISTILLATION, amplified_answers
from amplify.oversight.people.answerer import Answerer
from amplify.oversight.people.collecting import Gathered, recorded_by_people
from amplify.oversight.restore import load_assistant, load_weights
from amplify.oversight.work import Made, Work
from amplify.records.round_folder import RoundFolder
from amplify.runtime.progress import Watch
from amplify.stages import write_data
from amplify.store import Store
from amplify.task_abilities import knows_truth, strategy_of
from amplify.tasks.batching import vmap_questions
from amplify.training.phase import Phase
from amplify.types import OverseerKind, Problems, Roles

OtherOverseer = Literal["simulated", "nobody"]


class ReplayResult(NamedTuple):
    """A data set rebuilt from a round's records."""

    round: int
    answers: int  # in the data set
    by_people: int  # of these
    recorded: str  # digest of the data set in the round's record
    replayed: str  # digest of the rebuilt data set

    @property
    def same(self) -> bool:
        """Whether the rebuilt data set is identical to the recorded one, byte for byte."""
        return self.recorded == self.replayed

    def as_row(self) -> dict[str, Any]:
        """Returns the fields and `same`, for tables and JSON."""
        return {**self._asdict(), "same": self.same}


class Change(NamedTuple):
    """How a group of a round's answers changed with another checkpoint or overseer."""

    what: str
    answers: int
    changed: int
    right_before: int | None = None  # None: the task knows no truth
    right_after: int | None = None

    def as_row(self) -> dict[str, Any]:
        """Returns the fields that are known, for tables and JSON."""
        return {key: value for key, value in self._asdict().items() if value is not None}


def replay(store: Store, number: int, watch: Watch, phase: str | None = None) -> ReplayResult:
    """Rebuilds a data set of a round and compares it with the recorded one.

    Args:
        store: the experiment's folder.
        number: the round's number.
        watch: reports progress.
        phase: name of the phase that stored it, such as audit_40; None: the first that did.

    Raises:
        AmplifyError: if the round has no such data set, or it was streamed.
    """
    this = _replayable_round(store, number)
    return _replay_phase(store, this, _stored_phase(store, this, phase), watch)


def _replay_phase(store: Store, this: RoundFolder, phase: Phase, watch: Watch) -> ReplayResult:
    number = this.number
    if phase.name != DISTILLATION:
        made = _made_again(store, this, phase, watch)
    else:
        experiment, problems = store.experiment, draw_round(store.experiment, number)
        people = recorded_by_people(experiment, this, AMPLIFIED, problems)
        weights, digest = _signal_weights(store, this)
        with replaying(this.path, AMPLIFIED):
            made = amplified_answers(experiment, number, weights, digest, problems, people, watch)
    with tempfile.TemporaryDirectory() as folder:
        replayed = write_data(Path(folder) / "data", made)
    answers = made.columns["answers"]
    return ReplayResult(
        number,
        answers[..., 0].size,
        sum(tree.get("by") == "human" for tree in made.trees),
        this.record["stages"][f"{phase.name}/data"]["digest"],
        replayed,
    )


def _stored_phase(store: Store, this: RoundFolder, name: str | None = None) -> Phase:
    """The phase of a name that stored its signal, or the first that did.

    Raises:
        AmplifyError: there is none of this name.
    """
    phases = itertools.takewhile(  # a phase may depend on the data of those before it
        lambda phase: phase.source is not None or this.done(f"{phase.name}/data"),
        store.experiment.oversight.phases(store.experiment, this),
    )
    stored = (phase for phase in phases if phase.source is None)
    if name is None:
        return next(stored)
    there = {phase.name: phase for phase in stored}
    if name not in there:
        raise AmplifyError(
            f"--phase: must be a phase of round {this.number} that stored its signal"
            f" ({', '.join(there)}), got {name!r}"
        )
    return there[name]


def _made_again(store: Store, this: RoundFolder, phase: Phase, watch: Watch) -> Made:
    """Makes the signal of a phase again, from the log of what people and servers said."""
    parent, stage = store.parent_of(this), f"{phase.name}/data"
    work = Work(store.experiment, this, parent, store.roles_before(this, stage), watch)
    with replaying(this.path, stage):
        made: Made = store.experiment.oversight.signal(phase, work)
    return made


def swap(
    store: Store, number: int, checkpoint: int | None, overseer: OtherOverseer | None, watch: Watch
) -> list[Change]:
    """Compares a round's answers with those of another checkpoint or another overseer.

    People cannot be asked again. With another checkpoint, only the sub-answers that the assistant
    gave them are recomputed; another overseer answers in their place. A language model on a server
    is sent only the prompts that the round has not recorded.

    Args:
        store: the experiment's folder.
        number: the round's number.
        checkpoint: the round whose assistant answers; None: the round's parent, as recorded.
        overseer: who answers; "nobody" asks the assistant alone; None: the recorded overseer.
        watch: reports progress.

    Returns:
        Changes of people's answers, of all other answers, and of the sub-answers given to people.

    Raises:
        AmplifyError: if the round has no data set, or there is no such checkpoint or overseer.
    """
    this = _replayable_round(store, number)
    if (stored := _stored_phase(store, this).name) != DISTILLATION:
        raise AmplifyError(
            f"{this.path}: stored {stored}, which only a replay makes again; another checkpoint or"
            " overseer can answer questions only"
        )
    experiment, problems = store.experiment, draw_round(store.experiment, number)
    people = recorded_by_people(experiment, this, AMPLIFIED, problems)
    weights, digest = _signal_weights(store, this)
    with replaying(this.path, AMPLIFIED):
        before = amplified_answers(experiment, number, weights, digest, problems, people, watch)
    others = weights
    if checkpoint is not None:
        roles = store.roles(store.finished(checkpoint, "checkpoint"))
        digest = roles["assistant"].digest
        others = {**weights, "assistant": load_assistant(experiment, roles)}
    changed = dataclasses.replace(experiment, overseer=_overseer(experiment, overseer))
    kept = people if overseer is None else None
    with replaying_with_server(this.path, AMPLIFIED):
        after = amplified_answers(changed, number, others, digest, problems, kept, watch)
    rows = _compare(experiment, problems, people, before, after)
    if checkpoint is not None and people is not None:
        rows.append(_reask_assistant(Answerer(experiment, others, digest, problems), people))
    return rows


def _replayable_round(store: Store, number: int) -> RoundFolder:
    if store.experiment.training.targets == "streaming":
        raise AmplifyError(
            f"{store.path}: streamed answers come from weights that were not kept; only rounds"
            ' with training.targets = "stored" can be replayed'
        )
    return store.finished(number, "data")


def _signal_weights(store: Store, this: RoundFolder) -> tuple[Roles, str]:
    """Weights that made a round's signal, and the digest of the assistant's."""
    roles = store.roles_of_signal(this)
    return load_weights(store.experiment, roles), roles["assistant"].digest


def _overseer(experiment: Experiment, wanted: OtherOverseer | None) -> OverseerKind:
    if wanted is None:
        return experiment.overseer
    if wanted == "nobody":
        return PassThrough()
    if strategy_of(experiment.task) is None:
        raise AmplifyError(
            f"--overseer simulated: {type(experiment.task).__name__} has no strategy to follow"
        )
    return Simulated(experiment.task)


def _compare(
    experiment: Experiment,
    problems: Problems,
    people: Gathered | None,
    before: Made,
    after: Made,
) -> list[Change]:
    was, now = before.columns["answers"], after.columns["answers"]
    by_people = np.zeros(was.shape[:2], bool)
    if people is not None:
        by_people[people.rows, people.columns] = True
    kinds = {"people's answers": by_people, "the others' answers": ~by_people}
    changed = (was != now).any(-1)
    counted = [np.ones_like(changed), changed]
    if knows_truth(experiment.task):
        counted += [_right(experiment, problems, answers) for answers in (was, now)]
    return [
        Change(what, *(int(part[where].sum()) for part in counted))
        for what, where in kinds.items()
        if where.any()
    ]


def _right(
    experiment: Experiment,
    problems: Problems,
    answers: Int[np.ndarray, "rows questions answer_length"],
) -> Bool[np.ndarray, "rows questions"]:
    is_right = vmap_questions(experiment.task.is_right)
    return jax.device_get(is_right(problems.contexts, problems.questions, jnp.asarray(answers)))


def _reask_assistant(answerer: Answerer, people: Gathered) -> Change:
    """Asks the assistant again what people asked it."""
    asked: list[tuple[int, dict[str, Any]]] = [
        (tree["row"], step)
        for tree in people.trees
        for step in tree["steps"]
        if step["by"] == "assistant"
    ]
    answers = answerer.ask_again([(row, step["question"]) for row, step in asked])
    scored = [[step for _, step in asked], answers] if knows_truth(answerer.experiment.task) else []
    return Change(
        "what the assistant told people",
        len(asked),
        sum(now["text"] != step["answer"] for now, (_, step) in zip(answers, asked, strict=True)),
        *(sum(one["right"] for one in some) for some in scored),
    )
