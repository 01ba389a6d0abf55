"""The fact transformer: encodes a set of facts once, then answers many questions about them.

Facts attend to each other, without positions, so that their order cannot matter; questions attend
to the encoded facts only, so that one encoding serves every question about a context. The tokens of
an answer come one after the
other: a question with the tokens so far is one query. Christiano, Shlegeris and Amodei 2018
(arXiv:1810.08575), section 2.3 and appendix; there 6 encoder and 3 decoder layers of width 512.
"""

import dataclasses
import functools
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, PyTree
from pydantic import Field

from amplify.types import DONT_KNOW, Answers, Task

Size = Annotated[int, Field(ge=1)]


@dataclasses.dataclass(frozen=True)
class FactTransformerConfig:
    """`[assistant]` of an experiment file."""

    width: Size = 64
    heads: Size = 4
    encoder_layers: Annotated[int, Field(ge=0)] = 1
    decoder_layers: Size = 2
    mlp_ratio: Size = 4
    temperature: Annotated[float, Field(gt=0)] = 1.0

    def build(self, task: Task) -> "FactTransformer":
        """The assistant for a task. Raises ValueError if the sizes do not fit together."""
        if self.width % self.heads:
            raise ValueError(
                f"assistant.heads must divide assistant.width ({self.width}), got {self.heads}"
            )
        return FactTransformer(self, task)


class Attention(nnx.Module):
    """Multi-head attention of `x` to `memory`, pre-normalised, without biases."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.query, self.key, self.value, self.out = (
            nnx.Linear(width, width, use_bias=False, rngs=rngs) for _ in range(4)
        )

    def __call__(
        self, x: Float[Array, "batch queries width"], memory: Float[Array, "batch facts width"]
    ) -> Float[Array, "batch queries width"]:
        def split(y: Float[Array, "batch n width"]) -> Float[Array, "batch n heads head_width"]:
            return y.reshape(*y.shape[:-1], self.heads, -1)

        mixed = jax.nn.dot_product_attention(
            split(self.query(x)), split(self.key(memory)), split(self.value(memory))
        )
        return self.out(mixed.reshape(x.shape))


class Block(nnx.Module):
    """One layer: attend (to itself, or to a memory), then think."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, rngs: nnx.Rngs) -> None:
        self.attention_norm = nnx.RMSNorm(width, rngs=rngs)
        self.attention = Attention(width, heads, rngs)
        self.mlp_norm = nnx.RMSNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, mlp_ratio * width, rngs=rngs)
        self.down = nnx.Linear(mlp_ratio * width, width, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch n width"],
        memory: Float[Array, "batch facts width"] | None = None,
    ) -> Float[Array, "batch n width"]:
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed if memory is None else memory)
        return x + self.down(jax.nn.relu(self.up(self.mlp_norm(x))))


class TokenTuple(nnx.Module):
    """A tuple of tokens as one vector: an embedding per position, concatenated, one linear map;
    fused into tables.
    """

    def __init__(self, length: int, vocabulary: int, width: int, rngs: nnx.Rngs) -> None:
        # The linear map of concatenated embeddings is a sum of one table a position: that table is
        # learned directly.
        self.tables = nnx.Param(
            jax.random.normal(rngs.params(), (length, vocabulary, width)) * length**-0.5
        )

    def __call__(self, tokens: Int[Array, "*b length"]) -> Float[Array, "*b width"]:
        tables = self.tables[...]
        return jnp.sum(tables[jnp.arange(len(tables)), tokens], axis=-2)


class Network(nnx.Module):
    """The parameters of a fact transformer and its two forward passes."""

    def __init__(self, config: FactTransformerConfig, task: Task, rngs: nnx.Rngs) -> None:
        vocabulary, width = len(task.vocabulary), config.width

        def blocks(layers: int) -> Block:
            def one(key: Key[Array, ""]) -> Block:
                return Block(width, config.heads, config.mlp_ratio, nnx.Rngs(params=key))

            return nnx.vmap(one)(jax.random.split(rngs.params(), layers))

        self.fact = TokenTuple(task.fact_length, vocabulary, width, rngs)
        # A query is a question and the answer's earlier tokens, each raised by one: 0 is "not said
        # yet".
        query_length = task.question_length + task.answer_length - 1
        self.query = TokenTuple(query_length, vocabulary + 1, width, rngs)
        self.encoder = blocks(config.encoder_layers) if config.encoder_layers else None
        self.memory_norm = nnx.RMSNorm(width, rngs=rngs)
        self.decoder = blocks(config.decoder_layers)
        self.out_norm = nnx.RMSNorm(width, rngs=rngs)
        self.out = nnx.Linear(width, vocabulary, rngs=rngs)

    def encode(
        self, contexts: Int[Array, "batch facts fact_length"]
    ) -> Float[Array, "batch facts width"]:
        x = self.fact(contexts)
        if self.encoder is not None:
            x = scan_layers(self.encoder, x)
        return self.memory_norm(x)

    def next_token_logits(
        self, memory: Float[Array, "batch facts width"], queries: Int[Array, "batch n query_length"]
    ) -> Float[Array, "batch n vocabulary"]:
        return self.out(self.out_norm(scan_layers(self.decoder, self.query(queries), memory)))


