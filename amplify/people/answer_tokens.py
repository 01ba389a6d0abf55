"""Parses what people typed, without ever raising.

A task's parser may be a user's own code, and people type anything: a single text that the parser
cannot handle must not end the round. So whatever it raises becomes a reason, shown to whoever typed
the text.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from amplify import words
from amplify.errors import AmplifyError, first_line
from amplify.people.typed import REPLACEMENT
from amplify.types import Task


class Read(NamedTuple):
    tokens: Int[np.ndarray, " length"] | None
    problem: str  # why there are no tokens; "" if there are


def read_answer(task: Task, text: str) -> Read:
    if REPLACEMENT in text:
        return Read(None, f"{text!r} has characters that could not be read")
    try:
        return Read(words.read_answer(task, text), "")
    except AmplifyError as error:
        return Read(None, str(error))
    except Exception as error:
        return Read(None, f"{text!r} is no answer to this task ({first_line(error)})")


def read_question(task: Task, text: str) -> Read:
    try:
        return Read(words.read_question(task, text), "")
    except AmplifyError as error:
        return Read(None, str(error))
    except Exception as error:
        return Read(None, f"{text!r} is no question of this task ({first_line(error)})")
