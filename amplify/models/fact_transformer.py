"""The fact transformer: encodes a set of facts once, then answers many questions about them.

Facts attend to each other without position embeddings, so that their order cannot matter. Questions
attend to the encoded facts only, so that one encoding serves every question about a context.
Answers are decoded token by token: a question with the tokens so far is one query. Christiano,
Shlegeris and Amodei 2018 (arXiv:1810.08575), section 2.3 and appendix, use 6 encoder and 3 decoder
layers of width 512.
"""

import dataclasses
import functools
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
from pydantic import Field

from amplify.models.transformer import Memory, Size, Transformer, forward_flops, sample_token
from amplify.task_abilities import sizes_of
from amplify.types import DONT_KNOW, FAILED, Answers, Task


@dataclasses.dataclass(frozen=True)
class FactTransformerConfig:
    """`[assistant]` of an experiment file."""

    width: Size = 64
    """Width of the residual stream; `heads` must divide it."""
    heads: Size = 4
    """Attention heads."""
    encoder_layers: Annotated[int, Field(ge=0)] = 1
    """Layers that encode the facts."""
    decoder_layers: Size = 2
    """Layers that decode an answer."""
    mlp_ratio: Size = 4
    """Hidden units of an MLP, as a multiple of the width."""
    copies: bool = True
    """Whether an answer's token may be copied from a fact, by a pointer network."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature at which sub-answers are sampled."""
    sampling: Literal["sampled", "greedy"] = "sampled"
    """How the assistant answers sub-questions: by sampling, or with its likeliest tokens."""

    def build(self, task: Task) -> "FactTransformer":
        """Builds the assistant for a task.

        Raises:
            ValueError: if the sizes do not fit together.
        """
        if self.width % self.heads:
            raise ValueError(
                f"assistant.heads must divide assistant.width ({self.width}), got {self.heads}"
            )
        return FactTransformer(self, task)


