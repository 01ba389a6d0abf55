"""The sections of an experiment file as frozen dataclasses.

An experiment's identity consists of its resolved values, defaults included, and the contents of all
files that they name; its digest is part of every round's record. `reading` builds these objects.
Functions below this level take plain values.
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
from amplify.evaluation.measuring import all_measures
from amplify.evaluation.statistics import smallest_gain
from amplify.evaluation.statistics.gate import spent_error_rate
from amplify.overseers.human import Human, HumanReviewers, learner_of
from amplify.overseers.learned import Learned
from amplify.training.mesh import Mesh
from amplify.training.options import Count, Share, Training
from amplify.types import Assistant, OverseerKind, Task

IDENTITY = 2
"""Version of the identity. Version 2 includes the contents of files."""

ADDED_KEYS: dict[str, Any] = {
    "gate.measure": DEFAULT,
    "oversight.kind": "amplification",
    "evals.ask_during_training": False,
    "evals.seed": None,
    "task.focus": None,
    "oversight.reviews_of": "policy",
    "oversight.reward": "reward-model",
    "task.sources": 0,
    "overseer.checks": "random",
    "overseer.critic": 0.0,
    "overseer.trust": "verify",
    "overseer.helper": "",
    "overseer.helper_asks": 6,
    "oversight.reward_model.reviews_as": "preferences",
    "oversight.reward_model.initial": "random",
    "oversight.reward_model.candidates": 2,
    "oversight.reward_model.confidence": False,
    "oversight.reward_model.reads_context": False,
    "oversight.audit.restart_at": "alarm",
}
"""Keys added since the first version, with the values that older experiments imply. Those of tables
in a section have more dots: "oversight.reward_model.members".

A record without such a key has this value, and the digest leaves the key out while it has this
value, so that older rounds can be continued.
"""

SUB_ANSWERS = "questions.sub_answers"
"""A key of older files: "truth" is now `[oversight] kind = "truth"`."""


def upgrade_values(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values in a record of any version under today's keys, those in tables, too.

    Args:
        recorded: values by key, where tables in a section are dictionaries.

    Returns:
        Values by key, without dictionaries. Keys were added to tables that the record has.
    """
    known = flatten_tables(recorded)
    tables = {key.rpartition(".")[0] for key in known}
    added = {
        key: value
        for key, value in ADDED_KEYS.items()
        if key.count(".") == 1 or key.rpartition(".")[0] in tables
    }
    values = {**added, **known}
    if values.pop(SUB_ANSWERS, "assistant") == "truth":
        values["oversight.kind"] = "truth"
    return values


