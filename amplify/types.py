"""The words of the program as types: what every task, overseer and assistant is, and what passes
between them.

This module knows shapes and three protocols and nothing else; every other module imports it, and it
imports none of ours. What a task or a model may have beside that is in `task_abilities` and
`models.abilities`. Everything here is a pytree of JAX arrays or a pure function over them, so any
of it may be jitted and vmapped.

Shapes used throughout:
    batch            problems
    facts            facts in a context, each `fact_length` tokens
    questions        questions asked about one context, each `question_length` tokens
    answer_length    tokens of an answer
    *b               any leading shape, usually `batch questions`
Token 0 pads and, as the whole of an answer, says "don't know".
"""

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from jax.sharding import Sharding
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
from typing_extensions import Protocol, runtime_checkable  # whose isinstance evaluates no property

DONT_KNOW = 0
"""The token that pads and, as an answer, says "don't know"."""

FAILED = -1
"""Every token of an answer that was not had: nothing is learned from it, and it is never right."""

ASSISTANT, ENVIRONMENT, OVERSEER = 0, 1, 2
"""Who gave an answer: the values of `Interaction.answered_by`."""

OTHERS = 3
"""Part i, counted from 0, of those that an oversight names has the value `OTHERS + i`."""


class Problems(NamedTuple):
    """A batch of contexts and the questions asked about each."""

    seeds: Int[Array, "batch 2"]  # what each problem was drawn from: (stream, index)
    contexts: Int[Array, "batch facts fact_length"]
    questions: Int[Array, "batch questions question_length"]


class Answers(NamedTuple):
    tokens: Int[Array, "*b answer_length"]
    log_prob: Float[Array, "*b"]  # natural logarithm of the probability of the whole answer


class Weights(NamedTuple):
    """The parameters of those who answer: nothing for an overseer that learns nothing."""

    assistant: PyTree[Array]
    overseer: PyTree[Array] | None = None


class Ask(NamedTuple):
    """One step of an overseer: a sub-question for every item, and which items really ask it."""

    question: Int[Array, "*b question_length"]
    where: Bool[Array, "*b"] | None = None  # True where the item asks; None: all do
    to: str = "assistant"
    """The part that is asked: "assistant", "environment", or another that the oversight names. A
    primitive question for the assistant goes to the environment."""


class Interaction(NamedTuple):
    """A question, how it was taken apart, and its answer. Nested, it is a decomposition tree."""

    question: Int[Array, "*b question_length"]
    answer: Int[Array, "*b answer_length"]
    answered_by: Int[Array, "*b"]  # ASSISTANT, ENVIRONMENT, OVERSEER, or OTHERS and above
    steps: tuple["Step", ...] = ()  # in the order asked; count only where answered_by == OVERSEER


class Step(NamedTuple):
    asked: Bool[Array, "*b"]  # False: this item did not ask at this step, ignore the rest
    sub: Interaction


class StackedSteps(NamedTuple):
    """An interaction's steps while they are computed by a scan: a step whose arrays all have one
    more axis in front, an entry a step. `scanning.unstack` turns them into a tuple of steps.
    """

    step: Step


Strategy = Generator[Ask, Int[Array, "*b answer_length"], Int[Array, "*b answer_length"]]
"""Yields an `Ask`, is sent the answers, ..., returns the final answers. Traced once for a whole
batch.
"""

Overseer = Callable[[Int[Array, "*b question_length"], Key[Array, "*b"]], Strategy]
"""Takes questions apart. Sees questions and answers, never a context."""


@runtime_checkable
class OverseerKind(Protocol):
    """What an experiment file chose: an overseer, but for the parameters that it may learn."""

    def __hash__(self) -> int: ...

    @property
    def traced(self) -> bool:
        """Whether its strategy is a pure function of arrays, which is compiled with everything that
        it asks. False: it talks to the world outside, so it runs in Python (see `driving`).
        """

    @property
    def replayable(self) -> bool:
        """Whether its strategy costs so little that it may be run again from its start at every
        step (see `scanning`). False where it runs a network, or is not traced.
        """

    def using(self, params: Any) -> Overseer:
        """The overseer with these parameters; None where it has none."""


