"""Base class of retrieval tasks: each question is a search query, and the assistant reads the
passages that the search returns.

Subclasses provide the questions and documents: see `search` and `documents`.
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
from amplify.tasks.text.host_callback import call_on_host
from amplify.tasks.text.text_tokenizer import (
    PAD_WORD,
    TextTokenizer,
    load_tokenizer,
    train_tokenizer,
)

SEARCH_PREFIX = "search:"
"""Prefix of primitive questions, which the search answers with the sentence that matches best."""

Count = Annotated[int, Field(ge=1)]


class World(Protocol):
    """The questions about a collection of documents, and their true answers. Questions are grouped
    by region, so that whole regions can be held out.
    """

    def draw(self, region: int, hops: int, new: int, first: int, second: int) -> str:
        """Draws a question.

        Args:
            region: index of the region.
            hops: number of hops, or the nearest number that the region has.
            new: 1 if kinds of questions that do not occur in training are allowed, else 0.
            first: a random number in 0..2^30-1.
            second: another.

        Returns:
            The question.
        """

    def answer(self, question: str) -> str:
        """The true answer to a question.

        Args:
            question: the question.

        Returns:
            The answer; "" if none is known.
        """

    def path(self, question: str) -> list[list[int]]:
        """The passages that the true answer to a question rests on.

        Args:
            question: the question.

        Returns:
            For each hop, the indices of passages of which any one suffices; empty if no answer is
            known.
        """


class Library(NamedTuple):
    """The data behind a retrieval task, built once per process."""

    world: World
    collection: Collection  # the passages
    tokenizer: TextTokenizer
    passages: Int[np.ndarray, "documents passage_length"]  # the passages' tokens


@dataclasses.dataclass(frozen=True)
class RetrievalTask:
    """A task that retrieves its contexts. Subclasses define the methods that raise
    NotImplementedError.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("tokenizer",)

    tokenizer: str = ""
    """Checkpoint whose tokenizer is used: a folder, or a name on the hub. "": a tokenizer is
    trained on the task's texts."""
    vocabulary_size: Annotated[int, Field(ge=300)] = 2048
    """Vocabulary size of a trained tokenizer."""
    hits: Count = 1
    """Passages that the search for a question returns."""
    follow_ups: Annotated[int, Field(ge=0)] = 6
    """Maximum number of further searches, for titles that occur in the passages found."""
    passages: Count = 10
    """Passages of a context, which all questions of a problem share."""
    passage_length: Count = 20
    """Maximum number of tokens of a passage."""
    question_length: Count = 20
    """Maximum number of tokens of a question."""
    answer_length: Count = 12
    """Maximum number of tokens of an answer."""

    answer_rule = AnswerRule()

    def prepare(self) -> None:
        """Builds the library; see `models.abilities.preparer_of`.

        Raises:
            AmplifyError: if texts are longer than the task's lengths, or cannot be read.
        """
        library_of(self)

    facts = property(lambda self: self.passages)
    fact_length = property(lambda self: self.passage_length)

    @property
    def regions(self) -> int:
        """Number of regions."""
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
        """Builds the task's library; called by `library_of`, once per process.

        Raises:
            AmplifyError: if texts are longer than the task's lengths, or cannot be read.
        """
        raise NotImplementedError

    def _class(self, question: str) -> int:
        """Index into `classes`."""
        raise NotImplementedError

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return library_of(self).tokenizer.vocabulary

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "1 1"]:
        """Draws a region, counted from 1, to which all questions of a problem belong."""
        return jax.random.randint(key, (1, 1), 1, self.regions + 1)

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "1 1"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        """Draws a question of `depth` hops. Kinds of questions that do not occur in training are
        drawn only in held-out regions.
        """
        bits = jax.random.randint(key, (2,), 0, 1 << 30)
        drawn = jnp.stack([context[0, 0] - 1, depth, jnp.int32(is_held_out(context)), *bits])

        world, tokenizer = library_of(self).world, library_of(self).tokenizer

        def draw(rows: np.ndarray) -> np.ndarray:
            texts = [world.draw(*row) for row in rows.tolist()]
            return tokenizer.encode_batch(texts, self.question_length)

        return call_on_host(draw, (self.question_length,), drawn)

    def truth(
        self, context: Int[Array, "1 1"], question: Int[Array, " question_length"]
    ) -> Int[Array, " answer_length"]:
        return self._map_texts(self._true_answer, self.answer_length, question)

    def is_right(
        self,
        context: Int[Array, "1 1"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
    ) -> Bool[Array, ""]:
        def right(question: str, answer: str) -> bool:
            truth = self._true_answer(question)
            return bool(answer) and self.answer_rule.same(answer, truth)

        return self._map_to_numbers(right, question, answer) == 1

    def class_of(
        self, context: Int[Array, "1 1"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        return self._map_to_numbers(self._class, question)

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        start = jnp.asarray(library_of(self).tokenizer.encode(SEARCH_PREFIX), jnp.int32)
        beginning = question[..., : len(start)]
        return jnp.all(beginning == jnp.broadcast_to(start, beginning.shape), axis=-1)

    def environment(
        self,
        context: Int[Array, "1 1"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        return self._map_texts(self._snippet, self.answer_length, question)

    def find(
        self, questions: Int[Array, "batch questions question_length"]
    ) -> Int[Array, "batch facts fact_length"]:
        """Retrieves the passages for each problem's questions, in the order of the collection."""

        library, per_context = library_of(self), questions.shape[1]

        def gather(rows: np.ndarray) -> np.ndarray:
            texts = library.tokenizer.decode_batch(rows.reshape(-1, self.question_length))
            found = library.collection.search_with_follow_ups(texts, self.hits, self.follow_ups)
            contexts = np.zeros((len(rows), self.facts, self.fact_length), np.int32)
            for number, context in enumerate(contexts):
                own = found[number * per_context : (number + 1) * per_context]
                shared = _merge_results(own, self.passages)
                context[: len(shared)] = library.passages[shared]
            return contexts

        flat = questions.reshape(len(questions), -1)
        return call_on_host(gather, (self.facts, self.fact_length), flat)

    def supports(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
    ) -> Bool[Array, ""]:
        """Whether a retrieved context has a passage that the true answer rests on, for each hop."""
        library = library_of(self)

        def supported(rows: np.ndarray, questions: np.ndarray) -> np.ndarray:
            texts = library.tokenizer.decode_batch(questions)
            found = [{*map(bytes, context)} for context in rows.reshape(len(rows), self.facts, -1)]
            return np.array(
                [
                    all(
                        any(bytes(library.passages[number]) in passages for number in hop)
                        for hop in library.world.path(text)
                    )
                    for passages, text in zip(found, texts, strict=True)
                ]
            )

        return call_on_host(supported, (), context.ravel(), question) == 1

    def _question_words(self, text: str) -> list[str]:
        """The words of a question's tokens, padded. Raises ValueError if there are too many."""
        tokenizer = library_of(self).tokenizer
        tokenizer.check_round_trip(text)
        words = [tokenizer.vocabulary[token] for token in tokenizer.encode(text)]
        if len(words) > self.question_length:
            raise ValueError(f"a question has at most {self.question_length} tokens")
        return words + [PAD_WORD] * (self.question_length - len(words))

    def parse_answer(self, text: str) -> list[str]:
        tokenizer = library_of(self).tokenizer
        tokenizer.check_round_trip(text)
        return [tokenizer.vocabulary[token] for token in tokenizer.encode(text)]

    def expand(self, part: str) -> str:
        return f"{SEARCH_PREFIX} {part}"

    def show(self, words: list[str]) -> str:
        return library_of(self).tokenizer.join_words(words)

    def _true_answer(self, question: str) -> str:
        return self._snippet(question) or library_of(self).world.answer(question)

    def _snippet(self, question: str) -> str:
        """The best matching sentence of the best passage; "" if the question is not a search."""
        if not question.startswith(SEARCH_PREFIX):
            return ""
        query = question.removeprefix(SEARCH_PREFIX)
        collection = library_of(self).collection
        [best] = collection.search([query], 1)
        return collection.sentence(best[0], query) if best else ""

    def _map_texts(
        self, function: Callable[..., str], length: int, *columns: Int[Array, "*b _"]
    ) -> Int[Array, "*b length"]:
        """Decodes columns of tokens, applies a function of texts to each item, and encodes it."""
        tokenizer = library_of(self).tokenizer

        def rows(*columns: np.ndarray) -> np.ndarray:
            texts = zip(*map(tokenizer.decode_batch, columns), strict=True)
            return tokenizer.encode_batch([function(*item) for item in texts], length)

        return call_on_host(rows, (length,), *columns)

    def _map_to_numbers(
        self, function: Callable[..., int], *columns: Int[Array, "*b _"]
    ) -> Int[Array, "*b"]:
        """Decodes columns of tokens, and applies a function of texts to each item."""
        tokenizer = library_of(self).tokenizer

        def numbers(*columns: np.ndarray) -> np.ndarray:
            texts = zip(*map(tokenizer.decode_batch, columns), strict=True)
            return np.array([function(*item) for item in texts])

        return call_on_host(numbers, (), *columns)

    def _make_tokenizer(self, texts: Iterable[str]) -> TextTokenizer:
        if self.tokenizer:
            return load_tokenizer(find_folder(self.tokenizer))
        return train_tokenizer(texts, self.vocabulary_size)

    def _check_round_trips(
        self, tokenizer: TextTokenizer, described: Iterable[tuple[str, str]]
    ) -> None:
        """Raises AmplifyError unless decoding restores each text, given as (description, text)."""
        for name, text in described:
            try:
                tokenizer.check_round_trip(text)
            except ValueError as error:
                source = self.tokenizer or "the trained tokenizer"
                raise AmplifyError(f"{name} cannot be encoded by {source}: {error}") from None

    def _check_lengths(
        self, tokenizer: TextTokenizer, texts_of: Mapping[str, Iterable[str]]
    ) -> None:
        for key, texts in texts_of.items():
            needed = max(len(tokenizer.encode(text)) for text in texts)
            if getattr(self, key) < needed:
                raise AmplifyError(
                    f"task.{key} must be at least {needed} for these texts and this tokenizer;"
                    f" got {getattr(self, key)}"
                )


@functools.cache
def library_of(task: RetrievalTask) -> Library:
    """The library of a retrieval task, built on first use.

    Compiled functions use it while they are traced, so that nothing is read or built while they
    run.

    Args:
        task: the task.
    """
    return task.make_library()


def _merge_results(found: Sequence[Sequence[int]], limit: int) -> list[int]:
    """At most `limit` passages for several questions together, in the order of the collection. The
    best passages of each question take precedence.
    """
    ranked = itertools.chain.from_iterable(itertools.zip_longest(*found))
    return sorted(list(dict.fromkeys(p for p in ranked if p is not None))[:limit])
