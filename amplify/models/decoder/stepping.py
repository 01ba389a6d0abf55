"""One decoding step: one more token for many sequences at once.

A step needs little arithmetic, so its time depends on how often memory is read and how many kernels
are launched. Before the loop, the weights are split by layer, and maps of the same input are fused
into one. In the loop, layers are unrolled, and each writes the token's key and value to its own KV
cache in place.
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

from amplify.models.attention.attention import attend
from amplify.models.attention.attention_parts import (
    PADDING,
    KeysAndValues,
    KVBlock,
    TokenPositions,
    drop_unit_axes,
)
from amplify.models.attention.rotary import rotations
from amplify.models.decoder.causal_lm import CausalLM, KVCache, PrefixCache
from amplify.models.decoder.layers import Layer, Linear, broadcast_last


class DecodeCache(NamedTuple):
    """Per-sequence KV cache with free slots for the tokens to come."""

    layers: tuple[
        KeysAndValues, ...
    ]  # each "batch key_heads n slots head_width", without axes of 1
    positions: Int[Array, "batch n slots"]  # PADDING: the slot is free, or holds padding


def reserve(cache: KVCache, new_tokens: int) -> DecodeCache:
    """Makes a cache with free slots for `new_tokens` more tokens of each sequence."""
    padding = [(0, 0), (0, 0), (0, 0), (0, new_tokens), (0, 0)]
    layers = tuple(
        (drop_unit_axes(jnp.pad(keys, padding)), drop_unit_axes(jnp.pad(values, padding)))
        for keys, values in zip(cache.keys, cache.values, strict=True)
    )
    return DecodeCache(layers, jnp.pad(cache.positions, padding[1:4], constant_values=PADDING))


@dataclasses.dataclass(frozen=True)
class FusedLinear:
    """Linear maps of the same input, as one matrix product."""

    kernel: Float[Array, "in_features out_features"]
    bias: Float[Array, " out_features"] | None
    low: tuple[Float[Array, "in_features ranks"], Float[Array, "ranks out_features"]] | None
    splits: tuple[int, ...]  # indices into the output at which all maps but the first begin

    @classmethod
    def of(cls, maps: Sequence[Linear]) -> "FusedLinear":
        """Fuses maps, with their biases and LoRA adapters."""
        kernels = [one.kernel[...] for one in maps]
        splits = [
            sum(kernel.shape[-1] for kernel in kernels[: i + 1]) for i in range(len(maps) - 1)
        ]
        biases = [one.bias[...] for one in maps if one.bias is not None]
        bias = jnp.concatenate(biases) if biases else None
        low = None
        if maps[0].lora is not None:
            scale = maps[0].lora.scale
            low_in = [one.low_in[...] for one in maps if one.low_in is not None]
            low_out = [one.low_out[...] * scale for one in maps if one.low_out is not None]
            low = jnp.concatenate(low_in, axis=-1), jax.scipy.linalg.block_diag(*low_out)
        return cls(jnp.concatenate(kernels, axis=-1), bias, low, tuple(splits))

    def __call__(self, x: Float[Array, "*b in_features"]) -> list[Float[Array, "*b _"]]:
        y = x @ self.kernel.astype(x.dtype)
        if self.low is not None:
            y += x @ self.low[0].astype(x.dtype) @ self.low[1].astype(x.dtype)
        if self.bias is not None:
            y += broadcast_last(self.bias, y)
        return jnp.split(y, self.splits, axis=-1)


@dataclasses.dataclass(frozen=True)
class DecodeStep:
    """A network prepared for decoding, with the prefix that its sequences continue.

    Made once, outside the loop.
    """

    network: CausalLM
    layers: tuple[tuple[Layer, FusedLinear, FusedLinear], ...]
    """Each with its fused query, key and value maps, and its MLP's fused input maps."""
    prefix: tuple[KVBlock, ...]  # for each layer

    @classmethod
    def of(cls, network: CausalLM, prefix: PrefixCache) -> "DecodeStep":
        """Splits a network into layers and fuses their maps."""
        graph, stacked = nnx.split(network.layers)
        layers = []
        for number in range(network.architecture.layers):
            layer = nnx.merge(graph, jax.tree.map(operator.itemgetter(number), stacked))
            attention, mlp = layer.attention, layer.mlp
            heads = FusedLinear.of([attention.query, attention.key, attention.value])
            hidden = FusedLinear.of([one for one in (mlp.gate, mlp.up) if one is not None])
            layers.append((layer, heads, hidden))
        positions = TokenPositions(prefix.positions[:, None])
        blocks = (
            KVBlock(keys, values, positions)
            for keys, values in zip(prefix.keys, prefix.values, strict=True)
        )
        return cls(network, tuple(layers), tuple(blocks))

    def __call__(
        self,
        token: Int[Array, "batch n 1"],
        position: Int[Array, "batch n 1"],
        preceding: Int[Array, "batch n some"],
        cache: DecodeCache,
        slot: Int[Array, ""],
    ) -> tuple[Float[Array, "batch n width"], DecodeCache]:
        """Computes the final hidden state of one token of each sequence.

        Args:
            token: token ids.
            position: position ids.
            preceding: ids of the tokens directly before, PADDING where there are none.
            cache: KV cache of the sequences so far.
            slot: index of the cache's slot that the token goes to.

        Returns:
            The hidden states, and the cache with the tokens added.
        """
        network = self.network
        own_layers: list[KeysAndValues] = []
        positions = update(cache.positions, position, slot, axis=2)
        longest = positions.shape[-1] + self.prefix[0].keys.shape[-2]
        by_rotary = self._rotations(position)
        x = network.embed(token, position, preceding=preceding)
        for number, (layer, heads, hidden) in enumerate(self.layers):
            rotation = by_rotary.get(network.architecture.rotary[number]) if by_rotary else None
            query, key, value = heads(layer.attention_norm(x))
            query, (key, value) = layer.attention.split_heads(query, key, value, rotation)
            keys, values = cache.layers[number]
            keys = update(keys, drop_unit_axes(key), slot, axis=keys.ndim - 2)
            values = update(values, drop_unit_axes(value), slot, axis=keys.ndim - 2)
            own_layers.append((keys, values))
            shape = (*key.shape[:3], *keys.shape[-2:])
            attended = attend(
                network.attention_options(longest, layer=number),
                query,
                TokenPositions(position),
                KVBlock(keys.reshape(shape), values.reshape(shape), TokenPositions(positions)),
                self.prefix[number],
                network.windows[number],
            )
            x = layer.add_outputs(x, attended, hidden)
        return network.out_norm(x)[:, :, 0], DecodeCache(tuple(own_layers), positions)

    def _rotations(self, position: Int[Array, "batch n 1"]) -> dict:
        """Maps each kind of rotary embedding that layers have to its rotation."""
        architecture = self.network.architecture
        return {
            rotary: rotations(position, jnp.asarray(rotary.frequencies(architecture.head_width)))
            for rotary in dict.fromkeys(architecture.rotary)
        }
