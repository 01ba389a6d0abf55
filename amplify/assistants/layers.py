"""The layers of a decoder, with the switches that its families need.

Vaswani et al. 2017 (arXiv:1706.03762); keys shared by groups of heads: Ainslie et al. 2023
(arXiv:2305.13245). `causal_lm` stacks them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import optimization_barrier as barrier
from jaxtyping import Array, Float, Int

from amplify.assistants.attention import attend
from amplify.assistants.attention_parts import KeysAndValues, Part, Queries, Rules
from amplify.assistants.lora import LoRA
from amplify.assistants.rotary import Rotary, rotate
from amplify.axes import axes


@dataclasses.dataclass(frozen=True)
class Architecture:
    """All that a model's shapes and arithmetic depend on."""

    vocabulary: int
    positions: int  # of the longest sequence
    width: int
    heads: int
    key_heads: int  # each serves heads / key_heads heads
    head_width: int
    hidden: int  # width of the MLP
    windows: tuple[int, ...]  # by layer: how many tokens back a token sees; 0: all
    rotary: tuple[Rotary, ...] = ()  # by layer; none: learned positions
    norm: Literal["rms", "layer"] = "rms"
    norm_offset: float = 0.0  # what is added to a norm's scale
    norm_epsilon: float = 1e-6
    norms_heads: bool = False  # queries and keys are normalised, head by head
    norms_outputs: bool = False  # what attention and MLP give is normalised too
    activation: Literal["silu", "gelu"] = "silu"
    gated: bool = True  # the MLP
    biased: frozenset[str] = frozenset()  # of the linear maps: "query_key_value", "out", "mlp"
    attention_scale: float | None = None  # None: 1 / sqrt(head_width)
    attention_cap: float | None = None  # scores are squeezed into -cap..cap
    logit_cap: float | None = None
    embedding_scale: float = 1.0
    reach: int = 1  # tokens that are embedded together: each, and those right before it
    tied: bool = True  # the output is the embedding, transposed
    lora: LoRA | None = None  # beside every linear map inside a layer

    @property
    def layers(self) -> int:
        return len(self.windows)

    @property
    def out_scale(self) -> float:
        """What a layer adds is drawn smaller, so that all layers together add no more than what
        they are added to (Radford et al. 2019, section 2.3).
        """
        return (2 * self.layers) ** -0.5


Rotation = tuple[Float[Array, "..."], Float[Array, "..."]]
"""Cosines and sines by which queries and keys are turned."""


class Norm(nnx.Module):
    def __init__(self, of: Architecture, width: int) -> None:
        self.kind, self.offset, self.epsilon = of.norm, of.norm_offset, of.norm_epsilon
        along = axes("norm")
        self.scale = nnx.Param(jnp.full((width,), 1 - of.norm_offset), **along)
        self.bias = nnx.Param(jnp.zeros((width,)), **along) if of.norm == "layer" else None

    def __call__(self, x: Float[Array, "*b width"]) -> Float[Array, "*b width"]:
        wide = x.astype(jnp.float32)
        if self.bias is not None:
            wide -= jnp.mean(wide, -1, keepdims=True)
        wide *= jax.lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + self.epsilon)
        wide *= along_last(self.scale[...] + self.offset, wide)
        if self.bias is not None:
            wide += along_last(self.bias[...], wide)
        return wide.astype(x.dtype)


class Linear(nnx.Module):
    """`x @ kernel + bias`, computed in the dtype of x, whatever the parameters are kept in."""

    def __init__(
        self,
        into: int,
        out: int,
        names: tuple[str, str],
        rngs: nnx.Rngs,
        *,
        biased: bool = False,
        scale: float = 1.0,
        lora: LoRA | None = None,
    ) -> None:
        self.lora = lora
        from_, to = names  # of the kernel's axes
        self.kernel = nnx.Param(_drawn(rngs, into, out) * scale, **axes(from_, to))
        self.bias = nnx.Param(jnp.zeros((out,)), **axes(to)) if biased else None
        # At first the low map gives nothing: its second half is zero.
        into_low, from_low = axes(from_, "rank"), axes("rank", to)
        self.low_in = nnx.LoRAParam(_drawn(rngs, into, lora.rank), **into_low) if lora else None
        self.low_out = nnx.LoRAParam(jnp.zeros((lora.rank, out)), **from_low) if lora else None

    def __call__(self, x: Float[Array, "*b into"]) -> Float[Array, "*b out"]:
        y = mapped(x, self.kernel[...].astype(x.dtype))
        if self.lora and self.low_in is not None and self.low_out is not None:
            low = x @ self.low_in[...].astype(x.dtype) @ self.low_out[...].astype(x.dtype)
            y += low * jnp.asarray(self.lora.scale, x.dtype)
        return y if self.bias is None else y + along_last(self.bias[...], y)


