"""Writes TOML, which the standard library only reads."""

import json
import re
from collections.abc import Mapping
from typing import Any

Table = Mapping[str, Any]


def dumps(table: Table) -> str:
    """Returns a table as TOML: keys first, then its sub-tables, each under a heading.

    Args:
        table: strings, numbers, booleans, lists and tables; other values are written as strings.
    """
    keys = [f"{_key(name)} = {_value(value)}" for name, value in table.items() if not _is(value)]
    parts = ["\n".join(keys)] if keys else []
    for name, value in table.items():
        if _is(value):
            lines = [f"{_key(key)} = {_value(inner)}" for key, inner in value.items()]
            parts.append("\n".join([f"[{_key(name)}]", *lines]))
    return "\n\n".join(parts) + "\n"


def _is(value: Any) -> bool:
    return isinstance(value, Mapping)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if _is(value):
        inner = ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items())
        return f"{{{inner}}}"
    return _string(str(value))


def _string(text: str) -> str:
    """A basic string. JSON escapes all that TOML must escape, except for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
