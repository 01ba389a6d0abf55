"""The learned overseer: a model that imitates a few demonstrations of how questions are decomposed.

It reads the interaction so far, one row per exchange, and predicts the next utterance: a
sub-question or the answer. Like the overseers that it imitates, it never sees a context.
Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575), section 2.2 and appendix, where a causal
transformer reads the interaction token by token. Here one position is a whole exchange, which gives
about 10 positions instead of 40, and the tokens of an utterance are predicted autoregressively.
"""

import dataclasses
import functools
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key, PyTree
from pydantic import Field

from amplify.models.transformer import Memory, Size, Transformer
from amplify.overseers.noisy import with_noise
from amplify.task_abilities import strategy_of
from amplify.types import DONT_KNOW, Ask, Interaction, Overseer, Strategy, Task

NOTHING, ASK, ANSWER = 0, 1, 2
"""First token of an utterance: no utterance, a sub-question, or the answer."""

FIRST_DEMONSTRATIONS = 500
"""Demonstrations before the learned overseer's answers are used."""


@dataclasses.dataclass(frozen=True)
class LearnedConfig:
    """`[overseer]` of an experiment file."""

    width: Size = 64
    """Width of the residual stream; `heads` must divide it."""
    heads: Size = 4
    """Attention heads."""
    layers: Size = 1
    """Transformer layers."""
    mlp_ratio: Size = 4
    """Hidden units of an MLP, as a multiple of the width."""
    copies: bool = True
    """Whether tokens can be copied from earlier exchanges, by a learned pointer."""
    demonstrations: Annotated[int, Field(ge=FIRST_DEMONSTRATIONS)] = 20_000
    """Maximum number of demonstrations, over all rounds."""
    demonstrations_per_step: Annotated[float, Field(gt=0)] = 1.0
    """Demonstrations that are added per training step of the assistant while imitation is poor. The
    paper's assistant takes a hundred times as many steps as a small one needs.
    """
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Learning rate."""
    batch: Size = 64
    """Demonstrations per training step."""
    steps: Size = 1000
    """Training steps per round, if answers are stored before the assistant is trained on them."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of answers that are replaced by random ones."""

    @property
    def encoder_layers(self) -> int:
        """Layers of self-attention over exchanges: none, so that none is ever encoded again."""
        return 0

    @property
    def decoder_layers(self) -> int:
        """Layers of cross-attention from the next utterance to the exchanges."""
        return self.layers

    def make_optimizer(self) -> optax.GradientTransformation:
        """Adam with linear warm-up over 100 steps, and gradients clipped to a global norm of 1."""
        warm_up = optax.linear_schedule(0.0, self.learning_rate, 100)
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(warm_up, b2=0.98))

    def build(self, task: Task) -> "Learned":
        """Builds the overseer.

        Args:
            task: the task.

        Raises:
            ValueError: if `heads` does not divide `width`.
        """
        if self.width % self.heads:
            raise ValueError(
                f"overseer.heads must divide overseer.width ({self.width}), got {self.heads}"
            )
        return Learned(self, task)


class Transcript(NamedTuple):
    """Interactions as sequences of exchanges, one more than there are sub-questions."""

    rows: Int[Array, "*b exchanges row_length"]  # the question, then each sub-question and answer
    utterances: Int[Array, "*b exchanges utterance_length"]  # the overseer's response to each row


