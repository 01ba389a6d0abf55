"""An encoder-decoder transformer over tuples of tokens.

Rows are encoded once; queries attend to them, and each query predicts one token. Rows are a
context's facts, or the exchanges of an interaction; queries are questions with their answers so
far. A token is predicted by a learned mixture of the vocabulary and of a pointer that copies a
token of a row. Knows nothing of tasks; the fact transformer and the learned overseer use it.
Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575), section 2.3 and appendix.
"""

from typing import Annotated, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key
from pydantic import Field

from amplify.models.axes import STACKED, axes

Size = Annotated[int, Field(ge=1)]


@runtime_checkable
class Sizes(Protocol):
    """A configuration's keys for a transformer's size."""

    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def encoder_layers(self) -> int: ...
    @property
    def decoder_layers(self) -> int: ...
    @property
    def mlp_ratio(self) -> int: ...
    @property
    def copies(self) -> bool: ...


KeysAndValues = tuple[Float[Array, "..."], Float[Array, "..."]]
"""Keys and values of encoded rows, each of shape (batch, rows, heads, head_width), with a leading
axis of layers where they are those of stacked layers.
"""


class Memory(NamedTuple):
    """Encoded rows, computed once for all queries."""

    encoded: Float[Array, "batch rows width"]
    layers: KeysAndValues  # of each decoder layer's cross-attention
    rows: Int[Array, "batch rows row_length"]  # tokens, which the pointer copies

    def append(self, new: "Memory") -> "Memory":
        """Appends rows, which were encoded on their own."""
        keys, values = (
            jnp.concatenate(both, axis=2) for both in zip(self.layers, new.layers, strict=True)
        )
        encoded, rows = (
            jnp.concatenate(both, axis=1)
            for both in ((self.encoded, new.encoded), (self.rows, new.rows))
        )
        return Memory(encoded, (keys, values), rows)


def linear(
    in_features: int,
    out_features: int,
    names: tuple[str, str | None],
    rngs: nnx.Rngs,
    *,
    biased: bool = True,
) -> nnx.Linear:
    """Makes a linear map with named axes.

    Args:
        in_features, out_features: sizes.
        names: logical names of the kernel's axes (see `axes`).
        rngs: draws the parameters.
        biased: whether there is a bias.
    """
    return nnx.Linear(
        in_features,
        out_features,
        use_bias=biased,
        kernel_metadata=axes(*names),
        bias_metadata=axes(names[1]),
        rngs=rngs,
    )


def norm(width: int, rngs: nnx.Rngs) -> nnx.RMSNorm:
    """Makes an RMSNorm with a named axis."""
    return nnx.RMSNorm(width, scale_metadata=axes("norm"), rngs=rngs)


class Attention(nnx.Module):
    """Multi-head attention, without biases."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.query, self.key, self.value = (
            linear(width, width, ("embed", "heads"), rngs, biased=False) for _ in range(3)
        )
        self.out = linear(width, width, ("heads", "embed"), rngs, biased=False)

    def project(self, memory: Float[Array, "batch rows width"]) -> KeysAndValues:
        """Computes the keys and values of what is attended to."""
        return self._split_heads(self.key(memory)), self._split_heads(self.value(memory))

    def __call__(
        self,
        x: Float[Array, "batch queries width"],
        keys_and_values: KeysAndValues,
        mask: Bool[Array, "#batch #queries rows"] | None,
    ) -> Float[Array, "batch queries width"]:
        """Attends from queries to rows; `mask` is True where a query attends to a row."""
        keys, values = keys_and_values
        query = self._split_heads(self.query(x))
        mask = None if mask is None else mask[:, None]
        attended = jax.nn.dot_product_attention(query, keys, values, mask=mask)
        return self.out(attended.reshape(x.shape))

    def _split_heads(
        self, x: Float[Array, "batch n width"]
    ) -> Float[Array, "batch n heads head_width"]:
        return x.reshape(*x.shape[:-1], self.heads, -1)


class Block(nnx.Module):
    """A pre-norm layer: attention (to its own input, or to a memory), then an MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, rngs: nnx.Rngs) -> None:
        self.attention_norm = norm(width, rngs)
        self.attention = Attention(width, heads, rngs)
        self.mlp_norm = norm(width, rngs)
        self.up = linear(width, mlp_ratio * width, ("embed", "mlp"), rngs)
        self.down = linear(mlp_ratio * width, width, ("mlp", "embed"), rngs)

    def __call__(
        self,
        x: Float[Array, "batch n width"],
        keys_and_values: KeysAndValues | None,
        mask: Bool[Array, "#batch #n rows"] | None,
    ) -> Float[Array, "batch n width"]:
        """Applies the layer.

        Args:
            x: the residual stream.
            keys_and_values: those of a memory, for cross-attention; None: self-attention.
            mask: True where an item of x attends to a row; None: everywhere.
        """
        normed = self.attention_norm(x)
        if keys_and_values is None:
            keys_and_values = self.attention.project(normed)
        x = x + self.attention(normed, keys_and_values, mask)
        return x + self.down(jax.nn.relu(self.up(self.mlp_norm(x))))


