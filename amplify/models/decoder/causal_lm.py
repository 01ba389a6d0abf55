"""A decoder-only language model: an embedding, stacked layers, and an output head.

Sequences may continue a prefix that many of them share: a context is prefilled once, and every
question about it is a short sequence after it. Layers are stacked and scanned; what differs between
layers (window, rotary frequencies) is scanned along as arrays. Knows nothing of files: see
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

from amplify.models.attention.attention import OUTPUT
from amplify.models.attention.attention_parts import (
    PADDING,
    AttentionOptions,
    KeysAndValues,
    KVBlock,
    TokenPositions,
)
from amplify.models.attention.rotary import rotations
from amplify.models.axes import STACKED, axes
from amplify.models.decoder.layers import (
    Architecture,
    EmbeddingConvolution,
    Layer,
    Linear,
    Norm,
    matmul,
    soft_cap,
)

MAX_UNROLLED = 8
"""Models of at most this many layers are unrolled; deeper ones are scanned."""


class PrefixCache(NamedTuple):
    """KV cache of prefixes, each shared by all sequences that continue it."""

    keys: Float[Array, "layers batch key_heads length head_width"]
    values: Float[Array, "layers batch key_heads length head_width"]
    positions: Int[Array, "batch length"]  # PADDING, if any, comes last


class KVCache(NamedTuple):
    """Per-sequence KV cache."""

    keys: Float[Array, "layers batch key_heads n length head_width"]
    values: Float[Array, "layers batch key_heads n length head_width"]
    positions: Int[Array, "batch n length"]  # PADDING where there is no token

    def as_prefix(self) -> PrefixCache:
        """Makes the first sequence of each batch row a prefix for others to continue."""
        return PrefixCache(self.keys[:, :, :, 0], self.values[:, :, :, 0], self.positions[:, 0])


class CausalLM(nnx.Module):
    """The parameters and the forward pass of a language model.

    Args:
        architecture: sizes and options.
        rngs: draws the parameters.
        dtype: what is computed in; parameters keep their own dtype.
        rematerialises: whether the backward pass recomputes what layers computed, to save memory.
    """

    def __init__(
        self,
        architecture: Architecture,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        rematerialises: bool = False,
    ) -> None:
        self.architecture, self.dtype, self.rematerialises = architecture, dtype, rematerialises
        width, vocabulary = architecture.width, architecture.vocabulary
        normal = jax.random.normal

        def layer(key: Key[Array, ""]) -> Layer:
            return Layer(architecture, nnx.Rngs(params=key))

        embedding = normal(rngs.params(), (vocabulary, width)) * width**-0.5
        self.embedding = nnx.Param(embedding, **axes("vocabulary", "embed"))
        shape, metadata = (architecture.positions, width), axes(None, "embed")
        self.positions = (
            None
            if architecture.rotary
            else nnx.Param(normal(rngs.params(), shape) * 0.02, **metadata)
        )
        self.nearby = EmbeddingConvolution(architecture, rngs) if architecture.reach > 1 else None
        stacked = nnx.vmap(layer, transform_metadata=STACKED)
        self.layers = stacked(jax.random.split(rngs.params(), architecture.layers))
        self.out_norm = Norm(architecture, width)
        self.out = (
            None if architecture.tied else Linear(width, vocabulary, ("embed", "vocabulary"), rngs)
        )

    def forward(
        self,
        tokens: Int[Array, "batch n length"],
        positions: Int[Array, "batch n length"],
        *,
        segments: Int[Array, "batch n length"] | None = None,
        prefix: PrefixCache | None = None,
        outputs_to_keep: int | None = None,
        is_causal: bool = False,
    ) -> tuple[Float[Array, "batch n length width"], KVCache]:
        """Computes the final hidden states of tokens.

        Args:
            tokens: token ids of n sequences that continue the same prefix, if there is one; 0 or
                any other id where there is padding.
            positions: position ids, counted from the beginning of the prefix; PADDING for padding.
            segments: segment ids: tokens attend within their segment and to the prefix; None: each
                sequence is one segment.
            prefix: KV cache that all n sequences of a batch row attend to; None: there is none.
            outputs_to_keep: only the hidden states of this many last tokens are needed, so that the
                last layer may skip the others; None: all are.
            is_causal: positions count up from the first token, padding comes last, and there are
                neither segments nor a prefix. This allows a faster attention kernel.

        Returns:
            Hidden states, arbitrary for padding and for tokens that are not kept; and the KV cache
            of the tokens.
        """
        token_positions, length = TokenPositions(positions, segments), tokens.shape[2]
        longest = length + (prefix.keys.shape[3] if prefix else 0)
        options = self.attention_options(longest, is_causal)
        graph, stacked = nnx.split(self.layers)
        keep = length if outputs_to_keep is None else outputs_to_keep

        def layer(x: Array, of_layer: Any, is_last: Bool[Array, ""] | bool) -> tuple[Array, Any]:
            state, window, frequencies, cached = of_layer
            # The barrier has each cosine computed once, and not again for every head.
            rotation = None if frequencies is None else barrier(rotations(positions, frequencies))
            block = prefix and KVBlock(
                cached[0], cached[1], TokenPositions(prefix.positions[:, None])
            )
            of_layer = nnx.merge(graph, state)
            query, own = of_layer.project(x, rotation)
            attention = query, KVBlock(own[0], own[1], token_positions), block, window, options

            def update_last(count: int) -> Callable[[Array], Array]:
                return lambda x: of_layer.update_last(x, *attention, count)

            if keep == length or isinstance(is_last, bool):
                return update_last(keep if is_last is True else length)(x), own
            return jax.lax.cond(is_last, update_last(keep), update_last(length), x), own

        x, (keys, values) = self._through_layers(
            layer,
            self.embed(tokens, positions, segments),
            (
                stacked,
                jnp.asarray(self.windows),
                self.frequencies(),
                prefix and (prefix.keys, prefix.values),
            ),
        )
        return self.out_norm(x), KVCache(keys, values, positions)

    def _through_layers(
        self,
        layer: Callable[[Array, Any, Any], tuple[Array, KeysAndValues]],
        x: Float[Array, "batch n length width"],
        of_layers: PyTree[Array],
    ) -> tuple[Float[Array, "batch n length width"], KeysAndValues]:
        """Returns the last layer's output, and the keys and values of all layers, stacked.

        Few layers are unrolled, so that what the backward pass needs is not stacked. Many layers
        are scanned, so that compile time does not grow with their number. Rematerialised layers are
        scanned too: XLA would merge the recomputation of unrolled ones with the first computation.
        """
        count = self.architecture.layers
        if self.rematerialises:
            policy = jax.checkpoint_policies.save_only_these_names(OUTPUT)
            layer = jax.checkpoint(layer, policy=policy)
        if self.rematerialises or count > MAX_UNROLLED:
            is_last = jnp.arange(count) == count - 1
            return jax.lax.scan(lambda x, inputs: layer(x, *inputs), x, (of_layers, is_last))
        caches = []
        for number in range(count):
            of_layer = jax.tree.map(operator.itemgetter(number), of_layers)
            x, own = layer(x, of_layer, number == count - 1)
            caches.append(own)
        keys, values = (jnp.stack(arrays) for arrays in zip(*caches, strict=True))
        return x, (keys, values)

    def attention_options(
        self, longest: int, is_causal: bool = False, layer: int | None = None
    ) -> AttentionOptions:
        """Returns the static settings of attention.

        Args:
            longest: upper bound on the length of a sequence with its prefix, in tokens.
            is_causal: see `AttentionOptions`.
            layer: number of the layer; None: settings that hold for all layers.
        """
        architecture = self.architecture
        windows = architecture.windows if layer is None else architecture.windows[layer : layer + 1]
        return AttentionOptions(
            architecture.attention_scale or architecture.head_width**-0.5,
            architecture.attention_cap,
            windowed=any(0 < window < longest for window in windows),
            is_causal=is_causal,
        )

    @property
    def windows(self) -> tuple[int, ...]:
        """For each layer, the number of most recent tokens that a token attends to."""
        return tuple(window or self.architecture.positions for window in self.architecture.windows)

    def head(self, only: tuple[int, ...] | None = None) -> Float[Array, "width tokens"]:
        """Returns the matrix that maps hidden states to logits.

        Args:
            only: ids of the tokens whose logits are needed; None: all tokens.
        """
        columns: Any = slice(None) if only is None else jnp.asarray(only)
        if only == tuple(range(len(only or ()))):
            columns = slice(len(only))
        head = self.embedding[...].T if self.out is None else self.out.kernel[...]
        return head[:, columns].astype(self.dtype)

    def logits(
        self, x: Float[Array, "*b width"], head: Float[Array, "width tokens"] | None = None
    ) -> Float[Array, "*b tokens"]:
        """Computes next-token logits, in float32.

        Args:
            x: final hidden states.
            head: a matrix from `head`; None: that of all tokens.
        """
        logits = matmul(x, self.head() if head is None else head)
        return soft_cap(logits.astype(jnp.float32), self.architecture.logit_cap)

    def embed(
        self,
        tokens: Int[Array, "batch n length"],
        positions: Int[Array, "batch n length"],
        segments: Int[Array, "batch n length"] | None = None,
        preceding: Int[Array, "batch n some"] | None = None,
    ) -> Float[Array, "batch n length width"]:
        """Computes the input of the first layer.

        Args:
            tokens: token ids.
            positions: position ids; PADDING for padding.
            segments: segment ids; None: each sequence is one segment.
            preceding: ids of the reach - 1 tokens directly before these, PADDING where there are
                none; None: there are none at all.
        """
        x = self._embed_tokens(tokens)
        if self.nearby is not None:
            count = self.architecture.reach - 1
            if preceding is None:
                preceding = jnp.full((*tokens.shape[:2], count), PADDING)
            is_token = jnp.concatenate([preceding, positions], axis=-1) != PADDING
            in_front = self._embed_tokens(jnp.maximum(preceding, 0))
            longer = jnp.concatenate([in_front, x], axis=2)
            if segments is None:
                segments = jnp.zeros_like(tokens)
            longer = jnp.where(is_token[..., None], longer, jnp.zeros((), x.dtype))
            segments = jnp.pad(segments, [(0, 0), (0, 0), (count, 0)], mode="edge")
            x += self.nearby(longer, segments)
        if self.positions is None:
            return x
        return x + self.positions[...][jnp.maximum(positions, 0)].astype(self.dtype)

    def _embed_tokens(self, tokens: Int[Array, "*b"]) -> Float[Array, "*b width"]:
        x = self.embedding[...][tokens].astype(self.dtype)
        return x * jnp.asarray(self.architecture.embedding_scale, self.dtype)

    def frequencies(self) -> Float[Array, "layers half"] | None:
        """Returns the rotary frequencies of each layer, in radians per position; None: the model
        has learned position embeddings.
        """
        architecture = self.architecture
        if not architecture.rotary:
            return None
        return jnp.asarray(
            [rotary.frequencies(architecture.head_width) for rotary in architecture.rotary]
        )


def cast_kernels(dtype: DTypeLike, params: PyTree[Array]) -> PyTree[Array]:
    """Casts the kernels of linear maps to a dtype.

    Norms and biases are small, and embeddings are cast after they are looked up: those stay as they
    are.
    """

    def cast(path: tuple[Any, ...], leaf: Array) -> Array:
        names = jax.tree_util.keystr(path)
        is_kernel = any(f"'{name}'" in names for name in ("kernel", "low_in", "low_out"))
        return leaf.astype(dtype) if is_kernel else leaf

    return jax.tree_util.tree_map_with_path(cast, params)
