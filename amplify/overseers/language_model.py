"""A language model as overseer: it reads a transcript, and says what to ask next or what to
conclude.

It is told how by a text that belongs to the experiment: instructions and a few examples. It sees
questions and answers, never a context. What it says must be a line that begins with "Ask:" or
"Conclude:".
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field

from amplify import words
from amplify.errors import AmplifyError
from amplify.host import on_host
from amplify.overseers.endpoint import Endpoint
from amplify.types import FAILED, Ask, Overseer, Strategy, Task

ASK, CONCLUDE = "Ask:", "Conclude:"


@dataclasses.dataclass(frozen=True)
class LanguageModelOverseerConfig:
    """`[overseer]` of an experiment file."""

    PATHS: ClassVar = ("prompt",)

    endpoint: str
    """Address of a server that speaks as OpenAI's does, such as http://localhost:8000/v1."""
    model: str
    """Which of the server's models."""
    prompt: str
    """A text file: instructions, and a few transcripts."""
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
        """Raises AmplifyError if the prompt cannot be read."""
        try:
            instructions = Path(self.prompt).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise AmplifyError(f"overseer.prompt: {self.prompt}: {error}") from None
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
    endpoint: Endpoint
    asks: int
    most_failed: float

    def using(self, params: Any = None) -> Overseer:
        """The overseer; it has no parameters of ours."""
        return self._strategy

    def _strategy(
        self, questions: Int[Array, "*b question_length"], keys: Key[Array, "*b"]
    ) -> Strategy:
        answer = jnp.full((*questions.shape[:-1], self.task.answer_length), FAILED, jnp.int32)
        goes_on = jnp.ones(questions.shape[:-1], bool)
        transcript = [questions]
        for left in range(self.asks, -1, -1):
            asks, sub_question, conclusion = self._continue(transcript, goes_on, left)
            answer = jnp.where((goes_on & ~asks)[..., None], conclusion, answer)
            goes_on &= asks
            if left:
                reply = yield Ask(sub_question, where=goes_on)
                transcript += [sub_question, jnp.where(goes_on[..., None], reply, 0)]
        return answer

    def _continue(
        self, transcript: list[Array], goes_on: Bool[Array, "*b"], left: int
    ) -> tuple[Bool[Array, "*b"], Array, Array]:
        """Whether something is asked, and what; or what is concluded, FAILED if nothing can be."""
        length, task = self.task.question_length, self.task

        def say(goes_on: np.ndarray, *columns: np.ndarray) -> np.ndarray:
            prompts = [
                self._prompt([column[row] for column in columns], left)
                for row in np.flatnonzero(goes_on[:, 0])
            ]
            lines, trouble = self.endpoint.answer(
                prompts, lambda line: self._makes_sense(line, left)
            )
            if trouble:
                TROUBLE[self.endpoint] = trouble
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

        going = goes_on[..., None].astype(jnp.int32)
        said = on_host(say, (1 + length + task.answer_length,), going, *transcript)
        return said[..., 0] == 1, said[..., 1 : 1 + length], said[..., 1 + length :]

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


TROUBLE: dict[Endpoint, str] = {}
"""What last kept an endpoint from answering."""


def check_failed(overseer: Any, answers: Int[np.ndarray, "rows questions answer_length"]) -> int:
    """How many questions have no answer. Raises AmplifyError if they are more than may be."""
    failed = int((answers[..., 0] == FAILED).sum())
    if isinstance(overseer, LanguageModelOverseer) and failed > (
        overseer.most_failed * answers[..., 0].size
    ):
        raise AmplifyError(
            f"the overseer gave no answer to {failed} of {answers[..., 0].size} questions"
            f" ({TROUBLE.get(overseer.endpoint, 'none')}); what it did say is kept: the same"
            " command goes on"
        )
    return failed


def _after(line: str, marker: str) -> str:
    return line.removeprefix(marker).strip()
