"""A round's data set made again: from what was recorded, or with somebody else in the recording.

What people said is in the log, and what a server replied in the round's exchanges; a simulated or
learned overseer's answers are recomputed. A replay asks nobody anything, and nothing in the round's
folder is touched.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.overseers.exchanges import consulting, recorded
from amplify.overseers.human import PassesOn
from amplify.overseers.simulated import Simulated
from amplify.oversight.draws import draw_round
from amplify.oversight.labels import amplified_answers
from amplify.oversight.loading import load_assistant, load_weights
from amplify.oversight.people.answerer import Answerer
from amplify.oversight.people.collecting import Gathered, recorded_by_people
from amplify.oversight.work import Made
from amplify.records.round_folder import RoundFolder
from amplify.runtime.progress import Watch
from amplify.stages import write_data
from amplify.store import Store
from amplify.task_abilities import knows_truth, strategy_of
from amplify.trees.amplification import over_questions
from amplify.types import OverseerKind, Problems, Weights

OtherOverseer = Literal["simulated", "nobody"]


class Replayed(NamedTuple):
    """A data set made again from what was recorded."""

    round: int
    answers: int  # in the data set
    by_people: int
    recorded: str  # the data set's digest, in the round's record
    replayed: str

    @property
    def same(self) -> bool:
        """Whether every byte is."""
        return self.recorded == self.replayed

    def as_row(self) -> dict[str, Any]:
        return {**self._asdict(), "same": self.same}


class Change(NamedTuple):
    """What became of some of a round's answers when somebody else gave them."""

    what: str
    answers: int
    changed: int
    right_before: int | None = None  # None where the task knows no truth
    right_after: int | None = None

    def as_row(self) -> dict[str, Any]:
        """For tables and JSON, without what is not known."""
        return {key: value for key, value in self._asdict().items() if value is not None}


def replay(store: Store, number: int, watch: Watch) -> Replayed:
    """Makes a round's data set again. Raises AmplifyError if the round has none."""
    this = _recorded(store, number)
    experiment, problems = store.experiment, draw_round(store.experiment, number)
    people = recorded_by_people(experiment, this, problems)
    weights, digest = _signal_weights(store, this)
    with recorded(this.path, "distillation/data"):
        made = amplified_answers(experiment, number, weights, digest, problems, people, watch)
    with tempfile.TemporaryDirectory() as folder:
        replayed = write_data(Path(folder) / "data", made)
    answers = made.columns["answers"]
    return Replayed(
        number,
        answers[..., 0].size,
        0 if people is None else len(people.rows),
        this.record["stages"]["distillation/data"]["digest"],
        replayed,
    )


def swap(
    store: Store, number: int, checkpoint: int | None, overseer: OtherOverseer | None, watch: Watch
) -> list[Change]:
    """What changes in a round's answers with another round's checkpoint, or another overseer.

    People cannot be asked again: with another checkpoint only what the assistant told them is made
    again; with another overseer, their answers are, by it. A language model behind a server is
    asked what the round did not ask it. Raises AmplifyError if there is no such round or overseer.
    """
    this = _recorded(store, number)
    experiment, problems = store.experiment, draw_round(store.experiment, number)
    people = recorded_by_people(experiment, this, problems)
    weights, digest = _signal_weights(store, this)
    with recorded(this.path, "distillation/data"):
        before = amplified_answers(experiment, number, weights, digest, problems, people, watch)
    others = weights
    if checkpoint is not None:
        roles = store.roles(store.finished(checkpoint, "checkpoint"))
        digest = roles["assistant"].digest
        others = weights._replace(assistant=load_assistant(experiment, roles))
    changed = dataclasses.replace(experiment, overseer=_overseer(experiment, overseer))
    kept = people if overseer is None else None
    with consulting(this.path, "distillation/data"):
        after = amplified_answers(changed, number, others, digest, problems, kept, watch)
    rows = _compare(experiment, problems, people, before, after)
    if checkpoint is not None and people is not None:
        rows.append(_told_again(Answerer(experiment, others, digest, problems), people))
    return rows


def _recorded(store: Store, number: int) -> RoundFolder:
    if store.experiment.training.targets == "streaming":
        raise AmplifyError(
            f"{store.path}: streamed answers come from weights that were not kept; only rounds"
            ' with training.targets = "stored" can be replayed'
        )
    return store.finished(number, "data")


def _signal_weights(store: Store, this: RoundFolder) -> tuple[Weights, str]:
    """Those who answered in a round, and the digest of the assistant's weights."""
    roles = store.roles_of_signal(this)
    return load_weights(store.experiment, roles), roles["assistant"].digest


def _overseer(experiment: Experiment, wanted: OtherOverseer | None) -> OverseerKind:
    if wanted is None:
        return experiment.overseer
    if wanted == "nobody":
        return PassesOn()
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
    theirs = np.zeros(was.shape[:2], bool)
    if people is not None:
        theirs[people.rows, people.columns] = True
    kinds = {"people's answers": theirs, "the others' answers": ~theirs}
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
    is_right = over_questions(experiment.task.is_right)
    return jax.device_get(is_right(problems.contexts, problems.questions, jnp.asarray(answers)))


def _told_again(answerer: Answerer, people: Gathered) -> Change:
    """What people asked the assistant, asked again."""
    asked: list[tuple[int, dict[str, Any]]] = [
        (tree["row"], step)
        for tree in people.trees
        for step in tree["steps"]
        if step["by"] == "assistant"
    ]
    answers = answerer.ask_again([(row, step["question"]) for row, step in asked])
    judged = [[step for _, step in asked], answers] if knows_truth(answerer.experiment.task) else []
    return Change(
        "what the assistant told people",
        len(asked),
        sum(now["text"] != step["answer"] for now, (_, step) in zip(answers, asked, strict=True)),
        *(sum(one["right"] for one in some) for some in judged),
    )
