"""A language model as overseer: it reads a transcript and replies with a question or a conclusion.

The experiment provides the instructions and a few examples. The model sees questions and answers,
never a context. Each reply must have a line that begins with "Ask:" or "Conclude:" (see `replies`).
The model is behind a server (see `endpoint`) or in this process (see `continuation`). Its strategy
runs in Python, with a batch of prompts at each step (see `trees.driving`).
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

RESERVED_KEYS = ("model", "messages", "stream", "n", "temperature", "max_tokens")
"""Parameters of a request that `extra_body` must not contain."""


class Utterance(NamedTuple):
    """A language model's sub-question, or its conclusion."""

    asks: bool  # False: it concludes
    tokens: Int[np.ndarray, " length"]


@dataclasses.dataclass(frozen=True)
class LanguageModelOverseerConfig:
    """`[overseer]` of an experiment file."""

    PATHS: ClassVar = ("prompt", "pretrained")
    RENAMED: ClassVar = {"tries": "attempts", "timeout": "deadline", "patience": None}
    """Keys of earlier versions and their current names; None: no longer used, and ignored."""

    prompt: str
    """A text file with instructions and a few example transcripts."""
    endpoint: str = ""
    """Address of a server with an OpenAI-compatible API, such as http://localhost:8000/v1."""
    model: str = ""
    """The server's model."""
    temperature: Annotated[float, Field(ge=0, le=2)] | Literal["server"] = 0.0
    """Sampling temperature. "server": not sent, so that the server's default applies, as some
    reasoning models require."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Maximum tokens of a reply, including reasoning."""
    concurrent: Annotated[int, Field(ge=1, le=1024)] = 16
    """Maximum number of concurrent requests."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 4
    """Maximum number of requests per prompt until there is a usable reply."""
    deadline: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds from the start of a request to the last byte of its reply."""
    extra_body: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further parameters of each request, such as {reasoning_effort = "low"}. If it has
    `max_completion_tokens`, max_tokens is not sent."""
    pretrained: str = ""
    """Instead of a server: a Hugging Face folder, relative to the experiment's, or the name of a
    checkpoint on the hub, which continues the transcript in this process."""
    line: Annotated[int, Field(ge=1)] = 64
    """Maximum tokens of a line that a checkpoint generates, and of each line of a transcript."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of a checkpoint's weights and activations."""
    asks: Annotated[int, Field(ge=0, le=16)] = 4
    """Maximum number of sub-questions; then the model must conclude."""
    most_failed: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Maximum fraction of a round's questions that may remain unanswered."""

    def build(self, task: Task) -> "LanguageModelOverseer":
        """Builds the overseer. Does not load the model.

        Args:
            task: the task.

        Raises:
            AmplifyError: if the prompt cannot be read, or the model is not specified.
        """
        try:
            instructions = Path(self.prompt).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise AmplifyError(f"overseer.prompt: {self.prompt}: {error}") from None
        if bool(self.pretrained) == bool(self.endpoint or self.model):
            raise AmplifyError("overseer needs either endpoint and model, or pretrained")
        if self.pretrained:
            backend = Continuation(self.pretrained, instructions, self.line, self.dtype)
            return LanguageModelOverseer(task, backend, self.asks, self.most_failed)
        return LanguageModelOverseer(task, self._server(instructions), self.asks, self.most_failed)

    def _server(self, instructions: str) -> Endpoint:
        check_address(self.endpoint)
        for key in RESERVED_KEYS:
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
class Backend(Protocol):
    """A language model, behind a server or in this process."""

    @property
    def samples(self) -> bool:
        """Whether replies to the same prompt may differ."""

    def load(self, place: Place) -> PyTree[Array] | None:
        """Loads the model's weights; None if they are not in this process.

        Args:
            place: maps the tree of parameters to shardings.
        """

    def answer(
        self,
        prompts: Sequence[Prompt],
        parse: Callable[[Reply], Utterance | Unusable],
        params: PyTree[Array] | None,
        lines: int,
    ) -> list[Utterance | None]:
        """Answers prompts.

        Args:
            prompts: the prompts.
            parse: a pure function that parses a reply.
            params: what `load` returned.
            lines: number of transcript lines in every prompt.

        Returns:
            The first usable reply to each prompt, parsed; None if there is none.
        """


