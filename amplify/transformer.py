"""A transformer over tuples of tokens: rows are encoded once, queries attend to them, and each
query is told the distribution of one token.

Rows are a context's facts, or the exchanges of an interaction; queries are questions with what was
said of their answers so far. A token comes from a learned mixture of the vocabulary and of a
pointer that copies a token of a row. Knows nothing of tasks; the fact transformer and the learned
overseer are made of it. Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575), section 2.3 and
appendix.
"""

from typing import Annotated, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key
from pydantic import Field

from amplify.axes import STACKED, axes

Size = Annotated[int, Field(ge=1)]


@runtime_checkable
class Sizes(Protocol):
    """What a configuration says about a transformer's size."""

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
"""What attention remembers of a memory's rows, each of shape (batch, rows, heads, head_width); with
a layer axis in front where it is that of stacked layers.
"""


class Memory(NamedTuple):
    """Encoded rows, what each layer that attends to them needs of them, and the rows themselves to
    copy from. However often queries come, this is computed once.
    """

    encoded: Float[Array, "batch rows width"]
    layers: KeysAndValues
    rows: Int[Array, "batch rows row_length"]

    def with_more(self, new: "Memory") -> "Memory":
        """With more rows after those that there are, which were encoded on their own."""
        # The axis of rows follows that of the batch, which follows that of layers where there is
        # one.
        keys, values = (
            jnp.concatenate(both, axis=2) for both in zip(self.layers, new.layers, strict=True)
        )
        encoded, rows = (
            jnp.concatenate(both, axis=1)
            for both in ((self.encoded, new.encoded), (self.rows, new.rows))
        )
        return Memory(encoded, (keys, values), rows)


def linear(
    into: int, out: int, names: tuple[str, str | None], rngs: nnx.Rngs, *, biased: bool = True
) -> nnx.Linear:
    """A linear map that names its kernel's axes."""
    return nnx.Linear(
        into,
        out,
        use_bias=biased,
        kernel_metadata=axes(*names),
        bias_metadata=axes(names[1]),
        rngs=rngs,
    )


