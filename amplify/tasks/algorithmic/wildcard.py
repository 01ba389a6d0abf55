"""Wildcard search: a function f maps every word over {a, b} to -1 or +1. What is the sum of f over
the words that match a pattern?

A pattern with w wildcards matches 2^w words. The overseer replaces the first wildcard by a and by b
and adds the two answers, so w levels of decomposition lead to patterns without a wildcard, which
the environment answers. Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575), section 3.1 and
appendix; there with words of 6 letters.
"""

import dataclasses
import itertools
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field

from amplify.types import DONT_KNOW, Ask, Strategy

A, B, WILDCARD = 1, 2, 3
FIRST_NUMBER = 4  # the token of the smallest sum, -2^letters


@dataclasses.dataclass(frozen=True)
class Wildcard:
    """Wildcard search over words of a fixed length. Tokens: a, b and *, then the sums."""

    letters: Annotated[int, Field(ge=1, le=10)] = 4
    """Letters of a word."""

    @property
    def facts(self) -> int:
        return 2**self.letters

    @property
    def fact_length(self) -> int:
        return self.letters + 1

    @property
    def question_length(self) -> int:
        return self.letters

    @property
    def answer_length(self) -> int:
        return 1

    @property
    def max_depth(self) -> int:
        return self.letters

    @property
    def vocabulary(self) -> tuple[str, ...]:
        numbers = range(-self.facts, self.facts + 1)
        return ("?", "a", "b", "*", *(f"{n:+d}" if n else "0" for n in numbers))

    @property
    def choices(self) -> tuple[str, ...]:
        return self.vocabulary[FIRST_NUMBER:]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"{w} wildcard{'s' if w > 1 else ''}" for w in range(1, self.letters + 1))

    @property
    def zero(self) -> int:
        """Token of the number 0."""
        return FIRST_NUMBER + self.facts

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "facts fact_length"]:
        values = jax.random.rademacher(key, (self.facts,), dtype=jnp.int32)
        words = jnp.array(list(itertools.product((A, B), repeat=self.letters)), jnp.int32)
        return jnp.concatenate([words, self.zero + values[:, None]], axis=1)

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "facts fact_length"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        place_key, letter_key = jax.random.split(key)
        place = jax.random.permutation(place_key, self.letters)
        letter = jax.random.randint(letter_key, (self.letters,), A, B + 1)
        return jnp.where(place < depth, WILDCARD, letter)

    def truth(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, " answer_length"]:
        words, values = context[:, :-1], context[:, -1] - self.zero
        matches = jnp.all((question == WILDCARD)[None] | (question[None] == words), axis=1)
        return self.zero + jnp.sum(jnp.where(matches, values, 0), keepdims=True)

    def is_right(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
    ) -> Bool[Array, ""]:
        return jnp.all(answer == self.truth(context, question))

    def class_of(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        return jnp.sum(question == WILDCARD) - 1

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        return jnp.all(question != WILDCARD, axis=-1)

    def environment(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        return self.truth(context, question)

    def strategy(self, question: Int[Array, "*b question_length"]) -> Strategy:
        """Replaces the first wildcard by a and by b, and adds the two answers."""
        wildcards = question == WILDCARD
        first = wildcards & (jnp.cumsum(wildcards, axis=-1) == 1)
        with_a = yield Ask(jnp.where(first, A, question))
        with_b = yield Ask(jnp.where(first, B, question))
        return self._add(with_a, with_b)

    def _add(
        self, x: Int[Array, "*b answer_length"], y: Int[Array, "*b answer_length"]
    ) -> Int[Array, "*b answer_length"]:
        """x + y, or "don't know" if one of them is not a number or the sum is out of range."""
        total = x + y - self.zero
        numbers = (x >= FIRST_NUMBER) & (y >= FIRST_NUMBER)
        in_range = (total >= FIRST_NUMBER) & (total <= self.zero + self.facts)
        return jnp.where(numbers & in_range, total, DONT_KNOW)

    def parse(self, text: str) -> list[str]:
        pattern = list(text.replace(" ", ""))
        if len(pattern) != self.letters or not set(pattern) <= {"a", "b", "*"}:
            raise ValueError(f"a pattern is {self.letters} of the letters a, b and *")
        return pattern

    def show(self, words: list[str]) -> str:
        return (
            "".join(words)
            if len(words) != self.fact_length
            else f"{''.join(words[:-1])} = {words[-1]}"
        )
