"""An experiment file, read once into frozen dataclasses; unknown keys and values out of range are
refused here.

The resolved values, defaults included, are the experiment's identity: their digest goes into every
round's record. Nothing below this module reads a configuration; functions take plain values.
"""

import dataclasses
import difflib
import hashlib
import importlib.util
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from amplify.assistants import ASSISTANTS
from amplify.errors import AmplifyError
from amplify.mesh import ONE_DEVICE, Mesh
from amplify.overseers import OVERSEERS
from amplify.overseers.human import Human, HumanConfig
from amplify.overseers.language_model import LanguageModelOverseerConfig
from amplify.overseers.learned import FIRST_DEMONSTRATIONS, Learned, LearnedConfig
from amplify.problems import TOGETHER
from amplify.tasks import TASKS
from amplify.types import Assistant, GradedTask, OverseerKind, SearchedTask, SimulatedTask, Task

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


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
    sub_answers: Literal["assistant", "truth"] = "assistant"
    """Who answers sub-questions; the truth, for the supervised baseline."""

    def depths(self, round_number: int, max_depth: int) -> list[int]:
        """The depth of each question of a context, `per_context` of them."""
        by_round = (
            self.deepest[min(round_number, len(self.deepest)) - 1] if self.deepest else round_number
        )
        deepest = min(by_round, max_depth)
        deep = self.per_context if deepest == 1 else round(self.at_deepest * self.per_context)
        return [deepest] * deep + [1 + i % (deepest - 1) for i in range(self.per_context - deep)]


@dataclasses.dataclass(frozen=True)
class Training:
    """`[training]`: how a round's answers are distilled into the next assistant."""

    targets: Literal["stored", "streaming"] = "stored"
    """The round's data set, written before; or made while training by the target network, from a
    buffer of `questions.contexts`, about questions of all depths."""
    amplify_every: Count = 1
    """With streaming: training steps to a batch of newly amplified contexts."""
    steps: Count = 1000
    batch: Count = 32
    accumulate: Count = 1
    """Parts that a batch is taken in, one after another, where it does not fit at once."""
    optimizer: Literal["adam", "muon"] = "adam"
    """Muon for the matrices inside layers, and Adam for the rest."""
    learning_rate: Positive = 2e-3
    final_learning_rate: Share = 0.05
    """The cosine schedule's end, as a share of `learning_rate`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    b2: Annotated[float, Field(gt=0, lt=1)] = 0.98
    gradient_clip: Positive = 1.0
    target_horizon: Count = 100
    """Steps over which the target network averages the assistant's weights."""
    log_every: Count = 50
    look_every: Count = 100
    """Steps between two looks at held-out problems, for the curves."""
    checkpoint_every: Count = 500


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

    select: Count = 512
    """Contexts of the split that drives the gate and every other choice."""
    final: Count = 512
    """Contexts of the split that is only reported."""
    per_depth: Count = 2
    apart: bool = True
    """Whether held-out contexts are kept from training; false for tasks that have too few."""

    def depths(self, max_depth: int) -> list[int]:
        """The depth of each question about a held-out context."""
        return [depth for depth in range(1, max_depth + 1) for _ in range(self.per_depth)]


