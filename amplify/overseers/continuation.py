"""Texts continued by a checkpoint in this process, greedily, to the end of a line.

All texts begin with the same instructions, which are read once for each batch; what follows is read
and continued many at a time, by a compiled function. Knows nothing of tasks.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree
from tokenizers import Tokenizer

from amplify.errors import AmplifyError
from amplify.models.attention.attention_parts import PADDING
from amplify.models.decoder import decoding
from amplify.models.decoder.causal_lm import CausalLM
from amplify.models.pretrained import pretrained
from amplify.models.pretrained.control_tokens import control_tokens, without_control
from amplify.models.pretrained.hub import find_folder
from amplify.overseers.endpoint import Prompt, Read, Unusable
from amplify.overseers.exchanges import Reply, current
from amplify.types import Place

AT_ONCE = 64
"""Texts continued at a time."""


@dataclasses.dataclass(frozen=True)
class Continuation:
    checkpoint: str  # a folder, or the name of one on the hub
    instructions: str
    line: int  # tokens of what is said, at most
    dtype: str  # of the weights, and of what is computed

    def load(self, place: Place | None = None) -> PyTree[Array]:
        """The checkpoint's weights."""
        return pretrained.load(_opened(self.checkpoint)[0], dtype=self.dtype, place=place)

    def check(self, room: int) -> None:
        """Raises AmplifyError unless texts of so many tokens fit behind the instructions."""
        longest = len(_prefix(self)) + room + self.line
        opened, tokenizer = _opened(self.checkpoint)
        if longest > opened.architecture.positions:
            raise AmplifyError(
                f"{self.checkpoint}: instructions and a transcript take up to {longest} tokens, but"
                f" the model has {opened.architecture.positions} positions: shorten"
                " overseer.prompt, or lower overseer.asks or overseer.line"
            )
        if tokenizer.eos_token_id is None:
            raise AmplifyError(f"{self.checkpoint}: the tokenizer has no end-of-sequence token")

    def spell(self, texts: Sequence[str], room: int) -> Int[np.ndarray, "texts room"]:
        """What is read of each text behind what all begin with; PADDING alone if it is too long."""
        prefix = _prefix(self)
        rows = np.full((len(texts), room), PADDING, np.int32)
        for row, text in zip(rows, texts, strict=True):
            tokens = _ids(self, text)
            rest = tokens[len(prefix) :]
            if tuple(tokens[: len(prefix)]) == prefix and len(rest) <= room:
                row[room - len(rest) :] = rest
        return rows

    samples = False

    def answer(
        self,
        prompts: Sequence[Prompt],
        read: Callable[[Reply], Read | Unusable],
        params: PyTree[Array],
        lines: int,
    ) -> list[Read | None]:
        """What the checkpoint says to each prompt; None where nothing can be made of it.

        Args:
            read: makes something of a line that was said.
            params: the checkpoint's weights.
            lines: of a transcript, in every prompt.
        """
        texts = list(dict.fromkeys(prompt.text for prompt in prompts))
        found: dict[str, Read | None] = {}
        for start in range(0, len(texts), AT_ONCE):
            some = texts[start : start + AT_ONCE]
            current().prompting(self.checkpoint, len(some))
            rows = np.full((AT_ONCE, self.line * (lines + 1)), PADDING, np.int32)
            rows[: len(some)] = self.spell(some, rows.shape[1])
            said = jax.device_get(_go_on(self, params, jax.device_put(rows)))
            for text, line in zip(some, self.read(said[: len(some)]), strict=True):
                made = read(Reply(line))
                if isinstance(made, Unusable):
                    current().trouble = f"{self.checkpoint}: {made.why}"
                found[text] = None if isinstance(made, Unusable) else made
        return [found[prompt.text] for prompt in prompts]

    def go_on(
        self, params: PyTree[Array], tokens: Int[Array, "texts room"]
    ) -> Int[Array, "texts line"]:
        """What the checkpoint says next: its tokens, counted from 1, and 0 behind them."""
        network = nnx.merge(_graph(self), params)
        prefix = decoding.prefill(network, jnp.asarray([_prefix(self)], jnp.int32))
        is_end = jnp.asarray(_ends_line(self.checkpoint))
        return decoding.decode(
            network,
            prefix,
            tokens[None],
            self.line,
            functools.partial(_choose_token, network, network.head(), *_speech(self)),
            to_model_ids=lambda token: jnp.maximum(token - 1, 0),
            is_last=lambda token: is_end[token],
        ).tokens[0]

    def read(self, said: Int[np.ndarray, "texts line"]) -> list[str]:
        """The lines that were said."""
        tokenizer = _opened(self.checkpoint)[1]
        texts = [
            tokenizer.decode([token - 1 for token in row if token], skip_special_tokens=True)
            for row in said.tolist()
        ]
        return [(text.strip().splitlines() or [""])[0].strip() for text in texts]


