"""A language model as overseer: it reads a transcript and replies with a question or a conclusion.

A text that belongs to the experiment tells it how: instructions and a few examples. It sees
questions and answers, never a context. Each reply must have a line that begins with "Ask:" or
"Conclude:" (see `replies`). The model is behind a server (see `endpoint`) or in this process (see
`continuation`). Its strategy runs in Python, a batch of prompts at each step (see `driving`).
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Int, Key, PyTree
from pydantic import Field

from amplify import words
from amplify.errors import AmplifyError
from amplify.overseers.address import check_address
from amplify.overseers.continuation import Continuation
from amplify.overseers.endpoint import Endpoint, Prompt, Unusable
from amplify.overseers.exchanges import FILE, Reply, current
from amplify.overseers.replies import ASK, CONCLUDE, read_reply
from amplify.types import FAILED, Ask, Overseer, Place, Strategy, Task

OURS = ("model", "messages", "stream", "n", "temperature", "max_tokens")
"""Keys of a request that `extra_body` cannot set."""


class Utterance(NamedTuple):
    """What a language model says: a sub-question, or its conclusion."""

    asks: bool
    tokens: Int[np.ndarray, " length"]


@dataclasses.dataclass(frozen=True)
class LanguageModelOverseerConfig:
    """`[overseer]` of an experiment file."""

    PATHS: ClassVar = ("prompt", "pretrained")
    RENAMED: ClassVar = {"tries": "attempts", "timeout": "deadline", "patience": None}
    """Keys of older files and what they are now called; None: no longer needed, and ignored."""

    prompt: str
    """A text file: instructions, and a few transcripts."""
    endpoint: str = ""
    """Address of a server that speaks as OpenAI's does, such as http://localhost:8000/v1."""
    model: str = ""
    """Which of the server's models."""
    temperature: Annotated[float, Field(ge=0, le=2)] | Literal["server"] = 0.0
    """"server": none is sent, and the server's own holds, as some reasoning models want it."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Tokens of a reply at most, reasoning included."""
    concurrent: Annotated[int, Field(ge=1, le=1024)] = 16
    """Requests under way at a time."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 4
    """Requests at most until a prompt has a usable reply."""
    deadline: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds, from a request's start to the last byte of its reply."""
    extra_body: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What else each request says, such as {reasoning_effort = "low"}. If it has
    `max_completion_tokens`, max_tokens is not sent."""
    pretrained: str = ""
    """In place of a server: a Hugging Face folder, seen from the experiment's own, or the name of a
    checkpoint on the hub, which continues the transcript in this process."""
    line: Annotated[int, Field(ge=1)] = 64
    """Tokens of what a checkpoint says at most, and room for each line of a transcript."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of a checkpoint's weights, and of what it computes."""
    asks: Annotated[int, Field(ge=0, le=16)] = 4
    """Sub-questions at most; then it must conclude."""
    most_failed: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of a round's questions that may remain without an answer."""

    def build(self, task: Task) -> "LanguageModelOverseer":
        """Raises AmplifyError if the prompt cannot be read, or there is nobody to speak."""
        try:
            instructions = Path(self.prompt).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise AmplifyError(f"overseer.prompt: {self.prompt}: {error}") from None
        if bool(self.pretrained) == bool(self.endpoint or self.model):
            raise AmplifyError("overseer needs either endpoint and model, or pretrained")
        if self.pretrained:
            speaker = Continuation(self.pretrained, instructions, self.line, self.dtype)
            return LanguageModelOverseer(task, speaker, self.asks, self.most_failed)
        return LanguageModelOverseer(task, self._server(instructions), self.asks, self.most_failed)

    def _server(self, instructions: str) -> Endpoint:
        check_address(self.endpoint)
        for key in OURS:
            if key in self.extra_body:
                raise AmplifyError(f"overseer.extra_body must not have {key}")
        try:
            extra = json.dumps(dict(self.extra_body), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise AmplifyError(f"overseer.extra_body cannot be sent as JSON: {error}") from None
        return Endpoint(
            self.endpoint,
            self.model,
            instructions,
            None if self.temperature == "server" else self.temperature,
            self.max_tokens,
            self.concurrent,
            self.attempts,
            self.deadline,
            extra,
        )


@runtime_checkable
class Speaker(Protocol):
    """A language model, wherever it is."""

    @property
    def samples(self) -> bool:
        """Whether it may reply differently to the same prompt."""

    def load(self, place: Place) -> PyTree[Array] | None:
        """Its weights, if they are in this process."""

    def answer(
        self,
        prompts: Sequence[Prompt],
        read: Callable[[Reply], Utterance | Unusable],
        params: PyTree[Array] | None,
        lines: int,
    ) -> list[Utterance | None]:
        """What each prompt's first usable reply says; None where none came.

        Args:
            read: makes something of a reply, the same whenever it is given the same.
            params: what `load` returned.
            lines: of a transcript, in every prompt.
        """


@dataclasses.dataclass(frozen=True)
class LanguageModelOverseer:
    task: Task
    speaker: Speaker
    asks: int
    most_failed: float

    traced = False
    replayable = False

    def prepare(self) -> None:
        """Opens the tokenizer of a checkpoint that speaks in this process; see
        `models.abilities.preparer_of`.

        Raises:
            AmplifyError: if the prompt and a transcript are too long for the checkpoint.
        """
        if isinstance(self.speaker, Continuation):
            self.speaker.check(self.speaker.line * (2 * self.asks + 2))

    def load(self, place: Place) -> PyTree[Array] | None:
        """The weights of a checkpoint that speaks in this process; see
        `models.abilities.loader_of`.
        """
        return self.speaker.load(place)

    def using(self, params: Any = None) -> Overseer:
        """The overseer; what speaks elsewhere has no parameters here."""
        return functools.partial(self._strategy, params)

    def _strategy(
        self,
        params: PyTree[Array] | None,
        questions: Int[Array, "*b question_length"],
        keys: Key[Array, "*b"],
    ) -> Strategy:
        """All items' transcripts grow by a question and its answer at each step, until the model
        concludes. Where it says nothing usable the answer is FAILED.
        """
        asked, data = jax.device_get((questions, jax.random.key_data(keys)))
        transcripts = [[row] for row in _rows(asked)]
        draws = [row.tobytes().hex() for row in _rows(data)]
        answers = np.full((*asked.shape[:-1], self.task.answer_length), FAILED, np.int32)
        going = list(range(len(transcripts)))
        for left in range(self.asks, -1, -1):
            texts = [self._prompt(transcripts[item], left) for item in going]
            prompts = [
                Prompt(text, draws[item] if self.speaker.samples else "")
                for text, item in zip(texts, going, strict=True)
            ]
            read, lines = functools.partial(self._read, left), 1 + 2 * (self.asks - left)
            said = self.speaker.answer(prompts, read, params, lines)
            sub_questions, where = np.zeros_like(asked), np.zeros(asked.shape[:-1], bool)
            for item, utterance in zip(going, said, strict=True):
                if utterance is not None:
                    into = sub_questions if utterance.asks else answers
                    _rows(into)[item] = utterance.tokens
                    where.reshape(-1)[item] = utterance.asks
            if not left:
                break
            told = yield Ask(jax.device_put(sub_questions), jax.device_put(where))
            replies = _rows(jax.device_get(told))
            going = [item for item in going if where.reshape(-1)[item]]
            for item in going:
                transcripts[item] += [_rows(sub_questions)[item], replies[item]]
        return jax.device_put(answers)

    def _read(self, left: int, reply: Reply) -> Utterance | Unusable:
        """A reply in tokens.

        Args:
            left: how many more questions may be asked.
        """
        wanted = f"Reply with one line that begins with {CONCLUDE}"
        if left:
            wanted = f"Reply with one line that begins with {ASK} or {CONCLUDE}"
        said = read_reply(reply.text, cut_off=reply.cut_off)
        if isinstance(said, str):
            return Unusable(said, wanted)
        if said.asks and not left:
            return Unusable("no more questions may be asked", wanted)
        read = words.read_question if said.asks else words.read_answer
        problem = ""
        for text in said.readings:
            try:
                return Utterance(said.asks, read(self.task, text))
            except AmplifyError as error:
                problem = problem or str(error)
        return Unusable(problem, wanted)

    def _prompt(self, transcript: Sequence[np.ndarray], left: int) -> str:
        # One line each: what a document says must not look like a line of the transcript.
        shown = (" ".join(words.shown(self.task, row).split()) for row in transcript)
        question, *exchanges = shown
        lines = [f"Question: {question}"]
        for asked, answer in zip(exchanges[::2], exchanges[1::2], strict=True):
            lines += [f"{ASK} {asked}", f"Answer: {answer}"]
        if not left:
            lines.append(f"(No more questions: say {CONCLUDE} and the answer.)")
        return "\n".join(lines)


def _rows(array: np.ndarray) -> np.ndarray:
    """An array of items as one flat batch; shares its memory."""
    return array.reshape(-1, array.shape[-1])


def check_failed(overseer: Any, answers: Int[np.ndarray, "rows questions answer_length"]) -> int:
    """How many questions have no answer. Raises AmplifyError if they are more than may be."""
    failed, exchanges = int((answers[..., 0] == FAILED).sum()), current()
    if exchanges.broken:
        raise AmplifyError(exchanges.broken)
    if isinstance(overseer, LanguageModelOverseer) and failed > (
        overseer.most_failed * answers[..., 0].size
    ):
        raise AmplifyError(
            f"the overseer gave no answer to {failed} of {answers[..., 0].size} questions"
            f" ({exchanges.trouble or 'no reason is known'}); the same command goes on. What a"
            f" server replied is kept in the round's {FILE}, and only what got no reply is asked"
            " again"
        )
    return failed