@dataclasses.dataclass(frozen=True)
class Gate:
    """`[gate]`: when a round counts as better than the best before it."""

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
    questions: Questions
    training: Training
    curriculum: Curriculum
    evals: Evals
    gate: Gate
    mesh: Mesh = dataclasses.field(compare=False)
    values: Mapping[str, Any] = dataclasses.field(compare=False)
    """Every key of the file with its value, defaults filled in: `{"training.steps": 1000, ...}`."""

    @property
    def learner(self) -> Learned | None:
        """The overseer that learns, if there is one: the experiment's own, or one beside people."""
        overseer = self.overseer
        if isinstance(overseer, Human):
            return overseer.learner
        return overseer if isinstance(overseer, Learned) else None

    @property
    def overseer_learns(self) -> bool:
        return self.learner is not None

    @property
    def all_depths(self) -> list[int]:
        """Depths of a context's questions where a round asks at all of them, in turn."""
        deepest = self.task.max_depth
        return [1 + i % deepest for i in range(self.questions.per_context)]

    def check_shared(self, processes: int, devices: int) -> None:
        """Raises AmplifyError unless several processes, with so many devices together, can run a
        round of it.
        """
        alone = self.overseer_learns or isinstance(self.overseer, Human)
        if self.training.targets == "streaming" or alone:
            raise AmplifyError(
                'training.targets = "streaming" and overseers that are "learned" or "human" run in'
                f" one process, and here are {processes}"
            )
        if self.mesh.size != devices:
            raise AmplifyError(
                f"{processes} processes have {devices} devices together, and all must be in the"
                f" experiment's mesh, which takes {self.mesh.size}: change [mesh], which is no part"
                " of the experiment's identity"
            )

    @property
    def digest(self) -> str:
        canonical = json.dumps(self.values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


SECTIONS = {
    "questions": Questions,
    "training": Training,
    "curriculum": Curriculum,
    "evals": Evals,
    "gate": Gate,
}
KINDS: dict[str, Mapping[str, type]] = {
    "task": TASKS,
    "assistant": ASSISTANTS,
    "overseer": OVERSEERS,
}


def read_experiment(path: Path) -> Experiment:
    """Reads `experiment.toml`. Raises AmplifyError naming file, key, and what is allowed."""
    table, folders = _read_table(path)
    return parse_experiment(table, path, folders)


def _read_table(
    path: Path, above: tuple[Path, ...] = ()
) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The file's tables, those of its `base` filled in; and the folders that they come from, its
    own first.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AmplifyError(
            f"{path}: no such file; an experiment is a folder with an experiment.toml"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise AmplifyError(f"{path}: cannot be read as TOML: {error}") from None
    base = table.pop("base", None)
    if base is None:
        return table, (path.parent,)
    if not isinstance(base, str):
        raise AmplifyError(f"{path}: base must be another experiment's folder, got {base!r}")
    file = path.parent / base / "experiment.toml"
    if path.resolve() in above:
        raise AmplifyError(f"{path}: base leads back to this experiment")
    below, folders = _read_table(file, (*above, path.resolve()))
    filled = below | {key: _over(below.get(key), value) for key, value in table.items()}
    return filled, (path.parent, *folders)


def _over(below: Any, value: Any) -> Any:
    """A table with what it does not say taken from the one below, if that is of the same kind."""
    if not isinstance(below, dict) or not isinstance(value, dict):
        return value
    same_kind = value.get("kind", below.get("kind")) == below.get("kind")
    return {**below, **value} if same_kind else value


def parse_experiment(
    table: Mapping[str, Any], path: Path, folders: Sequence[Path] = ()
) -> Experiment:
    """The experiment that a parsed file describes.

    Args:
        path: is named in errors, and is where `file.py:Name` kinds lie.
        folders: where files that it names may lie, nearest first; the file's own if not given.
    """
    _refuse_unknown(table, ["seed", *KINDS, *SECTIONS, "mesh"], "", path)
    seed = _validate(Annotated[int, Field(ge=0, lt=2**32)], table.get("seed", 0), "seed", path)
    values: dict[str, Any] = {"seed": seed}
    chosen: dict[str, Any] = {}
    for name, kinds in KINDS.items():
        kind, rest = _split_kind(table, name, path)
        found = _find_kind(kind, kinds, name, values, path)
        paths = _paths(found, rest, folders or [path.parent])
        chosen[name] = _section(found, rest | paths, name, path)
        said = {f"{name}.{key}": rest[key] for key in paths}
        there = {f"{name}.{key} (content)": _content(Path(at)) for key, at in paths.items()}
        values |= {f"{name}.kind": kind} | _flat(chosen[name], name) | said | there
    for name, section in SECTIONS.items():
        chosen[name] = _section(section, _table(table, name, path), name, path)
        values |= _flat(chosen[name], name)
    chosen["mesh"] = _section(Mesh, _table(table, "mesh", path), "mesh", path)
    _check_together(chosen["questions"], chosen["training"], path)
    _check_mesh(chosen["mesh"], chosen["training"], path)
    _check_strategy(chosen["task"], chosen["overseer"], values["overseer.kind"], path)
    _check_lessons(chosen["overseer"], chosen["training"], path)
    _check_given(chosen["task"], chosen["training"], path)
    _check_speaks(chosen["overseer"], chosen["training"], path)
    _check_curriculum(chosen["task"], chosen["curriculum"], chosen["training"], path)
    chosen["assistant"] = _built(chosen["assistant"].build, chosen["task"], path)
    chosen["overseer"] = _built(chosen["overseer"].build, chosen["task"], path)
    return Experiment(seed=seed, values=values, **chosen)


def _check_together(questions: Questions, training: Training, path: Path) -> None:
    """Refuses values that are allowed one by one and make no sense together."""
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
    if mesh != ONE_DEVICE and training.targets == "streaming":
        raise AmplifyError(
            f'{path}: training.targets = "streaming" runs on one device; with a [mesh] it must be'
            ' "stored"'
        )
    at_once = math.gcd(training.batch // training.accumulate, TOGETHER)
    if at_once % mesh.row_shares:
        raise AmplifyError(
            f"{path}: mesh.data x mesh.fsdp must divide training.batch / training.accumulate"
            f" ({training.batch // training.accumulate}) and {TOGETHER}, the contexts that are"
            f" answered at a time; got {mesh.row_shares}"
        )


def _check_lessons(overseer: Any, training: Training, path: Path) -> None:
    if not isinstance(overseer, LearnedConfig):
        return
    least = -(-FIRST_DEMONSTRATIONS // training.batch)
    if overseer.steps < least:
        raise AmplifyError(
            f"{path}: overseer.steps must be at least {least}, so that {FIRST_DEMONSTRATIONS}"
            f" demonstrations come together, one a context of a batch; got {overseer.steps}"
        )


def _check_strategy(task: Any, overseer: Any, kind: str, path: Path) -> None:
    """A task of one's own need not say how it is taken apart; nobody can then be shown."""
    follows = kind in ("simulated", "learned")
    if isinstance(overseer, HumanConfig):
        follows = "simulated" in (overseer.people, overseer.others)
    if follows and not isinstance(task, SimulatedTask):
        raise AmplifyError(
            f"{path}: overseer.kind {kind!r} needs a task with a strategy, to follow or to learn"
            f" from, and {type(task).__name__} has none"
        )


def _check_given(task: Any, training: Training, path: Path) -> None:
    if training.targets == "streaming" and isinstance(task, SearchedTask):
        raise AmplifyError(
            f'{path}: training.targets = "streaming" is for tasks whose contexts are given; where'
            ' they are found, it must be "stored"'
        )


def _check_speaks(overseer: Any, training: Training, path: Path) -> None:
    slow = {LanguageModelOverseerConfig: "a language model oversees", HumanConfig: "people oversee"}
    if training.targets == "streaming" and type(overseer) in slow:
        raise AmplifyError(
            f'{path}: training.targets must be "stored" where {slow[type(overseer)]}: nobody can be'
            " asked at every step"
        )


def _check_curriculum(task: Task, curriculum: Curriculum, training: Training, path: Path) -> None:
    if not curriculum.start:
        return
    if training.targets != "streaming" or not isinstance(task, GradedTask):
        raise AmplifyError(
            f'{path}: curriculum.start needs training.targets = "streaming" and a task whose'
            " contexts come in sizes"
        )
    if not task.smallest <= curriculum.start <= task.largest:
        raise AmplifyError(
            f"{path}: curriculum.start must be {task.smallest} to {task.largest},"
            f" got {curriculum.start}"
        )


def _table(table: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise AmplifyError(f"{path}: {name} must be a table, [{name}], got {section!r}")
    return section


def _split_kind(table: Mapping[str, Any], name: str, path: Path) -> tuple[str, dict[str, Any]]:
    section = dict(_table(table, name, path))
    kind = section.pop("kind", None)
    if not isinstance(kind, str):
        raise AmplifyError(
            f"{path}: {name}.kind must be one of {', '.join(KINDS[name])}, got {kind!r}"
        )
    return kind, section


def _find_kind(
    kind: str, kinds: Mapping[str, type], name: str, values: dict[str, Any], path: Path
) -> type:
    """A kind of ours, or `file.py:Name` beside the experiment file, whose source then is part of
    the identity.
    """
    if kind in kinds:
        return kinds[kind]
    file, _, attribute = kind.partition(":")
    if not file.endswith(".py") or not attribute:
        allowed = f"one of {', '.join(kinds)}, or file.py:Name beside the experiment file"
        raise AmplifyError(
            f"{path}: {name}.kind must be {allowed}, got {kind!r}{_nearest(kind, kinds)}"
        )
    source = path.parent / file
    spec = importlib.util.spec_from_file_location(source.stem, source)
    if spec is None or spec.loader is None or not source.is_file():
        raise AmplifyError(f"{path}: {name}.kind names {source}, which is not there")
    values[f"{name}.source"] = hashlib.sha256(source.read_bytes()).hexdigest()
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise AmplifyError(
            f"{source}: cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        raise AmplifyError(f"{path}: {name}.kind names {attribute}, which is not in {source}")
    return getattr(module, attribute)


def _paths(kind: type, section: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, str]:
    """Those values that are paths, seen from here; in a file they are seen from its folder. What is
    not there may be the name of something elsewhere.
    """
    named = {key: section.get(key) for key in getattr(kind, "PATHS", ())}
    there = {
        key: [str(folder / name) for folder in folders if (folder / name).exists()]
        for key, name in named.items()
        if isinstance(name, str) and name
    }
    return {key: found[0] for key, found in there.items() if found}


def _content(path: Path) -> str:
    """A digest of a file's bytes; of a folder's names and sizes, for it may hold a checkpoint."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listed = [f"{file.relative_to(path)} {file.stat().st_size}" for file in files]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def _section(kind: type, section: Mapping[str, Any], name: str, path: Path) -> Any:
    _refuse_unknown(section, [f.name for f in dataclasses.fields(kind) if f.init], f"{name}.", path)
    return _validate(kind, section, name, path)


def _validate(kind: Any, value: Any, name: str, path: Path) -> Any:
    try:
        # As JSON: there a strict reading still takes tables for dataclasses and arrays for tuples.
        return TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([name, *map(str, first["loc"])])
        if first["type"] == "value_error":  # fields that do not fit together, in their own words
            raise AmplifyError(f"{path}: {key}.{first['ctx']['error']}") from None
        said = first["msg"].removeprefix("Input should be ")
        raise AmplifyError(f"{path}: {key} must be {said}, got {first['input']!r}") from None


def _built(build: Any, task: Task, path: Path) -> Any:
    try:
        return build(task)
    except (AmplifyError, ValueError) as error:
        raise AmplifyError(f"{path}: {error}") from None


def _refuse_unknown(given: Mapping[str, Any], known: list[str], prefix: str, path: Path) -> None:
    for key in given:
        if key not in known:
            nearest = _nearest(key, known) or f"; known are {', '.join(known)}" * bool(known)
            raise AmplifyError(f"{path}: unknown key {prefix}{key}{nearest}")


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _flat(section: Any, name: str) -> dict[str, Any]:
    return {f"{name}.{key}": value for key, value in dataclasses.asdict(section).items()}