def scan_layers(
    blocks: Block, x: Float[Array, "batch n width"], *memory: Array
) -> Float[Array, "batch n width"]:
    """Runs stacked layers in turn; the body is compiled once however many layers there are."""
    graph, stacked = nnx.split(blocks)

    def layer(x: Array, state: nnx.State) -> tuple[Array, None]:
        return nnx.merge(graph, state)(x, *memory), None

    return jax.lax.scan(layer, x, stacked)[0]


@dataclasses.dataclass(frozen=True)
class FactTransformer:
    """The assistant that `Network` makes, as pure functions of its parameters (see
    `types.Assistant`).
    """

    config: FactTransformerConfig
    task: Task

    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        return nnx.state(Network(self.config, self.task, nnx.Rngs(params=key)), nnx.Param)

    def encode(
        self, params: PyTree[Array], contexts: Int[Array, "batch facts fact_length"]
    ) -> Float[Array, "batch facts width"]:
        return self._network(params).encode(contexts)

    def answer(
        self,
        params: PyTree[Array],
        memory: Float[Array, "batch facts width"],
        questions: Int[Array, "batch questions question_length"],
        keys: Key[Array, "batch questions"] | None,
    ) -> Answers:
        """Token by token; see `types.Assistant`. Log-probabilities are those of the distribution
        sampled from.
        """
        network = self._network(params)
        tokens = jnp.zeros((*questions.shape[:-1], self.task.answer_length), questions.dtype)
        log_prob = jnp.zeros(questions.shape[:-1])
        for place in range(self.task.answer_length):
            logits = network.next_token_logits(memory, self._query(questions, tokens, place))
            log_probs = jax.nn.log_softmax(logits / self.config.temperature)
            token = jnp.argmax(log_probs, -1) if keys is None else _sample(keys, place, log_probs)
            tokens = tokens.at[..., place].set(token.astype(tokens.dtype))
            log_prob += jnp.take_along_axis(log_probs, token[..., None], axis=-1)[..., 0]
        return Answers(tokens, log_prob)

    def loss(
        self, params: PyTree[Array], batch: dict[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross-entropy of the answers in nats, summed over their tokens, a mean over questions."""
        network, answers = self._network(params), batch["answers"]
        memory = network.encode(batch["context"])
        loss, right = jnp.zeros(()), jnp.ones(answers.shape[:-1], bool)
        for place in range(self.task.answer_length):
            logits = network.next_token_logits(
                memory, self._query(batch["questions"], answers, place)
            )
            log_probs = jax.nn.log_softmax(logits)
            token = answers[..., place]
            loss -= jnp.mean(jnp.take_along_axis(log_probs, token[..., None], axis=-1))
            right &= jnp.argmax(logits, -1) == token
        return loss, {"loss": loss, "agreement": jnp.mean(right, dtype=loss.dtype)}

    def _network(self, params: PyTree[Array]) -> Network:
        return nnx.merge(_graph(self.config, self.task), params)

    def _query(
        self,
        questions: Int[Array, "*b question_length"],
        answers: Int[Array, "*b answer_length"],
        place: int,
    ) -> Int[Array, "*b query_length"]:
        """The question and the first `place` tokens of its answer."""
        said = jnp.where(
            jnp.arange(self.task.answer_length - 1) < place, answers[..., :-1] + 1, DONT_KNOW
        )
        return jnp.concatenate([questions, said], axis=-1)


@functools.cache
def _graph(config: FactTransformerConfig, task: Task) -> nnx.GraphDef:
    """The network without its parameters."""
    return nnx.graphdef(nnx.eval_shape(lambda: Network(config, task, nnx.Rngs(0))))


def _sample(
    keys: Key[Array, "*b"], place: int, log_probs: Float[Array, "*b vocabulary"]
) -> Int[Array, "*b"]:
    """One token an item, each by its own key, so that what is batched together cannot matter."""

    def draw(key: Key[Array, ""], log_probs: Float[Array, " vocabulary"]) -> Int[Array, ""]:
        return jax.random.categorical(jax.random.fold_in(key, place), log_probs)

    flat = jax.vmap(draw)(keys.reshape(-1), log_probs.reshape(-1, log_probs.shape[-1]))
    return flat.reshape(keys.shape)