class TokenTuple(nnx.Module):
    """Embeds a tuple of tokens as one vector.

    A linear map of concatenated embeddings is a sum over positions of one table each; the tables
    are learned directly.
    """

    def __init__(self, length: int, vocabulary: int, width: int, rngs: nnx.Rngs) -> None:
        tables = jax.random.normal(rngs.params(), (length, vocabulary, width)) * length**-0.5
        self.tables = nnx.Param(tables, **axes(None, "vocabulary", "embed"))

    def __call__(self, tokens: Int[Array, "*b length"]) -> Float[Array, "*b width"]:
        tables = self.tables[...]
        return jnp.sum(tables[jnp.arange(len(tables)), tokens], axis=-2)


class Pointer(nnx.Module):
    """Mixes copying a token from an attended row with predicting one from the vocabulary.

    Pointer networks: Vinyals et al. 2015 (arXiv:1506.03134); mixed with the vocabulary as in See et
    al. 2017 (arXiv:1704.04368), section 2.2.
    """

    def __init__(self, width: int, row_length: int, rngs: nnx.Rngs) -> None:
        self.query = linear(width, width, ("embed", "pointer"), rngs, biased=False)
        self.place = linear(width, row_length, ("embed", None), rngs)
        self.use = linear(width, 1, ("embed", None), rngs)

    def __call__(
        self,
        x: Float[Array, "batch queries width"],
        memory: Memory,
        mask: Bool[Array, "#batch #queries rows"] | None,
        vocabulary_log_probs: Float[Array, "batch queries vocabulary"],
    ) -> Float[Array, "batch queries vocabulary"]:
        """Returns the log-probabilities of the mixture of copying and vocabulary."""
        scores = jnp.einsum("bqw,brw->bqr", self.query(x), memory.encoded) * x.shape[-1] ** -0.5
        row = jax.nn.softmax(scores if mask is None else jnp.where(mask, scores, -1e9))
        place = jax.nn.softmax(self.place(x))
        tokens = jax.nn.one_hot(memory.rows, vocabulary_log_probs.shape[-1], dtype=x.dtype)
        copied = jnp.einsum("bqr,bqp,brpv->bqv", row, place, tokens)
        use = self.use(x)
        # 1e-20 keeps the logarithm finite for tokens that are in no row.
        return jnp.logaddexp(
            jax.nn.log_sigmoid(use) + jnp.log(copied + 1e-20),
            jax.nn.log_sigmoid(-use) + vocabulary_log_probs,
        )


def forward_flops(sizes: Sizes, rows: int, queries: int, vocabulary: int) -> int:
    """Floating-point operations of the matrix products of a forward pass over one context.

    Args:
        sizes: the transformer's.
        rows: number of rows.
        queries: number of queries.
        vocabulary: number of tokens in the vocabulary.
    """
    width, mlp = sizes.width, 2 * sizes.mlp_ratio * sizes.width**2
    encoder = rows * (4 * width**2 + mlp) + 2 * rows * rows * width
    keys_and_values = rows * 2 * width**2
    decoder = queries * (2 * width**2 + mlp) + 2 * queries * rows * width
    layers = sizes.encoder_layers * encoder + sizes.decoder_layers * (keys_and_values + decoder)
    pointer = queries * (width**2 + rows * width) if sizes.copies else 0
    return 2 * (layers + pointer + queries * width * vocabulary)


