"""One more token for many sequences at once: the body of the loop that answers.

A token costs little arithmetic, so what counts is how often memory is read and how many kernels are
launched. Before the loop, weights are taken apart by layer, and those that are applied to the same
input are put side by side. In the loop, layers are unrolled, and each writes the token's key and
value into its own cache, in place.
"""

import dataclasses
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import dynamic_update_slice_in_dim as update
from jaxtyping import Array, Float, Int

from amplify.assistants.attention import attend
from amplify.assistants.attention_parts import NOWHERE, KeysAndValues, Part, Places, compact
from amplify.assistants.causal_lm import CausalLM, KVCache, Past
from amplify.assistants.layers import Layer, Linear, along_last
from amplify.assistants.rotary import rotations


class Cache(NamedTuple):
    """Keys and values of sequences, with room for more tokens."""

    layers: tuple[KeysAndValues, ...]  # each "batch key_heads n room head_width", made compact
    positions: Int[Array, "batch n room"]  # NOWHERE: still empty, or padding


def with_room(cache: KVCache, more: int) -> Cache:
    """A cache for so many more tokens of each sequence."""
    room = [(0, 0), (0, 0), (0, 0), (0, more), (0, 0)]
    layers = tuple(
        (compact(jnp.pad(keys, room)), compact(jnp.pad(values, room)))
        for keys, values in zip(cache.keys, cache.values, strict=True)
    )
    return Cache(layers, jnp.pad(cache.positions, room[1:4], constant_values=NOWHERE))


@dataclasses.dataclass(frozen=True)
class Fused:
    """Linear maps of the same input, side by side."""

    kernel: Float[Array, "into out"]
    bias: Float[Array, " out"] | None
    low: tuple[Float[Array, "into ranks"], Float[Array, "ranks out"]] | None
    ends: tuple[int, ...]  # in `out`, of all maps but the last

    @classmethod
    def of(cls, maps: Sequence[Linear]) -> "Fused":
        kernels = [one.kernel[...] for one in maps]
        ends = [sum(kernel.shape[-1] for kernel in kernels[: i + 1]) for i in range(len(maps) - 1)]
        biases = [one.bias[...] for one in maps if one.bias is not None]
        bias = jnp.concatenate(biases) if biases else None
        low = None
        if maps[0].lora is not None:
            scale = maps[0].lora.scale
            low_in = [one.low_in[...] for one in maps if one.low_in is not None]
            low_out = [one.low_out[...] * scale for one in maps if one.low_out is not None]
            low = jnp.concatenate(low_in, axis=-1), jax.scipy.linalg.block_diag(*low_out)
        return cls(jnp.concatenate(kernels, axis=-1), bias, low, tuple(ends))

    def __call__(self, x: Float[Array, "*b into"]) -> list[Float[Array, "*b _"]]:
        y = x @ self.kernel.astype(x.dtype)
        if self.low is not None:
            y += x @ self.low[0].astype(x.dtype) @ self.low[1].astype(x.dtype)
        if self.bias is not None:
            y += along_last(self.bias, y)
        return jnp.split(y, self.ends, axis=-1)


@dataclasses.dataclass(frozen=True)
class Stepper:
    """A network, taken apart, and the past that its sequences continue.

    Made once, outside the loop.
    """

    network: CausalLM
    layers: tuple[tuple[Layer, Fused, Fused], ...]  # with query, key, value; and the MLP's input
    past: tuple[Part, ...]

    @classmethod
    def of(cls, network: CausalLM, past: Past) -> "Stepper":
        graph, stacked = nnx.split(network.layers)
        layers = []
        for number in range(network.of.layers):
            layer = nnx.merge(graph, jax.tree.map(operator.itemgetter(number), stacked))
            attention, mlp = layer.attention, layer.mlp
            heads = Fused.of([attention.query, attention.key, attention.value])
            hidden = Fused.of([one for one in (mlp.gate, mlp.up) if one is not None])
            layers.append((layer, heads, hidden))
        places = Places(past.positions[:, None])
        parts = (Part(k, v, places) for k, v in zip(past.keys, past.values, strict=True))
        return cls(network, tuple(layers), tuple(parts))

    def __call__(
        self,
        token: Int[Array, "batch n 1"],
        position: Int[Array, "batch n 1"],
        before: Int[Array, "batch n some"],
        cache: Cache,
        slot: Int[Array, ""],
    ) -> tuple[Float[Array, "batch n width"], Cache]:
        """What the network makes of a token, and the cache with it.

        Args:
            token: one of each sequence.
            position: of the tokens.
            before: tokens that stand right in front, NOWHERE for none.
            cache: of what the sequences have read.
            slot: where in the cache the token goes.
        """
        network = self.network
        own_layers: list[KeysAndValues] = []
        positions = update(cache.positions, position, slot, axis=2)
        longest = positions.shape[-1] + self.past[0].keys.shape[-2]
        turned = self._rotations(position)
        x = network.embed(token, position, before=before)
        for number, (layer, heads, hidden) in enumerate(self.layers):
            rotation = turned.get(network.of.rotary[number]) if turned else None
            query, key, value = heads(layer.attention_norm(x))
            query, (key, value) = layer.attention.heads(query, key, value, rotation)
            keys, values = cache.layers[number]
            keys = update(keys, compact(key), slot, axis=keys.ndim - 2)
            values = update(values, compact(value), slot, axis=keys.ndim - 2)
            own_layers.append((keys, values))
            whole = (*key.shape[:3], *keys.shape[-2:])
            mixed = attend(
                network.rules(longest, layer=number),
                query,
                Places(position),
                Part(keys.reshape(whole), values.reshape(whole), Places(positions)),
                self.past[number],
                network.windows[number],
            )
            x = layer.after(x, mixed, hidden)
        return network.out_norm(x)[:, :, 0], Cache(tuple(own_layers), positions)

    def _rotations(self, position: Int[Array, "batch n 1"]) -> dict:
        """By the kinds of rotary embedding that layers have."""
        of = self.network.of
        return {
            rotary: rotations(position, jnp.asarray(rotary.frequencies(of.head_width)))
            for rotary in dict.fromkeys(of.rotary)
        }