def norm(width: int, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(width, scale_metadata=axes("norm"), rngs=rngs)


class Attention(nnx.Module):
    """Multi-head attention, without biases."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.query, self.key, self.value = (
            linear(width, width, ("embed", "heads"), rngs, biased=False) for _ in range(3)
        )
        self.out = linear(width, width, ("heads", "embed"), rngs, biased=False)

    def remember(self, memory: Float[Array, "batch rows width"]) -> KeysAndValues:
        return self._split(self.key(memory)), self._split(self.value(memory))

    def __call__(
        self,
        x: Float[Array, "batch queries width"],
        remembered: KeysAndValues,
        sees: Bool[Array, "#batch #queries rows"] | None,
    ) -> Float[Array, "batch queries width"]:
        keys, values = remembered
        mask = None if sees is None else sees[:, None]
        mixed = jax.nn.dot_product_attention(self._split(self.query(x)), keys, values, mask=mask)
        return self.out(mixed.reshape(x.shape))

    def _split(self, x: Float[Array, "batch n width"]) -> Float[Array, "batch n heads head_width"]:
        return x.reshape(*x.shape[:-1], self.heads, -1)


class Block(nnx.Module):
    """One layer, pre-normalised: attend (to itself, or to a memory), then think."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, rngs: nnx.Rngs) -> None:
        self.attention_norm = norm(width, rngs)
        self.attention = Attention(width, heads, rngs)
        self.mlp_norm = norm(width, rngs)
        self.up = linear(width, mlp_ratio * width, ("embed", "mlp"), rngs)
        self.down = linear(mlp_ratio * width, width, ("mlp", "embed"), rngs)

    def __call__(
        self,
        x: Float[Array, "batch n width"],
        remembered: KeysAndValues | None,
        sees: Bool[Array, "#batch #n rows"] | None,
    ) -> Float[Array, "batch n width"]:
        normed = self.attention_norm(x)
        remembered = self.attention.remember(normed) if remembered is None else remembered
        x = x + self.attention(normed, remembered, sees)
        return x + self.down(jax.nn.relu(self.up(self.mlp_norm(x))))


class TokenTuple(nnx.Module):
    """A tuple of tokens as one vector: an embedding per position, concatenated, one linear map;
    fused into tables.
    """

    def __init__(self, length: int, vocabulary: int, width: int, rngs: nnx.Rngs) -> None:
        # The linear map of concatenated embeddings is a sum of one table a position: that table is
        # learned directly.
        drawn = jax.random.normal(rngs.params(), (length, vocabulary, width)) * length**-0.5
        self.tables = nnx.Param(drawn, **axes(None, "vocabulary", "embed"))

    def __call__(self, tokens: Int[Array, "*b length"]) -> Float[Array, "*b width"]:
        tables = self.tables[...]
        return jnp.sum(tables[jnp.arange(len(tables)), tokens], axis=-2)


class Pointer(nnx.Module):
    """Points at one token of one row: which row by attention, which of its tokens by the query."""

    def __init__(self, width: int, row_length: int, rngs: nnx.Rngs) -> None:
        self.query = linear(width, width, ("embed", "pointer"), rngs, biased=False)
        self.place = linear(width, row_length, ("embed", None), rngs)
        self.use = linear(width, 1, ("embed", None), rngs)

    def __call__(
        self,
        x: Float[Array, "batch queries width"],
        memory: Memory,
        sees: Bool[Array, "#batch #queries rows"] | None,
        vocabulary_log_probs: Float[Array, "batch queries vocabulary"],
    ) -> Float[Array, "batch queries vocabulary"]:
        """The mixture's log-probabilities."""
        scores = jnp.einsum("bqw,brw->bqr", self.query(x), memory.encoded) * x.shape[-1] ** -0.5
        row = jax.nn.softmax(scores if sees is None else jnp.where(sees, scores, -1e9))
        place = jax.nn.softmax(self.place(x))
        tokens = jax.nn.one_hot(memory.rows, vocabulary_log_probs.shape[-1], dtype=x.dtype)
        copied = jnp.einsum("bqr,bqp,brpv->bqv", row, place, tokens)
        use = self.use(x)
        # A token that stands nowhere has probability 0 of being copied, not a logarithm of -inf.
        return jnp.logaddexp(
            jax.nn.log_sigmoid(use) + jnp.log(copied + 1e-20),
            jax.nn.log_sigmoid(-use) + vocabulary_log_probs,
        )


def forward_flops(sizes: Sizes, rows: int, queries: int, vocabulary: int) -> int:
    """Floating-point operations of the matrix products of a forward pass over one context.

    Args:
        sizes: of the transformer.
        rows: that are encoded.
        queries: that attend to them, each asking for one token.
        vocabulary: tokens that each query is told a probability of.
    """
    width, mlp = sizes.width, 2 * sizes.mlp_ratio * sizes.width**2
    encoder = rows * (4 * width**2 + mlp) + 2 * rows * rows * width
    keys_and_values = rows * 2 * width**2
    decoder = queries * (2 * width**2 + mlp) + 2 * queries * rows * width
    layers = sizes.encoder_layers * encoder + sizes.decoder_layers * (keys_and_values + decoder)
    pointer = queries * (width**2 + rows * width) if sizes.copies else 0
    return 2 * (layers + pointer + queries * width * vocabulary)


class Transformer(nnx.Module):
    """The parameters and the two forward passes."""

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
        sees: Bool[Array, "#batch #rows rows"] | None = None,
    ) -> Memory:
        """`sees`: True where a row (second axis) may look at another (third); None: everywhere."""
        x = self.row(rows)
        if self.encoder is not None:
            x = scan_layers(self.encoder, x, None, sees)
        encoded = self.memory_norm(x)
        return Memory(encoded, remember_in_layers(self.decoder, encoded), rows)

    def log_probs(
        self,
        memory: Memory,
        queries: Int[Array, "batch queries query_length"],
        sees: Bool[Array, "#batch #queries rows"] | None = None,
    ) -> Float[Array, "batch queries vocabulary"]:
        """Of the token that each query asks for; `sees` is True where a query may look at a row."""
        x = scan_layers(self.decoder, self.query(queries), memory.layers, sees)
        x = self.out_norm(x)
        log_probs = jax.nn.log_softmax(self.out(x))
        return log_probs if self.pointer is None else self.pointer(x, memory, sees, log_probs)


def remember_in_layers(blocks: Block, memory: Float[Array, "batch rows width"]) -> KeysAndValues:
    """What each of stacked layers remembers of a memory."""
    graph, stacked = nnx.split(blocks)
    return jax.vmap(lambda state: nnx.merge(graph, state).attention.remember(memory))(stacked)


def scan_layers(
    blocks: Block,
    x: Float[Array, "batch n width"],
    remembered: KeysAndValues | None,
    sees: Bool[Array, "#batch #n rows"] | None,
) -> Float[Array, "batch n width"]:
    """Runs stacked layers in turn; the body is compiled once however many layers there are."""
    graph, stacked = nnx.split(blocks)

    def layer(x: Array, of_layer: tuple[nnx.State, KeysAndValues | None]) -> tuple[Array, None]:
        state, remembered = of_layer
        return nnx.merge(graph, state)(x, remembered, sees), None

    return jax.lax.scan(layer, x, (stacked, remembered))[0]


def sample(
    keys: Key[Array, "*b"], place: int | Int[Array, ""], log_probs: Float[Array, "*b vocabulary"]
) -> Int[Array, "*b"]:
    """One token an item, each by its own key, so that what is batched together cannot matter."""

    def draw(key: Key[Array, ""], log_probs: Float[Array, " vocabulary"]) -> Int[Array, ""]:
        return jax.random.categorical(jax.random.fold_in(key, place), log_probs)

    flat = jax.vmap(draw)(keys.reshape(-1), log_probs.reshape(-1, log_probs.shape[-1]))
    return flat.reshape(keys.shape)
