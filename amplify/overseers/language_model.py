"""A language model as overseer: it reads a transcript and replies with a question or a conclusion.

A text that belongs to the experiment tells it how: instructions and a few examples. It sees
questions and answers, never a context. Each reply must have a line that begins with "Ask:" or
"Conclude:" (see `replies`). The model is behind a server (see `endpoint`) or in this process (see
`continuation`).
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, PyTree
from pydantic import Field

from amplify import words
from amplify.assistants.packing import PADDING
from amplify.errors import AmplifyError
from amplify.host import on_host
from amplify.overseers.address import check_address
from amplify.overseers.continuation import Continuation
from amplify.overseers.endpoint import Endpoint, Prompt, Unusable
from amplify.overseers.exchanges import FILE, Reply, current
from amplify.overseers.replies import ASK, CONCLUDE, read_reply
from amplify.types import FAILED, Ask, Overseer, Place, Strategy, Task

OURS = ("model", "messages", "stream", "n", "temperature", "max_tokens")
"""Keys of a request that `extra_body` cannot set."""


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
    asks: Annotated[int, Field(ge=1, le=16)] = 4
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


@dataclasses.dataclass(frozen=True)
class LanguageModelOverseer:
    task: Task
    speaker: Endpoint | Continuation
    asks: int
    most_failed: float

    replayable = False

    def prepare(self) -> None:
        """Opens the tokenizer of a checkpoint that speaks in this process; see `types.Prepares`.

        Raises:
            AmplifyError: if the prompt and a transcript are too long for the checkpoint.
        """
        if isinstance(self.speaker, Continuation):
            self.speaker.check(self.speaker.line * (2 * self.asks + 2))

    def load(self, place: Place) -> PyTree[Array] | None:
        """The weights of a checkpoint that speaks in this process; see `types.Loads`."""
        return self.speaker.load(place) if isinstance(self.speaker, Continuation) else None

    def using(self, params: Any = None) -> Overseer:
        """The overseer; what speaks elsewhere has no parameters here."""
        return functools.partial(self._strategy, params)

    def _strategy(
        self,
        params: PyTree[Array] | None,
        questions: Int[Array, "*b question_length"],
        keys: Key[Array, "*b"],
    ) -> Strategy:
        answer = jnp.full((*questions.shape[:-1], self.task.answer_length), FAILED, jnp.int32)
        goes_on = jnp.ones(questions.shape[:-1], bool)
        draws = jax.lax.bitcast_convert_type(jax.random.key_data(keys), jnp.int32)
        transcript = [questions]
        for left in range(self.asks, -1, -1):
            asks, sub_question, conclusion = self._continue(
                params, transcript, goes_on, draws, left
            )
            answer = jnp.where((goes_on & ~asks)[..., None], conclusion, answer)
            goes_on &= asks
            if left:
                reply = yield Ask(sub_question, where=goes_on)
                transcript += [sub_question, jnp.where(goes_on[..., None], reply, 0)]
        return answer

    def _continue(
        self,
        params: PyTree[Array] | None,
        transcript: list[Array],
        goes_on: Bool[Array, "*b"],
        draws: Int[Array, "*b key"],
        left: int,
    ) -> tuple[Bool[Array, "*b"], Array, Array]:
        """Whether something is asked, and what; or what is concluded, FAILED if nothing can be."""
        length = self.task.question_length
        shape = (self._row_length,)
        going = goes_on[..., None].astype(jnp.int32)
        if isinstance(self.speaker, Endpoint):
            ask = functools.partial(self._ask_server, self.speaker, left)
            said = on_host(ask, shape, going, draws, *transcript)
        else:
            room = self.speaker.line * (len(transcript) + 1)  # more, the later it is
            spell = functools.partial(self._spell, self.speaker, left, room)
            tokens = on_host(spell, (room,), going, *transcript)
            understand = functools.partial(self._understand, self.speaker, left)
            said = on_host(understand, shape, going, self.speaker.go_on(params, tokens))
        return said[..., 0] == 1, said[..., 1 : 1 + length], said[..., 1 + length :]

    def _ask_server(
        self,
        endpoint: Endpoint,
        left: int,
        goes_on: np.ndarray,
        draws: np.ndarray,
        *transcript: np.ndarray,
    ) -> np.ndarray:
        """What a server says, as `_continue` wants it: 1 if it asks, what, and a conclusion."""
        texts = self._prompts(left, goes_on, transcript)
        going = draws[goes_on[:, 0] == 1]
        sampled = endpoint.temperature != 0
        names = [row.tobytes().hex() if sampled else "" for row in going]
        prompts = [Prompt(*pair) for pair in zip(texts, names, strict=True)]
        read = functools.partial(self._read, left)
        return self._in_rows(goes_on, endpoint.answer(prompts, read))

    def _spell(
        self,
        speaker: Continuation,
        left: int,
        room: int,
        goes_on: np.ndarray,
        *transcript: np.ndarray,
    ) -> np.ndarray:
        """What a checkpoint reads; nothing where nobody goes on."""
        rows = np.full((len(goes_on), room), PADDING, np.int32)
        rows[goes_on[:, 0] == 1] = speaker.spell(self._prompts(left, goes_on, transcript), room)
        return rows

    def _understand(
        self, speaker: Continuation, left: int, goes_on: np.ndarray, said: np.ndarray
    ) -> np.ndarray:
        """What a checkpoint said, as `_continue` wants it."""
        found: list[np.ndarray | None] = []
        for line in speaker.read(said[goes_on[:, 0] == 1]):
            row = self._read(left, Reply(line))
            if isinstance(row, Unusable):
                current().trouble = f"{speaker.checkpoint}: {row.why}"
            found.append(None if isinstance(row, Unusable) else row)
        return self._in_rows(goes_on, found)

    def _in_rows(self, goes_on: np.ndarray, found: Sequence[np.ndarray | None]) -> np.ndarray:
        """What was said for those items that go on, and FAILED where nothing usable was."""
        said = np.zeros((len(goes_on), self._row_length), np.int32)
        said[:, 1 + self.task.question_length :] = FAILED
        for row, one in zip(np.flatnonzero(goes_on[:, 0]), found, strict=True):
            if one is not None:
                said[row] = one
        return said

    @property
    def _row_length(self) -> int:
        """Whether it asks, the question, and the answer."""
        return 1 + self.task.question_length + self.task.answer_length

    def _read(self, left: int, reply: Reply) -> np.ndarray | Unusable:
        """A reply in tokens: one row as `_continue` wants it."""
        wanted = f"Reply with one line that begins with {CONCLUDE}"
        if left:
            wanted = f"Reply with one line that begins with {ASK} or {CONCLUDE}"
        said = read_reply(reply.text, cut_off=reply.cut_off)
        if isinstance(said, str):
            return Unusable(said, wanted)
        if said.asks and not left:
            return Unusable("no more questions may be asked", wanted)
        length, problem = self.task.question_length, ""
        for text in said.readings:
            row = np.zeros(self._row_length, np.int32)
            try:
                if said.asks:
                    row[0], row[1 : 1 + length] = 1, words.read_question(self.task, text)
                else:
                    row[1 + length :] = words.read_answer(self.task, text)
                return row
            except AmplifyError as error:
                problem = problem or str(error)
        return Unusable(problem, wanted)

    def _prompts(
        self, left: int, goes_on: np.ndarray, transcript: Sequence[np.ndarray]
    ) -> list[str]:
        return [
            self._prompt([column[row] for column in transcript], left)
            for row in np.flatnonzero(goes_on[:, 0])
        ]

    def _prompt(self, transcript: list[np.ndarray], left: int) -> str:
        # One line each: what a document says must not look like a line of the transcript.
        shown = (" ".join(words.shown(self.task, row).split()) for row in transcript)
        question, *exchanges = shown
        lines = [f"Question: {question}"]
        for asked, answer in zip(exchanges[::2], exchanges[1::2], strict=True):
            lines += [f"{ASK} {asked}", f"Answer: {answer}"]
        if not left:
            lines.append(f"(No more questions: say {CONCLUDE} and the answer.)")
        return "\n".join(lines)


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
