"""Reads experiment files. Unknown keys and invalid values are rejected here."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from amplify.errors import AmplifyError, prefix_errors
from amplify.evaluation.measuring import all_measures
from amplify.experiment.sections import Curriculum, Evals, Experiment, Gate, Log, Prices, Questions
from amplify.experiment.validation import (
    flatten,
    quote_value,
    read_section,
    reject_unknown_keys,
    subtable,
    suggestion,
    validate,
)
from amplify.models import ASSISTANTS
from amplify.overseers import OVERSEERS
from amplify.overseers.human import HumanConfig
from amplify.oversight import OVERSIGHT
from amplify.reading import content, helpers
from amplify.reading.allocation import check_data, check_networks
from amplify.reading.checks import check_gate, check_gold, check_sections
from amplify.reading.own_classes import check_class, check_overseer, check_task
from amplify.reading.own_code import errors_in_one_line, is_own_code, load
from amplify.reading.tables import FILE, is_there, read_table, without_detours
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
NOT_IDENTITY = {"mesh": Mesh, "log": Log, "prices": Prices}
"""Sections that are not part of an experiment's identity."""
KINDS: dict[str, Mapping[str, type]] = {
    "task": TASKS,
    "assistant": ASSISTANTS,
    "overseer": OVERSEERS,
    "oversight": OVERSIGHT,
}
DEFAULT_KINDS = {"oversight": "amplification"}


def read_experiment(path: Path, helps: tuple[Path, ...] = ()) -> Experiment:
    """Reads an `experiment.toml`. Custom code that it names is run.

    Nothing slow is done, such as building a search index or compiling; `ready` does this before the
    first round.

    Args:
        path: the file.
        helps: files of the experiments that this one helps, directly or through others.

    Raises:
        AmplifyError: naming the file, the key and what is allowed.
    """
    table, folders = read_table(path)
    return parse_experiment(table, path, folders, helps)


def runs_own_code(path: Path, helps: tuple[Path, ...] = ()) -> bool:
    """Returns whether reading an experiment file runs code from its folder, or its helper's.

    Args:
        path: the file.
        helps: files of the experiments that this one helps, directly or through others.

    Raises:
        AmplifyError: if it cannot be read.
    """
    table, folders = read_table(path)
    kinds = [subtable(table, name, path).get("kind") for name in KINDS]
    if any(map(is_own_code, kinds)):
        return True
    helper, above = helpers.helper_of(table, folders, path), (*helps, path.resolve())
    files = [at / FILE for at in (helper, helper.parent)] if helper else []
    others = (file for file in files if is_there(file) and file.resolve() not in above)
    return any(runs_own_code(file, above) for file in others)


def read_prices(path: Path) -> Prices:
    """Reads the prices of an experiment file, without running any code.

    Args:
        path: the file.

    Raises:
        AmplifyError: naming the file, the key and what is allowed.
    """
    table, _ = read_table(path)
    prices: Prices = read_section(Prices, subtable(table, "prices", path), "prices", path)
    return prices


def parse_experiment(
    table: Mapping[str, Any],
    path: Path,
    folders: Sequence[Path] = (),
    helps: tuple[Path, ...] = (),
) -> Experiment:
    """Builds the experiment that a parsed file describes.

    Args:
        table: the parsed file.
        path: the file, named in errors.
        folders: where files that it names may be, nearest first; if empty, the file's own folder.
        helps: files of the experiments that this one helps, directly or through others.

    Raises:
        AmplifyError: naming the file, the key and what is allowed.
    """
    folders = folders or [path.parent]
    reject_unknown_keys(table, ["seed", *KINDS, *SECTIONS, *NOT_IDENTITY], "", path)
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
            with errors_in_one_line(own.source, kind):
                check_class(found, name, f"{path}: {name}.kind names {kind.partition(':')[2]}")
        else:
            found = _find_kind(kind, kinds, name, path)
        rest = _renamed(found, rest)
        paths = _paths(found, rest, folders)
        with _own_code(sources, name, kind):
            chosen[name] = read_section(found, rest | paths, name, path)
            flattened = flatten(chosen[name], name)
        said = {f"{name}.{key}": rest[key] for key in paths}
        values |= {f"{name}.kind": kind} | flattened | said
        reading |= {(name, key): getattr(chosen[name], key) for key in getattr(found, "PATHS", ())}
    _adapt_overseer(chosen, table, values, path)
    for name, section in SECTIONS.items():
        chosen[name] = read_section(section, subtable(table, name, path), name, path)
        values |= flatten(chosen[name], name)
    for name, section in NOT_IDENTITY.items():
        chosen[name] = read_section(section, subtable(table, name, path), name, path)
    with _own_code(sources, "task", values["task.kind"]):
        if "task" in sources:
            check_task(chosen["task"], f"{path}: {values['task.kind']}")
        check_data(chosen, path)
        check_networks(chosen, path)
        check_sections(chosen, values["overseer.kind"], path)
        if isinstance(chosen["overseer"], HumanConfig):
            check_gold(chosen["task"], subtable(table, "overseer", path), path)
    for name in ("assistant", "overseer"):
        with _own_code(sources, name, values[f"{name}.kind"]), prefix_errors(path):
            chosen[name] = chosen[name].build(chosen["task"])
    if named := reading.get(("overseer", helpers.KEY)):
        chosen["overseer"] = _with_helper(chosen["overseer"], named, path, helps)
    if "overseer" in sources:
        streams = chosen["training"].targets == "streaming"
        with _own_code(sources, "overseer", values["overseer.kind"]):
            check_overseer(chosen["overseer"], streams, f"{path}: {values['overseer.kind']}")
    of = (chosen[key] for key in ("task", "assistant", "overseer", "oversight"))
    measures = all_measures(*of)
    check_gate(measures, chosen["gate"], chosen["task"], path)
    for (name, key), where in reading.items():
        if isinstance(where, str) and where and (files := content.files_read(key, where)):
            hashes[f"{name}.{key} (content)"] = files
            places[f"{name}.{key} (content)"] = Path(where)
    values |= {key: content.combine_hashes(files) for key, files in hashes.items()}
    _check_recordable(values, path)
    return Experiment(seed=seed, values=values, files=hashes, places=places, **chosen)


