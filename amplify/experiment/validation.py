"""Validates tables of an experiment file and reads them into dataclasses.

Errors are one line with the file, the key and what is allowed.
"""

import dataclasses
import difflib
import json
import math
import textwrap
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from amplify.errors import AmplifyError

LONGEST = 4096
"""Largest number of characters of a string, equal to the longest path on common file systems."""

IN_TOML = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "an array",
    "list_type": "an array",
    "dict_type": "a table",
    "dataclass_type": "a table",
}
"""What a value must be, by the type of pydantic's error; others are said in pydantic's words."""


def check_plain(table: Mapping[str, Any], path: Path, prefix: str = "") -> None:
    """Checks values against limits that hold for every key, in nested tables, too.

    Args:
        table: the table.
        path: the file.
        prefix: the table's name and a dot; "" for the whole file.

    Raises:
        AmplifyError: for a number that is not finite or exceeds 64 bits, or a string that is too
            long or contains a NUL character.
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


def quote_value(value: Any) -> str:
    """Returns a value's `repr`, shortened to one line, for an error message."""
    return textwrap.shorten(repr(value), 100, placeholder="...")


def _printable(key: str) -> str:
    return key if key.isprintable() and key and len(key) <= 60 else quote_value(key[:60])


def subtable(table: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """Returns a table inside another one; {} if it is missing.

    Args:
        table: the outer table.
        name: of the inner one.
        path: the file.

    Raises:
        AmplifyError: if the value is not a table.
    """
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise AmplifyError(f"{path}: {name} must be a table, [{name}], got {quote_value(section)}")
    return section


def read_section(kind: type, section: Mapping[str, Any], name: str, path: Path) -> Any:
    """Builds a dataclass from a table.

    Args:
        kind: the dataclass; its fields may be dataclasses, which tables in the table describe.
        section: the table.
        name: of the section.
        path: the file.

    Raises:
        AmplifyError: for an unknown key or an invalid value.
    """
    _reject_unknown_fields(kind, section, f"{name}.", path)
    return validate(kind, section, name, path)


def _reject_unknown_fields(kind: type, table: Mapping[str, Any], prefix: str, path: Path) -> None:
    """Also in nested tables, whose unknown keys `validate` would ignore."""
    reject_unknown_keys(table, [f.name for f in dataclasses.fields(kind) if f.init], prefix, path)
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    hints = typing.get_type_hints(kind) if tables else {}
    for key, inner in tables.items():
        if dataclasses.is_dataclass(hints[key]):
            _reject_unknown_fields(hints[key], inner, f"{prefix}{key}.", path)


def validate(kind: Any, value: Any, name: str, path: Path) -> Any:
    """Converts a value to a type, strictly.

    Args:
        kind: the type.
        value: as TOML has it.
        name: of the key.
        path: the file.

    Raises:
        AmplifyError: if the value is not allowed.
    """
    try:
        # In JSON, strict mode still accepts objects as dataclasses and arrays as tuples.
        return TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except MemoryError as error:  # from a dataclass that computes something in __post_init__
        raise AmplifyError(
            f"{path}: {name}: {error or 'needs more memory than there is'}"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([name, *map(str, first["loc"])])
        if first["type"] == "value_error":  # raised by the dataclass, which names the fields
            raise AmplifyError(f"{path}: {key}.{first['ctx']['error']}") from None
        if first["type"] == "missing":
            raise AmplifyError(f"{path}: {key} is missing") from None
        said = IN_TOML.get(first["type"]) or first["msg"].removeprefix("Input should be ")
        raise AmplifyError(
            f"{path}: {key} must be {said}, got {quote_value(first['input'])}"
        ) from None


def reject_unknown_keys(
    given: Mapping[str, Any], known: list[str], prefix: str, path: Path
) -> None:
    """Raises AmplifyError for the first key that is not allowed.

    Args:
        given: the table.
        known: the allowed keys.
        prefix: the table's name and a dot, or "".
        path: the file.
    """
    for key in given:
        if key not in known:
            # The likeliest key may be there already, from the base that this file overrides.
            allowed = f"; allowed are {', '.join(known)}" * bool(known)
            hint = suggestion(key, known, prefix) or allowed
            raise AmplifyError(f"{path}: unknown key {prefix}{_printable(key)}{hint}")


def suggestion(word: str, known: Any, prefix: str = "") -> str:
    """Returns "; did you mean WORD?" with the most similar known word; "" if none is similar.

    Args:
        word: what was written.
        known: what may be written.
        prefix: of the suggested word, such as the table of a key and a dot.
    """
    near = difflib.get_close_matches(word[:60], list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def flatten(section: Any, name: str) -> dict[str, Any]:
    """Returns a section's values by their full names: `{"training.steps": 1000, ...}`."""
    return {f"{name}.{key}": value for key, value in dataclasses.asdict(section).items()}
