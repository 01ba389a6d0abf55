"""Keys of experiment files that differ between experiments: in full, and in a line each group."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amplify.evaluation import figures
from amplify.files import toml
from amplify.report.groups import EVALS_SEED, SEED, Group

SHOWN_DIGITS = 12
"""Digits of a digest that tables of keys show."""
SHOWN_KEYS = 4
"""Most keys in the line that says what an experiment changes."""
LONGEST_VALUE = 40
"""Most characters of a value in that line."""


def changed_keys(groups: Sequence[Group], place: str = "") -> list[str]:
    """Says which keys each group changes: `walk-600: training.steps 600 (walk: 300)`.

    Seeds are left out. Keys that both groups have come first, since a key that one lacks is often
    only newer than its experiment.

    Args:
        groups: all are compared with the first one.
        place: where the keys that differ are listed, if not beside the line: " on the page".

    Returns:
        A line for each group that differs from the first one in any such key.
    """
    first = groups[0]
    lines = []
    for other in groups[1:]:
        values = [group.first.store.experiment.values for group in (first, other)]
        rows = [row for row in key_rows(values) if row[2] and row[0] not in (SEED, EVALS_SEED)]
        rows.sort(key=lambda row: figures.MISSING in row[1])
        said = [
            f"{key} {_short(now)} ({first.short_name}: {_short(was)})"
            for key, [was, now], _ in rows[:SHOWN_KEYS]
        ]
        if len(rows) > SHOWN_KEYS:
            said.append(f"and {len(rows) - SHOWN_KEYS} more, see Keys that differ{place}")
        if said:
            lines.append(f"{other.short_name}: {', '.join(said)}")
    return lines


def _short(value: str) -> str:
    return figures.short(" ".join(value.split()), LONGEST_VALUE)


def key_rows(values: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str], bool]]:
    """Returns each key, its value in effect in each experiment, and whether these differ; those
    first.

    Args:
        values: the values of each experiment by key. The keys of tables become rows, too.
    """
    known = [_in_effect(some) for some in values]
    names = dict.fromkeys(key for some in known for key in some)
    table = [(key, [_as_written(some.get(key)) for some in known]) for key in names]
    rows = [(key, [*map(_shorten, said)], len({*said}) > 1) for key, said in table]
    return sorted(rows, key=lambda row: not row[2])


def _in_effect(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values in which what is not given is what it stands for."""
    given = dict(_flat(values))
    if EVALS_SEED in given and given[EVALS_SEED] is None:
        given[EVALS_SEED] = given.get(SEED, 0)
    return given


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _as_written(value: Any) -> str:
    """A value as an experiment file has it; text without quotes."""
    if value is None:
        return figures.MISSING
    return value if isinstance(value, str) else toml.value(value)


def _shorten(text: str) -> str:
    """Shortens each SHA-256 digest in a text to its first characters."""
    return re.sub(r"\b[0-9a-f]{64}\b", lambda found: found[0][:SHOWN_DIGITS], text)
