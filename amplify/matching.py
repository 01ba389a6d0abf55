"""What counts of an answer in plain language: two answers are the same if it is equal."""

import re
import unicodedata

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