def _with_oversight(table: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Converts the older `[questions] sub_answers` to `[oversight] kind = "truth"`."""
    questions = dict(subtable(table, "questions", path))
    said = questions.pop("sub_answers", "assistant")
    if said not in ("assistant", "truth"):
        raise AmplifyError(
            f"{path}: questions.sub_answers must be assistant or truth, got {quote_value(said)};"
            ' it is replaced by oversight.kind = "truth"'
        )
    if said == "assistant":
        return {**table, "questions": questions}
    oversight = {"kind": "truth"} | subtable(table, "oversight", path)
    if oversight["kind"] != "truth":
        raise AmplifyError(
            f'{path}: questions.sub_answers = "truth" means oversight.kind = "truth", but'
            f" oversight.kind is {quote_value(oversight['kind'])}: remove one of them"
        )
    return {**table, "questions": questions, "oversight": oversight}


def _adapt_overseer(
    chosen: dict[str, Any], table: Mapping[str, Any], values: dict[str, Any], path: Path
) -> None:
    """Lets the oversight change values in the overseer's section."""
    adapt = getattr(chosen["oversight"], "adapt_overseer", None)
    if adapt is None:
        return
    section = chosen["overseer"]
    with prefix_errors(path):
        adapted = adapt(chosen["task"], section)
    before = flatten(section, "overseer")
    for key, value in flatten(adapted, "overseer").items():
        if value == before[key]:
            continue
        given = table["overseer"].get(key.removeprefix("overseer."), value)
        if given != value:
            raise AmplifyError(
                f"{path}: {key} must be {quote_value(value)} if oversight.kind ="
                f" {quote_value(values['oversight.kind'])}, got {quote_value(given)}"
            )
        values[key] = value
    chosen["overseer"] = adapted


def _with_helper(judge: Any, where: str, path: Path, helps: tuple[Path, ...]) -> Any:
    """Returns the judge with the helper that it names."""
    above, named_by = (*helps, path.resolve()), f"{path}: overseer.{helpers.KEY}"

    def read(file: Path) -> Experiment:
        if file.resolve() in above:
            raise AmplifyError(f"{named_by}: {file.parent}: this experiment helps that one")
        return read_experiment(file, above)

    helper = helpers.open_helper(where, named_by, read)
    with prefix_errors(path):
        return judge if helper is None else judge.with_helper(helper)


def _own_code(sources: Mapping[str, Path], name: str, kind: str) -> Any:
    """Returns a context that reports errors of a section's own code in one line, if it has any.

    Tasks are also called by other sections, so an error may come from the task's code.
    """
    source = sources.get(name) or sources.get("task")
    return errors_in_one_line(source, kind) if source else contextlib.nullcontext()


def _split_kind(table: Mapping[str, Any], name: str, path: Path) -> tuple[str, dict[str, Any]]:
    section = dict(subtable(table, name, path))
    kind = section.pop("kind", DEFAULT_KINDS.get(name))
    if not isinstance(kind, str):
        raise AmplifyError(
            f"{path}: {name}.kind must be one of {', '.join(KINDS[name])}, got {quote_value(kind)}"
        )
    return kind, section


def _find_kind(kind: str, kinds: Mapping[str, type], name: str, path: Path) -> type:
    if kind not in kinds:
        allowed = f"one of {', '.join(kinds)}, or file.py:Name, in a file beside this one"
        found = f"{quote_value(kind)}{suggestion(kind, kinds)}"
        raise AmplifyError(f"{path}: {name}.kind must be {allowed}; got {found}")
    return kinds[kind]


def _renamed(kind: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """A section with the current names of keys that older versions named differently."""
    names = getattr(kind, "RENAMED", {})
    now = {names.get(key, key): value for key, value in section.items() if key in names}
    kept = {key: value for key, value in section.items() if key not in names}
    return {key: value for key, value in now.items() if key is not None} | kept


def _paths(kind: type, section: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, str]:
    """The values that are existing paths, relative to the working directory instead of the file.

    Other values may be names that are resolved elsewhere.
    """
    named = {key: section.get(key) for key in getattr(kind, "PATHS", ())}
    there = {
        key: [str(without_detours(at)) for folder in folders if is_there(at := folder / name)]
        for key, name in named.items()
        if isinstance(name, str) and name
    }
    return {key: found[0] for key, found in there.items() if found}


def _check_recordable(values: Mapping[str, Any], path: Path) -> None:
    """Checks that values, such as defaults of custom classes, can be written as JSON."""
    for key, value in values.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise AmplifyError(
                f"{path}: {key} must consist of numbers, text, arrays and tables, so that it can"
                f" be recorded; got {quote_value(value)}"
            ) from None
