"""Which texts can be kept: what people type, on pages and on the command line. Knows no forms."""

import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Stands where a character could not be read."""

LINES = "\t\n\r"
"""Control characters that text may have."""


def why_not_kept(text: str) -> str:
    """Why a text cannot be kept, as the end of a sentence about it; "" if it can."""
    for character in text:
        category = unicodedata.category(character)
        if category == "Cc" and character not in LINES:
            return f"cannot have the control character U+{ord(character):04X} in it; take it out"
        if category == "Cs" or character == REPLACEMENT:
            return "has a character in it that was lost on the way; type it again"
    return ""


def shows_something(text: str) -> bool:
    """Whether there is anything to see: not only space, or characters that only format others."""
    return any(unicodedata.category(character)[0] not in "CZ" for character in text)


def shown(text: str) -> str:
    """A text with what could not be kept of it replaced."""
    return "".join(REPLACEMENT if why_not_kept(character) else character for character in text)
