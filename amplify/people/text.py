"""Validates and cleans text that people type, on pages and on the command line."""

import unicodedata
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Stands in for a character that could not be decoded."""

LINES = "\t\n\r"
"""The control characters that text may contain."""


def why_not_kept(text: str) -> str:
    """Returns why a text cannot be stored, as the end of a sentence about it; "" if it can be."""
    for character in text:
        category = unicodedata.category(character)
        if category == "Cc" and character not in LINES:
            return f"cannot contain the control character U+{ord(character):04X}; remove it"
        if category == "Cs" or character == REPLACEMENT:
            return "contains a character that was damaged on the way here; type it again"
    return ""


def shows_something(text: str) -> bool:
    """Whether a text has a visible character, not only space and formatting characters."""
    return any(unicodedata.category(character)[0] not in "CZ" for character in text)


def shown(text: str) -> str:
    """Returns a text with every character that cannot be stored replaced."""
    return "".join(REPLACEMENT if why_not_kept(character) else character for character in text)


def without_surrogates(value: Any) -> Any:
    """Returns a JSON value with U+FFFD for each lone surrogate, which no file can hold.

    Args:
        value: text, or lists and dicts of JSON values.
    """
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(inner) for key, inner in value.items()}
    return [without_surrogates(inner) for inner in value] if isinstance(value, list) else value
