"""A language model in this process continues texts by one line, with greedy decoding.

All texts begin with the same instructions, whose KV cache is computed once per batch. A compiled
function prefills and continues many texts at a time. Independent of tasks.
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
from amplify.overseers.endpoint import Parsed, Prompt, Unusable
from amplify.overseers.exchanges import Reply, current
from amplify.types import Place

TEXTS_PER_BATCH = 64
"""Texts that are continued at a time."""


@dataclasses.dataclass(frozen=True)
class Continuation:
    """A checkpoint that continues instructions and a text by one line."""

    checkpoint: str  # a folder, or a name on the hub
    instructions: str
    line: int  # maximum tokens of a continuation
    dtype: str  # of weights and activations

    def load(self, place: Place | None = None) -> PyTree[Array]:
        """Loads the checkpoint's weights.

        Args:
            place: maps the tree of parameters to shardings; None: the default device.
        """
        return pretrained.load(_open_checkpoint(self.checkpoint)[0], dtype=self.dtype, place=place)

    def check(self, length: int) -> None:
        """Checks that the model has enough positions, and that its tokenizer is usable.

        Args:
            length: maximum tokens of a text after the instructions.

        Raises:
            AmplifyError: if not.
        """
        longest = len(_shared_prefix(self)) + length + self.line
        opened, tokenizer = _open_checkpoint(self.checkpoint)
        if longest > opened.architecture.positions:
            raise AmplifyError(
                f"{self.checkpoint}: instructions and a transcript take up to {longest} tokens, but"
                f" the model has {opened.architecture.positions} positions: shorten"
                " overseer.prompt, or lower overseer.asks or overseer.line"
            )
        if tokenizer.eos_token_id is None:
            raise AmplifyError(f"{self.checkpoint}: the tokenizer has no end-of-sequence token")

    def tokenize(self, texts: Sequence[str], length: int) -> Int[np.ndarray, "texts length"]:
        """Tokenizes texts, without the prefix that all share, as left-padded rows.

        Args:
            texts: the texts.
            length: of a row, in tokens. A row for a longer text has PADDING only.
        """
        prefix = _shared_prefix(self)
        rows = np.full((len(texts), length), PADDING, np.int32)
        for row, text in zip(rows, texts, strict=True):
            tokens = _token_ids(self, text)
            rest = tokens[len(prefix) :]
            if tuple(tokens[: len(prefix)]) == prefix and len(rest) <= length:
                row[length - len(rest) :] = rest
        return rows

    samples = False

    def answer(
        self,
        prompts: Sequence[Prompt],
        parse: Callable[[Reply], Parsed | Unusable],
        params: PyTree[Array],
        lines: int,
    ) -> list[Parsed | None]:
        """Continues prompts by one line; see `language_model.Backend.answer`.

        Args:
            prompts: the prompts.
            parse: a pure function that parses a line.
            params: the checkpoint's weights.
            lines: number of transcript lines in every prompt.

        Returns:
            The parsed line for each prompt; None if it is unusable.
        """
        texts = list(dict.fromkeys(prompt.text for prompt in prompts))
        answers: dict[str, Parsed | None] = {}
        for start in range(0, len(texts), TEXTS_PER_BATCH):
            batch = texts[start : start + TEXTS_PER_BATCH]
            current().log_prompts(self.checkpoint, len(batch))
            rows = np.full((TEXTS_PER_BATCH, self.line * (lines + 1)), PADDING, np.int32)
            rows[: len(batch)] = self.tokenize(batch, rows.shape[1])
            tokens = jax.device_get(_continue_texts(self, params, jax.device_put(rows)))
            for text, line in zip(batch, self.decode(tokens[: len(batch)]), strict=True):
                parsed = parse(Reply(line))
                if isinstance(parsed, Unusable):
                    current().last_error = f"{self.checkpoint}: {parsed.reason}"
                answers[text] = None if isinstance(parsed, Unusable) else parsed
        return [answers[prompt.text] for prompt in prompts]

    def continue_texts(
        self, params: PyTree[Array], tokens: Int[Array, "texts length"]
    ) -> Int[Array, "texts line"]:
        """Generates the next line of each text, greedily.

        Args:
            params: the checkpoint's weights.
            tokens: what `tokenize` returned.

        Returns:
            The tokenizer's tokens plus 1, padded with 0.
        """
        network = nnx.merge(_graphdef(self), params)
        prefix = decoding.prefill(network, jnp.asarray([_shared_prefix(self)], jnp.int32))
        is_end = jnp.asarray(_line_end_mask(self.checkpoint))
        return decoding.decode(
            network,
            prefix,
            tokens[None],
            self.line,
            functools.partial(
                _choose_token, network, network.head(), *_vocabulary_size_and_end(self)
            ),
            to_model_ids=lambda token: jnp.maximum(token - 1, 0),
            is_last=lambda token: is_end[token],
        ).tokens[0]

    def decode(self, tokens: Int[np.ndarray, "texts line"]) -> list[str]:
        """Decodes the first line of each continuation.

        Args:
            tokens: what `continue_texts` returned.
        """
        tokenizer = _open_checkpoint(self.checkpoint)[1]
        texts = [
            tokenizer.decode([token - 1 for token in row if token], skip_special_tokens=True)
            for row in tokens.tolist()
        ]
        return [(text.strip().splitlines() or [""])[0].strip() for text in texts]


_continue_texts = jax.jit(Continuation.continue_texts, static_argnums=0)


def _choose_token(
    network: CausalLM,
    head: Float[Array, "width tokens"],
    known: int,
    end: int,
    step: int | Int[Array, ""],
    x: Float[Array, "batch texts width"],
    active: Bool[Array, "batch texts"],
) -> tuple[Int[Array, "batch texts"], Float[Array, "batch texts"]]:
    """The likeliest of the tokenizer's tokens, plus 1, with unused log-probabilities of 0."""
    token = jnp.argmax(network.logits(x, head)[..., :known], axis=-1)
    chosen = jnp.where(active & (token != end), token + 1, 0)
    return chosen, jnp.zeros(chosen.shape)