Respond = Callable[
    [Int[Array, "*b question_length"], Bool[Array, "*b"], Key[Array, "*b"]], Interaction
]
"""Answers questions where the mask is True; elsewhere the answers mean nothing."""


Truth = Callable[
    [Int[Array, "facts fact_length"], Int[Array, " question_length"]], Int[Array, " answer_length"]
]
"""The true answer to a question about a context."""

IsRight = Callable[
    [
        Int[Array, "facts fact_length"],
        Int[Array, " question_length"],
        Int[Array, " answer_length"],
    ],
    Bool[Array, ""],
]
"""Whether an answer to a question about a context is true."""


@runtime_checkable
class Task(Protocol):
    """A source of problems, which knows the truth about them or does not.

    What a task may have beside this is in `task_abilities`. Functions with a `context` take *one*
    problem and one question; callers vmap them. `is_primitive` never sees one and works on any
    leading shape. A task is a frozen dataclass: its fields are the keys of `[task]` in an
    experiment file, and its value can key a cache of compiled functions.
    """

    def __hash__(self) -> int: ...

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """What each token looks like to a person; token 0 is "don't know"."""

    @property
    def facts(self) -> int: ...
    @property
    def fact_length(self) -> int: ...
    @property
    def question_length(self) -> int: ...
    @property
    def answer_length(self) -> int: ...

    @property
    def max_depth(self) -> int:
        """Levels of decomposition that the deepest question needs."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels under which evals report, easiest first."""

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "facts fact_length"]: ...

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "facts fact_length"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        """A question that needs `depth` levels of decomposition (or as near as this context has),
        1..max_depth.
        """

    @property
    def truth(self) -> Truth:
        """The true answer, a method in tasks that know it; None in others (see
        `task_abilities.knows_truth`).
        """

    @property
    def is_right(self) -> IsRight:
        """Whether an answer is true, of which there may be several; None where `truth` is."""

    def class_of(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        """Index into `classes`."""

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        """Whether the environment answers this question, never the assistant."""

    def environment(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        """The environment's answer to a primitive question; to another it means nothing."""

    def parse(self, text: str) -> list[str]:
        """A question as a person types it -> `question_length` words of the vocabulary. What `show`
        makes of a question is read as that question again.

        Raises ValueError, saying what a question looks like.
        """

    def show(self, words: list[str]) -> str:
        """A fact, question or answer, as words of the vocabulary -> what a person reads."""


@runtime_checkable
class Assistant(Protocol):
    """The model being trained: reads a context once, answers many questions about it. A frozen
    dataclass. What it may have beside this is in `models.abilities`.
    """

    def __hash__(self) -> int: ...

    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        """Untrained parameters."""

    def encode(self, params: PyTree[Array], contexts: Int[Array, "batch facts fact_length"]) -> Any:
        """What `answer` needs to know of each context, computed once for all its questions."""

    def answer(
        self,
        params: PyTree[Array],
        memory: Any,
        questions: Int[Array, "batch questions question_length"],
        keys: Key[Array, "batch questions"] | None,
    ) -> Answers:
        """Sampled answers; with `keys` None the likeliest token at each place. Each item uses its
        own key alone.
        """

    def log_prob(
        self,
        params: PyTree[Array],
        memory: Any,
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
    ) -> Float[Array, "batch questions answer_length"]:
        """Log-probability of each token of given answers after those before it, in the distribution
        that `answer` samples from, so that their sum is what `answer` says of its samples.
        Differentiable in the parameters.
        """

    def loss(
        self, params: PyTree[Array], batch: dict[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean loss over the answered questions of a batch, and metrics to log.

        Args:
            batch: `context`, `questions` and `answers`, with a leading axis of rows. An answer of
                FAILED is none. Where there is a `weight`, a number for each question, the losses
                are multiplied by it, and an answer of weight 0 is none.

        Returns:
            The weighted losses, summed and divided by the number of answered questions; and
            metrics: "answered", that number, and unweighted means over the same questions.
        """


Place = Callable[[PyTree[Any]], PyTree[Sharding]]
"""Says of each leaf of a tree of parameters, or of their shapes, where it goes."""
