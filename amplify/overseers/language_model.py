"""A language model as overseer: it reads a transcript, and says what to ask next or what to
conclude.

It is told how by a text that belongs to the experiment: instructions and a few examples. It sees
questions and answers, never a context. What it says must be a line that begins with "Ask:" or
"Conclude:".
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, PyTree
from pydantic import Field

from amplify import words
from amplify.assistants.packing import PADDING
from amplify.errors import AmplifyError
from amplify.host import on_host
from amplify.overseers.continuation import Continuation
from amplify.overseers.endpoint import Endpoint, nonsense
from amplify.types import FAILED, Ask, Overseer, Place, Strategy, Task

ASK, CONCLUDE = "Ask:", "Conclude:"


@dataclasses.dataclass(frozen=True)
class LanguageModelOverseerConfig:
    """`[overseer]` of an experiment file."""

    PATHS: ClassVar = ("prompt", "pretrained")

    prompt: str
    """A text file: instructions, and a few transcripts."""
    endpoint: str = ""
    """Address of a server that speaks as OpenAI's does, such as http://localhost:8000/v1."""
    model: str = ""
    """Which of the server's models."""
    pretrained: str = ""
    """In place of a server: a Hugging Face folder, seen from the experiment's own, or the name of a
    checkpoint on the hub, which goes on with the transcript by itself."""
    line: Annotated[int, Field(ge=1)] = 64
    """Tokens of what a checkpoint says at most, and room for each line of a transcript."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of a checkpoint's weights, and of what it computes."""
    asks: Annotated[int, Field(ge=1, le=16)] = 4
    """Sub-questions at most; then it must conclude."""
    tries: Annotated[int, Field(ge=1)] = 4
    patience: Annotated[float, Field(ge=0)] = 1.0
    """Seconds before the second try, twice as many before each one after it."""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds."""
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
            speaker.check(self.line * (2 * self.asks + 2))
            return LanguageModelOverseer(task, speaker, self.asks, self.most_failed)
        if not self.endpoint.startswith(("http://", "https://")):
            raise AmplifyError(
                f"overseer.endpoint must be an address such as http://localhost:8000/v1,"
                f" got {self.endpoint!r}"
            )
        endpoint = Endpoint(
            self.endpoint, self.model, instructions, self.tries, self.patience, self.timeout
        )
        return LanguageModelOverseer(task, endpoint, self.asks, self.most_failed)


@dataclasses.dataclass(frozen=True)
class LanguageModelOverseer:
    task: Task
    speaker: Endpoint | Continuation
    asks: int
    most_failed: float

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
        transcript = [questions]
        for left in range(self.asks, -1, -1):
            asks, sub_question, conclusion = self._continue(params, transcript, goes_on, left)
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
        left: int,
    ) -> tuple[Bool[Array, "*b"], Array, Array]:
        """Whether something is asked, and what; or what is concluded, FAILED if nothing can be."""
        length = self.task.question_length
        shape = (1 + length + self.task.answer_length,)
        going = goes_on[..., None].astype(jnp.int32)
        if isinstance(self.speaker, Endpoint):
            said = on_host(functools.partial(self._ask, left), shape, going, *transcript)
        else:
            room = self.speaker.line * (len(transcript) + 1)  # more, the later it is
            spell = functools.partial(self._spell, self.speaker, left, room)
            tokens = on_host(spell, (room,), going, *transcript)
            understand = functools.partial(self._understand, self.speaker, left)
            said = on_host(understand, shape, going, self.speaker.go_on(params, tokens))
        return said[..., 0] == 1, said[..., 1 : 1 + length], said[..., 1 + length :]

    def _ask(self, left: int, goes_on: np.ndarray, *transcript: np.ndarray) -> np.ndarray:
        """What an endpoint says, as `_continue` wants it: 1 if it asks, what, and a conclusion."""
        assert isinstance(self.speaker, Endpoint)
        prompts = self._prompts(left, goes_on, transcript)
        lines, trouble = self.speaker.answer(prompts, lambda line: self._makes_sense(line, left))
        return self._in_tokens(goes_on, lines, trouble)

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
        lines = speaker.read(said[goes_on[:, 0] == 1])
        senseless = [line for line in lines if not self._makes_sense(line, left)]
        trouble = f"{speaker.checkpoint}: {nonsense(senseless[0])}" if senseless else ""
        sensible = [line if self._makes_sense(line, left) else None for line in lines]
        return self._in_tokens(goes_on, sensible, trouble)

    def _in_tokens(
        self, goes_on: np.ndarray, lines: Sequence[str | None], trouble: str
    ) -> np.ndarray:
        length, task = self.task.question_length, self.task
        if trouble:
            TROUBLE[self.speaker] = trouble
        said = np.zeros((len(goes_on), 1 + length + task.answer_length), np.int32)
        said[:, 1 + length :] = FAILED
        for row, line in zip(np.flatnonzero(goes_on[:, 0]), lines, strict=True):
            if line is None:
                continue
            if line.startswith(ASK):
                said[row, 0] = 1
                said[row, 1 : 1 + length] = words.read_question(task, _after(line, ASK))
            else:
                said[row, 1 + length :] = words.read_answer(task, _after(line, CONCLUDE))
        return said

    def _prompts(
        self, left: int, goes_on: np.ndarray, transcript: Sequence[np.ndarray]
    ) -> list[str]:
        return [
            self._prompt([column[row] for column in transcript], left)
            for row in np.flatnonzero(goes_on[:, 0])
        ]

    def _prompt(self, transcript: list[np.ndarray], left: int) -> str:
        question, *exchanges = (words.shown(self.task, row) for row in transcript)
        lines = [f"Question: {question}"]
        for asked, answer in zip(exchanges[::2], exchanges[1::2], strict=True):
            lines += [f"{ASK} {asked}", f"Answer: {answer}"]
        if not left:
            lines.append(f"(No more questions: say {CONCLUDE} and the answer.)")
        return "\n".join(lines)

    def _makes_sense(self, line: str, left: int) -> bool:
        try:
            if line.startswith(ASK) and left:
                words.read_question(self.task, _after(line, ASK))
                return True
            if line.startswith(CONCLUDE):
                words.read_answer(self.task, _after(line, CONCLUDE))
                return True
        except AmplifyError:
            return False
        return False


TROUBLE: dict[Endpoint | Continuation, str] = {}
"""What last kept one from answering."""


def check_failed(overseer: Any, answers: Int[np.ndarray, "rows questions answer_length"]) -> int:
    """How many questions have no answer. Raises AmplifyError if they are more than may be."""
    failed = int((answers[..., 0] == FAILED).sum())
    if isinstance(overseer, LanguageModelOverseer) and failed > (
        overseer.most_failed * answers[..., 0].size
    ):
        raise AmplifyError(
            f"the overseer gave no answer to {failed} of {answers[..., 0].size} questions"
            f" ({TROUBLE.get(overseer.speaker, 'none')}); what it did say is kept: the same"
            " command goes on"
        )
    return failed


def _after(line: str, marker: str) -> str:
    return line.removeprefix(marker).strip()
