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
    keys = [f"{_key(name)} = {value(one)}" for name, one in table.items() if not _is(one)]
    parts = ["\n".join(keys)] if keys else []
    for name, one in table.items():
        if _is(one):
            lines = [f"{_key(key)} = {value(inner)}" for key, inner in one.items()]
            parts.append("\n".join([f"[{_key(name)}]", *lines]))
    return "\n\n".join(parts) + "\n"


def _is(value: Any) -> bool:
    return isinstance(value, Mapping)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)


def value(of: Any) -> str:
    """Returns a value as TOML: strings, numbers, booleans, lists and tables; others as strings."""
    if isinstance(of, bool):
        return str(of).lower()
    if isinstance(of, int | float):
        return repr(of)
    if isinstance(of, list | tuple):
        return f"[{', '.join(map(value, of))}]"
    if _is(of):
        inner = ", ".join(f"{_key(key)} = {value(one)}" for key, one in of.items())
        return f"{{{inner}}}"
    return _string(str(of))


def _string(text: str) -> str:
    """A basic string. JSON escapes all that TOML must escape, except for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
