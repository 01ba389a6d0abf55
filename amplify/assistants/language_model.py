"""The language model: reads a context as one long sequence, and answers in words, one by one.

A context is read once; every question about it is a short sequence after it, so that a hundred
questions cost little more than one (see `causal_lm`). The model's words are the task's tokens: in a
model trained from nothing they are its vocabulary, in a pretrained one each is a token of its
tokenizer. Token 0 pads, and ends an answer.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
from pydantic import Field

from amplify.assistants import decoding, pretrained
from amplify.assistants.causal_lm import CausalLM, Past, with_kernels_in
from amplify.assistants.flops import training_flops
from amplify.assistants.layers import Architecture
from amplify.assistants.lora import LoRA, with_lora_merged
from amplify.assistants.packing import PADDING, Packed, pack
from amplify.assistants.rotary import Rotary
from amplify.assistants.scoring import by_answer, likeliest, score_words
from amplify.assistants.wording import Words, words_of_its_own, words_of_tokenizer
from amplify.errors import AmplifyError
from amplify.hub import find
from amplify.transformer import Size, sample
from amplify.types import FAILED, Answers, Place, Task
from amplify.words import shown


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
    """`[assistant]` of an experiment file."""

    PATHS: ClassVar = ("pretrained",)

    pretrained: str = ""
    """A Hugging Face folder, seen from the experiment's own, or the name of a checkpoint on the
    hub. Sizes below then mean nothing."""
    chat: bool = False
    """Whether contexts and questions are framed as a message, by the checkpoint's template."""
    width: Size = 64
    heads: Size = 4
    key_heads: Size = 4
    layers: Size = 4
    mlp_ratio: Size = 4
    reach: Size = 1
    """Tokens that are embedded together, by a causal convolution: each with those before it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What is computed in; weights are kept and trained in float32."""
    rematerialise: bool = False
    """Compute again on the way back what layers computed, in place of keeping it: for less memory,
    more work."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Train maps of this rank beside those of the checkpoint, which stays as it is; 0: train all.
    """
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Only the likeliest tokens, so many that they have this share of the probability, are sampled
    from."""
    sampling: Literal["sampled", "greedy"] = "sampled"
    """How the assistant answers sub-questions: by its distribution, or its likeliest tokens."""

    def build(self, task: Task) -> "LanguageModel":
        """The assistant for a task. Neither the task's vocabulary nor a tokenizer is asked for yet.

        Raises:
            ValueError: if the sizes do not fit together.
            AmplifyError: if the folder is no checkpoint, or not supported.
        """
        if self.pretrained:
            opened = pretrained.open_folder(find(self.pretrained))
            lora = LoRA(self.lora_rank, self.lora_alpha) if self.lora_rank else None
            return LanguageModel(self, task, dataclasses.replace(opened.architecture, lora=lora))
        if self.lora_rank:
            raise ValueError(
                "assistant.lora_rank is for a pretrained assistant: beside weights that nothing"
                " has trained, there is nothing to adapt"
            )
        for name, into in [("heads", "width"), ("key_heads", "heads")]:
            if getattr(self, into) % getattr(self, name):
                raise ValueError(
                    f"assistant.{name} must divide assistant.{into} ({getattr(self, into)}),"
                    f" got {getattr(self, name)}"
                )
        if self.width // self.heads % 2:
            raise ValueError(
                f"assistant.width must be an even multiple of assistant.heads ({self.heads}),"
                f" got {self.width}"
            )
        return LanguageModel(self, task)


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """The assistant, as pure functions of its parameters (see `types.Assistant`)."""

    config: LanguageModelConfig
    task: Task
    given_architecture: Architecture | None = None
    """A checkpoint's; None: a small one, made for the task."""
    given_words: Words | None = None
    """None: those of the checkpoint's tokenizer, or as many as the task's vocabulary has."""

    @functools.cached_property
    def architecture(self) -> Architecture:
        """The network's sizes; those of a small model depend on the task's vocabulary."""
        given = self.given_architecture
        return _small(self.config, self.task) if given is None else given

    @functools.cached_property
    def words(self) -> Words:
        """The network's token for each token of the task."""
        if self.given_words is not None:
            return self.given_words
        if not self.config.pretrained:
            return words_of_its_own(self.task)
        opened = pretrained.open_folder(find(self.config.pretrained))
        return words_of_tokenizer(self.task, opened, self.config.chat)

    def prepare(self) -> None:
        """Opens the tokenizer; see `model_abilities.preparer_of`.

        Raises:
            AmplifyError: if the tokenizer does not suit the task, or its contexts are too long for
                the network.
        """
        _check_length(self)

    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        return nnx.state(_network(self, nnx.Rngs(params=key)), nnx.Param)

    def load(self, place: Place | None = None) -> PyTree[Array] | None:
        """The weights that rounds begin with, if they come from a folder."""
        if not self.config.pretrained:
            return None
        opened = pretrained.open_folder(find(self.config.pretrained))
        loaded = pretrained.load(opened, dtype=jnp.float32, place=place)
        if self.architecture.lora is None:
            return loaded
        # Compiled, so that only the adapters are drawn, and not another model beside the one read.
        adapters = jax.jit(lambda key: self.split(self.init(key))[0])(jax.random.key(0))
        return self.join(adapters, loaded)

    def split(self, params: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array]]:
        """With LoRA, its maps are trained and all else is kept."""
        if self.architecture.lora is None:
            return params, nnx.State({})
        adapters, kept = nnx.split_state(params, nnx.LoRAParam, ...)
        return adapters, kept

    def join(self, trained: PyTree[Array], kept: PyTree[Array]) -> PyTree[Array]:
        return nnx.merge_state(trained, kept)

    def export(self, params: PyTree[Array], out: Path) -> None:
        """Writes a folder that transformers opens, like the one that the weights came from."""
        if not self.config.pretrained:
            raise AmplifyError(
                "only a pretrained assistant can be exported: its folder has the configuration and"
                " the tokenizer that belong to the weights"
            )
        opened = pretrained.open_folder(find(self.config.pretrained))
        pretrained.export(opened, with_lora_merged(self.architecture.lora, params), out)

    @property
    def context_length(self) -> int:
        """Tokens of the longest context."""
        task, words = self.task, self.words
        return len(words.begin) + task.facts * (task.fact_length + len(words.stop))

    def encode(
        self, params: PyTree[Array], contexts: Int[Array, "batch facts fact_length"]
    ) -> Past:
        return decoding.remember(self._merge(params), self._read_out(contexts))

    def answer(
        self,
        params: PyTree[Array],
        memory: Past,
        questions: Int[Array, "batch questions question_length"],
        keys: Key[Array, "batch questions"] | None,
    ) -> Answers:
        """Word by word, until 0 is said; see `types.Assistant`. Log-probabilities are those of the
        distribution sampled from, the 0 included. Where nothing is asked, nothing is said.
        """
        network, length = self._merge(params), self.task.answer_length
        keys = None if self.config.sampling == "greedy" else keys
        say = functools.partial(self._say, network, network.head(self.words.of_task), keys)
        return decoding.speak(network, memory, self._ask(questions), length, say, self._spell)

    def _say(
        self,
        network: CausalLM,
        head: Float[Array, "width tokens"],
        keys: Key[Array, "batch questions"] | None,
        place: int | Int[Array, ""],
        x: Float[Array, "batch questions width"],
        speaks: Bool[Array, "batch questions"],
    ) -> tuple[Int[Array, "batch questions"], Float[Array, "batch questions"]]:
        """A token and its log-probability; both are 0 where no more is said."""
        log_probs = self._distribution(self._logits(network, head, x))
        token = likeliest(log_probs) if keys is None else sample(keys, place, log_probs)
        log_prob = jnp.take_along_axis(log_probs, token[..., None], axis=-1)[..., 0]
        return jnp.where(speaks, token, 0), jnp.where(speaks, log_prob, 0.0)

    def loss(
        self, params: PyTree[Array], batch: dict[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross-entropy of the answers in nats, summed over their words; see `types.Assistant`."""
        network = self._merge(params)
        packed = Packed(**batch) if "segments" in batch else self._one_to_a_line(batch)
        past = decoding.remember(network, packed.context)
        given, right, question = self._read_answers(network, past, packed)
        said = packed.words != PADDING
        first, flawed = by_answer(jnp.where(said, question, PADDING), said & ~right)
        answered = jnp.sum(first).astype(given.dtype)
        questions = jnp.maximum(answered, 1)
        if packed.weights is not None:
            given *= packed.weights
        loss = -jnp.sum(given, where=said) / questions
        agreement = jnp.sum(first & ~flawed).astype(loss.dtype) / questions
        means = {"loss": loss, "agreement": agreement}
        return loss, means | {"answered": answered} | self._count_work(packed)

    def log_prob(
        self,
        params: PyTree[Array],
        memory: Past,
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
    ) -> Float[Array, "batch questions answer_length"]:
        """Log-probability of each token; see `types.Assistant`. Behind an answer's end it is 0."""
        network, lines = self._merge(params), self._lines(questions, answers)
        given, _, _ = self._read_answers(network, memory, lines, self._distribution)
        return jnp.where(lines.words != PADDING, given, 0.0)

    def _read_answers(
        self,
        network: CausalLM,
        past: Past,
        lines: Packed,
        of: Callable[[Array], Array] = lambda logits: logits,
    ) -> tuple[
        Float[Array, "batch lines said"],
        Bool[Array, "batch lines said"],
        Int[Array, "batch lines said"],
    ]:
        """Of each word that is said: its log-probability, whether it is the likeliest, and the
        number of its question. They mean nothing where none is said.
        """
        x, _ = network.read(
            jnp.maximum(lines.tokens, 0),
            decoding.behind(past, lines.distances),
            segments=lines.segments,
            past=past,
        )
        places = jnp.maximum(lines.places, 0)
        x = jnp.take_along_axis(x, places[..., None], axis=2)
        given, right = self._score(network, x, jnp.maximum(lines.words, 0), of)
        return given, right, jnp.take_along_axis(lines.segments, places, axis=2)

    def _count_work(self, packed: Packed) -> dict[str, Float[Array, ""]]:
        """Tokens of a training step, padding left out, and the floating-point operations that they
        take. A token of a question attends to its context, and to its question up to itself.
        """
        context = jnp.sum(packed.context != PADDING, axis=1, dtype=jnp.float32)
        there = packed.tokens != PADDING
        behind = jnp.sum(there, axis=(1, 2), dtype=jnp.float32)
        own = jnp.sum(packed.distances, where=there, dtype=jnp.float32)
        pairs = jnp.sum(context * (context + 1) / 2 + behind * context) + own
        tokens = jnp.sum(context + behind)
        said = jnp.sum(packed.words != PADDING, dtype=jnp.float32)
        work = training_flops(self.architecture, tokens, said, pairs)
        return {"tokens": tokens, "flops": jnp.asarray(work)}

    def _score(
        self,
        network: CausalLM,
        x: Float[Array, "batch lines said width"],
        words: Int[Array, "batch lines said"],
        of: Callable[[Array], Array] = lambda logits: logits,
    ) -> tuple[Float[Array, "batch lines said"], Bool[Array, "batch lines said"]]:
        """Log-probabilities of words, and whether each is the likeliest, in the distribution that
        `of` makes of logits.
        """
        head = network.head(self.words.of_task)
        return score_words(lambda x: of(self._logits(network, head, x)), x, words, head.shape[-1])

    def lay_out(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A data set's rows as they are trained on, see `packing`.

        Raises:
            AmplifyError: if an answer cannot be said, and so cannot be learned.
        """
        self._check_targets(rows)
        return pack(jax.device_get(jax.jit(self._one_to_a_line)(dict(rows))))

    def _check_targets(self, rows: Mapping[str, np.ndarray]) -> None:
        """The tokenizer's end of a text is said as token 0, and must not stand in an answer."""
        if self.words.of_task is not None:
            return
        answers = np.asarray(rows["answers"])
        for row, column in np.argwhere((answers == self.words.end + 1).any(-1))[:1]:
            question, answer = np.asarray(rows["questions"])[row, column], answers[row, column]
            raise AmplifyError(
                f"row {row}: the answer {shown(self.task, answer)!r} to"
                f" {shown(self.task, question)!r} has a control token in it, which cannot be said"
            )

    def _one_to_a_line(self, rows: Mapping[str, Array]) -> Packed:
        """Each question, and what of its answer the next word is said after."""
        answers, weights = rows["answers"], rows.get("weight")
        if weights is not None:
            answers = jnp.where((weights != 0)[..., None], answers, FAILED)
        lines = self._lines(rows["questions"], answers)
        if weights is not None:
            said = lines.words != PADDING
            weights = jnp.where(said, weights[..., None], 0.0)
        return lines._replace(context=self._read_out(rows["context"]), weights=weights)

    def _lines(
        self,
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
    ) -> Packed:
        """Questions with their answers, one to a line, without the contexts."""
        asked, said = self._ask(questions), _until_stop(answers)
        heard = jnp.where(said[..., 1:], self._spell(answers[..., :-1]), PADDING)
        tokens = jnp.concatenate([asked, heard], -1)
        number = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None, :, None], tokens.shape)
        place = asked.shape[-1] - 1 + jnp.arange(answers.shape[-1])[None, None]
        return Packed(
            jnp.zeros((len(questions), 0), jnp.int32),
            tokens,
            decoding.distances(tokens),
            jnp.where(tokens == PADDING, PADDING, number),
            jnp.where(said, place, PADDING),
            jnp.where(said, answers, PADDING),
        )

    def _read_out(
        self, contexts: Int[Array, "batch facts fact_length"]
    ) -> Int[Array, "batch length"]:
        """A context as the model reads it, and PADDING after it."""
        there = contexts != 0
        stop = jnp.where(
            jnp.any(there, -1, keepdims=True),
            self._repeat(self.words.stop, contexts.shape[:2]),
            PADDING,
        )
        facts = jnp.concatenate([jnp.where(there, self._spell(contexts), PADDING), stop], -1)
        begin = self._repeat(self.words.begin, contexts.shape[:1])
        return decoding.together(jnp.concatenate([begin, facts.reshape(len(contexts), -1)], -1))

    def _ask(
        self, questions: Int[Array, "batch questions question_length"]
    ) -> Int[Array, "batch questions asked"]:
        """Questions as the model reads them after a context, and PADDING before them; PADDING alone
        where nothing is asked.
        """
        there = questions != 0
        begins = self._repeat(self.words.answer, questions.shape[:2])
        begins = jnp.where(jnp.any(there, axis=-1, keepdims=True), begins, PADDING)
        asked = jnp.where(there, self._spell(questions), PADDING)
        return decoding.together(jnp.concatenate([asked, begins], -1), at_end=True)

    def _distribution(self, logits: Float[Array, "*b vocabulary"]) -> Float[Array, "*b vocabulary"]:
        """Log-probabilities of the task's tokens, as they are sampled."""
        log_probs = jax.nn.log_softmax(logits / self.config.temperature)
        if self.config.top_p == 1:
            return log_probs
        # A token is left out if those likelier than it have the share together. Which are kept is
        # said by place: a value that is computed twice may be rounded in two ways.
        order = jnp.argsort(log_probs, axis=-1, descending=True)
        ordered = jnp.exp(jnp.take_along_axis(log_probs, order, axis=-1))
        enough = jnp.cumsum(ordered, axis=-1) - ordered >= self.config.top_p
        left_out = jnp.put_along_axis(jnp.zeros_like(enough), order, enough, axis=-1, inplace=False)
        return jax.nn.log_softmax(jnp.where(left_out, -jnp.inf, log_probs))

    def _logits(
        self, network: CausalLM, head: Float[Array, "width tokens"], x: Float[Array, "*b width"]
    ) -> Float[Array, "*b vocabulary"]:
        """Of the task's tokens; the model's others are never said."""
        logits, words = network.logits(x, head), self.words
        if words.of_task is not None:
            return logits
        end = logits[..., words.end, None]
        is_end = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == words.end
        others = jnp.where(is_end, -jnp.inf, logits)  # it is said as token 0, and no other
        return jnp.concatenate([end, others[..., : len(self.task.vocabulary) - 1]], -1)

    def _spell(self, tokens: Int[Array, "*b"]) -> Int[Array, "*b"]:
        """The model's tokens for the task's."""
        if self.words.of_task is None:
            return jnp.where(tokens == 0, self.words.end, tokens - 1)
        return jnp.asarray(self.words.of_task, jnp.int32)[tokens]

    def _repeat(self, tokens: tuple[int, ...], shape: tuple[int, ...]) -> Int[Array, "*b n"]:
        return jnp.broadcast_to(jnp.asarray(tokens, jnp.int32), (*shape, len(tokens)))

    def _merge(self, params: PyTree[Array]) -> CausalLM:
        """The network; what it multiplies with is cast to the dtype it computes in, once."""
        return nnx.merge(_graph(self), with_kernels_in(self.config.dtype, params))


def _until_stop(answers: Int[Array, "*b answer_length"]) -> Bool[Array, "*b answer_length"]:
    """True up to the first 0, which is said too; nowhere in an answer that was not had."""
    zero = jnp.int32(answers == 0)
    return (jnp.cumsum(zero, axis=-1) == zero) & (answers != FAILED)


def _small(config: LanguageModelConfig, task: Task) -> Architecture:
    """A model of our own: Llama's plan, with the task's tokens and three more."""
    words = words_of_its_own(task)
    longest = 2 + task.facts * (task.fact_length + 1) + task.question_length + task.answer_length
    return Architecture(
        vocabulary=1 + max(*words.begin, *words.stop, *words.answer),
        positions=longest,
        width=config.width,
        heads=config.heads,
        key_heads=config.key_heads,
        head_width=config.width // config.heads,
        hidden=config.mlp_ratio * config.width,
        windows=(0,) * config.layers,
        rotary=(Rotary(10_000.0),) * config.layers,
        reach=config.reach,
        embedding_scale=config.width**0.5,  # as in Gemma: what layers add must not drown it
    )


def _check_length(model: LanguageModel) -> None:
    """Raises AmplifyError if the network has too few positions for a context and a question."""
    task = model.task
    longest = model.context_length + task.question_length + task.answer_length
    longest += len(model.words.answer)
    if longest > model.architecture.positions:
        raise AmplifyError(
            f"{model.config.pretrained}: a context of this task with a question takes up to"
            f" {longest} tokens, but the model has {model.architecture.positions} positions"
        )


def _network(model: LanguageModel, rngs: nnx.Rngs) -> CausalLM:
    config = model.config
    return CausalLM(model.architecture, rngs, jnp.dtype(config.dtype), config.rematerialise)


@functools.cache
def _graph(model: LanguageModel) -> nnx.GraphDef:
    """The network without its parameters."""
    return nnx.graphdef(nnx.eval_shape(lambda: _network(model, nnx.Rngs(0))))
