"""Measures: what evals say of each held-out question, as named floats.

A measure is declared once, with the words that tables, pictures and pages show. Evals rows hold the
measures that apply to them: right or wrong is 1 or 0, and a value that is missing is left out, so
it is never NaN and never a 0 that nobody measured. `measuring.measures_of` says which measures an
experiment has; rounds record their declarations, so that reports need none of the experiment's
code. Knows names and words, and neither jax nor files: pages for people import it.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number that evals give to a held-out question."""

    name: str  # key of evals rows, of `compare --json` and of `gate.measure`
    title: str  # heading of its column
    meaning: str  # in a sentence, for the page
    of: str = ""  # the role or part that it is about; "": nobody has said
    costly: bool = False  # it takes answers from a language model that oversees
    constant: bool = False  # no round can change it
    share: bool = True  # every value is in 0..1, and it is shown in percent


@dataclasses.dataclass(frozen=True)
class Conditional:
    """A measure that reports derive: another one's value, where a condition measures 1."""

    measure: Measure
    value: str
    condition: str


ALONE = Measure(
    "alone",
    "alone",
    "Held-out questions that the assistant's target network answers rightly by itself, with its"
    " likeliest answer.",
    of="assistant",
)
AMPLIFIED = Measure(
    "amplified",
    "amplified",
    "Held-out questions that the overseer answers rightly, asking this assistant its"
    " sub-questions.",
    of="overseer",
)
CEILING = Measure(
    "ceiling",
    "ceiling",
    "Held-out questions that the overseer answers rightly when every sub-question is answered"
    " truly: what limits amplification even with a perfect assistant.",
    of="overseer",
)
CONSISTENT = Measure(
    "consistent",
    "consistent",
    "Held-out questions to which the assistant by itself gives the same answer as the overseer that"
    " asks this assistant its sub-questions, by the task's rule for when two answers are the same."
    ' "Don\'t know" is no answer. Measured where nobody knows the truth.',
    of="assistant",
)
FOUND = Measure(
    "found",
    "passages found",
    "Questions for which a search found all passages that the answer rests on.",
    of="environment",
    constant=True,
)
ALONE_IF_FOUND = Measure(
    "alone_if_found",
    "alone, if found",
    "The same as alone, of those questions only for which all passages were found.",
    of="assistant",
)
LIVE = Measure(
    "live",
    "alone, live weights",
    "The same as alone, by the weights that training changes and the target network averages.",
    of="assistant",
)
"""Only in training curves."""

KNOWN = (ALONE, AMPLIFIED, CEILING, FOUND, ALONE_IF_FOUND)
"""What rounds may have measured that were recorded before rounds recorded it."""

CONDITIONALS = (Conditional(ALONE_IF_FOUND, value="alone", condition="found"),)

DEFAULT = ALONE.name
"""What the gate compares unless the experiment file says otherwise."""

RENAMED = {"target": "alone", "overseer": "ceiling", "assistant": "live"}
"""Names in training curves of earlier versions, and what they are called now."""


def in_order(names: Iterable[str], declared: Sequence[Measure]) -> list[Measure]:
    """The measures with these names: declared ones in the order of their declarations, then others
    under their own names.

    Args:
        names: what evals rows hold, each name once or more often.
        declared: where two have one name, the first is meant.
    """
    wanted = dict.fromkeys(names)
    known = {measure.name: measure for measure in reversed(declared)}
    ordered = [known[name] for name in dict.fromkeys(m.name for m in declared) if name in wanted]
    return [*ordered, *(undeclared(name) for name in wanted if name not in known)]


def undeclared(name: str) -> Measure:
    """A measure of which only the name is known, from another version or kind of oversight."""
    return Measure(name, name, "A measure that this version of Amplify does not know.")


def recorded(record: Mapping[str, Any]) -> Sequence[Measure]:
    """The measures that a round's record declares, or those that rounds without declarations may
    have. What a declaration lacks takes its default; what this version does not know is left out.
    """
    told = record.get("measures")
    if not isinstance(told, list):
        return KNOWN
    return [_declared(one) for one in told if isinstance(one, dict) and "name" in one]


def _declared(told: Mapping[str, Any]) -> Measure:
    measure = undeclared(str(told["name"]))
    fields = dataclasses.asdict(measure).items()
    fitting = {key: told[key] for key, now in fields if type(told.get(key)) is type(now)}
    return dataclasses.replace(measure, **fitting)


def gate_measure(values: Mapping[str, Any]) -> str:
    """Name of the measure that an experiment's gate compares.

    Args:
        values: the experiment's, by key, as records have them; older ones lack this key.
    """
    return str(values.get("gate.measure", DEFAULT))
