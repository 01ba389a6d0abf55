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

from amplify.runtime import calls, tallies
from amplify.runtime.tallies import sum_metrics

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


class Tally(tallies.Tally):
    """Numbers of actions, by name."""


count, count_all = Tally.count, Tally.count_all
"""Add actions to the innermost open tally; see `tallies`."""


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
    return sum_metrics(log, METRIC)


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
