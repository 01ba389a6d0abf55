"""A decoder-only language model, one module with the switches that its families need.

Sequences may continue a past that many of them share: a context is read once, and every question
about it is a short sequence after it. Layers are stacked and scanned; what differs from layer to
layer (window, rotary frequencies) is scanned along as numbers. Vaswani et al. 2017
(arXiv:1706.03762); rotary positions: Su et al. 2021 (arXiv:2104.09864); keys shared by groups of
heads: Ainslie et al. 2023 (arXiv:2305.13245). Knows nothing of files: see `pretrained`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import optimization_barrier as barrier
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from amplify.assistants.rotary import Rotary, rotate, rotations
from amplify.axes import STACKED, axes

NOWHERE = -1
"""Position of what is only there to fill up a shape."""


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
    lora: "LoRA | None" = None  # beside every linear map inside a layer

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
    positions: Int[Array, "batch length"]  # NOWHERE: padding


class Scratch(NamedTuple):
    """Room for the keys and values of sequences, which only they themselves see."""

    keys: Float[Array, "layers batch key_heads n room head_width"]
    values: Float[Array, "layers batch key_heads n room head_width"]
    positions: Int[Array, "batch n room"]  # NOWHERE: still empty, or padding

    def with_room(self, more: int) -> "Scratch":
        """For so many more tokens a sequence."""
        room = [(0, 0)] * 4 + [(0, more), (0, 0)]
        keys, values = (jnp.pad(part, room) for part in (self.keys, self.values))
        positions = jnp.pad(self.positions, room[2:5], constant_values=NOWHERE)
        return Scratch(keys, values, positions)

    def as_past(self) -> Past:
        """Of the first sequence of each batch, for others to go on from."""
        return Past(self.keys[:, :, :, 0], self.values[:, :, :, 0], self.positions[:, 0])


class Sight(NamedTuple):
    """Which token sees which."""

    own: Bool[Array, "batch n length own"]
    past: Bool[Array, "batch n length before"] | None


Rotation = tuple[Float[Array, "..."], Float[Array, "..."]]
"""Cosines and sines by which queries and keys are turned."""
KeysAndValues = tuple[Float[Array, "..."], Float[Array, "..."]]
"""Of one layer."""


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


class LoRA(NamedTuple):
    """A map of low rank beside a linear one, trained in its stead. Hu et al. 2021
    (arXiv:2106.09685).
    """

    rank: int
    alpha: float  # what it gives counts alpha / rank


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
            y += low * jnp.asarray(self.lora.alpha / self.lora.rank, x.dtype)
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
    ) -> tuple[Float[Array, "batch key_heads n length group head_width"], KeysAndValues]:
        """Queries, and the keys and values of the same tokens. Heads come first: what is multiplied
        later lies in memory as it is read.
        """
        query, key, value = (
            part.reshape(*x.shape[:-1], -1, self.of.head_width)
            for part in (self.query(x), self.key(x), self.value(x))
        )
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        query = query.reshape(*x.shape[:-1], self.of.key_heads, -1, self.of.head_width)
        key, value = (jnp.moveaxis(part, 3, 1) for part in (key, value))
        return jnp.moveaxis(query, 3, 1), (key, value)

    def __call__(
        self,
        query: Float[Array, "batch key_heads n length group head_width"],
        own: KeysAndValues,
        past: KeysAndValues | None,
        sees: Sight,
    ) -> Float[Array, "batch n length width"]:
        """To the tokens of the sequence itself, and to a past that all n of a batch share.

        The softmax runs over both without putting them side by side: both are weighed against the
        same largest score, and the sum is divided by at the end.
        """
        batch, _, n, length = query.shape[:4]
        scores = [self._scores(query, own[0], sees.own)]
        values = [own[1]]
        if past is not None and sees.past is not None:
            scores.append(self._scores(query, past[0], sees.past))
            values.append(past[1])
        top = functools.reduce(
            jnp.maximum, (jnp.max(part, axis=-1, keepdims=True) for part in scores)
        )
        weights = [jnp.exp(part - jax.lax.stop_gradient(top)) for part in scores]
        total = sum(jnp.sum(part, axis=-1, keepdims=True) for part in weights)
        mixed = sum(
            _times(part.astype(query.dtype), value)
            for part, value in zip(weights, values, strict=True)
        )
        mixed = mixed / jnp.asarray(total, query.dtype)
        return self.out(jnp.moveaxis(mixed, 1, 3).reshape(batch, n, length, -1))

    def _scores(
        self,
        query: Float[Array, "batch key_heads n length group head_width"],
        keys: Float[Array, "batch key_heads *n seen head_width"],
        sees: Bool[Array, "batch n length seen"],
    ) -> Float[Array, "batch key_heads n length group seen"]:
        """In float32; far below all others where nothing may be seen."""
        scale = self.of.attention_scale or self.of.head_width**-0.5
        scores = _times(query, jnp.swapaxes(keys, -1, -2)).astype(jnp.float32) * scale
        return jnp.where(sees[:, None, :, :, None], capped(scores, self.of.attention_cap), -1e30)


def _times(
    left: Float[Array, "batch key_heads n length group inner"],
    right: Float[Array, "batch key_heads *n inner outer"],
) -> Float[Array, "batch key_heads n length group outer"]:
    """One product for each sequence; where all n share the right side, one for all: this is what
    makes many questions about one context cheap.
    """
    shape = (*right.shape[:-2], -1, left.shape[-1])
    return (left.reshape(shape) @ right).reshape(*left.shape[:-1], right.shape[-1])


class MLP(nnx.Module):
    def __init__(self, of: Architecture, rngs: nnx.Rngs) -> None:
        self.activation = jax.nn.silu if of.activation == "silu" else jax.nn.gelu
        how: dict[str, Any] = {"biased": "mlp" in of.biased, "lora": of.lora}
        into = ("embed", "mlp")
        self.gate = Linear(of.width, of.hidden, into, rngs, **how) if of.gated else None
        self.up = Linear(of.width, of.hidden, into, rngs, **how)
        self.down = Linear(of.hidden, of.width, into[::-1], rngs, scale=of.out_scale, **how)

    def __call__(self, x: Float[Array, "*b width"]) -> Float[Array, "*b width"]:
        up = self.up(x)
        hidden = self.activation(up) if self.gate is None else self.activation(self.gate(x)) * up
        return self.down(hidden)


class Layer(nnx.Module):
    def __init__(self, of: Architecture, rngs: nnx.Rngs) -> None:
        self.attention_norm, self.mlp_norm = Norm(of, of.width), Norm(of, of.width)
        self.attention, self.mlp = Attention(of, rngs), MLP(of, rngs)
        after = of.norms_outputs
        self.attention_out_norm = Norm(of, of.width) if after else None
        self.mlp_out_norm = Norm(of, of.width) if after else None

    def __call__(
        self,
        x: Float[Array, "batch n length width"],
        rotation: Rotation | None,
        past: KeysAndValues | None,
        scratch: KeysAndValues | None,
        slot: Int[Array, ""] | int,
        sees: Sight,
        is_last: Bool[Array, ""],
        wanted: int,
    ) -> tuple[Float[Array, "batch n length width"], KeysAndValues]:
        """The next x, by the last layer that of so many last tokens alone; and the tokens' keys and
        values, in their place in the scratch, if any.
        """
        query, own = self.attention.read(self.attention_norm(x), rotation)
        if scratch is not None:
            key, value = (
                jax.lax.dynamic_update_slice_in_dim(room, new.astype(room.dtype), slot, axis=3)
                for room, new in zip(scratch, own, strict=True)
            )
            own = key, value

        def from_token(first: int) -> Callable[[Float[Array, "..."]], Float[Array, "..."]]:
            def following(x: Float[Array, "batch n length width"]) -> Float[Array, "..."]:
                seen = Sight(*jax.tree.map(lambda part: part[:, :, first:], sees))
                y = self.attention(query[:, :, :, first:], own, past, seen)
                z = x[:, :, first:]
                z += y if self.attention_out_norm is None else self.attention_out_norm(y)
                y = self.mlp(self.mlp_norm(z))
                z += y if self.mlp_out_norm is None else self.mlp_out_norm(y)
                return x.at[:, :, first:].set(z)

            return following

        if wanted >= x.shape[2]:
            return from_token(0)(x), own
        fewer = from_token(x.shape[2] - wanted) if wanted else lambda x: x
        return jax.lax.cond(is_last, fewer, from_token(0), x), own


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
        before: Int[Array, "batch n some"] | None = None,
        past: Past | None = None,
        scratch: Scratch | None = None,
        slot: Int[Array, ""] | int = 0,
        wanted: int | None = None,
    ) -> tuple[Float[Array, "batch n length width"], Scratch]:
        """What the model makes of each token, before it is turned into logits.

        Args:
            tokens: n sequences that continue the same past, if there is one.
            positions: of the tokens, counted from the beginning of the past; NOWHERE for padding.
            segments: tokens see their own segment alone; None: all are of one.
            before: tokens that stand right in front of these, NOWHERE for none; None: none do.
            past: what all n sequences of a batch see in front of them.
            scratch: what the sequences themselves read before; None: nothing.
            slot: from where on the tokens are written into the scratch.
            wanted: outputs of so many last tokens are wanted, and the last layer need not go on
                with the others; None: all are.

        Returns:
            The outputs (of tokens not wanted: anything), and the scratch with the tokens in it
            (theirs alone if there was none).
        """
        own = positions
        if scratch is not None:
            own = jax.lax.dynamic_update_slice_in_dim(scratch.positions, positions, slot, axis=2)
        own_ages = ages_of(positions, own)
        if segments is not None:
            same = segments[..., None] == segments[..., None, :]
            own_ages = jnp.where(same, own_ages, UNSEEN)
        ages = own_ages, past and ages_of(positions, past.positions[:, None])
        graph, stacked = nnx.split(self.layers)
        wanted = tokens.shape[2] if wanted is None else wanted

        def layer(x: Array, of_layer: Any) -> tuple[Array, KeysAndValues]:
            state, window, frequencies, past, scratch, is_last = of_layer
            # The barrier has each cosine computed once, and not again for every head.
            rotation = None if frequencies is None else barrier(rotations(positions, frequencies))
            sees = Sight(*jax.tree.map(lambda age: (age >= 0) & (age < window), ages))
            of_layer = nnx.merge(graph, state)
            return of_layer(x, rotation, past, scratch, slot, sees, is_last, wanted)

        if self.rematerialises:
            layer = jax.checkpoint(layer)
        of_layers = (
            stacked,
            jnp.asarray([window or self.of.positions for window in self.of.windows]),
            self._frequencies(),
            past and (past.keys, past.values),
            scratch and (scratch.keys, scratch.values),
            jnp.arange(self.of.layers) == self.of.layers - 1,
        )
        x, (keys, values) = jax.lax.scan(
            layer, self._embed(tokens, positions, segments, before), of_layers
        )
        return self.out_norm(x), Scratch(keys, values, own)

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

    def _embed(
        self,
        tokens: Int[Array, "batch n length"],
        positions: Int[Array, "batch n length"],
        segments: Int[Array, "batch n length"] | None,
        before: Int[Array, "batch n some"] | None,
    ) -> Float[Array, "batch n length width"]:
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

    def _frequencies(self) -> Float[Array, "layers half"] | None:
        if not self.of.rotary:
            return None
        return jnp.asarray([rotary.frequencies(self.of.head_width) for rotary in self.of.rotary])


def with_lora_merged(lora: LoRA | None, params: nnx.State) -> dict[str, Any]:
    """Parameters that say the same without LoRA: its maps added to those that they stand beside."""

    def merged(params: Mapping[str, Any]) -> dict[str, Any]:
        if lora is None or "low_in" not in params:
            return {k: merged(v) if isinstance(v, Mapping) else v for k, v in params.items()}
        low = jnp.matmul(params["low_in"], params["low_out"]) * (lora.alpha / lora.rank)
        rest = {k: v for k, v in params.items() if k not in ("low_in", "low_out")}
        return rest | {"kernel": params["kernel"] + low}

    return merged(nnx.to_pure_dict(params))


UNSEEN = -1
"""Age of a token that may not be looked at."""


def ages_of(
    positions: Int[Array, "batch n length"], of: Int[Array, "batch #n seen"]
) -> Int[Array, "batch n length seen"]:
    """How far back each token stands, seen from each; below 0: later, or padding."""
    age = positions[..., None] - of[..., None, :]
    return jnp.where(of[..., None, :] == NOWHERE, UNSEEN, age)


def along_last(vector: Float[Array, " n"], x: Float[Array, "*b n"]) -> Float[Array, "*ones n"]:
    """The vector in the dtype of x, shaped to be combined with its last axis."""
    return vector.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def capped(scores: Float[Array, "*b"], cap: float | None) -> Float[Array, "*b"]:
    return scores if cap is None else cap * jnp.tanh(scores / cap)