@dataclasses.dataclass(frozen=True)
class FactTransformer:
    """The assistant, as pure functions of its parameters (see `types.Assistant`)."""

    config: FactTransformerConfig
    task: Task

    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        """Draws untrained parameters; see `types.Assistant`."""
        return nnx.state(_network(self.config, self.task, nnx.Rngs(params=key)), nnx.Param)

    def encode(
        self, params: PyTree[Array], contexts: Int[Array, "batch facts fact_length"]
    ) -> Memory:
        """Encodes the facts of contexts; see `types.Assistant`."""
        return self._merge(params).encode(contexts, fact_mask(self.task, contexts))

    def answer(
        self,
        params: PyTree[Array],
        memory: Memory,
        questions: Int[Array, "batch questions question_length"],
        keys: Key[Array, "batch questions"] | None,
    ) -> Answers:
        """Decodes answers token by token; see `types.Assistant`.

        Log-probabilities are those of the distribution sampled from.
        """
        network, mask = self._merge(params), fact_mask(self.task, memory.rows)
        keys = None if self.config.sampling == "greedy" else keys
        shape, length = questions.shape[:-1], self.task.answer_length

        def decode(so_far: Answers, step: Int[Array, ""]) -> tuple[Answers, None]:
            tokens, log_prob = so_far
            log_probs = network.log_probs(memory, self._query(questions, tokens, step), mask)
            log_probs = self._apply_temperature(log_probs)
            if keys is None:
                token = jnp.argmax(log_probs, -1)
            else:
                token = sample_token(keys, step, log_probs)
            tokens = tokens.at[..., step].set(token.astype(tokens.dtype))
            log_prob += jnp.take_along_axis(log_probs, token[..., None], axis=-1)[..., 0]
            return Answers(tokens, log_prob), None

        empty = Answers(jnp.zeros((*shape, length), questions.dtype), jnp.zeros(shape))
        # A loop, so that the compiled program does not grow with the length of answers.
        return jax.lax.scan(decode, empty, jnp.arange(length))[0]

    def log_prob(
        self,
        params: PyTree[Array],
        memory: Memory,
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
    ) -> Float[Array, "batch questions answer_length"]:
        """Log-probability of each answer token, given those before it; see `types.Assistant`.

        In the distribution that `answer` samples from, and differentiable in the parameters.
        """
        network, mask = self._merge(params), fact_mask(self.task, memory.rows)
        log_probs = self._log_probs(network, memory, mask, questions, answers)
        log_probs = self._apply_temperature(log_probs)
        return jnp.take_along_axis(log_probs, answers[..., None], axis=-1)[..., 0]

    def _log_probs(
        self,
        network: Transformer,
        memory: Memory,
        mask: Bool[Array, "batch 1 facts"] | None,
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
    ) -> Float[Array, "batch questions answer_length vocabulary"]:
        """The distribution of each answer token, given those before it: all tokens at once."""
        batch, asked, length = answers.shape
        queries = jnp.stack(
            [self._query(questions, answers, step) for step in range(length)], axis=-2
        )
        flat = queries.reshape(batch, asked * length, -1)
        return network.log_probs(memory, flat, mask).reshape(batch, asked, length, -1)

    def _apply_temperature(self, log_probs: Float[Array, "*b vocabulary"]) -> Array:
        return jax.nn.log_softmax(log_probs / self.config.temperature)

    def loss(
        self, params: PyTree[Array], batch: dict[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross-entropy of the answers in nats, summed over their tokens; see `types.Assistant`.

        "agreement" is the share of answers whose every token is the most likely one.
        """
        network, answers = self._merge(params), batch["answers"]
        mask = fact_mask(self.task, batch["context"])
        memory = network.encode(batch["context"], mask)
        answered, weight = answers[..., 0] != FAILED, batch.get("weight")
        if weight is not None:
            answered &= weight != 0
        number = jnp.sum(answered).astype(jnp.float32)
        count = jnp.maximum(number, 1)
        answers = jnp.maximum(answers, 0)
        log_probs = self._log_probs(network, memory, mask, batch["questions"], answers)
        log_prob = jnp.take_along_axis(log_probs, answers[..., None], axis=-1)[..., 0]
        log_prob = jnp.sum(log_prob, axis=-1)
        log_prob = log_prob if weight is None else weight * log_prob
        loss = -jnp.sum(log_prob, where=answered) / count
        right = answered & jnp.all(jnp.argmax(log_probs, axis=-1) == answers, axis=-1)
        agreement = jnp.sum(right).astype(loss.dtype) / count
        counts = {"answered": number, "flops": jnp.float32(self._training_flops(answers.shape))}
        return loss, {"loss": loss, "agreement": agreement} | counts

    def _training_flops(self, answers: tuple[int, ...]) -> int:
        # The backward pass takes twice as many as the forward pass.
        batch, questions, length = answers
        task = self.task
        vocabulary, queries = len(task.vocabulary), questions * length
        return 3 * batch * forward_flops(self.config, task.facts, queries, vocabulary)

    def _merge(self, params: PyTree[Array]) -> Transformer:
        return nnx.merge(_graph(self.config, self.task), params)

    def _query(
        self,
        questions: Int[Array, "*b question_length"],
        answers: Int[Array, "*b answer_length"],
        step: int | Int[Array, ""],
    ) -> Int[Array, "*b query_length"]:
        """The question and the first `step` tokens of its answer, each raised by one: 0 stands for
        tokens that are not decoded yet.
        """
        is_decoded = jnp.arange(self.task.answer_length - 1) < step
        so_far = jnp.where(is_decoded, answers[..., :-1] + 1, DONT_KNOW)
        return jnp.concatenate([questions, so_far], axis=-1)


def fact_mask(
    task: Task, contexts: Int[Array, "batch facts fact_length"]
) -> Bool[Array, "batch 1 facts"] | None:
    """The mask by which facts, and questions about them, attend to facts.

    Args:
        task: draws the contexts.
        contexts: a fact of zeros is padding.

    Returns:
        True where a row is a fact; None if the task's contexts have no padding.
    """
    if sizes_of(task) is None:
        return None
    return jnp.any(contexts != 0, axis=-1)[:, None]


def _network(config: FactTransformerConfig, task: Task, rngs: nnx.Rngs) -> Transformer:
    vocabulary = len(task.vocabulary)
    return Transformer(
        config,
        row_length=task.fact_length,
        row_vocabulary=vocabulary,
        query_length=task.question_length + task.answer_length - 1,
        query_vocabulary=vocabulary + 1,
        vocabulary=vocabulary,
        rngs=rngs,
    )


@functools.cache
def _graph(config: FactTransformerConfig, task: Task) -> nnx.GraphDef:
    """The network's structure, without parameters."""
    return nnx.graphdef(nnx.eval_shape(lambda: _network(config, task, nnx.Rngs(0))))
