"""Reads the tables of an experiment file and of the experiments that it names as its base, without
knowing what they mean. Called by `experiment_file`.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, first_line
from amplify.experiment.validation import check_plain, quote_value

FILE = "experiment.toml"


def read_table(path: Path, above: tuple[Path, ...] = ()) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """Reads a file's tables and those of its `base`, without running any code.

    Args:
        path: the file.
        above: files that name this one as their base.

    Returns:
        The merged tables, and the folders that they come from, the file's own first.

    Raises:
        AmplifyError: if a file is missing or is not valid TOML, or a base refers back to itself.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AmplifyError(
            f"{path}: no such file; an experiment is a folder with an experiment.toml"
        ) from None
    except RecursionError:
        raise AmplifyError(f"{path}: cannot be read as TOML: too deeply nested") from None
    except (ValueError, OSError) as error:  # not TOML, not UTF-8, or a number with too many digits
        said = getattr(error, "strerror", None) or first_line(error)
        raise AmplifyError(f"{path}: cannot be read as TOML: {said}") from None
    check_plain(table, path)
    base = table.pop("base", None)
    if base is None:
        return table, (path.parent,)
    if not isinstance(base, str):
        raise AmplifyError(
            f"{path}: base must be another experiment's folder, got {quote_value(base)}"
        )
    file = without_detours(path.parent / base) / FILE
    if not is_there(file):
        there = f"{file}" if len(base) < 200 and base.isprintable() else quote_value(f"{file}")
        raise AmplifyError(f"{path}: base: {there}: no such file")
    above = (*above, path.resolve())
    if file.resolve() in above:
        raise AmplifyError(f"{path}: base refers back to this experiment")
    below, folders = read_table(file, above)
    return merge_tables(below, table), (path.parent, *folders)


def merge_tables(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tables of a base with those of a file that names it merged over them.

    Args:
        below: the tables of the base.
        above: the tables of the file.
    """
    return {**below, **{key: _over(below.get(key), value) for key, value in above.items()}}


def _over(below: Any, value: Any) -> Any:
    """Merges a value over the one of the base. Tables of different kinds are not merged."""
    if not isinstance(below, dict) or not isinstance(value, dict):
        return value
    same_kind = value.get("kind", below.get("kind")) == below.get("kind")
    return merge_tables(below, value) if same_kind else value


def without_detours(path: Path) -> Path:
    """A path without "a/..", unless a symbolic link gives that another meaning."""
    short = Path(os.path.normpath(path))
    return short if short.resolve() == path.resolve() else path


def is_there(path: Path) -> bool:
    """Whether a path exists; False if its name is too long for the file system."""
    try:
        return path.exists()
    except OSError:
        return False