@dataclasses.dataclass(frozen=True)
class LanguageModelOverseer:
    """An overseer that prompts a language model."""

    task: Task
    backend: Backend
    asks: int
    most_failed: float

    traced = False
    replayable = False

    def prepare(self) -> None:
        """Opens the tokenizer of a checkpoint in this process; see `models.abilities.preparer_of`.

        Raises:
            AmplifyError: if the prompt and a transcript are too long for the checkpoint.
        """
        if isinstance(self.backend, Continuation):
            self.backend.check(self.backend.line * (2 * self.asks + 2))

    def load(self, place: Place) -> PyTree[Array] | None:
        """Loads the weights of a checkpoint in this process; see `models.abilities.loader_of`."""
        return self.backend.load(place)

    def using(self, params: Any = None) -> Overseer:
        """Binds the weights of a checkpoint.

        Args:
            params: what `load` returned.
        """
        return functools.partial(self._strategy, params)

    def _strategy(
        self,
        params: PyTree[Array] | None,
        questions: Int[Array, "*b question_length"],
        keys: Key[Array, "*b"],
    ) -> Strategy:
        """Extends the transcript of each item by a question and its answer at each step, until the
        model concludes. Items without a usable reply get the answer FAILED.
        """
        asked, data = jax.device_get((questions, jax.random.key_data(keys)))
        transcripts = [[row] for row in _rows(asked)]
        draws = [row.tobytes().hex() for row in _rows(data)]
        answers = np.full((*asked.shape[:-1], self.task.answer_length), FAILED, np.int32)
        active = list(range(len(transcripts)))
        for left in range(self.asks, -1, -1):
            texts = [self._prompt(transcripts[item], left) for item in active]
            prompts = [
                Prompt(text, draws[item] if self.backend.samples else "")
                for text, item in zip(texts, active, strict=True)
            ]
            parse, lines = functools.partial(self._parse, left), 1 + 2 * (self.asks - left)
            utterances = self.backend.answer(prompts, parse, params, lines)
            sub_questions, where = np.zeros_like(asked), np.zeros(asked.shape[:-1], bool)
            for item, utterance in zip(active, utterances, strict=True):
                if utterance is not None:
                    target = sub_questions if utterance.asks else answers
                    _rows(target)[item] = utterance.tokens
                    where.reshape(-1)[item] = utterance.asks
            if not left:
                break
            sub_answers = yield Ask(jax.device_put(sub_questions), jax.device_put(where))
            replies = _rows(jax.device_get(sub_answers))
            active = [item for item in active if where.reshape(-1)[item]]
            for item in active:
                transcripts[item] += [_rows(sub_questions)[item], replies[item]]
        return jax.device_put(answers)

    def _parse(self, left: int, reply: Reply) -> Utterance | Unusable:
        """Parses a reply.

        Args:
            left: number of sub-questions that may still be asked.
            reply: the reply.
        """
        instruction = f"Reply with one line that begins with {CONCLUDE}"
        if left:
            instruction = f"Reply with one line that begins with {ASK} or {CONCLUDE}"
        parsed = read_reply(reply.text, cut_off=reply.cut_off)
        if isinstance(parsed, str):
            return Unusable(parsed, instruction)
        if parsed.asks and not left:
            return Unusable("no more questions may be asked", instruction)
        read = words.read_question if parsed.asks else words.read_answer
        problem = ""
        for text in parsed.readings:
            try:
                return Utterance(parsed.asks, read(self.task, text))
            except AmplifyError as error:
                problem = problem or str(error)
        return Unusable(problem, instruction)

    def _prompt(self, transcript: Sequence[np.ndarray], left: int) -> str:
        # On one line each, so that no text can imitate a line of the transcript.
        texts = (" ".join(words.format_tokens(self.task, row).split()) for row in transcript)
        question, *exchanges = texts
        lines = [f"Question: {question}"]
        for asked, answer in zip(exchanges[::2], exchanges[1::2], strict=True):
            lines += [f"{ASK} {asked}", f"Answer: {answer}"]
        if not left:
            lines.append(f"(No more questions: say {CONCLUDE} and the answer.)")
        return "\n".join(lines)


def _rows(array: np.ndarray) -> np.ndarray:
    """A view of an array with its leading axes flattened."""
    return array.reshape(-1, array.shape[-1])


def check_unanswered(
    overseer: Any, answers: Int[np.ndarray, "rows questions answer_length"]
) -> int:
    """Counts questions for which no answer was obtained.

    Args:
        overseer: the experiment's overseer.
        answers: of a data set.

    Returns:
        The number of answers of FAILED.

    Raises:
        AmplifyError: if they exceed `most_failed`, or the log of exchanges could not be written.
    """
    failed = int((answers[..., 0] == FAILED).sum())
    check_obtained(overseer, failed, answers[..., 0].size)
    return failed


def check_obtained(overseer: Any, failed: int, asked: int) -> None:
    """Checks that a language model gave enough answers or reviews.

    Args:
        overseer: the experiment's overseer.
        failed: number of questions without a usable reply.
        asked: number of questions.

    Raises:
        AmplifyError: if too few were obtained, or the log of exchanges could not be written.
    """
    exchanges = current()
    if exchanges.write_error:
        raise AmplifyError(exchanges.write_error)
    if isinstance(overseer, LanguageModelOverseer) and failed > overseer.most_failed * asked:
        raise AmplifyError(
            f"the overseer gave no answer to {failed} of {asked} questions"
            f" ({exchanges.last_error or 'reason unknown'}); the same command continues. Replies"
            f" are kept in the round's {FILE}, and only requests without a reply are sent again"
        )