@jax.custom_vjp
def mapped(x: Float[Array, "*b into"], kernel: Float[Array, "into out"]) -> Float[Array, "*b out"]:
    """`x @ kernel`. On the way back what arrives is computed once, as it lies: left to itself, the
    CPU's compiler computes it a second time, transposed, for the kernel's gradient.
    """
    return x @ kernel


def _mapped_back(kept: tuple[Array, Array], arrives: Array) -> tuple[Array, Array]:
    x, kernel = kept
    arrives = barrier(arrives)
    rows, columns = (part.reshape(-1, part.shape[-1]) for part in (x, arrives))
    return arrives @ kernel.T, jax.lax.dot_general(rows, columns, (((0,), (0,)), ((), ())))


mapped.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _mapped_back)


def _drawn(rngs: nnx.Rngs, into: int, out: int) -> Float[Array, "into out"]:
    return jax.random.normal(rngs.params(), (into, out)) * into**-0.5


class Attention(nnx.Module):
    def __init__(self, of: Architecture, rngs: nnx.Rngs) -> None:
        self.of = of
        inner, shared = of.heads * of.head_width, of.key_heads * of.head_width
        biased = "query_key_value" in of.biased
        how: dict[str, Any] = {"biased": biased, "lora": of.lora}
        self.query = Linear(of.width, inner, ("embed", "heads"), rngs, **how)
        self.key = Linear(of.width, shared, ("embed", "key_heads"), rngs, **how)
        self.value = Linear(of.width, shared, ("embed", "key_heads"), rngs, **how)
        how["biased"] = "out" in of.biased
        self.out = Linear(inner, of.width, ("heads", "embed"), rngs, scale=of.out_scale, **how)
        self.query_norm = Norm(of, of.head_width) if of.norms_heads else None
        self.key_norm = Norm(of, of.head_width) if of.norms_heads else None

    def read(
        self, x: Float[Array, "batch n length width"], rotation: Rotation | None
    ) -> tuple[Queries, KeysAndValues]:
        """Queries, and the keys and values of the same tokens."""
        return self.heads(self.query(x), self.key(x), self.value(x), rotation)

    def heads(
        self,
        query: Float[Array, "batch n length inner"],
        key: Float[Array, "batch n length shared"],
        value: Float[Array, "batch n length shared"],
        rotation: Rotation | None,
    ) -> tuple[Queries, KeysAndValues]:
        """Projections, split into heads, normalised and turned. Heads come first: what is
        multiplied later lies in memory as it is read.
        """
        query, key, value = (
            part.reshape(*part.shape[:-1], -1, self.of.head_width) for part in (query, key, value)
        )
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        query = query.reshape(*query.shape[:3], self.of.key_heads, -1, self.of.head_width)
        key, value = (jnp.moveaxis(part, 3, 1) for part in (key, value))
        return jnp.moveaxis(query, 3, 1), (key, value)


class MLP(nnx.Module):
    def __init__(self, of: Architecture, rngs: nnx.Rngs) -> None:
        self.activation = jax.nn.silu if of.activation == "silu" else jax.nn.gelu
        how: dict[str, Any] = {"biased": "mlp" in of.biased, "lora": of.lora}
        into = ("embed", "mlp")
        self.gate = Linear(of.width, of.hidden, into, rngs, **how) if of.gated else None
        self.up = Linear(of.width, of.hidden, into, rngs, **how)
        self.down = Linear(of.hidden, of.width, into[::-1], rngs, scale=of.out_scale, **how)

    def __call__(self, x: Float[Array, "*b width"]) -> Float[Array, "*b width"]:
        return self.from_hidden(*(one(x) for one in (self.gate, self.up) if one is not None))

    def from_hidden(self, *hidden: Float[Array, "*b hidden"]) -> Float[Array, "*b width"]:
        """Given what the gate, if there is one, and the map up have made of x."""
        if self.gate is None:
            return self.down(self.activation(*hidden))
        gate, up = hidden
        return self.down(self.activation(gate) * up)


