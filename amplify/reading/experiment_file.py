"""An experiment file, read once; unknown keys and values out of range are refused here."""

import contextlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from amplify.errors import AmplifyError, first_line, prefix_errors
from amplify.evaluation.measuring import measures_of
from amplify.experiment.sections import Curriculum, Evals, Experiment, Gate, Questions
from amplify.experiment.validation import (
    check_plain,
    flat,
    nearest,
    refuse_unknown,
    section_of,
    shown,
    table_of,
    validate,
)
from amplify.models import ASSISTANTS
from amplify.overseers import OVERSEERS
from amplify.overseers.human import HumanConfig
from amplify.oversight import OVERSIGHT
from amplify.reading import content
from amplify.reading.allocation import check_data, check_networks
from amplify.reading.checks import check_coherence, check_gate, check_gold
from amplify.reading.own_classes import check_class, check_overseer, check_task
from amplify.reading.own_code import failing_as, is_own_code, load
from amplify.tasks import TASKS
from amplify.training.mesh import Mesh
from amplify.training.options import Training

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
    "oversight": OVERSIGHT,
}
DEFAULT_KINDS = {"oversight": "amplification"}


def read_experiment(path: Path) -> Experiment:
    """Reads `experiment.toml`. A task of the experiment's own is code, and is run.

    Nothing is built that takes long, such as a search index, and nothing is compiled: see `ready`
    for what is checked before the first round.

    Raises:
        AmplifyError: naming file, key, and what is allowed.
    """
    table, folders = read_table(path)
    return parse_experiment(table, path, folders)


def has_own_code(path: Path) -> bool:
    """Whether reading an experiment file runs code that lies beside it."""
    table, _ = read_table(path)
    kinds = [table_of(table, name, path).get("kind") for name in KINDS]
    return any(map(is_own_code, kinds))


def read_table(path: Path, above: tuple[Path, ...] = ()) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The file's tables, those of its `base` filled in; and the folders that they come from, its
    own first. Runs none of the experiment's code.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AmplifyError(
            f"{path}: no such file; an experiment is a folder with an experiment.toml"
        ) from None
    except RecursionError:
        raise AmplifyError(f"{path}: cannot be read as TOML: too deeply nested") from None
    except (ValueError, OSError) as error:  # not TOML, not UTF-8, a number of too many digits
        said = getattr(error, "strerror", None) or first_line(error)
        raise AmplifyError(f"{path}: cannot be read as TOML: {said}") from None
    check_plain(table, path)
    base = table.pop("base", None)
    if base is None:
        return table, (path.parent,)
    if not isinstance(base, str):
        raise AmplifyError(f"{path}: base must be another experiment's folder, got {shown(base)}")
    file = path.parent / base / "experiment.toml"
    if not _is_there(file):
        there = f"{file}" if len(base) < 200 and base.isprintable() else shown(f"{file}")
        raise AmplifyError(f"{path}: base: {there}: no such file")
    above = (*above, path.resolve())
    if file.resolve() in above:
        raise AmplifyError(f"{path}: base leads back to this experiment")
    below, folders = read_table(file, above)
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
        path: is named in errors.
        folders: where files that it names may lie, nearest first; the file's own if not given.
    """
    folders = folders or [path.parent]
    refuse_unknown(table, ["seed", *KINDS, *SECTIONS, "mesh"], "", path)
    table = _with_oversight(table, path)
    seed = validate(Annotated[int, Field(ge=0, lt=2**32)], table.get("seed", 0), "seed", path)
    values: dict[str, Any] = {"seed": seed}
    chosen: dict[str, Any] = {}
    sources: dict[str, Path] = {}
    hashes: dict[str, dict[str, str]] = {}
    places: dict[str, Path] = {}
    reading: dict[tuple[str, str], str] = {}
    for name, kinds in KINDS.items():
        kind, rest = _split_kind(table, name, path)
        if is_own_code(kind):
            own = load(kind, folders, f"{path}: {name}.kind")
            found, sources[name] = own.kind, own.source
            hashes[f"{name}.source"], places[f"{name}.source"] = own.hashes, own.folder
            with failing_as(own.source, kind):
                check_class(found, name, f"{path}: {name}.kind names {kind.partition(':')[2]}")
        else:
            found = _find_kind(kind, kinds, name, path)
        rest = _renamed(found, rest)
        paths = _paths(found, rest, folders)
        with _own_code(sources, name, kind):
            chosen[name] = section_of(found, rest | paths, name, path)
            flattened = flat(chosen[name], name)
        said = {f"{name}.{key}": rest[key] for key in paths}
        values |= {f"{name}.kind": kind} | flattened | said
        reading |= {(name, key): getattr(chosen[name], key) for key in getattr(found, "PATHS", ())}
    _adapt_overseer(chosen, table, values, path)
    for name, section in SECTIONS.items():
        chosen[name] = section_of(section, table_of(table, name, path), name, path)
        values |= flat(chosen[name], name)
    chosen["mesh"] = section_of(Mesh, table_of(table, "mesh", path), "mesh", path)
    with _own_code(sources, "task", values["task.kind"]):
        if "task" in sources:
            check_task(chosen["task"], f"{path}: {values['task.kind']}")
        check_data(chosen, path)
        check_networks(chosen, path)
        check_coherence(chosen, values["overseer.kind"], path)
        if isinstance(chosen["overseer"], HumanConfig):
            check_gold(chosen["task"], table_of(table, "overseer", path), path)
    for name in ("assistant", "overseer"):
        with _own_code(sources, name, values[f"{name}.kind"]), prefix_errors(path):
            chosen[name] = chosen[name].build(chosen["task"])
    if "overseer" in sources:
        streams = chosen["training"].targets == "streaming"
        with _own_code(sources, "overseer", values["overseer.kind"]):
            check_overseer(chosen["overseer"], streams, f"{path}: {values['overseer.kind']}")
    measures = measures_of(chosen["task"], chosen["assistant"], chosen["overseer"])
    check_gate(measures, chosen["gate"], chosen["task"], path)
    for (name, key), where in reading.items():
        if isinstance(where, str) and where and (files := content.files_read(key, where)):
            hashes[f"{name}.{key} (content)"] = files
            places[f"{name}.{key} (content)"] = Path(where)
    values |= {key: content.combined(files) for key, files in hashes.items()}
    _check_recordable(values, path)
    return Experiment(seed=seed, values=values, files=hashes, places=places, **chosen)


def _with_oversight(table: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The tables with `[oversight] kind = "truth"` for the older `[questions] sub_answers`."""
    questions = dict(table_of(table, "questions", path))
    said = questions.pop("sub_answers", "assistant")
    if said not in ("assistant", "truth"):
        raise AmplifyError(
            f"{path}: questions.sub_answers must be assistant or truth, got {shown(said)}; files"
            ' now say oversight.kind = "truth" instead'
        )
    if said == "assistant":
        return {**table, "questions": questions}
    oversight = {"kind": "truth"} | table_of(table, "oversight", path)
    if oversight["kind"] != "truth":
        raise AmplifyError(
            f'{path}: questions.sub_answers = "truth" is what oversight.kind = "truth" now says,'
            f" and here oversight.kind is {shown(oversight['kind'])}: remove one of them"
        )
    return {**table, "questions": questions, "oversight": oversight}