@dataclasses.dataclass(frozen=True)
class Learned:
    """An overseer that imitates demonstrations."""

    config: LearnedConfig
    task: Any
    most_asks: int | None = None
    """Maximum number of sub-questions; None: that of the task's strategy."""

    traced = True
    replayable = False  # runs a network at every step

    @functools.cached_property
    def asks(self) -> int:
        """Maximum number of sub-questions of a demonstration."""
        return count_asks(self.task) if self.most_asks is None else self.most_asks

    @property
    def row_length(self) -> int:
        """Tokens of a row: the number of the exchange, a question and an answer."""
        return 1 + self.task.question_length + self.task.answer_length

    @property
    def utterance_length(self) -> int:
        """Tokens of an utterance: its kind, and a question or an answer."""
        return 1 + max(self.task.question_length, self.task.answer_length)

    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        """Initializes the parameters. Consumes the key."""
        return nnx.state(_network(self, nnx.Rngs(params=key)), nnx.Param)

    def using(self, params: PyTree[Array]) -> Overseer:
        """Binds parameters to the overseer.

        Args:
            params: what `init` returned, trained.
        """
        return with_noise(functools.partial(self._strategy, params), self.config.noise, self.task)

    def transcript(self, demonstrated: Interaction) -> Transcript:
        """Converts demonstrations to transcripts.

        Args:
            demonstrated: interactions of depth 1. Steps that were not asked are left out.

        Returns:
            The transcripts to imitate.
        """
        shape = demonstrated.question.shape[:-1]
        rows = self._first_row(demonstrated.question)[..., None, :]
        asked = jnp.stack([step.asked for step in demonstrated.steps], axis=-1)
        questions, answers = (
            jnp.stack([getattr(step.sub, part) for step in demonstrated.steps], axis=-2)
            for part in ("question", "answer")
        )
        order = jnp.argsort(~asked, axis=-1, stable=True)[..., None]
        taken = jnp.take_along_axis(asked, order[..., 0], axis=-1)[..., None]
        questions, answers = (
            jnp.where(taken, jnp.take_along_axis(part, order, axis=-2), 0)
            for part in (questions, answers)
        )
        numbers = jnp.where(
            taken, 2 + jax.lax.broadcasted_iota(jnp.int32, taken.shape, taken.ndim - 2), 0
        )
        rows = jnp.concatenate(
            [rows, jnp.concatenate([numbers, questions, answers], axis=-1)], axis=-2
        )
        sub_questions = self._utterance(jnp.where(taken[..., 0], ASK, NOTHING), questions)
        no_utterance = jnp.zeros((*shape, 1, self.utterance_length), jnp.int32)
        asking = jnp.concatenate([sub_questions, no_utterance], axis=-2)
        answering = self._utterance(jnp.full(shape, ANSWER), demonstrated.answer)[..., None, :]
        exchange = jax.lax.broadcasted_iota(jnp.int32, asking.shape, asking.ndim - 2)
        last = jnp.sum(asked, axis=-1)[..., None, None]
        return Transcript(rows, jnp.where(exchange == last, answering, asking))

    def loss(
        self, params: PyTree[Array], transcript: Transcript
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean of the cross-entropies per token of sub-questions and of answers.

        Args:
            params: the overseer's parameters.
            transcript: demonstrations, with a leading axis "batch".

        Returns:
            The loss in nats per token; and metrics: "nats", the mean negative log-probability of
            all utterances of a transcript, and "exact", the fraction of transcripts in which all
            demonstrated tokens are the likeliest, given the tokens before them.
        """
        rows, utterances = transcript
        network, (batch, exchanges, length) = self._merge(params), utterances.shape
        earlier = jnp.tril(jnp.ones((exchanges, exchanges), bool))[None]
        memory = network.encode(rows)
        numbers = jnp.broadcast_to(jnp.arange(exchanges)[:, None], (batch, exchanges, length))
        queries = jnp.stack(
            [self._query(numbers[..., place], utterances, place) for place in range(length)], -2
        )
        flat = queries.reshape(batch, exchanges * length, -1)
        log_probs = network.log_probs(memory, flat, jnp.repeat(earlier, length, axis=1))
        log_probs = log_probs.reshape(*utterances.shape, -1)
        given = jnp.take_along_axis(log_probs, utterances[..., None], axis=-1)[..., 0]
        kind = utterances[..., :1]
        place = jax.lax.broadcasted_iota(jnp.int32, utterances.shape, 2)
        lengths = {ASK: 1 + self.task.question_length, ANSWER: 1 + self.task.answer_length}
        total, nats = jnp.zeros(()), jnp.zeros(())
        right = jnp.ones(utterances.shape, bool)
        for this_kind, kind_length in lengths.items():
            mask = (kind == this_kind) & (place < kind_length)
            count = jnp.maximum(jnp.sum(mask, dtype=given.dtype), 1)
            total -= jnp.sum(given, where=mask) / count
            nats -= jnp.sum(given, where=mask) / batch
            right &= ~mask | (jnp.argmax(log_probs, -1) == utterances)
        exact = jnp.mean(jnp.all(right, (1, 2)), dtype=nats.dtype)
        return total / 2, {"nats": nats, "exact": exact}

    def _strategy(
        self,
        params: PyTree[Array],
        questions: Int[Array, "*b question_length"],
        keys: Key[Array, "*b"],
    ) -> Strategy:
        """Utterances are decoded greedily, so that randomness comes from sub-answers only."""
        shape, task = questions.shape[:-1], self.task
        network = self._merge(params)
        memory = network.encode(_items(self._first_row(questions)[..., None, :]))
        answered = jnp.zeros(shape, bool)
        answer = jnp.full((*shape, task.answer_length), DONT_KNOW, questions.dtype)
        for number in range(self.asks + 1):
            utterance = self._decode_utterance(network, memory).reshape(*shape, -1)
            asks = ~answered & (utterance[..., 0] == ASK)
            ends = ~answered & ~asks
            gives_answer = (ends & (utterance[..., 0] == ANSWER))[..., None]
            answer = jnp.where(gives_answer, utterance[..., 1 : 1 + task.answer_length], answer)
            answered |= ends
            if number == self.asks:
                return answer
            question = utterance[..., 1 : 1 + task.question_length]
            sub_answer = yield Ask(question, asks)
            numbers = jnp.full((*shape, 1), 2 + number, questions.dtype)
            row = jnp.where(
                asks[..., None], jnp.concatenate([numbers, question, sub_answer], -1), 0
            )
            memory = memory.append(network.encode(_items(row[..., None, :])))
        return answer

    def _decode_utterance(
        self, network: Transformer, memory: Memory
    ) -> Int[Array, "items utterance_length"]:
        """The next utterance, by greedy decoding."""
        items, exchanges, _ = memory.rows.shape
        numbers = jnp.full((items,), exchanges - 1, memory.rows.dtype)

        def next_token(decoded: Array, place: Array) -> tuple[Array, None]:
            query = self._query(numbers, decoded, place)
            log_probs = network.log_probs(memory, query[:, None])[:, 0]
            return decoded.at[:, place].set(jnp.argmax(log_probs, -1).astype(decoded.dtype)), None

        no_utterance = jnp.zeros((items, self.utterance_length), memory.rows.dtype)
        return jax.lax.scan(next_token, no_utterance, jnp.arange(self.utterance_length))[0]

    def _query(
        self,
        numbers: Int[Array, "*b"],
        utterances: Int[Array, "*b utterance_length"],
        place: int | Int[Array, ""],
    ) -> Int[Array, "*b utterance_length"]:
        """The query for the next token: the number of the exchange, and the utterance's first
        `place` tokens plus 1, padded with 0.
        """
        is_before = jnp.arange(self.utterance_length - 1) < place
        decoded = jnp.where(is_before, utterances[..., :-1] + 1, 0)
        return jnp.concatenate([numbers[..., None], decoded], axis=-1)

    def _first_row(
        self, questions: Int[Array, "*b question_length"]
    ) -> Int[Array, "*b row_length"]:
        shape = questions.shape[:-1]
        number, answer = jnp.ones((*shape, 1)), jnp.zeros((*shape, self.task.answer_length))
        parts = [number.astype(questions.dtype), questions, answer.astype(questions.dtype)]
        return jnp.concatenate(parts, axis=-1)

    def _utterance(
        self, kind: Int[Array, "*b"], tokens: Int[Array, "*b n"]
    ) -> Int[Array, "*b utterance_length"]:
        length = self.utterance_length - 1 - tokens.shape[-1]
        padding = [(0, 0)] * kind.ndim + [(0, length)]
        return jnp.concatenate([kind[..., None], jnp.pad(tokens, padding)], axis=-1)

    def _merge(self, params: PyTree[Array]) -> Transformer:
        return nnx.merge(_graphdef(self), params)


def _items(rows: Int[Array, "*b exchanges row_length"]) -> Int[Array, "items exchanges row_length"]:
    return rows.reshape(-1, *rows.shape[-2:])


def count_asks(task: Task) -> int:
    """The number of sub-questions that a task's strategy asks.

    Args:
        task: a task that has a strategy.
    """
    asks, decompose = 0, strategy_of(task)
    assert decompose is not None  # checked when the experiment file is read

    def run(question: Int[Array, " question_length"]) -> Int[Array, " answer_length"]:
        nonlocal asks
        strategy = decompose(question)
        try:
            next(strategy)
            while True:
                asks += 1
                strategy.send(jnp.zeros((task.answer_length,), jnp.int32))
        except StopIteration as end:
            return end.value

    jax.eval_shape(run, jnp.zeros((task.question_length,), jnp.int32))
    return asks


def _network(overseer: Learned, rngs: nnx.Rngs) -> Transformer:
    # Rows and queries begin with the number of an exchange, which may exceed every token.
    vocabulary = max(len(overseer.task.vocabulary), overseer.asks + 2, ANSWER + 1)
    return Transformer(
        overseer.config,
        row_length=overseer.row_length,
        row_vocabulary=vocabulary,
        query_length=overseer.utterance_length,
        query_vocabulary=vocabulary + 1,
        vocabulary=vocabulary,
        rngs=rngs,
    )


@functools.cache
def _graphdef(overseer: Learned) -> nnx.GraphDef:
    """Graph definition of the network, without parameters."""
    return nnx.graphdef(nnx.eval_shape(lambda: _network(overseer, nnx.Rngs(0))))