class Transformer(nnx.Module):
    """The parameters and the two forward passes.

    Args:
        sizes: layers and widths.
        row_length, query_length: tokens of a row and of a query.
        row_vocabulary, query_vocabulary: number of tokens that rows and queries consist of.
        vocabulary: number of tokens that are predicted.
        rngs: draws the parameters.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        row_length: int,
        row_vocabulary: int,
        query_length: int,
        query_vocabulary: int,
        vocabulary: int,
        rngs: nnx.Rngs,
    ) -> None:
        width = sizes.width

        def blocks(layers: int) -> Block:
            def one(key: Key[Array, ""]) -> Block:
                return Block(width, sizes.heads, sizes.mlp_ratio, nnx.Rngs(params=key))

            return nnx.vmap(one, transform_metadata=STACKED)(
                jax.random.split(rngs.params(), layers)
            )

        self.row = TokenTuple(row_length, row_vocabulary, width, rngs)
        self.query = TokenTuple(query_length, query_vocabulary, width, rngs)
        self.encoder = blocks(sizes.encoder_layers) if sizes.encoder_layers else None
        self.memory_norm = norm(width, rngs)
        self.decoder = blocks(sizes.decoder_layers)
        self.out_norm = norm(width, rngs)
        self.out = linear(width, vocabulary, ("embed", "vocabulary"), rngs)
        self.pointer = Pointer(width, row_length, rngs) if sizes.copies else None

    def encode(
        self,
        rows: Int[Array, "batch rows row_length"],
        mask: Bool[Array, "#batch #rows rows"] | None = None,
    ) -> Memory:
        """Encodes rows.

        Args:
            rows: tokens.
            mask: True where a row (second axis) attends to another (third); None: everywhere.
        """
        x = self.row(rows)
        if self.encoder is not None:
            x = scan_layers(self.encoder, x, None, mask)
        encoded = self.memory_norm(x)
        return Memory(encoded, project_in_layers(self.decoder, encoded), rows)

    def log_probs(
        self,
        memory: Memory,
        queries: Int[Array, "batch queries query_length"],
        mask: Bool[Array, "#batch #queries rows"] | None = None,
    ) -> Float[Array, "batch queries vocabulary"]:
        """Computes the log-probabilities of the token that each query predicts.

        Args:
            memory: the encoded rows.
            queries: tokens.
            mask: True where a query attends to a row; None: everywhere.
        """
        x = self._decode(memory, queries, mask)
        log_probs = jax.nn.log_softmax(self.out(x))
        return log_probs if self.pointer is None else self.pointer(x, memory, mask, log_probs)

    def outputs(
        self,
        memory: Memory,
        queries: Int[Array, "batch queries query_length"],
        mask: Bool[Array, "#batch #queries rows"] | None = None,
    ) -> Float[Array, "batch queries vocabulary"]:
        """Computes the numbers that are otherwise logits, for a network that predicts no tokens.

        Args:
            memory, queries, mask: as in `log_probs`.
        """
        return self.out(self._decode(memory, queries, mask))

    def _decode(
        self,
        memory: Memory,
        queries: Int[Array, "batch queries query_length"],
        mask: Bool[Array, "#batch #queries rows"] | None,
    ) -> Float[Array, "batch queries width"]:
        return self.out_norm(scan_layers(self.decoder, self.query(queries), memory.layers, mask))


def project_in_layers(blocks: Block, memory: Float[Array, "batch rows width"]) -> KeysAndValues:
    """Computes the keys and values of a memory in each of stacked layers."""
    graph, stacked = nnx.split(blocks)
    return jax.vmap(lambda state: nnx.merge(graph, state).attention.project(memory))(stacked)


def scan_layers(
    blocks: Block,
    x: Float[Array, "batch n width"],
    keys_and_values: KeysAndValues | None,
    mask: Bool[Array, "#batch #n rows"] | None,
) -> Float[Array, "batch n width"]:
    """Applies stacked layers in turn. The compiled program does not grow with their number.

    Args:
        blocks: the layers, with a leading axis of layers.
        x, keys_and_values, mask: as in `Block`, the keys and values with an axis of layers.
    """
    graph, stacked = nnx.split(blocks)

    def layer(x: Array, of_layer: tuple[nnx.State, KeysAndValues | None]) -> tuple[Array, None]:
        state, keys_and_values = of_layer
        return nnx.merge(graph, state)(x, keys_and_values, mask), None

    return jax.lax.scan(layer, x, (stacked, keys_and_values))[0]


def sample_token(
    keys: Key[Array, "*b"], step: int | Int[Array, ""], log_probs: Float[Array, "*b vocabulary"]
) -> Int[Array, "*b"]:
    """Samples one token for each item, with the item's own key, whatever it is batched with.

    Args:
        keys: a key for each item, which may be used again with another `step`.
        step: number of the token in its answer, folded into the key.
        log_probs: the distributions.
    """

    def draw(key: Key[Array, ""], log_probs: Float[Array, " vocabulary"]) -> Int[Array, ""]:
        return jax.random.categorical(jax.random.fold_in(key, step), log_probs)

    flat = jax.vmap(draw)(keys.reshape(-1), log_probs.reshape(-1, log_probs.shape[-1]))
    return flat.reshape(keys.shape)
