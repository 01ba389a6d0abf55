"""The layers of a decoder-only transformer, with the options that its families need.

Vaswani et al. 2017 (arXiv:1706.03762); grouped-query attention: Ainslie et al. 2023
(arXiv:2305.13245). `causal_lm` stacks the layers.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import optimization_barrier as barrier
from jaxtyping import Array, Float, Int

from amplify.models.attention.attention import attend
from amplify.models.attention.attention_parts import (
    AttentionOptions,
    KeysAndValues,
    KVBlock,
    Queries,
)
from amplify.models.attention.rotary import Rotary, rotate
from amplify.models.axes import axes
from amplify.models.decoder.lora import LoRA


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Everything that a model's shapes and arithmetic depend on."""

    vocabulary: int
    positions: int  # length of the longest sequence
    width: int
    heads: int
    key_heads: int  # each is shared by heads / key_heads query heads
    head_width: int
    hidden: int  # width of the MLP
    windows: tuple[int, ...]  # for each layer, the length of its sliding window; 0: none
    rotary: tuple[Rotary, ...] = ()  # for each layer; empty: learned position embeddings
    norm: Literal["rms", "layer"] = "rms"
    norm_offset: float = 0.0  # added to a norm's scale
    norm_epsilon: float = 1e-6
    norms_heads: bool = False  # whether queries and keys are normalised, each head on its own
    norms_outputs: bool = False  # whether the outputs of attention and MLP are normalised too
    activation: Literal["silu", "gelu"] = "silu"
    gated: bool = True  # whether the MLP is gated
    biased: frozenset[str] = frozenset()  # maps with a bias: "query_key_value", "out", "mlp"
    attention_scale: float | None = None  # None: 1 / sqrt(head_width)
    attention_cap: float | None = None  # soft cap of attention scores
    logit_cap: float | None = None  # soft cap of logits
    embedding_scale: float = 1.0
    reach: int = 1  # tokens that the convolution over embeddings spans; 1: there is none
    tied: bool = True  # whether the output layer is the transposed embedding
    lora: LoRA | None = None  # adapters of every linear map inside a layer

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.windows)

    @property
    def out_scale(self) -> float:
        """Factor on the initial weights of a layer's output maps, which keeps the sum over all
        layers as large as the embedding (Radford et al. 2019, section 2.3).
        """
        return (2 * self.layers) ** -0.5


Rotation = tuple[Float[Array, "..."], Float[Array, "..."]]
"""Cosines and sines by which queries and keys are rotated."""


class Norm(nnx.Module):
    """RMSNorm or LayerNorm, computed in float32."""

    def __init__(self, architecture: Architecture, width: int) -> None:
        self.kind, self.offset, self.epsilon = (
            architecture.norm,
            architecture.norm_offset,
            architecture.norm_epsilon,
        )
        metadata = axes("norm")
        self.scale = nnx.Param(jnp.full((width,), 1 - architecture.norm_offset), **metadata)
        self.bias = (
            nnx.Param(jnp.zeros((width,)), **metadata) if architecture.norm == "layer" else None
        )

    def __call__(self, x: Float[Array, "*b width"]) -> Float[Array, "*b width"]:
        wide = x.astype(jnp.float32)
        if self.bias is not None:
            wide -= jnp.mean(wide, -1, keepdims=True)
        wide *= jax.lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + self.epsilon)
        wide *= broadcast_last(self.scale[...] + self.offset, wide)
        if self.bias is not None:
            wide += broadcast_last(self.bias[...], wide)
        return wide.astype(x.dtype)


