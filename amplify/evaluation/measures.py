"""Declarations of measures: named floats that evals give to each held-out question.

A measure is declared once, with the texts that tables, plots and pages show. Right or wrong is 1 or
0. A missing value is left out; it is never NaN or 0. Rounds record their declarations, so reports
need no code of the experiment. `measuring.measures_of` returns the measures of an experiment.
Imports no jax, because the people's pages import this module.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Measure:
    """The declaration of a measure."""

    name: str  # key in evals rows and `compare --json`; value of `gate.measure`
    title: str  # column heading
    meaning: str  # explanation for pages
    of: str = ""  # the role or part that it measures; "": unknown
    costly: bool = False  # it takes answers of a costly overseer, see `measuring.is_costly`
    constant: bool = False  # no round can change it
    share: bool = True  # values are in 0..1 and shown in percent


@dataclasses.dataclass(frozen=True)
class Conditional:
    """A derived measure: that of `value`, for the items where `condition` is 1."""

    measure: Measure
    value: str
    condition: str


ALONE = Measure(
    "alone",
    "alone",
    "Held-out questions that the assistant's target network answers correctly by itself, with its"
    " most likely answer.",
    of="assistant",
)
AMPLIFIED = Measure(
    "amplified",
    "amplified",
    "Held-out questions that the overseer answers correctly, asking this assistant its"
    " sub-questions.",
    of="overseer",
)
CEILING = Measure(
    "ceiling",
    "ceiling",
    "Held-out questions that the overseer answers correctly given true answers to all its"
    " sub-questions: the limit of amplification with a perfect assistant.",
    of="overseer",
)
CONSISTENT = Measure(
    "consistent",
    "consistent",
    "Held-out questions to which the assistant by itself gives the same answer as the overseer that"
    " asks this assistant its sub-questions, by the task's rule for equal answers."
    ' "Don\'t know" does not count. Measured if the task knows no truth.',
    of="assistant",
)
GOLD = Measure(
    "gold",
    "gold",
    "What the assistant's sampled answers to held-out questions are really worth, in standard"
    " deviations of drafts, whose mean is 0. Nothing is trained on it.",
    of="assistant",
    share=False,
)
BEATS_DRAFT = Measure(
    "beats_draft",
    "better than a draft",
    "Held-out questions to which the assistant's sampled answer is really worth more than a draft.",
    of="assistant",
)
GOLD_FOCUS = Measure(
    "gold_focus",
    "gold, focus",
    "What the parts of the assistant's sampled answers that are in the task's focus are really"
    " worth by themselves, in standard deviations of drafts' gold; the mean of drafts is 0.",
    of="assistant",
    share=False,
)
GOLD_OTHER = Measure(
    "gold_other",
    "gold, others",
    "What all other parts add to that: gold, focus and gold, others add up to gold. What a part in"
    " focus and another one are worth together is in gold, others.",
    of="assistant",
    share=False,
)
OUTSIDE = Measure(
    "outside",
    "outside",
    "Share of the parts of the assistant's sampled answers that are not in the task's focus.",
    of="assistant",
    share=False,
)
FOUND = Measure(
    "found",
    "passages found",
    "Questions for which the search found all passages that the answer depends on.",
    of="environment",
    constant=True,
)
ALONE_IF_FOUND = Measure(
    "alone_if_found",
    "alone, if found",
    "The same as alone, for questions for which all passages were found.",
    of="assistant",
)
LIVE = Measure(
    "live",
    "alone, live weights",
    "The same as alone, with the live weights, of which the target network is the average.",
    of="assistant",
)
"""Used in training curves only."""

KNOWN = (ALONE, AMPLIFIED, CEILING, FOUND, ALONE_IF_FOUND)
"""The measures that a round may have if its record declares none."""

CONDITIONALS = (Conditional(ALONE_IF_FOUND, value="alone", condition="found"),)
"""The measures that reports derive."""

DEFAULT = ALONE.name
"""The measure that the gate compares by default."""

RENAMED = {"target": "alone", "overseer": "ceiling", "assistant": "live"}
"""Names in training curves of earlier versions, and their current names."""


def in_order(names: Iterable[str], declared: Sequence[Measure]) -> list[Measure]:
    """Returns the measures with given names: declared ones in order of declaration, then others.

    Args:
        names: keys of evals rows; may contain duplicates.
        declared: the declarations; of several with the same name, the first is used.
    """
    wanted = dict.fromkeys(names)
    known = {measure.name: measure for measure in reversed(declared)}
    ordered = [known[name] for name in dict.fromkeys(m.name for m in declared) if name in wanted]
    return [*ordered, *(undeclared(name) for name in wanted if name not in known)]


def undeclared(name: str) -> Measure:
    """Returns a declaration for a measure of which only the name is known."""
    return Measure(name, name, "A measure that this version of Amplify does not know.")


def recorded_measures(record: Mapping[str, Any]) -> Sequence[Measure]:
    """Returns the measures that a round's record declares.

    Missing fields take their defaults, unknown fields are ignored. If the record declares no
    measures, KNOWN is returned.

    Args:
        record: of the round.
    """
    rows = record.get("measures")
    if not isinstance(rows, list):
        return KNOWN
    return [_declared(row) for row in rows if isinstance(row, dict) and "name" in row]


def _declared(row: Mapping[str, Any]) -> Measure:
    measure = undeclared(str(row["name"]))
    fields = dataclasses.asdict(measure).items()
    valid = {key: row[key] for key, default in fields if type(row.get(key)) is type(default)}
    return dataclasses.replace(measure, **valid)


def gate_measure(values: Mapping[str, Any]) -> str:
    """Returns the name of the measure that an experiment's gate compares.

    Args:
        values: the experiment's values by key, as recorded; old records lack this key.
    """
    return str(values.get("gate.measure", DEFAULT))
