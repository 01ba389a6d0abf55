"""Malformed experiment files, made from the shipped ones by a seeded generator."""

import json
import random
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
SHIPPED = ("wildcard", "union-find", "shortest-path", "permutation", "assignments", "tally")
TASK = (ROOT / "rounds/tally/tally.py").read_text(encoding="utf-8")


class Malformed(NamedTuple):
    what: str
    toml: bytes
    task: str | None = None  # tally.py beside it


def malformed(count: int, seed: int) -> Iterator[Malformed]:
    """As many different files, each of a kind that is drawn."""
    dice, seen = random.Random(seed), set()
    while len(seen) < count:
        kind = dice.choice(KINDS)
        table = tomllib.loads((ROOT / f"rounds/{dice.choice(SHIPPED)}/experiment.toml").read_text())
        if kind is _task_file:
            table = tomllib.loads((ROOT / "rounds/tally/experiment.toml").read_text())
        made = kind(dice, table)
        if (made.toml, made.task) not in seen:
            seen.add((made.toml, made.task))
            yield made


def _wrong_type(dice: random.Random, table: dict[str, Any]) -> Malformed:
    section, key = _some_key(dice, table)
    others = ["text", 1.5, True, [1], {"a": 1}, [[[]]]]
    # A number may stand for any number of its kind, text for a name: neither is taken for it.
    value = dice.choice([one for one in others if type(one) is not type(table[section][key])])
    if isinstance(table[section][key], float) and value == 1.5:
        value = "1.5"
    table[section][key] = value
    return Malformed(f"{section}.{key} = {value!r}", _written(table))


def _out_of_range(dice: random.Random, table: dict[str, Any]) -> Malformed:
    numbers = [
        (section, key)
        for section in ("questions", "training", "evals", "task", "assistant")
        for key, value in table.get(section, {}).items()
        if type(value) is int or (type(value) is float and key != "demonstrations_per_step")
    ]
    section, key = dice.choice(numbers)
    huge = ["1e22", "1e400", "nan", "-inf", "inf", "-1", "9" * 5001, "0x" + "f" * 5001, "9" * 30]
    huge += ["100000000000", "-9223372036854775808", "9223372036854775807"]
    text = dice.choice(huge)
    table[section][key] = "HERE"
    return Malformed(
        f"{section}.{key} = {text[:30]}", _written(table).replace(b'"HERE"', text.encode())
    )


def _unknown_key(dice: random.Random, table: dict[str, Any]) -> Malformed:
    section, _ = _some_key(dice, table)
    names = ["stepz", "x" * 100_000, "a\nb", "\u202e", "\x1b[31m", "", " ", "é" * 500, "__class__"]
    name = dice.choice([*names, f"key{dice.random()}"])
    target = dice.choice([table, table[section]])
    target[name] = dice.choice([1, "x", [1], {"a": {}}])
    return Malformed(f"key {name[:20]!r}", _written(table))


def _wrong_table(dice: random.Random, table: dict[str, Any]) -> Malformed:
    section = dice.choice([*table, "mesh", "gate", "curriculum"])
    if dice.random() < 0.3 and section in ("task", "assistant", "overseer"):
        del table[section]
        return Malformed(f"no {section}", _written(table))
    table[section] = dice.choice([3, "x", [1, 2], [{"a": 1}], {"kind": 3}, {"nested": {"a": 1}}])
    return Malformed(f"{section} = {table[section]!r}", _written(table))


def _bad_text(dice: random.Random, table: dict[str, Any]) -> Malformed:
    texts = ["\0", "a\0b", "x" * 100_000, "../" * 2000, "y" * 300, "\u2028", "\ud800", "/", "~", ""]
    text = dice.choice([*texts, f"kind{dice.random()}", f"{dice.random()}.py:X", ":.py:", "a.py:"])
    key = dice.choice(["base", "task", "assistant", "overseer", "training"])
    if key == "base":
        table["base"] = text
    elif key == "training":
        table.setdefault("training", {})["targets"] = text
    else:
        table[key] = table[key] | {"kind": text}
    return Malformed(f"{key}: {text[:20]!r}", _written(table))


