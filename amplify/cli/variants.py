"""Reads `--set`, `--as` and `--seeds`: which experiments a command runs."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, command

SCALARS = (str, int, float, list, dict)  # bool is an int


def experiments(
    experiment: Path, settings: Sequence[str], folder: Path | None, seeds: str | None
) -> list[Path]:
    """Returns the experiments to run, after writing the derived ones among them.

    Args:
        experiment: the one that was named.
        settings: KEY=VALUE, from `--set`.
        folder: from `--as`, of the experiment with these settings.
        seeds: from `--seeds`, separated by commas.

    Raises:
        AmplifyError: if an argument is wrong. Then nothing is written.
    """
    changes = read_settings(settings)
    if changes and folder is None:
        raise AmplifyError(
            "--set: needs --as FOLDER, where the derived experiment is written (with make,"
            " SET=KEY=VALUE needs AS=FOLDER)"
        )
    if folder is not None and not changes:
        raise AmplifyError(
            "--as: needs --set KEY=VALUE, which says what differs (with make, AS=FOLDER needs"
            " SET=KEY=VALUE)"
        )
    wanted = None if seeds is None else read_seeds(seeds)
    if folder is None and wanted is None:
        return [experiment]
    from amplify.reading import derived  # imports jax

    if folder is None:
        return _write_seeds(experiment, wanted)
    variant = derived.derive(experiment, folder, changes, "--set")
    is_new = not variant.path.exists()
    variant.write()
    try:
        return _write_seeds(folder, wanted)
    except AmplifyError:
        if is_new:
            variant.remove()
        raise


def _write_seeds(experiment: Path, seeds: Sequence[int] | None) -> list[Path]:
    """Writes the experiments of seeds; None: there is only the experiment itself."""
    from amplify.reading import derived

    if seeds is None:
        return [experiment]
    found = derived.with_seeds(experiment, seeds, "--seeds")
    return [one if isinstance(one, Path) else one.write() for one in found]


def with_seeds(experiments: Sequence[Path], seeds: str | None) -> list[Path]:
    """Returns the folders of some seeds of experiments, which must have been run before.

    Args:
        experiments: the ones that were named.
        seeds: from `--seeds`, separated by commas; None: only the experiments themselves.

    Raises:
        AmplifyError: if seeds are wrong, or an experiment cannot be read.
    """
    if seeds is None:
        return list(experiments)
    from amplify.reading import derived  # imports jax

    wanted, found = read_seeds(seeds), []
    for one in experiments:
        for seed, path in zip(wanted, derived.seed_folders(one, wanted), strict=True):
            if not path.is_dir():
                run = command("round", one, "--n", 1, "--seeds", seed)
                raise AmplifyError(f"{path}: seed {seed} of {one} was not run yet; run: {run}")
            found.append(path)
    return found


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Returns the values of KEY=VALUE arguments by key.

    A value is TOML; what is not is taken as a string, so that words need no quotes.

    Raises:
        AmplifyError: if an argument has no =, or a key occurs twice.
    """
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            raise AmplifyError(
                f"--set: must be KEY=VALUE, such as training.steps=500, got {setting!r}"
            )
        if key in found:
            raise AmplifyError(f"--set: {key} is given twice")
        found[key] = _read_value(text.strip())
    return found


def read_seeds(text: str) -> list[int]:
    """Returns the seeds in a list such as "0,1,2".

    Raises:
        AmplifyError: if it is not a list of different whole numbers of at most 32 bits.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) <= 10 for part in parts):
        raise AmplifyError(f"--seeds: must be whole numbers, such as 0,1,2, got {text[:80]!r}")
    seeds = [int(part) for part in parts]
    if max(seeds) >= 2**32:
        raise AmplifyError(f"--seeds: must be less than {2**32}, got {max(seeds)}")
    if len({*seeds}) < len(seeds):
        raise AmplifyError(f"--seeds: must be different numbers, got {text[:80]!r}")
    return seeds


def _read_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = table.get("value")
    return value if len(table) == 1 and isinstance(value, SCALARS) else text