_go_on = jax.jit(Continuation.go_on, static_argnums=0)


def _choose_token(
    network: CausalLM,
    head: Float[Array, "width tokens"],
    known: int,
    end: int,
    step: int | Int[Array, ""],
    x: Float[Array, "batch texts width"],
    active: Bool[Array, "batch texts"],
) -> tuple[Int[Array, "batch texts"], Float[Array, "batch texts"]]:
    """The likeliest of the tokenizer's tokens, counted from 1. Log-probabilities are not used."""
    token = jnp.argmax(network.logits(x, head)[..., :known], axis=-1)
    chosen = jnp.where(active & (token != end), token + 1, 0)
    return chosen, jnp.zeros(chosen.shape)


@functools.cache
def _opened(checkpoint: str) -> tuple[pretrained.Pretrained, Any]:
    opened = pretrained.open_folder(find_folder(checkpoint))
    return opened, pretrained.open_tokenizer(opened)


def _whole(of: Continuation, text: str) -> str:
    return f"{of.instructions.rstrip()}\n\n{text}\n"


def _ids(of: Continuation, text: str) -> list[int]:
    """Tokens of the instructions and a text. Control tokens in the instructions are what they look
    like, for who wrote them may mean them; what looks like one in a text is text.
    """
    tokenizer, plain = _opened(of.checkpoint)[1], _plain(of.checkpoint)
    whole, start = _whole(of, text), _end_of_control(of)
    if not start:
        return plain.encode(whole).ids
    rest = plain.encode(whole[start:], add_special_tokens=False).ids
    return tokenizer.encode(whole[:start]) + rest


@functools.cache
def _plain(checkpoint: str) -> Tokenizer:
    backend = getattr(_opened(checkpoint)[1], "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise AmplifyError(f"{checkpoint}: its tokenizer is of a kind that is not supported")
    return without_control(backend)


@functools.cache
def _end_of_control(of: Continuation) -> int:
    """Where the last control token in the instructions ends; 0 if there is none."""
    _plain(of.checkpoint)  # which says so if the tokenizer is of another kind
    instructions = of.instructions.rstrip()
    control = control_tokens(_opened(of.checkpoint)[1].backend_tokenizer).values()
    ends = [instructions.rfind(token) + len(token) for token in control if token in instructions]
    return max(ends, default=0)


@functools.cache
def _prefix(of: Continuation) -> tuple[int, ...]:
    """What the model reads first, whatever the text: tokens, for a text's first word may be joined
    to the instructions' last.
    """
    texts = (_ids(of, text) for text in ("Q", "A"))
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
    return tuple(token for token, _ in same)


def _speech(of: Continuation) -> tuple[int, int]:
    """How many tokens the tokenizer has, and which ends a text."""
    tokenizer = _opened(of.checkpoint)[1]
    return len(tokenizer), tokenizer.eos_token_id


@functools.cache
def _ends_line(checkpoint: str) -> Bool[np.ndarray, " tokens"]:
    """Of tokens counted from 1: whether a line ends with them; 0 ends it too."""
    tokenizer = _opened(checkpoint)[1]
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return np.array([True, *("\n" in text for text in texts)])


@functools.cache
def _graph(of: Continuation) -> nnx.GraphDef:
    """The network without its parameters."""
    architecture, dtype = _opened(of.checkpoint)[0].architecture, jnp.dtype(of.dtype)
    return nnx.graphdef(nnx.eval_shape(lambda: CausalLM(architecture, nnx.Rngs(0), dtype)))