class Linear(nnx.Module):
    """`x @ kernel + bias`, computed in the dtype of x, whatever the dtype of the parameters.

    With LoRA, `x @ low_in @ low_out` is added, scaled.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        names: tuple[str, str],
        rngs: nnx.Rngs,
        *,
        biased: bool = False,
        scale: float = 1.0,
        lora: LoRA | None = None,
    ) -> None:
        self.lora = lora
        in_axis, out_axis = names
        kernel = _init_kernel(rngs, in_features, out_features) * scale
        self.kernel = nnx.Param(kernel, **axes(in_axis, out_axis))
        self.bias = nnx.Param(jnp.zeros((out_features,)), **axes(out_axis)) if biased else None
        # low_out is 0: at first the adapter adds nothing.
        low_in, low_out = axes(in_axis, "rank"), axes("rank", out_axis)
        self.low_in = (
            nnx.LoRAParam(_init_kernel(rngs, in_features, lora.rank), **low_in) if lora else None
        )
        self.low_out = (
            nnx.LoRAParam(jnp.zeros((lora.rank, out_features)), **low_out) if lora else None
        )

    def __call__(self, x: Float[Array, "*b in_features"]) -> Float[Array, "*b out_features"]:
        y = matmul(x, self.kernel[...].astype(x.dtype))
        if self.lora and self.low_in is not None and self.low_out is not None:
            low = x @ self.low_in[...].astype(x.dtype) @ self.low_out[...].astype(x.dtype)
            y += low * jnp.asarray(self.lora.scale, x.dtype)
        return y if self.bias is None else y + broadcast_last(self.bias[...], y)


@jax.custom_vjp
def matmul(
    x: Float[Array, "*b in_features"], kernel: Float[Array, "in_features out_features"]
) -> Float[Array, "*b out_features"]:
    """`x @ kernel`, whose backward pass computes the incoming gradient once.

    Left to itself, the CPU's compiler computes that gradient a second time, transposed, for the
    gradient of the kernel.
    """
    return x @ kernel


def _matmul_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    gradient = barrier(gradient)
    rows, columns = (array.reshape(-1, array.shape[-1]) for array in (x, gradient))
    return gradient @ kernel.T, jax.lax.dot_general(rows, columns, (((0,), (0,)), ((), ())))


matmul.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _matmul_backward)


def _init_kernel(
    rngs: nnx.Rngs, in_features: int, out_features: int
) -> Float[Array, "in_features out_features"]:
    return jax.random.normal(rngs.params(), (in_features, out_features)) * in_features**-0.5


class Attention(nnx.Module):
    """The projections of grouped-query attention."""

    def __init__(self, architecture: Architecture, rngs: nnx.Rngs) -> None:
        self.architecture = architecture
        inner, shared = (
            architecture.heads * architecture.head_width,
            architecture.key_heads * architecture.head_width,
        )
        biased = "query_key_value" in architecture.biased
        options: dict[str, Any] = {"biased": biased, "lora": architecture.lora}
        self.query = Linear(architecture.width, inner, ("embed", "heads"), rngs, **options)
        self.key = Linear(architecture.width, shared, ("embed", "key_heads"), rngs, **options)
        self.value = Linear(architecture.width, shared, ("embed", "key_heads"), rngs, **options)
        options["biased"] = "out" in architecture.biased
        self.out = Linear(
            inner,
            architecture.width,
            ("heads", "embed"),
            rngs,
            scale=architecture.out_scale,
            **options,
        )
        self.query_norm = (
            Norm(architecture, architecture.head_width) if architecture.norms_heads else None
        )
        self.key_norm = (
            Norm(architecture, architecture.head_width) if architecture.norms_heads else None
        )

    def project(
        self, x: Float[Array, "batch n length width"], rotation: Rotation | None
    ) -> tuple[Queries, KeysAndValues]:
        """Computes queries, keys and values of tokens.

        Args:
            x: the normalised hidden states.
            rotation: the rotary embedding of the tokens' positions; None: there is none.
        """
        return self.split_heads(self.query(x), self.key(x), self.value(x), rotation)

    def split_heads(
        self,
        query: Float[Array, "batch n length inner"],
        key: Float[Array, "batch n length shared"],
        value: Float[Array, "batch n length shared"],
        rotation: Rotation | None,
    ) -> tuple[Queries, KeysAndValues]:
        """Splits projections into heads, then normalises and rotates them.

        The axis of heads comes first, as attention reads it.
        """
        head_width = self.architecture.head_width
        query, key, value = (
            array.reshape(*array.shape[:-1], -1, head_width) for array in (query, key, value)
        )
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        query = query.reshape(*query.shape[:3], self.architecture.key_heads, -1, head_width)
        key, value = (jnp.moveaxis(array, 3, 1) for array in (key, value))
        return jnp.moveaxis(query, 3, 1), (key, value)


class MLP(nnx.Module):
    """The feed-forward part of a layer, gated or not."""

    def __init__(self, architecture: Architecture, rngs: nnx.Rngs) -> None:
        self.activation = jax.nn.silu if architecture.activation == "silu" else jax.nn.gelu
        options: dict[str, Any] = {
            "biased": "mlp" in architecture.biased,
            "lora": architecture.lora,
        }
        names = ("embed", "mlp")
        self.gate = (
            Linear(architecture.width, architecture.hidden, names, rngs, **options)
            if architecture.gated
            else None
        )
        self.up = Linear(architecture.width, architecture.hidden, names, rngs, **options)
        self.down = Linear(
            architecture.hidden,
            architecture.width,
            names[::-1],
            rngs,
            scale=architecture.out_scale,
            **options,
        )

    def __call__(self, x: Float[Array, "*b width"]) -> Float[Array, "*b width"]:
        return self.from_hidden(*(one(x) for one in (self.gate, self.up) if one is not None))

    def from_hidden(self, *hidden: Float[Array, "*b hidden"]) -> Float[Array, "*b width"]:
        """Computes the output from those of the gate, if there is one, and the up projection."""
        if self.gate is None:
            return self.down(self.activation(*hidden))
        gate, up = hidden
        return self.down(self.activation(gate) * up)


class Layer(nnx.Module):
    """A pre-norm decoder layer: attention, then the MLP, each added to the residual stream."""

    def __init__(self, architecture: Architecture, rngs: nnx.Rngs) -> None:
        self.attention_norm, self.mlp_norm = (
            Norm(architecture, architecture.width),
            Norm(architecture, architecture.width),
        )
        self.attention, self.mlp = Attention(architecture, rngs), MLP(architecture, rngs)
        norms_outputs = architecture.norms_outputs
        self.attention_out_norm = Norm(architecture, architecture.width) if norms_outputs else None
        self.mlp_out_norm = Norm(architecture, architecture.width) if norms_outputs else None

    def project(
        self, x: Float[Array, "batch n length width"], rotation: Rotation | None
    ) -> tuple[Queries, KeysAndValues]:
        """Computes queries, keys and values of tokens from the residual stream."""
        return self.attention.project(self.attention_norm(x), rotation)

    def update_last(
        self,
        x: Float[Array, "batch n length width"],
        query: Queries,
        own: KVBlock,
        prefix: KVBlock | None,
        window: Int[Array, ""] | int,
        options: AttentionOptions,
        count: int,
    ) -> Float[Array, "batch n length width"]:
        """Updates the residual stream of the last `count` tokens; the others' is unchanged.

        Args:
            x: the residual stream.
            query: queries of all tokens.
            own, prefix, window, options: as in `attention.attend`.
            count: 0 to length.
        """
        if count == 0:
            return x
        last = slice(x.shape[2] - count, None)
        positions = own.positions.take(last)
        attended = attend(options, query[:, :, :, last], positions, own, prefix, window)
        return x.at[:, :, last].set(self.add_outputs(x[:, :, last], attended))

    def add_outputs(
        self,
        x: Float[Array, "batch n length width"],
        attended: Queries,
        mlp_hidden: Callable[[Any], list[Array]] | None = None,
    ) -> Float[Array, "batch n length width"]:
        """Adds the outputs of attention and MLP to the residual stream.

        Args:
            x: the residual stream.
            attended: the output of each attention head.
            mlp_hidden: computes the outputs of the MLP's gate and up projection; None: its own
                maps do.
        """
        y = self.attention.out(merge_heads(attended))
        x += y if self.attention_out_norm is None else self.attention_out_norm(y)
        y = self.mlp_norm(x)
        y = self.mlp(y) if mlp_hidden is None else self.mlp.from_hidden(*mlp_hidden(y))
        return x + (y if self.mlp_out_norm is None else self.mlp_out_norm(y))


def merge_heads(attended: Queries) -> Float[Array, "batch n length inner"]:
    """Concatenates the outputs of all heads."""
    batch, _, n, length = attended.shape[:4]
    return jnp.moveaxis(attended, 1, 3).reshape(batch, n, length, -1)


class EmbeddingConvolution(nnx.Module):
    """A causal convolution over embeddings, so that adjacent tokens, such as those of a name, are
    combined before the first layer (Canon layers; Allen-Zhu 2025, arXiv:2512.17351).
    """

    def __init__(self, architecture: Architecture, rngs: nnx.Rngs) -> None:
        # Small enough that the preceding tokens together do not drown out the token itself.
        shape = (architecture.reach - 1, architecture.width, architecture.width)
        kernel = 0.35 * jax.random.normal(rngs.params(), shape) * architecture.width**-0.5
        self.kernel = nnx.Param(kernel, **axes(None, "embed", "nearby"))

    def __call__(
        self, x: Float[Array, "batch n longer width"], segments: Int[Array, "batch n longer"]
    ) -> Float[Array, "batch n length width"]:
        """Sums contributions of the preceding tokens of the same segment.

        Args:
            x: embeddings, preceded by those of reach - 1 tokens, which are zeros where there are no
                such tokens; longer = reach - 1 + length.
            segments: segment id of each.

        Returns:
            What is to be added to the embedding of each token.
        """
        kernel = self.kernel[...].astype(x.dtype)
        before = len(kernel)
        length = x.shape[2] - before
        shifted = []
        for distance in range(1, before + 1):
            tokens = slice(before - distance, before - distance + length)
            same = segments[:, :, tokens] == segments[:, :, before:]
            shifted.append(jnp.where(same[..., None], x[:, :, tokens], jnp.zeros((), x.dtype)))
        return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def broadcast_last(vector: Float[Array, " n"], x: Float[Array, "*b n"]) -> Float[Array, "*ones n"]:
    """Casts a vector to the dtype of x and reshapes it to broadcast along the last axis of x."""
    return vector.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def soft_cap(scores: Float[Array, "*b"], cap: float | None) -> Float[Array, "*b"]:
    """`cap * tanh(scores / cap)`, as in Gemma 2 (arXiv:2408.00118, section 2); None: no cap."""
    return scores if cap is None else cap * jnp.tanh(scores / cap)