class Layer(nnx.Module):
    def __init__(self, of: Architecture, rngs: nnx.Rngs) -> None:
        self.attention_norm, self.mlp_norm = Norm(of, of.width), Norm(of, of.width)
        self.attention, self.mlp = Attention(of, rngs), MLP(of, rngs)
        after = of.norms_outputs
        self.attention_out_norm = Norm(of, of.width) if after else None
        self.mlp_out_norm = Norm(of, of.width) if after else None

    def read(
        self, x: Float[Array, "batch n length width"], rotation: Rotation | None
    ) -> tuple[Queries, KeysAndValues]:
        """Queries of tokens, and their keys and values."""
        return self.attention.read(self.attention_norm(x), rotation)

    def follow(
        self,
        x: Float[Array, "batch n length width"],
        query: Queries,
        own: Part,
        past: Part | None,
        window: Int[Array, ""] | int,
        rules: Rules,
        wanted: int,
    ) -> Float[Array, "batch n length width"]:
        """The next x of so many last tokens; that of the others stays as it is."""
        if wanted == 0:
            return x
        last = slice(x.shape[2] - wanted, None)
        places = own.places.of(last)
        mixed = attend(rules, query[:, :, :, last], places, own, past, window)
        return x.at[:, :, last].set(self.after(x[:, :, last], mixed))

    def after(
        self,
        x: Float[Array, "batch n length width"],
        mixed: Queries,
        hidden: Callable[[Any], list[Array]] | None = None,
    ) -> Float[Array, "batch n length width"]:
        """The next x, given what the tokens' heads have gathered.

        Args:
            hidden: computes the MLP's hidden values, of gate and map up; None: those do.
        """
        y = self.attention.out(joined(mixed))
        x += y if self.attention_out_norm is None else self.attention_out_norm(y)
        y = self.mlp_norm(x)
        y = self.mlp(y) if hidden is None else self.mlp.from_hidden(*hidden(y))
        return x + (y if self.mlp_out_norm is None else self.mlp_out_norm(y))


def joined(mixed: Queries) -> Float[Array, "batch n length inner"]:
    """Heads side by side again."""
    batch, _, n, length = mixed.shape[:4]
    return jnp.moveaxis(mixed, 1, 3).reshape(batch, n, length, -1)


class Nearby(nnx.Module):
    """A causal convolution over embeddings: what stands together, such as a name, is one from the
    first layer on (Allen-Zhu 2025, arXiv:2512.17351).
    """

    def __init__(self, of: Architecture, rngs: nnx.Rngs) -> None:
        # Drawn so that tokens before, all together, do not drown the token itself.
        shape = (of.reach - 1, of.width, of.width)
        drawn = 0.35 * jax.random.normal(rngs.params(), shape) * of.width**-0.5
        self.kernel = nnx.Param(drawn, **axes(None, "embed", "nearby"))

    def __call__(
        self, x: Float[Array, "batch n longer width"], segments: Int[Array, "batch n longer"]
    ) -> Float[Array, "batch n length width"]:
        """What the tokens before bring to each, of its own segment alone.

        Args:
            x: embeddings, with those of reach - 1 tokens in front, zeros where there are none.
            segments: of each.
        """
        kernel = self.kernel[...].astype(x.dtype)
        reach = len(kernel)
        length = x.shape[2] - reach
        nearby = []
        for distance in range(1, reach + 1):
            there = slice(reach - distance, reach - distance + length)
            same = segments[:, :, there] == segments[:, :, reach:]
            nearby.append(jnp.where(same[..., None], x[:, :, there], jnp.zeros((), x.dtype)))
        return jnp.concatenate(nearby, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def along_last(vector: Float[Array, " n"], x: Float[Array, "*b n"]) -> Float[Array, "*ones n"]:
    """The vector in the dtype of x, shaped to be combined with its last axis."""
    return vector.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def capped(scores: Float[Array, "*b"], cap: float | None) -> Float[Array, "*b"]:
    return scores if cap is None else cap * jnp.tanh(scores / cap)
