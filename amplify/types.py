"""Core types: the protocols of tasks, overseers and assistants, and the data they exchange.

Every other module may import this one, which imports no other module of the package. Optional
abilities of tasks and models are in `task_abilities` and `models.abilities`. Everything here is a
pytree of JAX arrays or a pure function of them, so it can be jitted and vmapped.

Array axes used throughout:
    batch            problems
    facts            facts of a context, each `fact_length` tokens
    questions        questions about one context, each `question_length` tokens
    answer_length    tokens of an answer
    *b               any leading axes, usually `batch questions`
Token 0 is padding; an answer of zeros means "don't know".
"""

import dataclasses
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

from jax.sharding import Sharding
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
from typing_extensions import Protocol, runtime_checkable  # whose isinstance evaluates no property

DONT_KNOW = 0
"""The padding token, which means "don't know" when it is the answer."""

FAILED = -1
"""Fills an answer that was not obtained: it is excluded from training and never right."""

ASSISTANT, ENVIRONMENT, OVERSEER = 0, 1, 2
"""Who gave an answer: the values of `Interaction.answered_by`."""

OTHERS = 3
"""The i-th part that an oversight declares (from 0) has the value `OTHERS + i`."""


class Scores(NamedTuple):
    """Scores of answers."""

    value: Float[Array, "batch questions"]  # the higher, the better
    obtained: Bool[Array, "batch questions"]  # False: there is no score, and `value` is meaningless
    looks: Int[Array, "batch questions"] | int = 0  # parts of the answer that were checked
    asks: Int[Array, "batch questions"] | int = 0  # parts about which a helper was asked


class Problems(NamedTuple):
    """A batch of contexts and the questions asked about each."""

    seeds: Int[Array, "batch 2"]  # (stream, index) from which each problem was drawn
    contexts: Int[Array, "batch facts fact_length"]
    questions: Int[Array, "batch questions question_length"]


class Answers(NamedTuple):
    """Answers that a policy gave, with their log-probabilities."""

    tokens: Int[Array, "*b answer_length"]
    log_prob: Float[Array, "*b"]  # of the whole answer, in nats


Roles = Mapping[str, PyTree[Array]]
"""Parameters of models, by role: "assistant", "overseer", ... None if a model has no parameters."""


class Ask(NamedTuple):
    """One step of a strategy: a sub-question per item, and a mask of the items that ask it."""

    question: Int[Array, "*b question_length"]
    where: Bool[Array, "*b"] | None = None  # True: the item asks; None: all items ask
    to: str = "assistant"
    """Part to ask: "assistant", "environment", or another part that the oversight declares.
    Primitive questions to the assistant are routed to the environment."""


class Interaction(NamedTuple):
    """A question, its decomposition into steps, and its answer. Nested: a decomposition tree."""

    question: Int[Array, "*b question_length"]
    answer: Int[Array, "*b answer_length"]
    answered_by: Int[Array, "*b"]  # ASSISTANT, ENVIRONMENT, OVERSEER, or OTHERS and above
    steps: tuple["Step", ...] = ()  # in order; meaningful only where answered_by == OVERSEER


class Step(NamedTuple):
    """One sub-question of an interaction."""

    asked: Bool[Array, "*b"]  # False: the item did not ask at this step; ignore `sub`
    sub: Interaction


class StackedSteps(NamedTuple):
    """The steps of an interaction computed by `jax.lax.scan`: all arrays have a leading axis of
    steps. `trees.scanning.unstack` converts them to a tuple.
    """

    step: Step


Strategy = Generator[Ask, Int[Array, "*b answer_length"], Int[Array, "*b answer_length"]]
"""A generator that yields an `Ask`, is sent the answers to it, and so on, and returns the final
answers. It runs (or is traced) once for a whole batch.
"""

Overseer = Callable[[Int[Array, "*b question_length"], Key[Array, "*b"]], Strategy]
"""Maps questions and keys (consumed) to a strategy. Sees questions and answers, never a context."""


@runtime_checkable
class OverseerKind(Protocol):
    """An overseer as configured in an experiment file, without its parameters."""

    def __hash__(self) -> int: ...

    @property
    def traced(self) -> bool:
        """Whether the strategy is a pure function of arrays, compiled together with what it asks.
        False: it does I/O and is driven from Python (see `trees.driving`).
        """

    @property
    def replayable(self) -> bool:
        """Whether the strategy is cheap enough to be replayed from the start at every step (see
        `trees.scanning`). False if it runs a network or is not traced.
        """

    @property
    def using(self) -> Any:
        """Binds parameters to the overseer: a method that takes them, None if it has none, and
        returns an `Overseer`. None if it only judges answers and gives none (see
        `models.abilities.gives_answers`).
        """


Respond = Callable[
    [Int[Array, "*b question_length"], Bool[Array, "*b"], Key[Array, "*b"]], Interaction
]
"""Maps questions, a mask and keys (consumed) to interactions. Where the mask is False, their values
are undefined.
"""


Truth = Callable[
    [Int[Array, "facts fact_length"], Int[Array, " question_length"]], Int[Array, " answer_length"]
]
"""Maps a context and a question about it to the true answer."""

