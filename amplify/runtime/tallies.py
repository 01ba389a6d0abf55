"""Named counts, added up by whoever opens a tally.

The open tallies are global because every function between a stage and whatever is counted would
otherwise have to pass them on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar


class Tally:
    """Counts by name, collected while the context manager is open. Only the innermost open tally of
    a class receives them; a subclass has open tallies of its own.
    """

    _open: ClassVar[list[Any]]

    def __init_subclass__(cls) -> None:
        cls._open = []

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Any:
        self._open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.remove(self)

    @classmethod
    def innermost(cls) -> Any | None:
        """Returns the innermost open tally of this class; None if none is open."""
        return cls._open[-1] if cls._open else None

    @classmethod
    def count(cls, name: str, number: int) -> None:
        """Adds to the innermost open tally of this class; does nothing if none is open.

        Args:
            name: what is counted.
            number: 0 or more.
        """
        if (tally := cls.innermost()) is not None:
            tally.counts[name] += int(number)

    @classmethod
    def count_all(cls, numbers: Mapping[str, Any]) -> None:
        """Adds several counts, as `count` does.

        Args:
            numbers: by name, a number or an array of numbers to be summed.
        """
        for name, number in numbers.items():
            cls.count(name, number if isinstance(number, int) else int(number.sum()))


def sum_metrics(log: Iterable[Mapping[str, Any]], prefix: str) -> Counter[str]:
    """Returns the counts in a training log.

    Args:
        log: rows of `metrics.jsonl`.
        prefix: of the metrics to be summed; left out of the names that are returned.
    """
    found: Counter[str] = Counter()
    for row in log:
        for name, number in row.items():
            if name.startswith(prefix):
                found[name.removeprefix(prefix)] += number
    return found
