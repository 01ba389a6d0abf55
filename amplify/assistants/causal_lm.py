"""A decoder-only language model: layers, stacked, between an embedding and a head.

Sequences may continue a past that many of them share: a context is read once, and every question
about it is a short sequence after it. Layers are stacked and scanned; what differs from layer to
layer (window, rotary frequencies) is scanned along as numbers. Knows nothing of files: see
`pretrained`.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import optimization_barrier as barrier
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from amplify.assistants.attention import OUTPUT
from amplify.assistants.attention_parts import (
    NOWHERE,
    KeysAndValues,
    Part,
    Places,
    Rules,
)
from amplify.assistants.layers import (
    Architecture,
    Layer,
    Linear,
    Nearby,
    Norm,
    capped,
    mapped,
)
from amplify.assistants.rotary import rotations
from amplify.axes import STACKED, axes

MAX_UNROLLED = 8
"""Layers up to which they are unrolled, and not scanned."""


class Past(NamedTuple):
    """What was read before and is shared: keys and values, and where their tokens stand."""

    keys: Float[Array, "layers batch key_heads length head_width"]
    values: Float[Array, "layers batch key_heads length head_width"]
    positions: Int[Array, "batch length"]  # NOWHERE: padding, which comes last


class KVCache(NamedTuple):
    """Keys and values of sequences, which only they themselves see."""

    keys: Float[Array, "layers batch key_heads n length head_width"]
    values: Float[Array, "layers batch key_heads n length head_width"]
    positions: Int[Array, "batch n length"]  # NOWHERE: padding

    def as_past(self) -> Past:
        """Of the first sequence of each batch row, for others to continue."""
        return Past(self.keys[:, :, :, 0], self.values[:, :, :, 0], self.positions[:, 0])


class CausalLM(nnx.Module):
    """The parameters and the forward pass. Computes in `dtype`; parameters keep theirs."""

    def __init__(
        self,
        of: Architecture,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        rematerialises: bool = False,
    ) -> None:
        self.of, self.dtype, self.rematerialises = of, dtype, rematerialises
        normal = jax.random.normal

        def layer(key: Key[Array, ""]) -> Layer:
            return Layer(of, nnx.Rngs(params=key))

        embedding = normal(rngs.params(), (of.vocabulary, of.width)) * of.width**-0.5
        self.embedding = nnx.Param(embedding, **axes("vocabulary", "embed"))
        shape, along = (of.positions, of.width), axes(None, "embed")
        self.positions = (
            None if of.rotary else nnx.Param(normal(rngs.params(), shape) * 0.02, **along)
        )
        self.nearby = Nearby(of, rngs) if of.reach > 1 else None
        stacked = nnx.vmap(layer, transform_metadata=STACKED)
        self.layers = stacked(jax.random.split(rngs.params(), of.layers))
        self.out_norm = Norm(of, of.width)
        self.out = (
            None if of.tied else Linear(of.width, of.vocabulary, ("embed", "vocabulary"), rngs)
        )

    def read(
        self,
        tokens: Int[Array, "batch n length"],
        positions: Int[Array, "batch n length"],
        *,
        segments: Int[Array, "batch n length"] | None = None,
        past: Past | None = None,
        wanted: int | None = None,
        in_order: bool = False,
    ) -> tuple[Float[Array, "batch n length width"], KVCache]:
        """What the model makes of each token, before it is turned into logits.

        Args:
            tokens: n sequences that continue the same past, if there is one.
            positions: of the tokens, counted from the beginning of the past; NOWHERE for padding.
            segments: tokens see their own segment alone; None: all are of one.
            past: what all n sequences of a batch see in front of them.
            wanted: outputs of so many last tokens are wanted, and the last layer need not go on
                with the others; None: all are.
            in_order: positions count up from the first token on, padding comes last, and there are
                neither segments nor a past: a quicker way through attention.

        Returns:
            The outputs (of tokens not wanted, or padding: anything), and the tokens' keys and
            values.
        """
        places, length = Places(positions, segments), tokens.shape[2]
        rules = self.rules(length + (past.keys.shape[3] if past else 0), in_order)
        graph, stacked = nnx.split(self.layers)
        wanted = length if wanted is None else wanted

        def layer(x: Array, of_layer: Any, is_last: Bool[Array, ""] | bool) -> tuple[Array, Any]:
            state, window, frequencies, of_past = of_layer
            # The barrier has each cosine computed once, and not again for every head.
            rotation = None if frequencies is None else barrier(rotations(positions, frequencies))
            part = past and Part(of_past[0], of_past[1], Places(past.positions[:, None]))
            of_layer = nnx.merge(graph, state)
            query, own = of_layer.read(x, rotation)
            given = query, Part(own[0], own[1], places), part, window, rules

            def follow(wanted: int) -> Callable[[Array], Array]:
                return lambda x: of_layer.follow(x, *given, wanted)

            if wanted == length or isinstance(is_last, bool):
                return follow(wanted if is_last is True else length)(x), own
            return jax.lax.cond(is_last, follow(wanted), follow(length), x), own

        x, (keys, values) = self._through_layers(
            layer,
            self.embed(tokens, positions, segments),
            (
                stacked,
                jnp.asarray(self.windows),
                self.frequencies(),
                past and (past.keys, past.values),
            ),
        )
        return self.out_norm(x), KVCache(keys, values, positions)

    def _through_layers(
        self,
        layer: Callable[[Array, Any, Any], tuple[Array, KeysAndValues]],
        x: Float[Array, "batch n length width"],
        of_layers: PyTree[Array],
    ) -> tuple[Float[Array, "batch n length width"], KeysAndValues]:
        """The last x, and all layers' keys and values, stacked.

        Few layers are unrolled: what is kept for the way back then need not be stacked. Many are
        scanned, so that compiling takes as long as for one; and those that are computed again on
        the way back, for unrolled XLA would find the same computation twice, and keep the first.
        """
        count = self.of.layers
        if self.rematerialises:
            policy = jax.checkpoint_policies.save_only_these_names(OUTPUT)
            layer = jax.checkpoint(layer, policy=policy)
        if self.rematerialises or count > MAX_UNROLLED:
            is_last = jnp.arange(count) == count - 1
            return jax.lax.scan(lambda x, given: layer(x, *given), x, (of_layers, is_last))
        each = []
        for number in range(count):
            of_layer = jax.tree.map(operator.itemgetter(number), of_layers)
            x, own = layer(x, of_layer, number == count - 1)
            each.append(own)
        keys, values = (jnp.stack(part) for part in zip(*each, strict=True))
        return x, (keys, values)

    def rules(self, longest: int, in_order: bool = False, layer: int | None = None) -> Rules:
        """How attention works, where no sequence is longer, in a layer or in all."""
        of = self.of
        windows = of.windows if layer is None else of.windows[layer : layer + 1]
        return Rules(
            of.attention_scale or of.head_width**-0.5,
            of.attention_cap,
            windowed=any(0 < window < longest for window in windows),
            in_order=in_order,
        )

    @property
    def windows(self) -> tuple[int, ...]:
        """Of each layer: how many tokens back a token sees."""
        return tuple(window or self.of.positions for window in self.of.windows)

    def head(self, only: tuple[int, ...] | None = None) -> Float[Array, "width tokens"]:
        """The map from outputs to logits; `only`: of these tokens alone."""
        which: Any = slice(None) if only is None else jnp.asarray(only)
        if only == tuple(range(len(only or ()))):
            which = slice(len(only))
        head = self.embedding[...].T if self.out is None else self.out.kernel[...]
        return head[:, which].astype(self.dtype)

    def logits(
        self, x: Float[Array, "*b width"], head: Float[Array, "width tokens"] | None = None
    ) -> Float[Array, "*b tokens"]:
        """Of the token that follows, in float32: of all tokens, or those of a head."""
        logits = mapped(x, self.head() if head is None else head)
        return capped(logits.astype(jnp.float32), self.of.logit_cap)

    def embed(
        self,
        tokens: Int[Array, "batch n length"],
        positions: Int[Array, "batch n length"],
        segments: Int[Array, "batch n length"] | None = None,
        before: Int[Array, "batch n some"] | None = None,
    ) -> Float[Array, "batch n length width"]:
        """What the first layer reads.

        Args:
            before: tokens that stand right in front of these, NOWHERE for none; None: none do.
        """
        x = self._look_up(tokens)
        if self.nearby is not None:
            if before is None:
                before = jnp.full((*tokens.shape[:2], self.of.reach - 1), NOWHERE)
            there = jnp.concatenate([before, positions], axis=-1) != NOWHERE
            in_front = self._look_up(jnp.maximum(before, 0))
            wide = jnp.concatenate([in_front, x], axis=2)
            if segments is None:
                segments = jnp.zeros_like(tokens)
            room = [(0, 0), (0, 0), (self.of.reach - 1, 0)]
            wide = jnp.where(there[..., None], wide, jnp.zeros((), x.dtype))
            x += self.nearby(wide, jnp.pad(segments, room, mode="edge"))
        if self.positions is None:
            return x
        return x + self.positions[...][jnp.maximum(positions, 0)].astype(self.dtype)

    def _look_up(self, tokens: Int[Array, "*b"]) -> Float[Array, "*b width"]:
        x = self.embedding[...][tokens].astype(self.dtype)
        return x * jnp.asarray(self.of.embedding_scale, self.dtype)

    def frequencies(self) -> Float[Array, "layers half"] | None:
        if not self.of.rotary:
            return None
        return jnp.asarray([rotary.frequencies(self.of.head_width) for rotary in self.of.rotary])


def with_kernels_in(dtype: DTypeLike, params: PyTree[Array]) -> PyTree[Array]:
    """Parameters whose matrices are cast to a dtype, in one pass.

    Norms and biases are small, and embeddings are looked up before they are cast: those stay.
    """

    def cast(path: tuple[Any, ...], leaf: Array) -> Array:
        names = jax.tree_util.keystr(path)
        is_matrix = any(f"'{name}'" in names for name in ("kernel", "low_in", "low_out"))
        return leaf.astype(dtype) if is_matrix else leaf

    return jax.tree_util.tree_map_with_path(cast, params)
