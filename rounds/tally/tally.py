"""Tally: how many ones are there in a stretch of a row of bits? Halve the stretch and add."""

import dataclasses

import jax
import jax.numpy as jnp

from amplify.types import DONT_KNOW, Ask

ZERO = 1  # token 1 + n says the number n, be it a place, a bit or a count


@dataclasses.dataclass(frozen=True)
class Tally:
    bits: int = 16  # [task] bits = ... in the experiment file
    fact_length, question_length, answer_length = 2, 2, 1  # place, bit; from, to; count
    facts = property(lambda self: self.bits)
    vocabulary = property(lambda self: ("?", *map(str, range(self.bits + 1))))
    max_depth = property(lambda self: self.bits.bit_length() - 1)
    classes = property(lambda self: tuple(f"{2**d} bits" for d in range(1, self.max_depth + 1)))

    def draw_context(self, key):
        return ZERO + jnp.c_[jnp.arange(self.bits), jax.random.randint(key, (self.bits,), 0, 2)]

    def draw_question(self, key, context, depth):
        start = jax.random.randint(key, (), 0, self.bits - 2**depth + 1)
        return ZERO + jnp.stack([start, start + 2**depth])

    def truth(self, context, question):
        inside = (context[:, 0] >= question[0]) & (context[:, 0] < question[1])
        return ZERO + jnp.sum(jnp.where(inside, context[:, 1] - ZERO, 0), keepdims=True)

    def is_right(self, context, question, answer):
        return jnp.all(answer == self.truth(context, question))

    def class_of(self, context, question):
        return jnp.argmax(2 ** jnp.arange(1, self.max_depth + 1) == question[1] - question[0])

    def is_primitive(self, question):
        return question[..., 1] - question[..., 0] == 1

    def environment(self, context, question, key):
        return self.truth(context, question)

    def strategy(self, question):
        start, end = question[..., 0], question[..., 1]
        middle = (start + end) // 2
        left = yield Ask(jnp.stack([start, middle], axis=-1))
        right = yield Ask(jnp.stack([middle, end], axis=-1))
        known = (left > DONT_KNOW) & (right > DONT_KNOW) & (left + right <= 2 + self.bits)
        return jnp.where(known, left + right - ZERO, DONT_KNOW)

    def parse(self, text):
        places, lengths = range(self.bits + 1), [2**d for d in range(self.max_depth + 1)]
        if text in [f"{start}-{start + n}" for n in lengths for start in places[:-n]]:
            return text.split("-")
        raise ValueError(f"a question is two places a power of 2 apart, 0-1 to 0-{self.bits}")

    def show(self, words):
        return "-".join(words)
