"""Writing the first sentence of an encyclopedia's article: reinforcement learning from reviews of
language, in a small world whose gold follows rules that are hidden from everyone who makes the
training signal.

The context is notes about a town, a line for its name and for each attribute; the answer is a
sentence. See `grammar` for drafts and `worth` for gold.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from amplify.task_abilities import Reader, Seen
from amplify.tasks.sentences.grammar import (
    ATTRIBUTES,
    LONGEST,
    NOTES,
    TOKEN,
    VALUES,
    VOCABULARY,
    Town,
    draw_town,
    value_tokens,
    write_draft,
)
from amplify.tasks.sentences.worth import gold_of_sentence, read_sentence

WRITE, NAME = "write", "name"
SPARE = 3
"""Words by which an answer may be longer than the longest draft, its end included."""


@dataclasses.dataclass(frozen=True)
class Sentences:
    """The first sentence of an article about a town, from notes about it."""

    truth = None
    """The worth of a sentence is a number; no sentence is the right one. See `gold`."""
    is_right = None

    facts = 1 + ATTRIBUTES
    fact_length = 3
    question_length = 1
    answer_length = LONGEST + SPARE
    max_depth = 1
    classes = ("sentence",)
    vocabulary = VOCABULARY
    statements = ATTRIBUTES

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "facts fact_length"]:
        town = draw_town(key)
        name = jnp.concatenate([jnp.full(1, TOKEN[NAME], jnp.int32), town.name])
        labels = jnp.array([TOKEN[label] for label in NOTES], jnp.int32)
        values = value_tokens(town.notes)
        notes = jnp.stack([labels, values, jnp.zeros_like(values)], axis=1)
        return jnp.concatenate([name[None], notes])

    def town_of(self, context: Int[Array, "facts fact_length"]) -> Town:
        """The town that a context is about, whatever the order of its facts."""

        def fact(label: str) -> Int[Array, " fact_length"]:
            return context[jnp.argmax(context[:, 0] == TOKEN[label])]

        values = jnp.stack([fact(label)[1] for label in NOTES])
        numbers = values - value_tokens(jnp.zeros_like(values))
        return Town(fact(NAME)[1:], jnp.clip(numbers, 0, VALUES - 1))

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "facts fact_length"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        return jnp.full(1, TOKEN[WRITE], jnp.int32)

    def gold(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
    ) -> Float[Array, ""]:
        """The worth of a sentence, in standard deviations of drafts; see `worth`.

        Args:
            context: about one town.
            question: not used.
            answer: the sentence.
        """
        return gold_of_sentence(self.town_of(context), answer)

    def impression(
        self,
        reader: Reader,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
        key: Key[Array, ""],
    ) -> Seen:
        """What a reader takes a sentence to be worth, in standard deviations of drafts.

        Args:
            reader: how it reads.
            context: about one town.
            question: not used.
            answer: the sentence.
            key: consumed.
        """
        return read_sentence(reader, self.town_of(context), answer, key)

    def draft(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        """Writes a sentence as somebody does who knows the grammar and is careless; see `grammar`.

        Args:
            context: about one town.
            question: not used.
            key: consumed.
        """
        return jnp.pad(write_draft(self.town_of(context), key), (0, SPARE))

    def class_of(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        return jnp.int32(0)

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        return jnp.zeros(question.shape[:-1], bool)

    def environment(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        return jnp.zeros(self.answer_length, jnp.int32)

    def parse(self, text: str) -> list[str]:
        if text.split() != [WRITE]:
            raise ValueError(f'the only question is "{WRITE}": a sentence about the town')
        return [WRITE]

    def parse_answer(self, text: str) -> list[str]:
        words = text.replace(",", " , ").replace(".", " . ").split()
        if unknown := [word for word in words if word not in VOCABULARY[1:]]:
            raise ValueError(f"{unknown[0]!r} is not one of the words that sentences consist of")
        if len(words) > self.answer_length:
            raise ValueError(f"a sentence has at most {self.answer_length} words, got {len(words)}")
        return words

    def show(self, words: list[str]) -> str:
        words = [word for word in words if word != VOCABULARY[0]] or words[:1]
        if len(words) > 1 and words[0] in (NAME, *NOTES):
            return f"{words[0]}: {' '.join(words[1:])}"
        return " ".join(words).replace(" ,", ",").replace(" .", ".")
