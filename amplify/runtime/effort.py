"""Counts what people do to make a training signal, or would do in place of whoever is simulated.

A stage opens a tally while it makes a signal; code that simulates people reports their actions to
`count`, which does nothing if no tally is open. Actions inside a compiled training step are
returned as metrics instead, see `as_metrics`. What an action costs is said by the experiment file's
`[prices]`, which reports apply. The work of people on the pages is measured in seconds instead.
Calls to models are counted by `calls`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from amplify.runtime import calls

READ, LOOK, ASK = "read", "look", "ask"
"""Reads a statement of an answer or a turn of a debate; looks up a fact; asks the assistant."""
COMPARISON, SCORE = "comparison", "score"
"""Chooses the best of several answers, or the winner of a debate; gives a number to an answer."""
ANSWER, DEMONSTRATION = "answer", "demonstration"
"""Answers a question; shows an overseer that learns how to answer one."""
ACTIONS = (READ, LOOK, ASK, COMPARISON, SCORE, ANSWER, DEMONSTRATION)
"""Reading, looks and asks are counted beside the actions that they are part of, except those of
demonstrations."""

METRIC = "effort/"
"""Prefix of the metrics that count actions."""

_open: list["Tally"] = []


class Tally:
    """Numbers of actions, counted while the context manager is open."""

    def __init__(self) -> None:
        self.actions: Counter[str] = Counter()

    def __enter__(self) -> "Tally":
        _open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _open.remove(self)


def count(action: str, number: int) -> None:
    """Adds actions to the innermost open tally, if there is one.

    Args:
        action: one of `ACTIONS`.
        number: of such actions, 0 or more.
    """
    if _open:
        _open[-1].actions[action] += int(number)


def count_all(actions: Mapping[str, Any]) -> None:
    """Adds several actions, as `count` does.

    Args:
        actions: for each action, a number or an array of numbers to be summed.
    """
    for action, numbers in actions.items():
        count(action, numbers if isinstance(numbers, int) else int(numbers.sum()))


def of_answers(counted: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what it takes an overseer to give answers.

    Args:
        counted: answers in its decomposition trees, by the part of `calls` that gave them.

    Returns:
        The same numbers, by action.
    """
    actions = {calls.OVERSEER: ANSWER, calls.ASSISTANT: ASK, calls.ENVIRONMENT: LOOK}
    return {actions[part]: number for part, number in counted.items()}


def as_metrics(actions: Mapping[str, Any]) -> dict[str, Any]:
    """Returns numbers of actions as metrics of a training step, which are summed over steps.

    Args:
        actions: integers by action.
    """
    return {METRIC + action: number for action, number in actions.items()}


def of_training(log: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Returns the actions that a training log counts.

    Args:
        log: rows of `metrics.jsonl`.
    """
    found: Counter[str] = Counter()
    for row in log:
        for name, number in row.items():
            if name.startswith(METRIC):
                found[name.removeprefix(METRIC)] += number
    return found


def facts(actions: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Returns a stage's actions as its record entry contains them: `{"effort": {...}}`.

    Args:
        actions: numbers by action.
    """
    found = {action: actions[action] for action in ACTIONS if actions.get(action)}
    return {"effort": found} if found else {}


def of_record(record: Mapping[str, Any]) -> dict[str, int]:
    """Returns the actions behind all signals of a round; empty for records of older versions.

    Args:
        record: of the round.
    """
    found: Counter[str] = Counter()
    for entry in record.get("stages", {}).values():
        found.update(entry.get("effort", {}))
    return {action: found[action] for action in ACTIONS if found[action]}