def flatten_tables(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns values without dictionaries: what these have gets keys with more dots.

    Args:
        values: by key.
        prefix: of all keys.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten_tables(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def identity_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns today's values under the keys of the first version, for the digest."""
    truly = values.get("oversight.kind") == "truth"
    kind = {"oversight.kind": ADDED_KEYS["oversight.kind"]} if truly else {}
    return _without_added({**values, **kind, SUB_ANSWERS: "truth" if truly else "assistant"})


def _without_added(values: Mapping[str, Any], table: str = "") -> dict[str, Any]:
    """Leaves out added keys that have the value which older experiments imply, and those of a
    section, not of a table in it, whose value is None.
    """
    kept = {}
    for key, value in values.items():
        name = f"{table}{key}"
        implied = name in ADDED_KEYS and value == ADDED_KEYS[name]
        if not implied and (table or value is not None):
            is_table = isinstance(value, Mapping)
            kept[key] = _without_added(value, f"{name}.") if is_table else value
    return kept


@dataclasses.dataclass(frozen=True)
class Questions:
    """`[questions]`: what a round asks, and so what the next assistant is trained on."""

    contexts: Count = 4096
    """Contexts of a round; with streaming, the capacity of the buffer."""
    per_context: Count = 32
    """Questions about each context."""
    deepest: tuple[Count, ...] = ()
    """Largest depth of questions in each round; the last entry holds for later rounds. If empty, it
    is n in round n.
    """
    at_deepest: Share = 0.5
    """Share of a context's questions at the largest depth; the others cycle through the depths
    below.
    """

    def depths(self, round_number: int, max_depth: int) -> list[int]:
        """Returns the depth of each of a context's `per_context` questions.

        Args:
            round_number: 1 or more.
            max_depth: the task's largest depth.
        """
        by_round = (
            self.deepest[min(round_number, len(self.deepest)) - 1] if self.deepest else round_number
        )
        deepest = min(by_round, max_depth)
        deep = self.per_context if deepest == 1 else round(self.at_deepest * self.per_context)
        return [deepest] * deep + [1 + i % (deepest - 1) for i in range(self.per_context - deep)]


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """`[curriculum]`: for streaming, contexts that grow while the assistant agrees with itself."""

    start: Annotated[int, Field(ge=0)] = 0
    """Size of the first contexts; 0: all contexts have full size."""
    agreement: Share = 0.85
    """Contexts grow by 1 once the target network reproduces more than this share of its amplified
    answers.
    """
    batches: Count = 50
    """Number of batches over which the agreement is measured at each size."""


@dataclasses.dataclass(frozen=True)
class Evals:
    """`[evals]`: held-out contexts, with questions about each at every depth."""

    select: Count = 2048
    """Contexts of the split that the gate and all other choices use. The smallest detectable gain
    depends on the number of contexts, not of questions (see docs/statistics.md).
    """
    final: Count = 512
    """Contexts of the split that is only reported."""
    per_depth: Count = 2
    """Questions of each depth about a held-out context."""
    apart: bool = True
    """Whether held-out contexts are kept out of training; false for tasks with too few contexts."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Decides which held-out contexts and questions are drawn; if not given, the experiment's
    `seed` does. Experiments with the same value, task and sizes have the same held-out questions.
    """
    ask_during_training: bool = False
    """Whether a costly overseer, such as a language model, is also asked in the evaluations during
    training. Overseers without cost always are.
    """

    def depths(self, max_depth: int) -> list[int]:
        """Returns the depth of each question about a held-out context."""
        return [depth for depth in range(1, max_depth + 1) for _ in range(self.per_depth)]


@dataclasses.dataclass(frozen=True)
class Gate:
    """`[gate]`: when a round counts as better than the best one before it."""

    measure: str = DEFAULT
    """Measure that the gate compares: `alone`, `amplified`, `alone_if_found` where contexts are
    retrieved, `consistent` where nobody knows the truth."""
    error_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Probability, over all rounds together, of promoting a round that is no better."""
    worthwhile: Share = 0.01
    """A round is rejected if a gain in accuracy of this size can be ruled out."""
    patience: Count = 1
    """The command `rounds` stops after this many rounds in a row without promotion."""


@dataclasses.dataclass(frozen=True)
class Log:
    """`[log]`: where the training log and evals also go, see `sinks`. Not part of the identity."""

    tensorboard: bool = False
    """Whether event files are written to `tensorboard/` in the experiment's folder."""
    wandb: str = ""
    """A project of Weights & Biases, PROJECT or TEAM/PROJECT; empty: none. WANDB_MODE=offline
    writes to `wandb/` in the experiment's folder instead.
    """


Seconds = Annotated[float, Field(ge=0)]


@dataclasses.dataclass(frozen=True)
class Prices:
    """`[prices]`: seconds of a person's time for what simulated people do, see `runtime.effort`.

    They are assumptions, by which methods of oversight are compared at equal human effort. Seconds
    that real people spend on the pages are measured instead. Not part of the identity: rounds
    record what was done, and reports apply the prices.
    """

    read: Seconds = 3.0
    """Reading a statement of an answer, or a turn of a debate: 12 words at the 238 words a minute
    of Brysbaert 2019, Journal of Memory and Language 109."""
    look: Seconds = 20.0
    """Looking up a fact, or checking a statement."""
    ask: Seconds = 10.0
    """Asking the assistant a sub-question, and reading its answer."""
    comparison: Seconds = 5.0
    """Choosing the best of several answers that were read, or the winner of a debate."""
    score: Seconds = 5.0
    """Deciding on a number for an answer that was read."""
    answer: Seconds = 10.0
    """Answering a question from the answers to its sub-questions, which are charged apart."""
    demonstration: Seconds = 60.0
    """Showing a learner how to answer one question, looks and asks included."""

    def seconds(self, effort: Mapping[str, int]) -> float:
        """Returns what actions cost.

        Args:
            effort: numbers by action, see `runtime.effort`.
        """
        return float(sum(getattr(self, action) * number for action, number in effort.items()))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment: its sections, with the task, the models and the overseer built."""

    seed: int
    task: Task
    assistant: Assistant
    overseer: OverseerKind
    oversight: Any
    """How training signals are made, see `oversight.work.Oversight`."""
    questions: Questions
    training: Training
    curriculum: Curriculum
    evals: Evals
    gate: Gate
    mesh: Mesh = dataclasses.field(compare=False)
    log: Log = dataclasses.field(compare=False)
    prices: Prices = dataclasses.field(compare=False)
    values: Mapping[str, Any] = dataclasses.field(compare=False)
    """Every key of the file with its value, defaults included: `{"training.steps": 1000, ...}`, and
    a digest of the contents for each key that names files.
    """
    files: Mapping[str, Mapping[str, str]] = dataclasses.field(compare=False, default_factory=dict)
    """SHA-256 of each file behind those digests, by key and relative path."""
    places: Mapping[str, Path] = dataclasses.field(compare=False, default_factory=dict)
    """The file or folder behind each of those digests, by key."""

    @property
    def evals_seed(self) -> int:
        """The seed from which held-out problems are drawn."""
        return self.seed if self.evals.seed is None else self.evals.seed

    @property
    def learner(self) -> Learned | None:
        """The overseer that learns, the experiment's own or one beside people, or None."""
        return learner_of(self.overseer)

    @property
    def sub_answers(self) -> str:
        """Who answers the overseer's sub-questions: "assistant" or "truth"."""
        return getattr(self.oversight, "sub_answers", "assistant")

    @property
    def overseer_learns(self) -> bool:
        """Whether there is an overseer that learns."""
        return self.learner is not None

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures of its evals, in the order in which they are shown."""
        return all_measures(self.task, self.assistant, self.overseer, self.oversight)

    @property
    def all_depths(self) -> list[int]:
        """Depths of a context's questions, cycling through all depths."""
        deepest = self.task.max_depth
        return [1 + i % deepest for i in range(self.questions.per_context)]

    def check_shared(self, processes: int, devices: int) -> None:
        """Checks that several processes can run a round together.

        Args:
            processes: number of processes.
            devices: number of devices of all processes together.

        Raises:
            AmplifyError: if people oversee, or the mesh has another number of devices.
        """
        if isinstance(self.overseer, Human | HumanReviewers):
            raise AmplifyError(
                f'rounds with overseer.kind = "human" must run in one process, got {processes}'
            )
        if self.mesh.size != devices:
            raise AmplifyError(
                f"the mesh must have all {devices} devices of the {processes} processes, got"
                f" {self.mesh.size}: change [mesh], which is not part of the experiment's identity"
            )

    def gate_warning(self) -> str | None:
        """Returns a warning if round 1 cannot be promoted for a worthwhile gain, or else None."""
        evals, gate = self.evals, self.gate
        level = spent_error_rate(1, gate.error_rate)
        questions = len(evals.depths(self.task.max_depth))
        gain = smallest_gain(evals.select, questions, level)
        if gain is not None and gain <= gate.worthwhile:
            return None
        least = "no gain"
        if gain is not None:
            least = f"no gain below {_above(100 * gain, 100 * gate.worthwhile)} points"
        return (
            f"warning: gate.worthwhile = {gate.worthwhile:g}, but with {evals.select} contexts"
            f" {least} can be promoted, even without any losses; increase evals.select to detect"
            " smaller gains"
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the values under the keys of the first version, which keeps it stable."""
        canonical = json.dumps(identity_values(self.values), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def _above(value: float, bound: float) -> str:
    """Formats a value with as few digits, of at least two, as show that it is above a bound."""
    digits = range(2, 17)
    said = (f"{value:.{count}g}" for count in digits)
    return next((text for text in said if float(text) > bound), repr(value))
