"""An overseer for rounds/documents that follows rules, in place of a language model.

It asks the librarian for the sentence that a question is about, and copies the name, town or year
out of it. A question about the builder or founder of something has another question in it, which
it asks the assistant first.
"""

import contextlib
import dataclasses
import re

import jax
import numpy as np

from amplify.errors import AmplifyError
from amplify.types import Ask
from amplify.words import format_tokens, read_answer, read_question

INSIDE = re.compile(r"the (builder|founder) of ([A-Z]\w+ [A-Z]\w+)")
VERBS = {"builder": "built", "founder": "founded"}
ANSWERS = {
    "Who": re.compile(r"by ([A-Z]\w+ [A-Z]\w+)"),
    "Where": re.compile(r"born in ([A-Z]\w+)"),
    "When": re.compile(r"in (\d{4})"),
    "What": re.compile(r"was (\d{4})"),
}


@dataclasses.dataclass(frozen=True)
class Reader:
    """`[overseer]` of the experiment file."""

    def build(self, task):
        return Reading(task)


@dataclasses.dataclass(frozen=True)
class Reading:
    """The overseer. It works on texts, so it runs in Python."""

    task: object

    traced = False
    replayable = False

    def using(self, params=None):
        return self._strategy

    def _strategy(self, questions, keys):
        rows = jax.device_get(questions)
        texts = [format_tokens(self.task, row) for row in rows]
        found = [INSIDE.search(text) for text in texts]
        inner = [f"Who {VERBS[one[1]]} {one[2]}?" if one else None for one in found]
        names = self._texts((yield self._ask(rows, inner)))
        last = [
            text.replace(one[0], name) if one else text
            for text, one, name in zip(texts, found, names, strict=True)
        ]
        searches = [f"search: {text.rstrip('?')}" for text in last]
        sentences = self._texts((yield self._ask(rows, searches)))
        answers = [self._answer(*pair) for pair in zip(last, sentences, strict=True)]
        return jax.device_put(np.stack(answers))

    def _ask(self, rows, texts):
        """Asks where there is a text; a name that an untrained assistant said may be too long."""
        asked, where = np.zeros_like(rows), np.zeros(len(rows), bool)
        for number, text in enumerate(texts):
            if text is not None:
                with contextlib.suppress(AmplifyError):  # this item then asks nothing
                    asked[number], where[number] = read_question(self.task, text), True
        return Ask(jax.device_put(asked), jax.device_put(where))

    def _texts(self, answers):
        return [format_tokens(self.task, row) for row in jax.device_get(answers)]

    def _answer(self, question, sentence):
        found = ANSWERS.get(question.partition(" ")[0], ANSWERS["Who"]).search(sentence)
        if found is None:
            return np.zeros(self.task.answer_length, np.int32)  # don't know
        return read_answer(self.task, found[1])
