"""A decoder-only language model, one module with the switches that its families need.

Sequences may continue a past that many of them share: a context is read once, and every question
about it is a short sequence after it. Layers are stacked and scanned; what differs from layer to
layer (window, rotary frequencies) is scanned along as numbers. Vaswani et al. 2017
(arXiv:1706.03762); rotary positions: Su et al. 2021 (arXiv:2104.09864); keys shared by groups of
heads: Ainslie et al. 2023 (arXiv:2305.13245). Knows nothing of files: see `pretrained`.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import optimization_barrier as barrier
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from amplify.assistants.attention import (
    NOWHERE,
    OUTPUT,
    KeysAndValues,
    Part,
    Places,
    Queries,
    Rules,
    attend,
)
from amplify.assistants.lora import LoRA
from amplify.assistants.rotary import Rotary, rotate, rotations
from amplify.axes import STACKED, axes

MAX_UNROLLED = 8
"""Layers up to which they are unrolled, and not scanned."""


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
        y = _mapped(x, self.kernel[...].astype(x.dtype))
        if self.lora and self.low_in is not None and self.low_out is not None:
            low = x @ self.low_in[...].astype(x.dtype) @ self.low_out[...].astype(x.dtype)
            y += low * jnp.asarray(self.lora.scale, x.dtype)
        return y if self.bias is None else y + along_last(self.bias[...], y)


@jax.custom_vjp
def _mapped(x: Float[Array, "*b into"], kernel: Float[Array, "into out"]) -> Float[Array, "*b out"]:
    """`x @ kernel`. On the way back what arrives is computed once, as it lies: left to itself, the
    CPU's compiler computes it a second time, transposed, for the kernel's gradient.
    """
    return x @ kernel


def _mapped_back(kept: tuple[Array, Array], arrives: Array) -> tuple[Array, Array]:
    x, kernel = kept
    arrives = barrier(arrives)
    rows, columns = (part.reshape(-1, part.shape[-1]) for part in (x, arrives))
    return arrives @ kernel.T, jax.lax.dot_general(rows, columns, (((0,), (0,)), ((), ())))


_mapped.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _mapped_back)


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
        logits = _mapped(x, self.head() if head is None else head)
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


def along_last(vector: Float[Array, " n"], x: Float[Array, "*b n"]) -> Float[Array, "*ones n"]:
    """The vector in the dtype of x, shaped to be combined with its last axis."""
    return vector.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def capped(scores: Float[Array, "*b"], cap: float | None) -> Float[Array, "*b"]:
    return scores if cap is None else cap * jnp.tanh(scores / cap)
