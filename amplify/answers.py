"""When two answers are the same.

A task has one rule for that. Its `is_right` judges by it, and the rule is written into the log with
each question put to people, so that processes that never load the task (the web pages) compare
people's answers by the same rule. Pure functions of text; never imports jax.
"""

import dataclasses
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal, get_args

from amplify.matching import bare

Form = Literal["exact", "caseless", "normalized"]


@dataclasses.dataclass(frozen=True)
class AnswerRule:
    """Two answers are the same if their canonical forms are equal."""

    form: Form = "exact"
    """"exact": only spacing and Unicode composition make no difference. "caseless": nor does case.
    "normalized": nor do punctuation and articles, see `bare`."""
    separator: str = ""
    """Where answers say how they were reached: what stands between the steps, of which only the
    last counts. Spaces around it make no difference."""

    def canonical(self, text: str) -> str:
        text = one_line(text)
        if separator := self.separator.strip():
            text = text.rpartition(separator)[-1].strip()
        if self.form == "normalized":
            return bare(text)
        return text.casefold() if self.form == "caseless" else text

    def same(self, one: str | None, two: str | None) -> bool:
        """Whether two answers are the same; None, no answer, equals only None."""
        if one is None or two is None:
            return one is two
        return self.canonical(one) == self.canonical(two)

    def as_row(self) -> dict[str, str]:
        """For the log; `rule_from_row` reads it."""
        return dataclasses.asdict(self)


EXACT = AnswerRule()
"""Of tasks that name no other."""
CASELESS = AnswerRule("caseless")
"""Of questions in logs that do not say how their answers are compared."""


def rule_from_row(row: Mapping[str, Any]) -> AnswerRule:
    """Raises ValueError if it is no rule that this version knows."""
    for form in get_args(Form):
        if form == row.get("form") and isinstance(row.get("separator", ""), str):
            return AnswerRule(form, row.get("separator", ""))
    raise ValueError(f"has a rule for comparing answers that is not known: {dict(row)}")


def one_line(text: str) -> str:
    """Without spare space, and composed (Unicode NFC)."""
    return " ".join(unicodedata.normalize("NFC", text).split())
