"""The language model: prefills a context once, and decodes the answers to its questions.

All questions about a context share its KV cache, so that a hundred questions cost little more than
one. The model generates the task's tokens: in a model trained from scratch they are its vocabulary,
in a pretrained one each is a token of its tokenizer (see `prompts`). Task token 0 pads, and ends an
answer.
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

from amplify.errors import AmplifyError
from amplify.models import prompts
from amplify.models.abilities import Chosen
from amplify.models.attention.attention_parts import PADDING
from amplify.models.attention.rotary import Rotary
from amplify.models.decoder.causal_lm import CausalLM, PrefixCache, cast_kernels
from amplify.models.decoder.decoding import decode, positions_after, prefill
from amplify.models.decoder.flops import count_work
from amplify.models.decoder.layers import Architecture
from amplify.models.decoder.lora import LoRA, with_lora_merged
from amplify.models.packing import Packed
from amplify.models.pretrained import pretrained
from amplify.models.pretrained.hub import find_folder
from amplify.models.pretrained.wording import tokenizer_format
from amplify.models.prompts import PromptFormat
from amplify.models.scoring import argmax, group_by_answer, sampling_log_probs, score_tokens
from amplify.models.transformer import Size, sample_token
from amplify.types import Answers, Place, Task


def _unchanged(logits: Float[Array, "*b vocabulary"]) -> Float[Array, "*b vocabulary"]:
    return logits


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
    """`[assistant]` of an experiment file."""

    PATHS: ClassVar = ("pretrained",)

    pretrained: str = ""
    """A Hugging Face checkpoint: a folder, relative to the experiment's, or a name on the hub. The
    sizes below then have no effect."""
    chat: bool = False
    """Whether a context with its question is a user message in the checkpoint's chat template."""
    width: Size = 64
    """Width of the residual stream."""
    heads: Size = 4
    """Attention heads."""
    key_heads: Size = 4
    """Heads of keys and values, shared by groups of attention heads."""
    layers: Size = 4
    """Transformer layers."""
    mlp_ratio: Size = 4
    """Hidden units of an MLP, as a multiple of the width."""
    reach: Size = 1
    """Tokens that a causal convolution over embeddings spans; 1: there is none."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What is computed in; weights are kept and trained in float32."""
    rematerialise: bool = False
    """Recompute the layers in the backward pass, which saves memory and costs time."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Train LoRA adapters of this rank and freeze the checkpoint's weights; 0: train all weights.
    """
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    """Scale of the adapters: their output is multiplied by this, divided by the rank."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature at which sub-answers are sampled."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: the smallest set of likeliest tokens with this total probability."""
    sampling: Literal["sampled", "greedy"] = "sampled"
    """How the assistant answers sub-questions: by sampling, or with its likeliest tokens."""

    def build(self, task: Task) -> "LanguageModel":
        """Builds the assistant for a task, without using the task's vocabulary or a tokenizer yet.

        Raises:
            ValueError: if the sizes do not fit together.
            AmplifyError: if the folder is not a checkpoint, or its architecture is not supported.
        """
        if self.pretrained:
            opened = pretrained.open_folder(find_folder(self.pretrained))
            lora = LoRA(self.lora_rank, self.lora_alpha) if self.lora_rank else None
            return LanguageModel(self, task, dataclasses.replace(opened.architecture, lora=lora))
        if self.lora_rank:
            raise ValueError(
                "assistant.lora_rank needs assistant.pretrained: adapters of untrained weights"
                " have nothing to adapt"
            )
        for name, total in [("heads", "width"), ("key_heads", "heads")]:
            if getattr(self, total) % getattr(self, name):
                raise ValueError(
                    f"assistant.{name} must divide assistant.{total} ({getattr(self, total)}),"
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
    """A checkpoint's architecture; None: a small one, made for the task."""
    given_format: PromptFormat | None = None
    """None: made from the checkpoint's tokenizer, or from the task's vocabulary."""

    @functools.cached_property
    def architecture(self) -> Architecture:
        """The network's architecture. A small model's depends on the task's vocabulary."""
        given = self.given_architecture
        return _small_architecture(self.config, self.task) if given is None else given

    @functools.cached_property
    def format(self) -> PromptFormat:
        """The network's token ids for the task's tokens."""
        if self.given_format is not None:
            return self.given_format
        if not self.config.pretrained:
            return prompts.default_format(self.task)
        return tokenizer_format(self.task, self._open_checkpoint(), self.config.chat)

    def _open_checkpoint(self) -> pretrained.Pretrained:
        return pretrained.open_folder(find_folder(self.config.pretrained))

    def prepare(self) -> None:
        """Opens the tokenizer; see `models.abilities.preparer_of`.

        Raises:
            AmplifyError: if the tokenizer does not suit the task, or the task's contexts are too
                long for the network.
        """
        _check_length(self)

    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        """Draws untrained parameters; see `types.Assistant`."""
        return nnx.state(_network(self, nnx.Rngs(params=key)), nnx.Param)

    def load(self, place: Place | None = None) -> PyTree[Array] | None:
        """Loads the checkpoint's weights, and draws LoRA adapters; see `models.abilities`.

        Args:
            place: the sharding of each parameter; None: all on the default device.

        Returns:
            The parameters; None: there is no checkpoint.

        Raises:
            AmplifyError: if the weights cannot be read.
        """
        if not self.config.pretrained:
            return None
        loaded = pretrained.load(self._open_checkpoint(), dtype=jnp.float32, place=place)
        if self.architecture.lora is None:
            return loaded
        # Compiled, so that only the adapters are drawn, and not a second model beside the loaded.
        adapters = jax.jit(lambda key: self.split(self.init(key))[0])(jax.random.key(0))
        return self.join(adapters, loaded)

    def split(self, params: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array]]:
        """Splits parameters into trained and frozen ones. With LoRA, only adapters are trained."""
        if self.architecture.lora is None:
            return params, nnx.State({})
        adapters, frozen = nnx.split_state(params, nnx.LoRAParam, ...)
        return adapters, frozen

    def join(self, trained: PyTree[Array], kept: PyTree[Array]) -> PyTree[Array]:
        """Inverse of `split`."""
        return nnx.merge_state(trained, kept)

    def export(self, params: PyTree[Array], out: Path) -> None:
        """Writes a checkpoint folder that transformers can load, with LoRA adapters merged.

        Args:
            params: the parameters.
            out: the folder to be made.

        Raises:
            AmplifyError: if the assistant is not pretrained, or `out` exists.
        """
        if not self.config.pretrained:
            raise AmplifyError(
                "only a pretrained assistant can be exported: its folder has the configuration and"
                " the tokenizer that belong to the weights"
            )
        merged = with_lora_merged(self.architecture.lora, params)
        pretrained.export(self._open_checkpoint(), merged, out)

    @property
    def context_length(self) -> int:
        """Number of token ids of the longest context."""
        return prompts.context_length(self.format, self.task)

    def encode(
        self, params: PyTree[Array], contexts: Int[Array, "batch facts fact_length"]
    ) -> PrefixCache:
        """Computes the KV cache of contexts; see `types.Assistant`."""
        return prefill(self._merge(params), prompts.encode_contexts(self.format, contexts))

    def answer(
        self,
        params: PyTree[Array],
        memory: PrefixCache,
        questions: Int[Array, "batch questions question_length"],
        keys: Key[Array, "batch questions"] | None,
    ) -> Answers:
        """Decodes answers until task token 0; see `types.Assistant`.

        Log-probabilities are those of the distribution sampled from, the final 0 included. The
        answer to a question of zeros is 0, with log-probability 0.
        """
        network = self._merge(params)
        keys = None if self.config.sampling == "greedy" else keys
        head = network.head(self.format.vocabulary)
        return decode(
            network,
            memory,
            prompts.encode_questions(self.format, questions),
            self.task.answer_length,
            functools.partial(self._choose_token, network, head, keys),
            functools.partial(prompts.to_model_ids, self.format),
        )

    def _choose_token(
        self,
        network: CausalLM,
        head: Float[Array, "width tokens"],
        keys: Key[Array, "batch questions"] | None,
        step: int | Int[Array, ""],
        x: Float[Array, "batch questions width"],
        active: Bool[Array, "batch questions"],
    ) -> tuple[Int[Array, "batch questions"], Float[Array, "batch questions"]]:
        log_probs = self._sampling_log_probs(self._logits(network, head, x))
        token = argmax(log_probs) if keys is None else sample_token(keys, step, log_probs)
        log_prob = jnp.take_along_axis(log_probs, token[..., None], axis=-1)[..., 0]
        return jnp.where(active, token, 0), jnp.where(active, log_prob, 0.0)

    def loss(
        self, params: PyTree[Array], batch: dict[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross-entropy of the answers in nats, summed over their tokens; see `types.Assistant`.

        Args:
            params: the parameters.
            batch: columns of a data set, or the fields of a `Packed`.

        Returns:
            The loss, a mean over the answered questions; and metrics. "agreement" is the share of
            answers whose every token is the most likely one.
        """
        network = self._merge(params)
        is_packed = "segments" in batch
        packed = Packed(**batch) if is_packed else prompts.encode_rows(self.format, batch)
        prefix = prefill(network, packed.context)
        log_prob, right, segments = self._score_targets(network, prefix, packed, _unchanged)
        is_target = packed.targets != PADDING
        first, wrong = group_by_answer(jnp.where(is_target, segments, PADDING), is_target & ~right)
        answered = jnp.sum(first).astype(log_prob.dtype)
        questions = jnp.maximum(answered, 1)
        if packed.weights is not None:
            log_prob *= packed.weights
        loss = -jnp.sum(log_prob, where=is_target) / questions
        agreement = jnp.sum(first & ~wrong).astype(loss.dtype) / questions
        means = {"loss": loss, "agreement": agreement}
        return loss, means | {"answered": answered} | count_work(self.architecture, packed)

    def log_prob(
        self,
        params: PyTree[Array],
        memory: PrefixCache,
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
    ) -> Float[Array, "batch questions answer_length"]:
        """Log-probability of each answer token, 0 after the answer's end; see `types.Assistant`."""
        network = self._merge(params)
        unpacked = prompts.encode_answers(self.format, questions, answers)
        distribution = self._sampling_log_probs
        log_prob, _, _ = self._score_targets(network, memory, unpacked, distribution)
        return jnp.where(unpacked.targets != PADDING, log_prob, 0.0)

    def _score_targets(
        self,
        network: CausalLM,
        prefix: PrefixCache,
        packed: Packed,
        log_probs_of: Callable[[Float[Array, "*b v"]], Float[Array, "*b v"]],
    ) -> tuple[
        Float[Array, "batch sequences targets"],
        Bool[Array, "batch sequences targets"],
        Int[Array, "batch sequences targets"],
    ]:
        """Scores target tokens; results are arbitrary where there is no target.

        Args:
            network: the network.
            prefix: KV cache of the contexts.
            packed: the sequences; `context` is ignored.
            log_probs_of: maps logits to unnormalised log-probabilities.

        Returns:
            For each target: its log-probability, whether it is the most likely token, and its
            segment id.
        """
        x, _ = network.forward(
            jnp.maximum(packed.tokens, 0),
            positions_after(prefix, packed.positions),
            segments=packed.segments,
            prefix=prefix,
        )
        indices = jnp.maximum(packed.target_indices, 0)
        x = jnp.take_along_axis(x, indices[..., None], axis=2)
        head = network.head(self.format.vocabulary)
        log_prob, right = score_tokens(
            lambda x: log_probs_of(self._logits(network, head, x)),
            x,
            jnp.maximum(packed.targets, 0),
            head.shape[-1],
        )
        return log_prob, right, jnp.take_along_axis(packed.segments, indices, axis=2)

    def chosen(self, answers: Int[Array, "*b answer_length"]) -> Chosen:
        """The tokens up to the answer's first 0; see `models.abilities.chooser_of`."""
        return Chosen(prompts.up_to_end(answers), jnp.any(answers == 0, axis=-1))

    def lay_out(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Packs a data set's rows into sequences, as `loss` takes them; see `models.abilities`.

        Raises:
            AmplifyError: if an answer contains a token that the model can never generate.
        """
        return prompts.pack_rows(self.format, self.task, rows)

    def _sampling_log_probs(
        self, logits: Float[Array, "*b vocabulary"]
    ) -> Float[Array, "*b vocabulary"]:
        return sampling_log_probs(logits, self.config.temperature, self.config.top_p)

    def _logits(
        self, network: CausalLM, head: Float[Array, "width tokens"], x: Float[Array, "*b width"]
    ) -> Float[Array, "*b vocabulary"]:
        """Logits of the task's tokens; the network's other tokens are never generated."""
        logits, form = network.logits(x, head), self.format
        if form.vocabulary is not None:
            return logits
        end = logits[..., form.end, None]
        is_end = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == form.end
        others = jnp.where(is_end, -jnp.inf, logits)  # the end is task token 0, and no other
        return jnp.concatenate([end, others[..., : len(self.task.vocabulary) - 1]], -1)

    def _merge(self, params: PyTree[Array]) -> CausalLM:
        """The network with these parameters, kernels cast once to the dtype it computes in."""
        return nnx.merge(_graph(self), cast_kernels(self.config.dtype, params))


def _small_architecture(config: LanguageModelConfig, task: Task) -> Architecture:
    """A small Llama whose vocabulary is the task's tokens and three more."""
    form = prompts.default_format(task)
    longest = 2 + task.facts * (task.fact_length + 1) + task.question_length + task.answer_length
    return Architecture(
        vocabulary=1 + max(*form.context_prefix, *form.fact_separator, *form.answer_prefix),
        positions=longest,
        width=config.width,
        heads=config.heads,
        key_heads=config.key_heads,
        head_width=config.width // config.heads,
        hidden=config.mlp_ratio * config.width,
        windows=(0,) * config.layers,
        rotary=(Rotary(10_000.0),) * config.layers,
        reach=config.reach,
        embedding_scale=config.width**0.5,  # as in Gemma, so that layers do not drown it out
    )


def _check_length(model: LanguageModel) -> None:
    task = model.task
    longest = model.context_length + task.question_length + task.answer_length
    longest += len(model.format.answer_prefix)
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
    """The network's structure, without parameters."""
    return nnx.graphdef(nnx.eval_shape(lambda: _network(model, nnx.Rngs(0))))
