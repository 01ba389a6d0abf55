"""An experiment file, read once; unknown keys and values out of range are refused here."""

import hashlib
import importlib.util
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from amplify.assistants import ASSISTANTS
from amplify.coherence import check_coherence
from amplify.errors import AmplifyError
from amplify.experiment import Curriculum, Evals, Experiment, Gate, Questions, Training
from amplify.mesh import Mesh
from amplify.overseers import OVERSEERS
from amplify.strict import flat, nearest, refuse_unknown, section_of, table_of, validate
from amplify.tasks import TASKS
from amplify.types import Task

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
    refuse_unknown(table, ["seed", *KINDS, *SECTIONS, "mesh"], "", path)
    seed = validate(Annotated[int, Field(ge=0, lt=2**32)], table.get("seed", 0), "seed", path)
    values: dict[str, Any] = {"seed": seed}
    chosen: dict[str, Any] = {}
    for name, kinds in KINDS.items():
        kind, rest = _split_kind(table, name, path)
        found = _find_kind(kind, kinds, name, values, path)
        rest = _renamed(found, rest)
        paths = _paths(found, rest, folders or [path.parent])
        chosen[name] = section_of(found, rest | paths, name, path)
        said = {f"{name}.{key}": rest[key] for key in paths}
        there = {f"{name}.{key} (content)": _content(Path(at)) for key, at in paths.items()}
        values |= {f"{name}.kind": kind} | flat(chosen[name], name) | said | there
    for name, section in SECTIONS.items():
        chosen[name] = section_of(section, table_of(table, name, path), name, path)
        values |= flat(chosen[name], name)
    chosen["mesh"] = section_of(Mesh, table_of(table, "mesh", path), "mesh", path)
    check_coherence(chosen, values["overseer.kind"], path)
    chosen["assistant"] = _built(chosen["assistant"].build, chosen["task"], path)
    chosen["overseer"] = _built(chosen["overseer"].build, chosen["task"], path)
    return Experiment(seed=seed, values=values, **chosen)


def _split_kind(table: Mapping[str, Any], name: str, path: Path) -> tuple[str, dict[str, Any]]:
    section = dict(table_of(table, name, path))
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
            f"{path}: {name}.kind must be {allowed}, got {kind!r}{nearest(kind, kinds)}"
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


def _renamed(kind: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of an older file with the names that its keys have now."""
    names = getattr(kind, "RENAMED", {})
    now = {names.get(key, key): value for key, value in section.items() if key in names}
    kept = {key: value for key, value in section.items() if key not in names}
    return {key: value for key, value in now.items() if key is not None} | kept


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


def _built(build: Any, task: Task, path: Path) -> Any:
    try:
        return build(task)
    except (AmplifyError, ValueError) as error:
        raise AmplifyError(f"{path}: {error}") from None