def _adapt_overseer(
    chosen: dict[str, Any], table: Mapping[str, Any], values: dict[str, Any], path: Path
) -> None:
    """Gives the oversight its say in the overseer's section, where it wants one."""
    adapt = getattr(chosen["oversight"], "adapt_overseer", None)
    if adapt is None:
        return
    section = chosen["overseer"]
    with prefix_errors(path):
        adapted = adapt(chosen["task"], section)
    for key, value in flat(adapted, "overseer").items():
        if value == flat(section, "overseer")[key]:
            continue
        given = table["overseer"].get(key.removeprefix("overseer."), value)
        if given != value:
            raise AmplifyError(
                f"{path}: {key} must be {shown(value)} where oversight.kind ="
                f" {shown(values['oversight.kind'])}, got {shown(given)}"
            )
        values[key] = value
    chosen["overseer"] = adapted


def _own_code(sources: Mapping[str, Path], name: str, kind: str) -> Any:
    """While a section's own code is run, if it has any: what it raises is one line that names it.
    Tasks are also run by others, so an error anywhere may be theirs.
    """
    source = sources.get(name) or sources.get("task")
    return failing_as(source, kind) if source else contextlib.nullcontext()


def _split_kind(table: Mapping[str, Any], name: str, path: Path) -> tuple[str, dict[str, Any]]:
    section = dict(table_of(table, name, path))
    kind = section.pop("kind", DEFAULT_KINDS.get(name))
    if not isinstance(kind, str):
        raise AmplifyError(
            f"{path}: {name}.kind must be one of {', '.join(KINDS[name])}, got {shown(kind)}"
        )
    return kind, section


def _find_kind(kind: str, kinds: Mapping[str, type], name: str, path: Path) -> type:
    if kind not in kinds:
        allowed = f"one of {', '.join(kinds)}, or file.py:Name, in a file beside this one"
        raise AmplifyError(
            f"{path}: {name}.kind must be {allowed}; got {shown(kind)}{nearest(kind, kinds)}"
        )
    return kinds[kind]


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
        key: [str(folder / name) for folder in folders if _is_there(folder / name)]
        for key, name in named.items()
        if isinstance(name, str) and name
    }
    return {key: found[0] for key, found in there.items() if found}


def _is_there(path: Path) -> bool:
    """A name that is too long for the file system is not there."""
    try:
        return path.exists()
    except OSError:
        return False


def _check_recordable(values: Mapping[str, Any], path: Path) -> None:
    """Raises AmplifyError, naming the key, for a default of one's own that is no plain data."""
    for key, value in values.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise AmplifyError(
                f"{path}: {key} must be numbers, text, arrays and tables, for the record of a"
                f" round; its value is {shown(value)}"
            ) from None
