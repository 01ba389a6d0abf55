"""Permutation powering: to which symbol does a permutation σ, applied k times, map x?

The facts list σ(x) for each symbol x. To find σ^k(x), the overseer halves k: it asks for
y = σ^h(x) and σ^h(y) with h = k // 2, and for one more application of σ if k is odd. Questions with
k = 0 or 1 are primitive: the environment answers them. Christiano, Shlegeris and Amodei 2018
(arXiv:1810.08575), section 3.1 and appendix; there with 64 symbols and k of 6 bits.
"""

import dataclasses
import re
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field

from amplify.task_abilities import Reader, Seen
from amplify.tasks.strategies import check_answer
from amplify.types import DONT_KNOW, Ask, Strategy

ZERO = 1  # the token of a bit that is 0; that of 1 follows


@dataclasses.dataclass(frozen=True)
class Permutation:
    """Permutation powering. Symbols are the tokens 1, 2, ...; bits reuse these: bit b is token
    1 + b, so that a random token is right with probability 1 / (symbols + 1).
    """

    symbols: Annotated[int, Field(ge=2, le=1000)] = 8
    """Number of symbols that the permutation moves."""
    bits: Annotated[int, Field(ge=2, le=16)] = 3
    """Bits of the exponent k, most significant bit first."""

    @property
    def facts(self) -> int:
        return self.symbols

    @property
    def fact_length(self) -> int:
        return 2  # x, σ(x)

    @property
    def question_length(self) -> int:
        return 1 + self.bits  # x, k

    @property
    def answer_length(self) -> int:
        return 1

    @property
    def max_depth(self) -> int:
        return self.bits - 1

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return ("?", *(str(symbol) for symbol in range(1, self.symbols + 1)))

    @property
    def choices(self) -> tuple[str, ...]:
        return self.vocabulary[1:]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"k {2**d}-{2 ** (d + 1) - 1}" for d in range(1, self.bits))

    @property
    def smallest(self) -> int:
        return 2

    @property
    def largest(self) -> int:
        return self.symbols

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "facts fact_length"]:
        return self.draw_context_of_size(key, jnp.int32(self.symbols))

    def draw_context_of_size(
        self, key: Key[Array, ""], size: Int[Array, ""]
    ) -> Int[Array, "facts fact_length"]:
        """Draws a random permutation of `size` symbols, which are drawn from all symbols."""
        domain_key, image_key = jax.random.split(key)
        domain = 1 + jax.random.permutation(domain_key, self.symbols)
        present = jnp.arange(self.symbols) < size
        # A random order of the symbols in use, followed by the others.
        order = jnp.argsort(jnp.where(present, jax.random.uniform(image_key, (self.symbols,)), 1.0))
        return jnp.where(present[:, None], jnp.stack([domain, domain[order]], axis=1), 0)

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "facts fact_length"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        """Draws x and k uniformly; k has its leading bit at position `depth`, from 0."""
        symbol_key, number_key = jax.random.split(key)
        place = jax.random.randint(symbol_key, (), 0, jnp.sum(context[:, 0] > 0))
        present = jnp.argsort(context[:, 0] == 0, stable=True)
        lower = jax.random.randint(number_key, (), 0, 2**depth)
        return self._question(context[present[place], 0], 2**depth + lower)

    def truth(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, " answer_length"]:
        power = jnp.zeros(self.symbols + 1, jnp.int32).at[context[:, 0]].set(context[:, 1])
        power = power.at[0].set(0)  # where padding was written
        symbol = question[0]
        for bit in jnp.unstack(question[:0:-1]):  # least significant first: σ, σ^2, σ^4, ...
            symbol = jnp.where(bit == ZERO, symbol, power[symbol])
            power = power[power]
        return symbol[None]

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
        return self.max_depth - 1 - jnp.argmax(question[1:] != ZERO)

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        return self._steps(question) <= 1

    def environment(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        return self.truth(context, question)

    def strategy(self, question: Int[Array, "*b question_length"]) -> Strategy:
        """Applies σ^(k // 2) twice, and σ once more if k is odd."""
        x, k = question[..., 0], self._steps(question)
        half, odd = k // 2, k % 2 == 1
        y = yield Ask(self._question(x, half))
        z = yield Ask(self._question(y[..., 0], half), y[..., 0] != DONT_KNOW)
        z = jnp.where(y == DONT_KNOW, DONT_KNOW, z)
        last = yield Ask(
            self._question(z[..., 0], jnp.ones_like(k)), odd & (z[..., 0] != DONT_KNOW)
        )
        return jnp.where((odd & (z[..., 0] != DONT_KNOW))[..., None], last, z)

    def impression(
        self,
        reader: Reader,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
        key: Key[Array, ""],
    ) -> Seen:
        """What a reader makes of an answer; to apply σ k times takes k look-ups."""
        return check_answer(self, reader, 1 / self.symbols, context, question, answer, key)

    def draft(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        """Draws any symbol."""
        return jax.random.randint(key, (1,), 1, self.symbols + 1)

    def _steps(self, question: Int[Array, "*b question_length"]) -> Int[Array, "*b"]:
        """The exponent k as a number."""
        weights = 2 ** jnp.arange(self.bits - 1, -1, -1)
        return jnp.sum(
            (question[..., 1:] - ZERO) * jnp.broadcast_to(weights, question[..., 1:].shape), axis=-1
        )

    def _question(
        self, x: Int[Array, "*b"], k: Int[Array, "*b"]
    ) -> Int[Array, "*b question_length"]:
        bits = [ZERO + (k >> place) % 2 for place in range(self.bits - 1, -1, -1)]
        return jnp.stack([x, *bits], axis=-1)

    def parse(self, text: str) -> list[str]:
        found = re.fullmatch(r"\s*(\d+)\s*\^\s*(\d+)\s*", text)
        if found:
            x, k = int(found[1]), int(found[2])
            if 1 <= x <= self.symbols and 0 <= k < 2**self.bits:
                return [str(x), *(str(ZERO + int(bit)) for bit in f"{k:0{self.bits}b}")]
        raise ValueError(
            f"a question is x^k, where σ takes x in k steps, with x from 1 to {self.symbols}"
            f" and k from 0 to {2**self.bits - 1}, such as 2^{2**self.bits - 1}"
        )

    def show(self, words: list[str]) -> str:
        if len(words) == self.question_length:
            k = int("".join("1" if word != str(ZERO) else "0" for word in words[1:]), 2)
            return f"{words[0]}^{k}"
        return " → ".join(words)
