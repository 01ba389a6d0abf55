"""Whether an experiment is the one whose rounds are in its folder.

A round's record has every value of the experiment file and a digest of every file that it names. If
one of them is another now, the error names the key or the file, and says how to begin a new
experiment. Knows records as dictionaries, and no folders of rounds; `store` calls it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, quote
from amplify.experiment.sections import IDENTITY, Experiment, now_written
from amplify.experiment.validation import shown

CONTENT = (" (content)", ".source")
"""How keys end whose value is a digest of files."""
NAMED = 3
"""Changed files that an error names at most."""


def check_unchanged(
    folder: Path, number: int, record: Mapping[str, Any], experiment: Experiment
) -> None:
    """Raises AmplifyError naming what changed since a round was begun.

    A key that only one of them has was added or removed by another version of Amplify, and is no
    change of the experiment's: see `check_current`.
    """
    changed = _changed(record, experiment)
    if not any(_is_change(key, record, experiment) for key in changed):
        return
    files = [key for key in changed if key.endswith(CONTENT)]
    values = [key for key in changed if key not in files]
    was, now = now_written(record["experiment"]), _as_recorded(experiment)
    told = [f"{key} ({shown(was.get(key))} -> {shown(now.get(key))})" for key in values]
    what = [f"{folder}/experiment.toml changed ({', '.join(told)})"] if told else []
    what += [f"{path} was edited" for key in files for path in _edited(key, record, experiment)]
    raise AmplifyError(
        f"{' and '.join(what)} after round {number} was run: {_instead(folder, experiment)}"
    )


def check_current(
    folder: Path, number: int, record: Mapping[str, Any], experiment: Experiment
) -> None:
    """Raises AmplifyError if the record does not say all that this version records: then nobody
    knows whether it was the same experiment.
    """
    if changed := _changed(record, experiment):
        raise AmplifyError(
            f"{folder}: round {number} was run by another version, whose record does not tell what"
            f" this one needs to know of {', '.join(changed)}: its rounds can be compared, and none"
            f" can follow them; {_instead(folder, experiment)}"
        )


def _is_change(key: str, record: Mapping[str, Any], experiment: Experiment) -> bool:
    if record.get("identity", 1) < IDENTITY and key.endswith(CONTENT):
        return False
    return key in now_written(record["experiment"]) and key in experiment.values


def _changed(record: Mapping[str, Any], experiment: Experiment) -> list[str]:
    told, now = record.get("experiment"), _as_recorded(experiment)
    if not told:
        return []
    was = now_written(told)
    return [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]


def _as_recorded(experiment: Experiment) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(experiment.values))
    return values


def _edited(key: str, record: Mapping[str, Any], experiment: Experiment) -> list[Path]:
    """The files behind a digest that are others now; what the key names, if it is not known."""
    where, now = experiment.places.get(key), experiment.files.get(key, {})
    was = record.get("files", {}).get(key)
    if where is None:
        return [Path(key)]
    if was is None:
        return [where]
    differ = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    return [where / name for name in differ[:NAMED]] or [where]


def _instead(folder: Path, experiment: Experiment) -> str:
    """What to do with a changed experiment."""
    number = 2
    while (new := folder.with_name(f"{folder.resolve().name}-{number}")).exists():
        number += 1
    used = [
        where / name
        for key, where in experiment.places.items()
        for name in (experiment.files[key] if key.endswith(".source") else ["."])
    ]
    beside = [path.relative_to(folder).parts[0] for path in used if folder in path.parents]
    inside = [folder / name for name in ("experiment.toml", *beside)]
    return (
        f"a changed experiment is a new one: mkdir {quote(new)} &&"
        f" cp -r {quote(*dict.fromkeys(inside))} {quote(new)}, and put back here what was before"
    )
