"""When two answers are the same.

A task has one rule for that. Its `is_right` judges by it, and the rule is written into the log with
each question put to people, so that processes that never load the task (the web pages) compare
people's answers by the same rule. Pure functions of text; never imports jax.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal, get_args

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


_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2212": "-",
                         "\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2014": "-"})  # fmt: skip
_BETWEEN_WORDS = re.compile(r"(?<=[^\W\d_])[,;:!?]+(?=[^\W\d_])")
_INSIDE_WORDS = re.compile(r"(?<=[^\W\d_])['-](?=[^\W\d_])")
_INITIALS = re.compile(r"[^\W\d_](\.[^\W\d_])+")
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*|[1-9]\d{0,2}(,\d{3})+)?(\.\d+)?", re.ASCII)
_ENDS = ".,;:!?*`_\"'()[]{}\u00ab\u00bb\u2026\u3002\uff0c\u3001\uff01\uff1f\u300c\u300d"


def bare(answer: str) -> str:
    """What counts of an answer: no case, no articles, no punctuation around words, after Rajpurkar
    et al. 2016 (arXiv:1606.05250, section 6.1).

    Unlike there, punctuation that makes a difference counts: a decimal point, a sign, the plus
    signs of C++; and an answer that is nothing but articles or punctuation is only that.
    """
    text = unicodedata.normalize("NFC", answer).translate(_QUOTES).casefold()
    text = "".join(_narrow(one) for one in text)
    words = [_word(word) for word in _BETWEEN_WORDS.sub(" ", text).split()]
    words = [word for word in words if word]
    counted = [
        word
        for place, word in enumerate(words)
        # The last word is no article, as in "vitamin A"; nor is an "a" in the middle.
        if place == len(words) - 1 or not (word == "the" or (word in ("a", "an") and place == 0))
    ]
    return " ".join(counted) or " ".join(text.split())


def _word(word: str) -> str:
    """A word without what stands around it; a number in one form."""
    point = word.startswith(".") and word[1:2].isdigit()
    word = ("." if point else "") + word.strip(_ENDS)
    number = word.strip("$\u20ac\u00a3\u00a5")
    if any(one.isdigit() for one in number) and _NUMBER.fullmatch(number):
        number = number.replace(",", "").removeprefix("+").replace("-.", "-0.")
        number = "0" + number if number.startswith(".") else number
        return number.rstrip("0").rstrip(".") if "." in number else number
    if _INITIALS.fullmatch(word):
        return word.replace(".", "")
    return _INSIDE_WORDS.sub("", word)


def _narrow(character: str) -> str:
    """Letters and digits that are as wide as Chinese ones, as they are elsewhere."""
    is_wide = "\uff01" <= character <= "\uff9f"
    return unicodedata.normalize("NFKC", character).casefold() if is_wide else character
