"""Rules for comparing two answers.

Each task has one rule. Its `is_right` follows the rule, and the rule is logged with each question
for people, so that processes that do not load the task (the web pages) compare answers in the same
way. Pure functions of text; does not import jax.
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
    """"exact" ignores spacing and Unicode composition; "caseless" also ignores case; "normalized"
    also ignores punctuation and articles, see `normalize`."""
    separator: str = ""
    """Separates the steps of an answer that shows its work; only the last step is compared. Spaces
    around it are ignored. Empty: answers have no steps."""

    def canonical(self, text: str) -> str:
        """The canonical form of an answer.

        Args:
            text: the answer.
        """
        text = collapse_spaces(text)
        if separator := self.separator.strip():
            text = text.rpartition(separator)[-1].strip()
        if self.form == "normalized":
            return normalize(text)
        return text.casefold() if self.form == "caseless" else text

    def same(self, one: str | None, two: str | None) -> bool:
        """Whether two answers are the same.

        Args:
            one: an answer; None: no answer, which is the same only as None.
            two: another.
        """
        if one is None or two is None:
            return one is two
        return self.canonical(one) == self.canonical(two)

    def as_row(self) -> dict[str, str]:
        """The rule as a JSON object for the log; the inverse of `rule_from_row`."""
        return dataclasses.asdict(self)


EXACT = AnswerRule()
"""The default rule of tasks."""
CASELESS = AnswerRule("caseless")
"""The rule for questions in older logs, which do not name one."""


def rule_from_row(row: Mapping[str, Any]) -> AnswerRule:
    """Reads a rule from the log.

    Args:
        row: what `AnswerRule.as_row` returned.

    Raises:
        ValueError: if this version does not know the rule.
    """
    for form in get_args(Form):
        if form == row.get("form") and isinstance(row.get("separator", ""), str):
            return AnswerRule(form, row.get("separator", ""))
    raise ValueError(f"has an unknown rule for comparing answers: {dict(row)}")


def collapse_spaces(text: str) -> str:
    """Collapses runs of white space to one space, and composes characters (Unicode NFC).

    Args:
        text: the text.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2212": "-",
                         "\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2014": "-"})  # fmt: skip
_BETWEEN_WORDS = re.compile(r"(?<=[^\W\d_])[,;:!?]+(?=[^\W\d_])")
_INSIDE_WORDS = re.compile(r"(?<=[^\W\d_])['-](?=[^\W\d_])")
_INITIALS = re.compile(r"[^\W\d_](\.[^\W\d_])+")
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*|[1-9]\d{0,2}(,\d{3})+)?(\.\d+)?", re.ASCII)
_ENDS = ".,;:!?*`_\"'()[]{}\u00ab\u00bb\u2026\u3002\uff0c\u3001\uff01\uff1f\u300c\u300d"


def normalize(answer: str) -> str:
    """Removes case, articles and the punctuation around words from an answer.

    After Rajpurkar et al. 2016 (arXiv:1606.05250, section 6.1). Unlike there, meaningful
    punctuation is kept (a decimal point, a sign, the plus signs of C++), and so is an answer that
    consists of articles or punctuation only.

    Args:
        answer: the answer.
    """
    text = unicodedata.normalize("NFC", answer).translate(_QUOTES).casefold()
    text = "".join(_to_halfwidth(character) for character in text)
    words = [_normalize_word(word) for word in _BETWEEN_WORDS.sub(" ", text).split()]
    words = [word for word in words if word]
    kept = [
        word
        for place, word in enumerate(words)
        # The last word is not an article, as in "vitamin A"; nor is an "a" in the middle.
        if place == len(words) - 1 or not (word == "the" or (word in ("a", "an") and place == 0))
    ]
    return " ".join(kept) or " ".join(text.split())


def _normalize_word(word: str) -> str:
    """Strips the punctuation around a word, and writes numbers in one canonical form."""
    point = word.startswith(".") and word[1:2].isdigit()
    word = ("." if point else "") + word.strip(_ENDS)
    number = word.strip("$\u20ac\u00a3\u00a5")
    if any(character.isdigit() for character in number) and _NUMBER.fullmatch(number):
        number = number.replace(",", "").removeprefix("+").replace("-.", "-0.")
        number = "0" + number if number.startswith(".") else number
        return number.rstrip("0").rstrip(".") if "." in number else number
    if _INITIALS.fullmatch(word):
        return word.replace(".", "")
    return _INSIDE_WORDS.sub("", word)


def _to_halfwidth(character: str) -> str:
    """Converts fullwidth letters and digits to their ordinary forms."""
    is_wide = "\uff01" <= character <= "\uff9f"
    return unicodedata.normalize("NFKC", character).casefold() if is_wide else character
