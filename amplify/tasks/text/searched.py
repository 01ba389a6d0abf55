"""Tasks whose contexts are not given but found: each question is searched for, and what the engine
returns is what the assistant reads.

What the questions are about, and where they come from, is said by the task itself: see `search` and
`documents`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field

from amplify.answers import AnswerRule
from amplify.errors import AmplifyError
from amplify.models.pretrained.hub import find_folder
from amplify.tasks.problems import is_held_out
from amplify.tasks.text.collection import Collection
from amplify.tasks.text.host_callback import on_host
from amplify.tasks.text.spelling import NOTHING, Spelling, learn_spelling, open_spelling

SEARCH = "search:"
"""How a question begins that the engine answers, with the sentence that matches best."""

Count = Annotated[int, Field(ge=1)]


class World(Protocol):
    """What is true of the documents, and what is asked about them. Questions come in regions: what
    is asked of one can be held out whole.
    """

    def draw(self, region: int, hops: int, new: int, first: int, second: int) -> str:
        """A question of so many hops (or as near as there is), chosen by two large numbers; of a
        kind that no round asks only if `new`.
        """

    def answer(self, question: str) -> str:
        """The true answer; "" if none is known."""

    def path(self, question: str) -> list[list[int]]:
        """What the answer rests on, hop by hop: passages, any of which has what the hop needs."""


class Library(NamedTuple):
    """What a task's questions are about, made once a process."""

    world: World
    collection: Collection
    spelling: Spelling
    passages: Int[np.ndarray, "documents passage_length"]


