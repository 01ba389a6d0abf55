"""Questions over a collection of documents that take several hops.

"In which country is the birthplace of the founder of Zelto Pim?" Contexts are not given but found:
each question is searched for, and what the engine returns is what the assistant reads. The overseer
searches and reads a sentence where one hop is asked for; a longer question it takes apart by its
grammar: it asks for what stands inside, and then for the outermost hop from there.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field

from amplify.host import on_host
from amplify.hub import find
from amplify.problems import is_held_out
from amplify.tasks.collection import Collection
from amplify.tasks.encyclopedia import (
    NAMES,
    RELATIONS,
    SIZE,
    Encyclopedia,
    ask,
    chains,
    generate,
    parse,
)
from amplify.tasks.spelling import NOTHING, Spelling, learn_spelling, open_spelling
from amplify.types import Ask, Strategy

SEARCH = "search:"
"""How a question begins that the engine answers, with the sentence that matches best."""

EXAMPLE = "In which country is the birthplace of the founder of Zelto Pim?"

Count = Annotated[int, Field(ge=1)]


class Library(NamedTuple):
    """What a task's questions are about, made once a process."""

    world: Encyclopedia
    collection: Collection
    spelling: Spelling
    passages: Int[np.ndarray, "documents passage_length"]


@dataclasses.dataclass(frozen=True)
class Search:
    PATHS: ClassVar = ("tokenizer",)

    regions: Annotated[int, Field(ge=64, le=NAMES // SIZE)] = 2048
    """Of the generated encyclopedia; an eighth of them are held out, with all that is in them."""
    hops: Annotated[int, Field(ge=1, le=4)] = 3
    """Of the longest questions."""
    seed: int = 0
    """Of the encyclopedia."""
    tokenizer: str = ""
    """A checkpoint, whose tokenizer spells: a folder, or a name on the hub; "": one is learned."""
    vocabulary_size: Annotated[int, Field(ge=300)] = 2048
    """Tokens of the tokenizer that is learned from the encyclopedia."""
    hits: Count = 1
    """Passages that a question's own search gives."""
    follow_ups: Annotated[int, Field(ge=0)] = 6
    """Searches after it, for names that stand in the passages found."""
    passages: Count = 10
    """Passages that the questions of a problem share: the context."""
    passage_length: Count = 20
    question_length: Count = 20
    answer_length: Count = 12

    def __post_init__(self) -> None:
        _library(self)  # now, where what does not fit can be told from what was asked for

    facts = property(lambda self: self.passages)
    fact_length = property(lambda self: self.passage_length)
    max_depth = property(lambda self: self.hops)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return _library(self).spelling.vocabulary

    @property
    def classes(self) -> tuple[str, ...]:
        several = range(2, self.hops + 1)
        return ("1 hop", *(f"{n} hops{new}" for n in several for new in ("", ", new chain")))

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "1 1"]:
        """A region, counted from 1: what the questions of a problem have in common."""
        return jax.random.randint(key, (1, 1), 1, self.regions + 1)

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "1 1"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        """Of `depth` hops; of chains that are kept new for evals only if the region is, too."""
        bits = jax.random.randint(key, (2,), 0, 1 << 30)
        drawn = jnp.stack([context[0, 0] - 1, depth, jnp.int32(is_held_out(context)), *bits])

        def draw(rows: np.ndarray) -> np.ndarray:
            world, spelling = _library(self).world, _library(self).spelling
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
            return bool(answer) and answer == self._true_answer(question)

        return self._judged(right, question, answer) == 1

    def class_of(
        self, context: Int[Array, "1 1"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        def index(text: str) -> int:
            asked = parse(text)
            if asked is None or len(asked.chain) == 1:
                return 0
            return 2 * len(asked.chain) - 3 + asked.is_new

        return self._judged(index, question)

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        start = jnp.asarray(_library(self).spelling.tokens(SEARCH), jnp.int32)
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

        together = questions.shape[1]

        def gather(rows: np.ndarray) -> np.ndarray:
            library = _library(self)
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

        def needed(questions: np.ndarray) -> np.ndarray:
            library = _library(self)
            rows = np.zeros((len(questions), self.hops, self.fact_length), np.int32)
            for row, text in zip(rows, library.spelling.read(questions), strict=True):
                path = library.world.path(text)
                row[: len(path)] = library.passages[path]
            return rows

        passages = on_host(needed, (self.hops, self.fact_length), question)
        there = jnp.all(passages[:, None] == context[None], axis=-1)
        return jnp.all(jnp.any(there, axis=-1) | jnp.all(passages == 0, axis=-1))

    def strategy(self, question: Int[Array, "*b question_length"]) -> Strategy:
        inside = self._in_words(ask_inside, self.question_length, question)
        found = yield Ask(inside, where=jnp.any(inside != 0, axis=-1))
        last = self._in_words(ask_last_hop, self.question_length, question, found)
        reached = yield Ask(last, where=jnp.any(last != 0, axis=-1))
        return self._in_words(conclude, self.answer_length, question, found, reached)

    def parse(self, text: str) -> list[str]:
        library = _library(self)
        tokens = library.spelling.tokens(text)
        if parse(text) is None and not text.startswith(SEARCH):
            raise ValueError(
                f"a question is such as {EXAMPLE!r}, or {SEARCH} and what to search for"
            )
        if len(tokens) > self.question_length:
            raise ValueError(f"a question has at most {self.question_length} tokens")
        words = [library.spelling.vocabulary[token] for token in tokens]
        return words + [NOTHING] * (self.question_length - len(words))

    def parse_answer(self, text: str) -> list[str]:
        spelling = _library(self).spelling
        return [spelling.vocabulary[token] for token in spelling.tokens(text)]

    def show(self, words: list[str]) -> str:
        return _library(self).spelling.show(words)

    def _true_answer(self, question: str) -> str:
        return self._snippet(question) or _library(self).world.answer(question)

    def _snippet(self, question: str) -> str:
        """The sentence of the best passage that fits best; "" if the question is no search."""
        if not question.startswith(SEARCH):
            return ""
        query = question.removeprefix(SEARCH)
        collection = _library(self).collection
        [best] = collection.search([query], 1)
        return collection.sentence(best[0], query) if best else ""

    def _in_words(
        self, function: Callable[..., str], length: int, *columns: Int[Array, "*b _"]
    ) -> Int[Array, "*b length"]:
        """What a function of texts gives, for each item of columns of tokens, in tokens."""

        def rows(*columns: np.ndarray) -> np.ndarray:
            spelling = _library(self).spelling
            texts = zip(*map(spelling.read, columns), strict=True)
            return spelling.write([function(*item) for item in texts], length)

        return on_host(rows, (length,), *columns)

    def _judged(
        self, function: Callable[..., int], *columns: Int[Array, "*b _"]
    ) -> Int[Array, "*b"]:
        """A number for each item."""

        def numbers(*columns: np.ndarray) -> np.ndarray:
            texts = zip(*map(_library(self).spelling.read, columns), strict=True)
            return np.array([function(*item) for item in texts])

        return on_host(numbers, (), *columns)


def ask_inside(question: str) -> str:
    """The first thing to ask: what stands inside a longer question; for a single hop, a search."""
    asked = parse(question)
    if asked is None:
        return ""
    if len(asked.chain) > 1:
        return ask(asked.name, asked.chain[:-1])
    return f"{SEARCH} {asked.name} {asked.chain[0].keyword}"


def ask_last_hop(question: str, found: str) -> str:
    """The outermost hop, from what was found; nothing if all is said, or nothing was found."""
    asked = parse(question)
    if asked is None or len(asked.chain) == 1 or not found:
        return ""
    return ask(found, asked.chain[-1:])


def conclude(question: str, found: str, reached: str) -> str:
    """The answer: what the last hop reached, or what the sentence that was found says."""
    asked = parse(question)
    if asked is None or len(asked.chain) > 1:
        return reached
    [relation] = asked.chain
    return relation.read(found, asked.name)


@functools.cache
def _library(task: Search) -> Library:
    """Raises ValueError if texts do not fit into the lengths that the task gives them."""
    world = generate(task.regions, task.seed)
    texts = [text for _, text in world.documents]
    if task.tokenizer:
        spelling = open_spelling(find(task.tokenizer))
    else:
        chain_of = itertools.cycle(chains(2))  # so that words of questions come as often as names
        said = [
            ask(name, chain) for (name, _), chain in zip(world.documents, chain_of, strict=False)
        ]
        spelling = learn_spelling([*texts, *said, SEARCH * len(texts)], task.vocabulary_size)
    name = max(world.numbers, key=lambda name: len(spelling.tokens(name)))
    longest = {
        "passage_length": texts,
        "question_length": [ask(name, chain) for chain in chains(task.hops)],
        "answer_length": [relation.sentence.format(name, name) for relation in RELATIONS],
    }
    for key, written in longest.items():
        needed = max(len(spelling.tokens(text)) for text in written)
        if getattr(task, key) < needed:
            raise ValueError(
                f"{key} must be at least {needed}, for this encyclopedia and tokenizer;"
                f" got {getattr(task, key)}"
            )
    passages = spelling.write(texts, task.passage_length)
    return Library(world, Collection(world.documents), spelling, passages)


def _shared(found: Sequence[Sequence[int]], room: int) -> list[int]:
    """Passages for several questions together: the best of each first, as many as there is room
    for, in the order of the collection.
    """
    ranked = itertools.chain.from_iterable(itertools.zip_longest(*found))
    return sorted(list(dict.fromkeys(p for p in ranked if p is not None))[:room])
