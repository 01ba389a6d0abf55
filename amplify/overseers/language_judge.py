"""A language model as judge: it reads a question and answers, chooses the best or scores one.

The experiment provides the instructions, as for an overseer that answers (see `language_model`).
The model sees questions and answers, never a context. Its reply must have a line that begins with
"Conclude:" and says A or B, for example, or a number.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree

from amplify import words
from amplify.overseers.endpoint import Prompt, Unusable
from amplify.overseers.exchanges import Reply
from amplify.overseers.language_model import (
    LanguageModelOverseer,
    LanguageModelOverseerConfig,
    check_obtained,
)
from amplify.overseers.replies import CONCLUDE, read_reply
from amplify.overseers.reviewers import Choices, draw_order
from amplify.tasks.reviews import HIGHEST, LOWEST, names_of
from amplify.types import Roles, Scores, Task

OVERSEER = "overseer"
"""The role of a checkpoint in this process."""


@dataclasses.dataclass(frozen=True)
class LanguageModelJudgeConfig(LanguageModelOverseerConfig):
    """`[overseer]` of an experiment file whose oversight needs a judge."""

    def build(self, task: Task) -> Any:
        """Builds the judge; see `LanguageModelOverseerConfig.build`."""
        return LanguageModelJudge(super().build(task))


@dataclasses.dataclass(frozen=True)
class LanguageModelJudge:
    """A judge that prompts a language model; a `Reviewer`."""

    model: LanguageModelOverseer

    traced = False
    replayable = False
    using: Any = None
    """It answers no questions."""

    def check(self, obtained: int, asked: int) -> None:
        """Checks that enough reviews were obtained.

        Args:
            obtained: number of reviews.
            asked: number of reviews that the model was asked for.

        Raises:
            AmplifyError: if not, or if the log of exchanges could not be written.
        """
        check_obtained(self.model, asked - obtained, asked)

    def prepare(self) -> None:
        """Opens the tokenizer of a checkpoint in this process."""
        self.model.prepare()

    def load(self, place: Any) -> PyTree[Array] | None:
        """Loads the weights of a checkpoint in this process."""
        return self.model.load(place)

    def choose(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions candidates answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Choices:
        """Chooses among answers that are shown in an order drawn by chance; see `Reviewer`."""
        number = candidates.shape[2]
        names = names_of(number)
        order = np.asarray(draw_order(keys, number)).reshape(-1, number)
        asked = _texts(self.model.task, questions)
        answers = np.array(_texts(self.model.task, candidates)).reshape(-1, number)
        prompts = []
        for question, texts, places in zip(asked, answers, order, strict=True):
            shown = [
                f"Answer {name}: {texts[place]}" for name, place in zip(names, places, strict=True)
            ]
            prompts.append("\n".join([f"Question: {question}", *shown]))
        one_of = f"{', '.join(names[:-1])} or {names[-1]}"
        instruction = f"Reply with one line that begins with {CONCLUDE} and says {one_of}"
        said = self._ask(roles, prompts, keys, functools.partial(_read_name, names), instruction)
        obtained = np.array([name is not None for name in said]).reshape(keys.shape)
        best = np.array([places[int(name or 0)] for places, name in zip(order, said, strict=True)])
        return Choices(
            jnp.asarray(best.reshape(keys.shape), jnp.int32),
            jnp.ones(keys.shape),
            jnp.asarray(obtained),
        )

    def score(
        self,
        roles: Roles,
        contexts: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        candidates: Int[Array, "batch questions answer_length"],
        keys: Key[Array, "batch questions"],
    ) -> Scores:
        """Scores answers from `LOWEST` to `HIGHEST`; see `Scorer`."""
        asked, texts = (_texts(self.model.task, rows) for rows in (questions, candidates))
        prompts = [
            f"Question: {question}\nAnswer: {text}"
            for question, text in zip(asked, texts, strict=True)
        ]
        said = self._ask(roles, prompts, keys, _read_number, _SCORE)
        obtained = np.array([number is not None for number in said]).reshape(keys.shape)
        values = np.array([number or 0.0 for number in said], np.float32).reshape(keys.shape)
        return Scores(jnp.asarray(values), jnp.asarray(obtained))

    def _ask(
        self,
        roles: Roles,
        texts: Sequence[str],
        keys: Key[Array, "batch questions"],
        read: Callable[[str], Any],
        instruction: str,
    ) -> list[Any]:
        data = np.asarray(jax.random.key_data(keys)).reshape(len(texts), -1)
        draws = [row.tobytes().hex() if self.model.backend.samples else "" for row in data]
        prompts = [
            Prompt(f"{text}\n({instruction}.)", draw)
            for text, draw in zip(texts, draws, strict=True)
        ]
        parse: Any = functools.partial(_parse, read, instruction)
        lines = 1 + max(text.count("\n") + 1 for text in texts)
        found: Any = self.model.backend.answer(prompts, parse, roles.get(OVERSEER), lines)
        return [None if one is None else one.value for one in found]


@dataclasses.dataclass(frozen=True)
class _Said:
    """What a reply says; a value of 0 is one, too."""

    value: float
    asks = False


_SCORE = f"Reply with one line that begins with {CONCLUDE} and a number from {LOWEST} to {HIGHEST}"


def _parse(read: Callable[[str], float | None], instruction: str, reply: Reply) -> _Said | Unusable:
    parsed = read_reply(reply.text, cut_off=reply.cut_off)
    if isinstance(parsed, str):
        return Unusable(parsed, instruction)
    values = [value for text in parsed.readings if (value := read(text)) is not None]
    if parsed.asks or not values:
        return Unusable(f"said {parsed.readings[0][:80]!r}", instruction)
    return _Said(float(values[0]))


def _read_name(names: Sequence[str], text: str) -> int | None:
    """The place of the answer that is chosen; None if the text names none."""
    words_ = text.upper().removeprefix("ANSWER").strip(" .!*\"'")
    return names.index(words_) if words_ in names else None


def _read_number(text: str) -> float | None:
    """The score; None if the text is no number of the scale, such as NaN."""
    try:
        value = float(text.removesuffix(f"/{HIGHEST}").strip(" .*"))
    except ValueError:
        return None
    return value if math.isfinite(value) and LOWEST <= value <= HIGHEST else None


def _texts(task: Task, rows: Int[Array, "... length"]) -> list[str]:
    """Each question or answer on one line."""
    flat = np.asarray(rows).reshape(-1, rows.shape[-1])
    return [" ".join(words.format_tokens(task, row).split()) for row in flat]