@dataclasses.dataclass(frozen=True)
class Searched:
    """What such tasks have in common; they make a library, and say how a question is parsed."""

    PATHS: ClassVar[tuple[str, ...]] = ("tokenizer",)

    tokenizer: str = ""
    """A checkpoint, whose tokenizer spells: a folder, or a name on the hub; "": one is learned."""
    vocabulary_size: Annotated[int, Field(ge=300)] = 2048
    """Tokens of the tokenizer that is learned."""
    hits: Count = 1
    """Passages that a question's own search gives."""
    follow_ups: Annotated[int, Field(ge=0)] = 6
    """Searches after it, for names that stand in the passages found."""
    passages: Count = 10
    """Passages that the questions of a problem share: the context."""
    passage_length: Count = 20
    question_length: Count = 20
    answer_length: Count = 12

    answer_rule = AnswerRule()

    def prepare(self) -> None:
        """Builds the library; see `models.abilities.preparer_of`.

        Raises:
            AmplifyError: if texts do not fit into the lengths that the task gives them, or cannot
                be read.
        """
        library_of(self)

    facts = property(lambda self: self.passages)
    fact_length = property(lambda self: self.passage_length)

    @property
    def regions(self) -> int:
        raise NotImplementedError

    @property
    def max_depth(self) -> int:
        raise NotImplementedError

    @property
    def classes(self) -> tuple[str, ...]:
        raise NotImplementedError

    def parse(self, text: str) -> list[str]:
        raise NotImplementedError

    def make_library(self) -> Library:
        """Raises AmplifyError if texts do not fit into the lengths that the task gives them."""
        raise NotImplementedError

    def _class(self, question: str) -> int:
        """Index into `classes`."""
        raise NotImplementedError

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return library_of(self).spelling.vocabulary

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "1 1"]:
        """A region, counted from 1: what the questions of a problem have in common."""
        return jax.random.randint(key, (1, 1), 1, self.regions + 1)

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "1 1"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        """Of `depth` hops; of chains that are kept new for evals only if the region is, too."""
        bits = jax.random.randint(key, (2,), 0, 1 << 30)
        drawn = jnp.stack([context[0, 0] - 1, depth, jnp.int32(is_held_out(context)), *bits])

        world, spelling = library_of(self).world, library_of(self).spelling

        def draw(rows: np.ndarray) -> np.ndarray:
            texts = [world.draw(*row) for row in rows.tolist()]
            return spelling.write(texts, self.question_length)

        return on_host(draw, (self.question_length,), drawn)

    def truth(
        self, context: Int[Array, "1 1"], question: Int[Array, " question_length"]
    ) -> Int[Array, " answer_length"]:
        return self._in_words(self._true_answer, self.answer_length, question)

    def is_right(
        self,
        context: Int[Array, "1 1"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
    ) -> Bool[Array, ""]:
        def right(question: str, answer: str) -> bool:
            truth = self._true_answer(question)
            return bool(answer) and self.answer_rule.same(answer, truth)

        return self._judged(right, question, answer) == 1

    def class_of(
        self, context: Int[Array, "1 1"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        return self._judged(self._class, question)

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        start = jnp.asarray(library_of(self).spelling.tokens(SEARCH), jnp.int32)
        beginning = question[..., : len(start)]
        return jnp.all(beginning == jnp.broadcast_to(start, beginning.shape), axis=-1)

    def environment(
        self,
        context: Int[Array, "1 1"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        return self._in_words(self._snippet, self.answer_length, question)

    def find(
        self, questions: Int[Array, "batch questions question_length"]
    ) -> Int[Array, "batch facts fact_length"]:
        """The passages that each problem's questions find, in an order that says nothing."""

        library, together = library_of(self), questions.shape[1]

        def gather(rows: np.ndarray) -> np.ndarray:
            texts = library.spelling.read(rows.reshape(-1, self.question_length))
            found = library.collection.follow(texts, self.hits, self.follow_ups)
            contexts = np.zeros((len(rows), self.facts, self.fact_length), np.int32)
            for number, context in enumerate(contexts):
                ours = found[number * together : (number + 1) * together]
                shared = _shared(ours, self.passages)
                context[: len(shared)] = library.passages[shared]
            return contexts

        flat = questions.reshape(len(questions), -1)
        return on_host(gather, (self.facts, self.fact_length), flat)

    def supports(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
    ) -> Bool[Array, ""]:
        """Whether all passages that the true answer rests on were found."""
        library = library_of(self)

        def supported(rows: np.ndarray, questions: np.ndarray) -> np.ndarray:
            texts = library.spelling.read(questions)
            found = [{*map(bytes, context)} for context in rows.reshape(len(rows), self.facts, -1)]
            return np.array(
                [
                    all(
                        any(bytes(library.passages[number]) in there for number in hop)
                        for hop in library.world.path(text)
                    )
                    for there, text in zip(found, texts, strict=True)
                ]
            )

        return on_host(supported, (), context.ravel(), question) == 1

    def _question_words(self, text: str) -> list[str]:
        """A question's words, filled up. Raises ValueError if they are too many."""
        spelling = library_of(self).spelling
        spelling.check(text)
        words = [spelling.vocabulary[token] for token in spelling.tokens(text)]
        if len(words) > self.question_length:
            raise ValueError(f"a question has at most {self.question_length} tokens")
        return words + [NOTHING] * (self.question_length - len(words))

    def parse_answer(self, text: str) -> list[str]:
        spelling = library_of(self).spelling
        spelling.check(text)
        return [spelling.vocabulary[token] for token in spelling.tokens(text)]

    def expand(self, part: str) -> str:
        return f"{SEARCH} {part}"

    def show(self, words: list[str]) -> str:
        return library_of(self).spelling.show(words)

    def _true_answer(self, question: str) -> str:
        return self._snippet(question) or library_of(self).world.answer(question)

    def _snippet(self, question: str) -> str:
        """The sentence of the best passage that fits best; "" if the question is no search."""
        if not question.startswith(SEARCH):
            return ""
        query = question.removeprefix(SEARCH)
        collection = library_of(self).collection
        [best] = collection.search([query], 1)
        return collection.sentence(best[0], query) if best else ""

    def _in_words(
        self, function: Callable[..., str], length: int, *columns: Int[Array, "*b _"]
    ) -> Int[Array, "*b length"]:
        """What a function of texts gives, for each item of columns of tokens, in tokens."""
        spelling = library_of(self).spelling

        def rows(*columns: np.ndarray) -> np.ndarray:
            texts = zip(*map(spelling.read, columns), strict=True)
            return spelling.write([function(*item) for item in texts], length)

        return on_host(rows, (length,), *columns)

    def _judged(
        self, function: Callable[..., int], *columns: Int[Array, "*b _"]
    ) -> Int[Array, "*b"]:
        """A number for each item."""
        spelling = library_of(self).spelling

        def numbers(*columns: np.ndarray) -> np.ndarray:
            texts = zip(*map(spelling.read, columns), strict=True)
            return np.array([function(*item) for item in texts])

        return on_host(numbers, (), *columns)

    def _spelling(self, texts: Iterable[str]) -> Spelling:
        if self.tokenizer:
            return open_spelling(find_folder(self.tokenizer))
        return learn_spelling(texts, self.vocabulary_size)

    def _check_spelling(self, spelling: Spelling, written: Iterable[tuple[str, str]]) -> None:
        """Raises AmplifyError unless the tokenizer can spell all texts, given by their names."""
        for name, text in written:
            try:
                spelling.check(text)
            except ValueError as error:
                tokenizer = self.tokenizer or "the tokenizer that is learned"
                raise AmplifyError(f"{name} cannot be spelled by {tokenizer}: {error}") from None

    def _check_lengths(self, spelling: Spelling, written: Mapping[str, Iterable[str]]) -> None:
        for key, texts in written.items():
            needed = max(len(spelling.tokens(text)) for text in texts)
            if getattr(self, key) < needed:
                raise AmplifyError(
                    f"task.{key} must be at least {needed}, for these texts and this tokenizer;"
                    f" got {getattr(self, key)}"
                )


@functools.cache
def library_of(task: Searched) -> Library:
    """A task's library, built on first use. Compiled functions ask for it while they are traced,
    so that nothing is read or built while one runs.
    """
    return task.make_library()


def _shared(found: Sequence[Sequence[int]], room: int) -> list[int]:
    """Passages for several questions together: the best of each first, as many as there is room
    for, in the order of the collection.
    """
    ranked = itertools.chain.from_iterable(itertools.zip_longest(*found))
    return sorted(list(dict.fromkeys(p for p in ranked if p is not None))[:room])
