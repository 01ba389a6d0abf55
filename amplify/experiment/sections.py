"""An experiment: the sections of its file as frozen dataclasses, and its identity.

The resolved values, defaults included, and the content of every file that they name are the
experiment's identity: their digest goes into every round's record. Nothing below this module reads
a configuration (see `experiment_file`); functions take plain values.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from amplify.errors import AmplifyError
from amplify.evaluation.measures import DEFAULT, Measure
from amplify.evaluation.measuring import measures_of
from amplify.evaluation.statistics import smallest_gain
from amplify.evaluation.statistics.gate import spent_error_rate
from amplify.overseers.human import Human, learner_of
from amplify.overseers.learned import Learned
from amplify.training.mesh import Mesh
from amplify.training.options import Count, Share, Training
from amplify.types import Assistant, OverseerKind, Task

IDENTITY = 2
"""How the identity is computed: since 2 it has the content of every file that is read."""

LATER: Mapping[str, Any] = {
    "gate.measure": DEFAULT,
    "oversight.kind": "amplification",
    "evals.ask_during_training": False,
}
"""Keys that came after experiments were run, with the value that those experiments have. A record
that lacks such a key has its value, and the identity leaves the key out while it has that value: so
older rounds can be continued, and nobody is asked something else.
"""


SUB_ANSWERS = "questions.sub_answers"
"""A key of older files: "truth" is now `[oversight] kind = "truth"`."""


def now_written(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The values in a record of any version, under the keys of this version."""
    values = {**LATER, **recorded}
    if values.pop(SUB_ANSWERS, "assistant") == "truth":
        values["oversight.kind"] = "truth"
    return values


def first_written(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of this version under the keys of the first one that had identities."""
    truly = values.get("oversight.kind") == "truth"
    kind = {"oversight.kind": LATER["oversight.kind"]} if truly else {}
    return {**values, **kind, SUB_ANSWERS: "truth" if truly else "assistant"}


@dataclasses.dataclass(frozen=True)
class Questions:
    """`[questions]`: what a round asks, and so what the next assistant is trained on."""

    contexts: Count = 4096
    per_context: Count = 32
    deepest: tuple[Count, ...] = ()
    """Depth of the deepest questions by round, the last one kept for later rounds; empty: round n
    asks up to n.
    """
    at_deepest: Share = 0.5
    """Share of a context's questions that are at the deepest depth; the rest take turns below it.
    """

    def depths(self, round_number: int, max_depth: int) -> list[int]:
        """The depth of each question of a context, `per_context` of them."""
        by_round = (
            self.deepest[min(round_number, len(self.deepest)) - 1] if self.deepest else round_number
        )
        deepest = min(by_round, max_depth)
        deep = self.per_context if deepest == 1 else round(self.at_deepest * self.per_context)
        return [deepest] * deep + [1 + i % (deepest - 1) for i in range(self.per_context - deep)]


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """`[curriculum]`: with streaming, contexts that grow as the assistant agrees with itself."""

    start: Annotated[int, Field(ge=0)] = 0
    """Size of the first contexts; 0: all are of full size."""
    agreement: Share = 0.85
    """Contexts grow by 1 once the target network agrees with more of its own amplified answers."""
    batches: Count = 50
    """Batches over which it must, anew at each size."""


@dataclasses.dataclass(frozen=True)
class Evals:
    """`[evals]`: held-out contexts, and questions about each at every depth."""

    select: Count = 2048
    """Contexts of the split that drives the gate and every other choice. The gate tells gains by
    contexts and not by questions: so many tell one point from none (see docs/statistics.md).
    """
    final: Count = 512
    """Contexts of the split that is only reported."""
    per_depth: Count = 2
    apart: bool = True
    """Whether held-out contexts are kept from training; false for tasks that have too few."""
    ask_during_training: bool = False
    """Whether a server or a language model that oversees is also asked in the looks at held-out
    problems while the assistant trains. Overseers that cost nothing always are.
    """

    def depths(self, max_depth: int) -> list[int]:
        """The depth of each question about a held-out context."""
        return [depth for depth in range(1, max_depth + 1) for _ in range(self.per_depth)]


@dataclasses.dataclass(frozen=True)
class Gate:
    """`[gate]`: when a round counts as better than the best before it."""

    measure: str = DEFAULT
    """What is compared: the name of one of the experiment's measures (see `measures`)."""
    error_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Chance, over all rounds together, of promoting any that is no better."""
    worthwhile: Share = 0.01
    """A round is rejected once an improvement of this much accuracy can be ruled out."""
    patience: Count = 1
    """`rounds` stops after this many rounds in a row that were not promoted."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    seed: int
    task: Task
    assistant: Assistant
    overseer: OverseerKind
    oversight: Any
    """How training signals are made; see `oversight.work.Oversight`."""
    questions: Questions
    training: Training
    curriculum: Curriculum
    evals: Evals
    gate: Gate
    mesh: Mesh = dataclasses.field(compare=False)
    values: Mapping[str, Any] = dataclasses.field(compare=False)
    """Every key of the file with its value, defaults filled in: `{"training.steps": 1000, ...}`,
    and for each key that names files a digest of what they contain."""
    files: Mapping[str, Mapping[str, str]] = dataclasses.field(compare=False, default_factory=dict)
    """SHA-256 of each file behind those digests, by its path seen from what the key names."""
    places: Mapping[str, Path] = dataclasses.field(compare=False, default_factory=dict)
    """Where the files behind each digest are: the file itself, or the folder."""

    @property
    def learner(self) -> Learned | None:
        """The overseer that learns, if there is one: the experiment's own, or one beside people."""
        return learner_of(self.overseer)

    @property
    def sub_answers(self) -> str:
        """Who answers the overseer's sub-questions: "assistant", or "truth"."""
        return getattr(self.oversight, "sub_answers", "assistant")

    @property
    def overseer_learns(self) -> bool:
        return self.learner is not None

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What evals measure, in the order in which it is shown."""
        return measures_of(self.task, self.assistant, self.overseer)

    @property
    def all_depths(self) -> list[int]:
        """Depths of a context's questions where a round asks at all of them, in turn."""
        deepest = self.task.max_depth
        return [1 + i % deepest for i in range(self.questions.per_context)]

    def check_shared(self, processes: int, devices: int) -> None:
        """Raises AmplifyError unless several processes, with so many devices together, can run a
        round of it.
        """
        if isinstance(self.overseer, Human):
            raise AmplifyError(
                f'rounds with overseer.kind = "human" run in one process, and here are {processes}'
            )
        if self.mesh.size != devices:
            raise AmplifyError(
                f"{processes} processes have {devices} devices together, and all must be in the"
                f" experiment's mesh, which takes {self.mesh.size}: change [mesh], which is no part"
                " of the experiment's identity"
            )

    def gate_warning(self) -> str | None:
        """One line if the gate cannot even promote, in round 1, a gain that it calls worthwhile."""
        evals, gate = self.evals, self.gate
        level = spent_error_rate(1, gate.error_rate)
        questions = len(evals.depths(self.task.max_depth))
        gain = smallest_gain(evals.select, questions, level)
        if gain is not None and gain <= gate.worthwhile:
            return None
        least = "no gain" if gain is None else f"no gain below {100 * gain:.2g} points"
        return (
            f"gate.worthwhile = {gate.worthwhile:g}, and {evals.select} contexts let {least} be"
            " promoted, even if nothing is lost: a larger evals.select tells smaller gains"
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the values as the first version wrote them, so that it stays the same."""
        told = {key: v for key, v in first_written(self.values).items() if v != LATER.get(key)}
        canonical = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