def _not_toml(dice: random.Random, table: dict[str, Any]) -> Malformed:
    text = _written(table)
    place = dice.randrange(len(text))
    ways = {
        "utf-16": text.decode().encode("utf-16"),
        "utf-32": text.decode().encode("utf-32"),
        "not UTF-8": text[:place] + b"\xff" + text[place:],
        "NUL": text[:place] + b"\0" + text[place:],
        "an open string": text + b'\n[more]\nx = "',
        "an open table": text + b"\n[more",
        "twice": text + text,
        "deep": b"x = " + b"[" * dice.randrange(2000, 9000),
        "deeply closed": b"x = " + b"[" * 5000 + b"]" * 5000,
        "empty": b"",
        "binary": dice.randbytes(300),
        "control": b"\x1b]0;x\x07 = 3\n" + text,
        "a surrogate": text + b'\nseed = "\\ud800"',
    }
    what = dice.choice(list(ways))
    return Malformed(what, ways[what])


def _task_file(dice: random.Random, table: dict[str, Any]) -> Malformed:
    lines, field = TASK.splitlines(), "    bits: int = 16"
    needed = ["draw_context", "draw_question", "truth", "is_right", "class_of", "is_primitive"]
    missing = dice.choice([*needed, "environment", "parse", "show"])
    ways = {
        "syntax": TASK.replace("def ", "fed ", dice.randrange(1, 5)),
        "sys.exit": f"import sys\nsys.exit({dice.randrange(3)})\n" + TASK,
        "exit in the class": TASK.replace("    bits: int", "    exit()\n    bits: int"),
        "an error": f"1 / 0  # {dice.random()}\n" + TASK,
        "an import": f"import nowhere{dice.randrange(99)}\n" + TASK,
        "recursion": "def f():\n    f()\nf()\n" + TASK,
        "not a dataclass": TASK.replace("@dataclasses.dataclass(frozen=True)\n", ""),
        "not frozen": TASK.replace("(frozen=True)", ""),
        "no such name": TASK.replace("Tally", f"Tally{dice.randrange(99)}"),
        "a function": "def Tally(bits=3):\n    return bits\n",
        "a value": f"Tally = {dice.randrange(99)}\n",
        "lacks": TASK.replace(f"def {missing}", "def _missing"),
        "cut off": "\n".join(lines[: dice.randrange(len(lines) - 30)]),
        "NUL": TASK.replace("bits", "bi\0ts", 1),
        "not UTF-8": TASK.replace("Tally:", "Tally\udcff:", 1),
        "post init": TASK.replace(field, f"{field}\n    def __post_init__(self): 1 / 0\n"),
        "vocabulary": TASK.replace('("?", *map(str, range(self.bits + 1)))', "3"),
        "no sizes": TASK.replace("facts = property(lambda self: self.bits)", "facts = -1"),
        "unhashable": TASK.replace(field, f"{field}\n    __hash__ = None"),
        "a default": TASK.replace(
            "    bits: int = 16", "    bits: int = 16\n    more: object = object()"
        ),
        "a raised key": TASK.replace("lambda self: self.bits)", "lambda self: self.none)"),
        "an annotation": TASK.replace("bits: int", "bits: 'Nowhere'"),
        "odd annotation": TASK.replace("bits: int", "bits: {1: 2}"),
    }
    what = dice.choice(list(ways))
    return Malformed(f"tally.py: {what}", _written(table), ways[what])


KINDS = (_wrong_type, _out_of_range, _unknown_key, _wrong_table, _bad_text, _not_toml, _task_file)


def _some_key(dice: random.Random, table: dict[str, Any]) -> tuple[str, str]:
    keys = [
        (name, key)
        for name, section in table.items()
        if isinstance(section, dict)
        for key in section
    ]
    return dice.choice(keys)


def _written(table: dict[str, Any]) -> bytes:
    """As TOML; every string as JSON writes it, which TOML reads too."""
    lines = [f"{json.dumps(key)} = {_value(v)}" for key, v in table.items() if not _is_section(v)]
    for name, section in table.items():
        if _is_section(section):
            lines.append(f"[{json.dumps(name)}]")
            lines += [f"{json.dumps(key)} = {_value(value)}" for key, value in section.items()]
    return "\n".join(lines).encode(errors="surrogatepass")


def _is_section(value: Any) -> bool:
    return isinstance(value, dict)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)
