"""Tables of a file, read strictly into dataclasses: what is unknown or not allowed is one line that
names file, key and what is allowed.
"""

import dataclasses
import difflib
import json
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from amplify.errors import AmplifyError

LONGEST = 4096
"""Characters of a string, the longest path of a file system among them."""


def check_plain(table: Mapping[str, Any], path: Path, prefix: str = "") -> None:
    """Raises AmplifyError for a value that no key of an experiment file can have, whatever the key:
    a number that is not finite or does not fit into 64 bits, or a string that is no text or path.
    """
    for key, value in table.items():
        name = f"{prefix}{_printable(key)}"
        if isinstance(value, dict):
            check_plain(value, path, f"{name}.")
        elif isinstance(value, list):
            check_plain({str(place): item for place, item in enumerate(value)}, path, f"{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise AmplifyError(f"{path}: {name} must be a finite number, got {value}")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise AmplifyError(
                f"{path}: {name} must be a number of at most 64 bits, got one of"
                f" {value.bit_length()}"
            )
        elif isinstance(value, str) and "\0" in value:
            raise AmplifyError(f"{path}: {name} must not contain a NUL character")
        elif isinstance(value, str) and len(value) > LONGEST:
            raise AmplifyError(
                f"{path}: {name} must have at most {LONGEST} characters, got {len(value)}"
            )


def shown(value: Any) -> str:
    """A value as an error quotes it: short, on one line."""
    return textwrap.shorten(repr(value), 100, placeholder="...")


def _printable(key: str) -> str:
    return key if key.isprintable() and key and len(key) <= 60 else shown(key[:60])


def table_of(table: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """The table of this name inside another; empty if there is none."""
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise AmplifyError(f"{path}: {name} must be a table, [{name}], got {shown(section)}")
    return section


def section_of(kind: type, section: Mapping[str, Any], name: str, path: Path) -> Any:
    """A dataclass of this kind with the values of a table."""
    refuse_unknown(section, [f.name for f in dataclasses.fields(kind) if f.init], f"{name}.", path)
    return validate(kind, section, name, path)


def validate(kind: Any, value: Any, name: str, path: Path) -> Any:
    """A value as this type."""
    try:
        # As JSON: there a strict reading still takes tables for dataclasses and arrays for tuples.
        return TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except MemoryError as error:  # a data class that makes something of its values
        raise AmplifyError(
            f"{path}: {name}: {error or 'needs more memory than there is'}"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([name, *map(str, first["loc"])])
        if first["type"] == "value_error":  # fields that do not fit together, in their own words
            raise AmplifyError(f"{path}: {key}.{first['ctx']['error']}") from None
        said = first["msg"].removeprefix("Input should be ")
        raise AmplifyError(f"{path}: {key} must be {said}, got {shown(first['input'])}") from None


def refuse_unknown(given: Mapping[str, Any], known: list[str], prefix: str, path: Path) -> None:
    for key in given:
        if key not in known:
            hint = nearest(key, known) or f"; known are {', '.join(known)}" * bool(known)
            raise AmplifyError(f"{path}: unknown key {prefix}{_printable(key)}{hint}")


def nearest(word: str, known: Any) -> str:
    """A hint for an error's end: the known word that is nearest, if any is near."""
    near = difflib.get_close_matches(word[:60], list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def flat(section: Any, name: str) -> dict[str, Any]:
    """A section's values by their full names: `{"training.steps": 1000, ...}`."""
    return {f"{name}.{key}": value for key, value in dataclasses.asdict(section).items()}
