"""Handwritten digits of which a few pixels are shown, and a judge that learns to read them.

The images are the 1,797 digits of 8 x 8 pixels in scikit-learn, from the UCI repository (Alpaydin
and Kaynak 1998).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from amplify.types import FAILED, Answers, Ask

SIDE, LEVELS, CLASSES = 8, 17, 10
PLACES = SIDE * SIDE
PLACE, LEVEL = 1, 1 + PLACES  # the first token of a place, and of a grey level; digit d is level d
NAMES = tuple(f"{'abcdefgh'[row]}{column + 1}" for row in range(SIDE) for column in range(SIDE))
VOCABULARY = ("?", *NAMES, *map(str, range(LEVELS)), "digit", "split")
DIGIT, SPLIT = len(VOCABULARY) - 2, len(VOCABULARY) - 1


@functools.cache
def contexts() -> np.ndarray:
    """A context for each image: its pixels and what it shows; the last fact is for the split."""
    found = load_digits()
    pixels = np.stack(np.broadcast_arrays(PLACE + np.arange(PLACES), LEVEL + found.data), axis=-1)
    shows = np.stack([np.full(len(pixels), DIGIT), LEVEL + found.target], axis=-1)
    split = np.broadcast_to([SPLIT, LEVEL], shows.shape)
    return np.concatenate([pixels, shows[:, None], split[:, None]], axis=1).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Digits:
    """Which digit is it? The question says which pixels are shown: some that are not blank."""

    pixels: int = 2
    split: int = 0  # 0 to 16; each holds out other images

    facts, fact_length, answer_length, max_depth = PLACES + 2, 2, 1, 1
    question_length = property(lambda self: self.pixels)
    vocabulary = VOCABULARY
    classes = ("digit",)
    choices = tuple(map(str, range(CLASSES)))

    def draw_context(self, key):
        drawn = jnp.asarray(contexts())
        image = drawn[jax.random.randint(key, (), 0, len(drawn))]
        # Which images are held out depends on all facts.
        return image.at[-1, 1].set(LEVEL + self.split)

    def may_show(self, context):
        """Which places may be shown; facts may be in any order."""
        is_drawn = (context[:, 0] < LEVEL) & (context[:, 1] > LEVEL)
        return jnp.zeros(PLACES, bool).at[context[:, 0] - PLACE].max(is_drawn, mode="drop")

    def draw_question(self, key, context, depth):
        order = jax.random.uniform(key, (PLACES,)) + self.may_show(context).astype(jnp.float32)
        return PLACE + jax.lax.top_k(order, self.pixels)[1].astype(jnp.int32)

    def truth(self, context, question):
        return context[jnp.argmax(context[:, 0] == DIGIT), 1:]

    def is_right(self, context, question, answer):
        return jnp.all(answer == self.truth(context, question))

    def class_of(self, context, question):
        return jnp.int32(0)

    def is_primitive(self, question):
        return jnp.zeros(question.shape[:-1], bool)

    def environment(self, context, question, key):
        return self.truth(context, question)

    def strategy(self, question):
        """A person sees the whole image."""
        answer = yield Ask(question, to="environment")
        return answer

    def parse(self, text):
        words = text.split()
        if len(words) == self.pixels and {*words} <= {*NAMES}:
            return words
        raise ValueError(f"a question is {self.pixels} places of pixels, such as {NAMES[0]}")

    def show(self, words):
        return " ".join(words)


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """`[assistant]`: a judge who sees the pixels that the question names, and nothing else."""

    width: int = 128

    def build(self, task):
        return SparseJudge(task, self.width)


@dataclasses.dataclass(frozen=True)
class SparseJudge:
    """A network with two hidden layers, which reads shown places and their grey levels."""

    task: Digits
    width: int

    def init(self, key):
        sizes = {"place": PLACES, "level": PLACES, "hidden": self.width, "out": self.width}
        keys = jax.random.split(key, len(sizes))
        params = {
            name: jax.random.normal(key, (size, CLASSES if name == "out" else self.width)) * scale
            for (name, size), key, scale in zip(
                sizes.items(), keys, [1.0, 1.0, self.width**-0.5, self.width**-0.5], strict=True
            )
        }
        return params | {"bias": jnp.zeros(self.width), "out_bias": jnp.zeros(CLASSES)}

    def encode(self, params, contexts):
        """The grey level of each place, from 0 to 1."""
        place, level = contexts[..., 0] - PLACE, (contexts[..., 1] - LEVEL) / (LEVELS - 1)
        return jnp.einsum("bfp,bf->bp", jax.nn.one_hot(place, PLACES), level)

    def answer(self, params, memory, questions, keys):
        log_probs = self._log_probs(params, memory, questions)
        if keys is None:
            digit = jnp.argmax(log_probs, axis=-1)
        else:
            digit = jax.vmap(jax.vmap(jax.random.categorical))(keys, log_probs)
        log_prob = jnp.take_along_axis(log_probs, digit[..., None], axis=-1)[..., 0]
        return Answers(LEVEL + digit[..., None].astype(jnp.int32), log_prob)

    def log_prob(self, params, memory, questions, answers):
        digit = answers - LEVEL
        log_probs = self._log_probs(params, memory, questions)
        found = jnp.take_along_axis(log_probs, jnp.clip(digit, 0, CLASSES - 1), axis=-1)
        return jnp.where((digit >= 0) & (digit < CLASSES), found, -jnp.inf)

    def loss(self, params, batch):
        memory, answers = self.encode(params, batch["context"]), batch["answers"]
        answered = answers[..., 0] != FAILED
        log_probs = self._log_probs(params, memory, batch["questions"])
        digit = jnp.where(answered[..., None], answers - LEVEL, 0)
        log_prob = jnp.take_along_axis(log_probs, digit, axis=-1)[..., 0]
        number = jnp.sum(answered).astype(jnp.float32)
        loss = -jnp.sum(log_prob, where=answered) / jnp.maximum(number, 1)
        right = answered & (jnp.argmax(log_probs, axis=-1) == digit[..., 0])
        agreement = jnp.sum(right).astype(jnp.float32) / jnp.maximum(number, 1)
        return loss, {"loss": loss, "agreement": agreement, "answered": number}

    def _log_probs(self, params, memory, questions):
        shown = jnp.max(jax.nn.one_hot(questions - PLACE, PLACES), axis=-2)
        levels = shown * memory[:, None]
        x = jax.nn.relu(shown @ params["place"] + levels @ params["level"])
        x = jax.nn.relu(x @ params["hidden"] + params["bias"][None, None])
        return jax.nn.log_softmax(x @ params["out"] + params["out_bias"][None, None])