@functools.cache
def _open_checkpoint(checkpoint: str) -> tuple[pretrained.Pretrained, Any]:
    opened = pretrained.open_folder(find_folder(checkpoint))
    return opened, pretrained.open_tokenizer(opened)


def _full_text(of: Continuation, text: str) -> str:
    return f"{of.instructions.rstrip()}\n\n{text}\n"


def _token_ids(of: Continuation, text: str) -> list[int]:
    """Tokens of the instructions and a text. Control tokens are recognized in the instructions,
    whose author may mean them, but not in the text.
    """
    tokenizer, plain = _open_checkpoint(of.checkpoint)[1], _plain_tokenizer(of.checkpoint)
    full, start = _full_text(of, text), _control_end(of)
    if not start:
        return plain.encode(full).ids
    rest = plain.encode(full[start:], add_special_tokens=False).ids
    return tokenizer.encode(full[:start]) + rest


@functools.cache
def _plain_tokenizer(checkpoint: str) -> Tokenizer:
    backend = getattr(_open_checkpoint(checkpoint)[1], "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise AmplifyError(f"{checkpoint}: its kind of tokenizer is not supported")
    return without_control(backend)


@functools.cache
def _control_end(of: Continuation) -> int:
    """Index of the end of the last control token in the instructions; 0 if there is none."""
    _plain_tokenizer(of.checkpoint)  # raises if the tokenizer is not supported
    instructions = of.instructions.rstrip()
    control = control_tokens(_open_checkpoint(of.checkpoint)[1].backend_tokenizer).values()
    ends = [instructions.rfind(token) + len(token) for token in control if token in instructions]
    return max(ends, default=0)


@functools.cache
def _shared_prefix(of: Continuation) -> tuple[int, ...]:
    """The tokens with which all texts begin. Compared as tokens, because the first characters of a
    text may be merged with the last ones of the instructions.
    """
    texts = (_token_ids(of, text) for text in ("Q", "A"))
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
    return tuple(token for token, _ in same)


def _vocabulary_size_and_end(of: Continuation) -> tuple[int, int]:
    """The size of the tokenizer's vocabulary, and its end-of-sequence token."""
    tokenizer = _open_checkpoint(of.checkpoint)[1]
    return len(tokenizer), tokenizer.eos_token_id


@functools.cache
def _line_end_mask(checkpoint: str) -> Bool[np.ndarray, " tokens"]:
    """Whether each token, plus 1, ends a line; 0 does, too."""
    tokenizer = _open_checkpoint(checkpoint)[1]
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return np.array([True, *("\n" in text for text in texts)])


@functools.cache
def _graphdef(of: Continuation) -> nnx.GraphDef:
    """Graph definition of the network, without parameters."""
    architecture, dtype = _open_checkpoint(of.checkpoint)[0].architecture, jnp.dtype(of.dtype)
    return nnx.graphdef(nnx.eval_shape(lambda: CausalLM(architecture, nnx.Rngs(0), dtype)))
