"""Parses what people typed, and never raises.

A task's parser may be a user's own code, and people type anything: one text that the parser cannot
handle must not end the round. Whatever it raises becomes a reason that is shown to whoever typed
the text.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from amplify import words
from amplify.errors import AmplifyError, first_line
from amplify.people.text import REPLACEMENT
from amplify.types import Task


class Parsed(NamedTuple):
    """The tokens of a text, or the reason why there are none."""

    tokens: Int[np.ndarray, " length"] | None
    problem: str  # why there are no tokens; "" if there are


def read_answer(task: Task, text: str) -> Parsed:
    """Parses an answer.

    Args:
        task: parses the text.
        text: as a person typed it.
    """
    if REPLACEMENT in text:
        return Parsed(None, f"{text!r} has characters that could not be read")
    try:
        return Parsed(words.read_answer(task, text), "")
    except AmplifyError as error:
        return Parsed(None, str(error))
    except Exception as error:
        return Parsed(None, f"{text!r} is no answer to this task ({first_line(error)})")


def read_question(task: Task, text: str) -> Parsed:
    """Parses a question.

    Args:
        task: parses the text.
        text: as a person typed it.
    """
    try:
        return Parsed(words.read_question(task, text), "")
    except AmplifyError as error:
        return Parsed(None, str(error))
    except Exception as error:
        return Parsed(None, f"{text!r} is no question of this task ({first_line(error)})")
