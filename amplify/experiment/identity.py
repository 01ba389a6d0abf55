"""Checks that an experiment has not changed since the rounds in its folder were run.

A round's record contains every value of the experiment file and a digest of every file that it
names. The error names the changed keys and files and the commands that create a new experiment.
"""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, command, quote
from amplify.experiment.sections import IDENTITY, Experiment, upgrade_values
from amplify.experiment.validation import quote_value
from amplify.files import toml

CONTENT = (" (content)", ".source")
"""Suffixes of the keys whose values are digests of files."""
NAMED = 3
"""Largest number of changed files that an error names."""


def check_unchanged(
    folder: Path, number: int, record: Mapping[str, Any], experiment: Experiment
) -> None:
    """Checks that values and files are those in a round's record.

    Keys that only one of them has were added or removed by another version of Amplify and are
    ignored here, see `check_current`.

    Args:
        folder: the experiment's folder.
        number: the round's number.
        record: its record.
        experiment: the experiment as it is now.

    Raises:
        AmplifyError: if something changed; says what.
    """
    changed = _changed(record, experiment)
    if not any(_is_change(key, record, experiment) for key in changed):
        return
    files = [key for key in changed if key.endswith(CONTENT)]
    values = [key for key in changed if key not in files]
    was, now = upgrade_values(record["experiment"]), _as_recorded(experiment)
    edits = [
        f"{key} ({quote_value(was.get(key))} -> {quote_value(now.get(key))})" for key in values
    ]
    what = [f"{folder}/experiment.toml changed ({', '.join(edits)})"] if edits else []
    what += [f"{path} was edited" for key in files for path in _edited(key, record, experiment)]
    changes = f"{' and '.join(what)} after round {number} was run"
    if not files and all(_may_be_set(key, now.get(key)) for key in values):
        derive = _derive_another(folder, number, {key: now[key] for key in values})
        raise AmplifyError(
            f"{changes}: a changed experiment needs a folder of its own: undo the change here, and"
            f" run: {derive}"
        )
    say_there = f" write there what differs ({', '.join(values)}), and" if values else " and"
    raise AmplifyError(
        f"{changes}: a changed experiment needs a folder of its own:"
        f" {_begin_another(folder, experiment, files)},{say_there} undo the change here"
    )


def check_current(
    folder: Path, number: int, record: Mapping[str, Any], experiment: Experiment
) -> None:
    """Checks that a round's record contains all the facts that this version records.

    Args:
        folder: the experiment's folder.
        number: the round's number.
        record: its record.
        experiment: the experiment as it is now.

    Raises:
        AmplifyError: if some are missing, so that changes could go unnoticed.
    """
    if changed := _changed(record, experiment):
        raise AmplifyError(
            f"{folder}: round {number} was run by another version of Amplify, which recorded"
            f" {', '.join(changed)} differently: its rounds can be compared, but not continued; the"
            f" same experiment begins anew with: {_begin_another(folder, experiment)}"
        )


def _is_change(key: str, record: Mapping[str, Any], experiment: Experiment) -> bool:
    if record.get("identity", 1) < IDENTITY and key.endswith(CONTENT):
        return False
    return key in upgrade_values(record["experiment"]) and key in _as_recorded(experiment)


def _changed(record: Mapping[str, Any], experiment: Experiment) -> list[str]:
    recorded, now = record.get("experiment"), _as_recorded(experiment)
    if not recorded:
        return []
    was = upgrade_values(recorded)
    return [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]


def _as_recorded(experiment: Experiment) -> dict[str, Any]:
    return upgrade_values(json.loads(json.dumps(experiment.values)))


def _edited(key: str, record: Mapping[str, Any], experiment: Experiment) -> list[Path]:
    """Paths of the changed files behind a digest, or of the folder if they are unknown."""
    where, now = experiment.places.get(key), experiment.files.get(key, {})
    was = record.get("files", {}).get(key)
    if where is None:
        return [Path(key)]
    if was is None:
        return [where]
    differ = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    return [where / name for name in differ[:NAMED]] or [where]


def _may_be_set(key: str, value: Any) -> bool:
    """Whether `--set` can change a key alone. Another kind of a section would drop other keys."""
    return value is not None and not key.endswith(".kind")


def _derive_another(folder: Path, number: int, changes: Mapping[str, Any]) -> str:
    """The command that runs rounds of an experiment beside this one, with some other values."""
    settings = [f"{key}={toml.value(value)}" for key, value in changes.items()]
    given = [word for setting in settings for word in ("--set", setting)]
    return command("round", folder, "--n", max(1, number), *given, "--as", _free_name(folder))


def _free_name(folder: Path) -> Path:
    """A folder beside this one that is not there yet."""
    here = folder if folder.name not in ("", "..") else folder.resolve()
    number = 2
    while (new := here.with_name(f"{here.resolve().name}-{number}")).exists():
        number += 1
    return new


def _begin_another(folder: Path, experiment: Experiment, files: Sequence[str] = ()) -> str:
    """The command that begins an experiment beside this one, with this one as its `base`.

    Args:
        files: keys of files that differ, which it gets copies of; `base` leads to all others.
    """
    here = folder if folder.name not in ("", "..") else folder.resolve()
    new = _free_name(folder)
    copied = dict.fromkeys(path for key in files for path in _to_copy(key, here, experiment))
    copy = f" cp -r {quote(*copied, new)} &&" if copied else ""
    base = shlex.quote(f"base = {json.dumps(f'../{here.name}', ensure_ascii=False)}")
    return f"mkdir {quote(new)} &&{copy} echo {base} > {quote(new / 'experiment.toml')}"


def _to_copy(key: str, folder: Path, experiment: Experiment) -> list[Path]:
    """What another experiment must get a copy of to have its own version of changed files.

    Code is found in the experiment's folder before its base's; other files only where a key says.
    """
    where = experiment.places.get(key)
    if where is None:
        return []
    if key.endswith(".source"):
        tops = dict.fromkeys(Path(name).parts[0] for name in experiment.files[key])
        return [Path(os.path.normpath(where / top)) for top in tops]
    if folder.resolve() not in where.resolve().parents:
        return []
    return [folder / where.resolve().relative_to(folder.resolve()).parts[0]]
