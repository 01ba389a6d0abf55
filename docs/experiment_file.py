"""Writes the reference of experiment files, docs/experiment_file.md, from the code that reads them.

Keys, defaults and limits are those of the dataclasses, descriptions are their docstrings. The text
above the marker is written by hand and kept. `make docs` runs this; a test fails if the page is out
of date.
"""

import ast
import dataclasses
import inspect
import itertools
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from amplify.reading.experiment_file import DEFAULT_KINDS, KINDS, NOT_IDENTITY, SECTIONS

PAGE = Path(__file__).with_suffix(".md")
STATISTICS = ("see docs/statistics.md", "see [statistics](statistics.md#the-gate)")
MARKER = "<!-- Everything below is written by docs/experiment_file.py; change the docstrings. -->\n"


def page() -> str:
    """Returns the whole page, with its hand-written part as it is."""
    written, marker, _ = PAGE.read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        raise ValueError(f"{PAGE} lacks the line {MARKER!r}")
    return written + marker + "".join(f"\n{block}\n" for block in reference())


def reference() -> Iterator[str]:
    """Yields the blocks of the reference: headings, descriptions and lists of keys."""
    for name, kinds in KINDS.items():
        yield f"## `[{name}]`"
        default = DEFAULT_KINDS.get(name)
        yield _wrap(
            f"`kind` is one of {', '.join(_code(kind) for kind in kinds)}, or `file.py:Name`."
            + (f" The default is {_code(default)}." if default else " It is required.")
        )
        for kind, section in kinds.items():
            yield f"### {name.capitalize()}: {kind}"
            yield from _described(section, name, whole=name == "task")
            yield from _keys(section, name)
    for name, section in {**SECTIONS, **NOT_IDENTITY}.items():
        yield f"## `[{name}]`"
        yield _wrap(_summary(section, name))
        yield from _keys(section, name)


def _described(section: type, name: str, whole: bool) -> Iterator[str]:
    """What the module of a kind says about it: all of it, or the first paragraph."""
    module = inspect.getdoc(sys.modules[section.__module__])
    paragraphs = (module or "").split("\n\n")
    yield from map(_wrap, paragraphs if whole else paragraphs[:1])


def _summary(section: type, name: str) -> str:
    """The docstring of a section, without the name that it begins with."""
    text = " ".join((inspect.getdoc(section) or "").split("\n\n")[0].split())
    text = text.removeprefix(f"`[{name}]`").removeprefix(" of an experiment file").lstrip(": ,")
    return text[:1].upper() + text[1:]


def _keys(section: type, name: str) -> Iterator[str]:
    """Lists a section's keys, and those of the tables in it."""
    schema = TypeAdapter(section).json_schema()
    meanings = described_fields(section)
    for key in schema.get("properties", {}):
        if key not in meanings:
            raise ValueError(f"{section.__module__}.{section.__name__}.{key} has no docstring")
    tables = _tables(section)
    rows = [
        _key(key, value, key in schema.get("required", ()), meanings[key])
        for key, value in schema.get("properties", {}).items()
        if key not in tables
    ]
    if rows:
        yield "\n".join(rows)
    for key, default in tables.items():
        table = type(default)
        yield f"#### `[{name}.{key}]`"
        yield _wrap(meanings[key])
        same = [kind for kind, one in KINDS.get(name, {}).items() if one is table]
        if same:
            yield f"The keys are those of [{same[0]}](#{name}-{same[0]})."
        else:
            yield from _keys(table, f"{name}.{key}")


def _tables(section: type) -> dict[str, Any]:
    """The defaults of the keys whose values are tables with keys of their own."""
    defaults = {
        field.name: field.default
        if field.default_factory is dataclasses.MISSING
        else field.default_factory()
        for field in dataclasses.fields(section)
    }
    return {
        key: value
        for key, value in defaults.items()
        if dataclasses.is_dataclass(value) and value is not dataclasses.MISSING
    }


def _key(key: str, schema: Mapping[str, Any], required: bool, meaning: str) -> str:
    notes = [note for note in ("required" if required else "", _allowed(schema)) if note]
    shown = key if required else f"{key} = {_toml(schema.get('default', {}))}"  # {}: of a factory
    inside = f" ({'; '.join(notes)})" if notes else ""
    return textwrap.fill(
        f"- `{shown}`{inside}: {meaning.replace(*STATISTICS)}",
        112,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _allowed(schema: Mapping[str, Any]) -> str:
    """Which values a key may have, in words; "" if its default says all."""
    if "anyOf" in schema:
        return " or ".join(filter(None, map(_allowed, schema["anyOf"])))
    if "enum" in schema:
        return ", ".join(map(_code, schema["enum"]))
    if "const" in schema:
        return _code(schema["const"])
    if schema.get("type") == "array":
        return f"array of integers, each {_allowed(schema['items'])}"
    return _range(schema)


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{low:,} to {high:,}"
    parts = [
        f"{low:,} or more" if low is not None else "",
        f"more than {above:,}" if above is not None else "",
        f"at most {high:,}" if high is not None else "",
        f"less than {below:,}" if below is not None else "",
    ]
    return ", ".join(filter(None, parts))


def _code(value: Any) -> str:
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    return "{}" if value == {} else json.dumps(value)


def _wrap(text: str) -> str:
    return textwrap.fill(text, 112, break_long_words=False, break_on_hyphens=False)


def described_fields(section: type) -> dict[str, str]:
    """Returns the docstring below each field of a dataclass and of its base classes.

    Args:
        section: the dataclass.

    Returns:
        Descriptions by field, in one line each.
    """
    found: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if not dataclasses.is_dataclass(kind):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
        for field, text in itertools.pairwise(body):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=key)),
                    ast.Expr(value=ast.Constant(value=str(said))),
                ):
                    found[key] = " ".join(said.split())
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