IsRight = Callable[
    [
        Int[Array, "facts fact_length"],
        Int[Array, " question_length"],
        Int[Array, " answer_length"],
    ],
    Bool[Array, ""],
]
"""Maps a context, a question about it and an answer to whether the answer is right."""


@runtime_checkable
class Task(Protocol):
    """A source of problems, which may know their true answers.

    Optional abilities are in `task_abilities`. Functions that take a `context` take *one* context
    and one question; callers vmap them. `is_primitive` works on any leading axes. A task is a
    frozen dataclass: its fields are the keys of `[task]` in an experiment file, and it is hashable,
    so that it can be a static argument of compiled functions.
    """

    def __hash__(self) -> int: ...

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The word for each token; token 0 is "don't know"."""

    @property
    def facts(self) -> int:
        """Number of facts in a context."""

    @property
    def fact_length(self) -> int:
        """Tokens of a fact."""

    @property
    def question_length(self) -> int:
        """Tokens of a question."""

    @property
    def answer_length(self) -> int:
        """Tokens of an answer."""

    @property
    def max_depth(self) -> int:
        """Levels of decomposition that the deepest question needs, at least 1."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels of the question classes by which evals are broken down, easiest first."""

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "facts fact_length"]:
        """Draws a random context. Consumes the key."""

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "facts fact_length"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        """Draws a random question about a context.

        Args:
            key: consumed.
            context: the context.
            depth: levels of decomposition that the question needs, 1..max_depth; if the context has
                no such question, the nearest depth that it has.
        """

    @property
    def truth(self) -> Truth:
        """Computes the true answer: a method, or None if the task does not know the truth (see
        `task_abilities.knows_truth`).
        """

    @property
    def is_right(self) -> IsRight:
        """Judges an answer; several answers may be right. None if `truth` is None."""

    def class_of(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        """The class of a question.

        Args:
            context: the context.
            question: about the context.

        Returns:
            An index into `classes`.
        """

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        """Whether the environment, rather than the assistant, answers a question.

        Args:
            question: questions with any leading axes.
        """

    def environment(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        """Answers a primitive question.

        Args:
            context: the context.
            question: about the context. If it is not primitive, the answer is undefined.
            key: consumed.
        """

    def parse(self, text: str) -> list[str]:
        """Parses a question as a person types it; the inverse of `show` for questions.

        Args:
            text: the question.

        Returns:
            `question_length` words of the vocabulary.

        Raises:
            ValueError: if the text is not a question; the message describes valid questions.
        """

    def show(self, words: list[str]) -> str:
        """Formats a fact, question or answer as text for people.

        Args:
            words: of the vocabulary.
        """


@runtime_checkable
class Assistant(Protocol):
    """The policy being trained: encodes a context once and answers many questions about it.

    A frozen dataclass. Optional abilities are in `models.abilities`.
    """

    def __hash__(self) -> int: ...

    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        """Initializes the parameters. Consumes the key."""

    def encode(self, params: PyTree[Array], contexts: Int[Array, "batch facts fact_length"]) -> Any:
        """Encodes contexts, once for all of their questions.

        Args:
            params: the assistant's parameters.
            contexts: the contexts.

        Returns:
            The `memory` that `answer` and `log_prob` take.
        """

    def answer(
        self,
        params: PyTree[Array],
        memory: Any,
        questions: Int[Array, "batch questions question_length"],
        keys: Key[Array, "batch questions"] | None,
    ) -> Answers:
        """Samples an answer to each question.

        Args:
            params: the assistant's parameters.
            memory: what `encode` returned for the contexts.
            questions: about each context.
            keys: one per question, consumed; each answer depends on its own key only. None: greedy
                decoding.
        """

    def log_prob(
        self,
        params: PyTree[Array],
        memory: Any,
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
    ) -> Float[Array, "batch questions answer_length"]:
        """Log-probability of each token of given answers, conditioned on the tokens before it.

        Under the distribution from which `answer` samples, so that the sum over a sampled answer
        equals its `Answers.log_prob`. Differentiable in the parameters.

        Args:
            params: the assistant's parameters.
            memory: what `encode` returned for the contexts.
            questions: about each context.
            answers: one per question.

        Returns:
            Log-probabilities in nats.
        """

    def loss(
        self, params: PyTree[Array], batch: dict[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean loss over the answered questions of a batch, and metrics to log.

        Args:
            params: the assistant's parameters.
            batch: `context`, `questions` and `answers`, with a leading axis of rows. Answers of
                FAILED are excluded. If there is a `weight` per question, losses are multiplied by
                it, and answers of weight 0 are excluded.

        Returns:
            The sum of weighted losses divided by the number of answered questions; and metrics:
            "answered", that number, and unweighted means over the same questions.
        """


@dataclasses.dataclass(frozen=True)
class Team:
    """The task, the assistant and the overseer, without parameters: hashable, so that it can be a
    static argument of compiled functions.
    """

    task: Task
    assistant: Assistant
    overseer: OverseerKind


Place = Callable[[PyTree[Any]], PyTree[Sharding]]
"""Maps a tree of parameters, or of their shapes, to the sharding of each leaf."""
