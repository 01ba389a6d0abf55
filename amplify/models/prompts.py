"""Prompts: how a task's contexts, questions and answers become a language model's token ids.

A context is the prefix that all its questions continue: its facts, each followed by a separator. A
question is followed by the answer's tokens. Everything here is a pure function of arrays of task
tokens; which token id stands for what is a `PromptFormat`, made by `default_format` or, for a
pretrained model, by `wording`.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from amplify.errors import AmplifyError
from amplify.models.attention.attention_parts import PADDING
from amplify.models.decoder.decoding import compact, relative_positions
from amplify.models.packing import Packed, pack
from amplify.types import FAILED, Task
from amplify.words import format_tokens


class PromptFormat(NamedTuple):
    """The model's token ids for a task's tokens, and for what stands between them."""

    vocabulary: tuple[int, ...] | None  # for each task token; None: task token t is id t - 1
    end: int  # for task token 0, which ends an answer
    context_prefix: tuple[int, ...]  # before a context
    fact_separator: tuple[int, ...]  # after each fact
    answer_prefix: tuple[int, ...]  # between a question and its answer


def default_format(task: Task) -> PromptFormat:
    """Makes the format of a model without a tokenizer: the task's tokens, and three more."""
    size = len(task.vocabulary)
    return PromptFormat(tuple(range(size)), 0, (size,), (size + 1,), (size + 2,))


def context_length(form: PromptFormat, task: Task) -> int:
    """Number of token ids of the task's longest context."""
    facts = task.facts * (task.fact_length + len(form.fact_separator))
    return len(form.context_prefix) + facts


def to_model_ids(form: PromptFormat, tokens: Int[Array, "*b"]) -> Int[Array, "*b"]:
    """Maps task tokens to the model's token ids."""
    if form.vocabulary is None:
        return jnp.where(tokens == 0, form.end, tokens - 1)
    return jnp.asarray(form.vocabulary, jnp.int32)[tokens]


def encode_contexts(
    form: PromptFormat, contexts: Int[Array, "batch facts fact_length"]
) -> Int[Array, "batch length"]:
    """Maps contexts to token ids, with PADDING at the end.

    Args:
        form: the prompt format.
        contexts: task tokens; 0 pads, and a fact of zeros is left out.
    """
    is_token = contexts != 0
    separator = jnp.where(
        jnp.any(is_token, -1, keepdims=True),
        _repeat(form.fact_separator, contexts.shape[:2]),
        PADDING,
    )
    ids = jnp.where(is_token, to_model_ids(form, contexts), PADDING)
    facts = jnp.concatenate([ids, separator], -1).reshape(len(contexts), -1)
    prefix = _repeat(form.context_prefix, contexts.shape[:1])
    return compact(jnp.concatenate([prefix, facts], -1))


def encode_questions(
    form: PromptFormat, questions: Int[Array, "batch questions question_length"]
) -> Int[Array, "batch questions prompt_length"]:
    """Maps questions to prompts, with PADDING in front.

    Args:
        form: the prompt format.
        questions: task tokens; a question of zeros becomes a prompt of PADDING alone.
    """
    is_token = questions != 0
    answer_prefix = _repeat(form.answer_prefix, questions.shape[:2])
    answer_prefix = jnp.where(jnp.any(is_token, axis=-1, keepdims=True), answer_prefix, PADDING)
    ids = jnp.where(is_token, to_model_ids(form, questions), PADDING)
    return compact(jnp.concatenate([ids, answer_prefix], -1), at_end=True)


def encode_answers(
    form: PromptFormat,
    questions: Int[Array, "batch questions question_length"],
    answers: Int[Array, "batch questions answer_length"],
) -> Packed:
    """Maps questions with answers to sequences, one question in each, without contexts.

    Args:
        form: the prompt format.
        questions: task tokens.
        answers: task tokens; an answer of FAILED has no targets.
    """
    prompts, is_target = encode_questions(form, questions), up_to_end(answers)
    # The last answer token is only predicted, never read.
    ids = jnp.where(is_target[..., 1:], to_model_ids(form, answers[..., :-1]), PADDING)
    tokens = jnp.concatenate([prompts, ids], -1)
    number = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None, :, None], tokens.shape)
    index = prompts.shape[-1] - 1 + jnp.arange(answers.shape[-1])[None, None]
    return Packed(
        context=jnp.zeros((len(questions), 0), jnp.int32),
        tokens=tokens,
        positions=relative_positions(tokens),
        segments=jnp.where(tokens == PADDING, PADDING, number),
        target_indices=jnp.where(is_target, index, PADDING),
        targets=jnp.where(is_target, answers, PADDING),
    )


def encode_rows(form: PromptFormat, rows: Mapping[str, Array]) -> Packed:
    """Maps a data set's rows to contexts and sequences, one question in each.

    Args:
        form: the prompt format.
        rows: columns `context`, `questions`, `answers` and possibly `weight`, in task tokens. An
            answer of weight 0 has no targets.
    """
    answers, weights = rows["answers"], rows.get("weight")
    if weights is not None:
        answers = jnp.where((weights != 0)[..., None], answers, FAILED)
    unpacked = encode_answers(form, rows["questions"], answers)
    if weights is not None:
        weights = jnp.where(unpacked.targets != PADDING, weights[..., None], 0.0)
    return unpacked._replace(context=encode_contexts(form, rows["context"]), weights=weights)


def pack_rows(
    form: PromptFormat, task: Task, rows: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Maps a data set's rows to packed sequences, as `packing.pack` returns them.

    Args:
        form: the prompt format.
        task: the task, for error messages.
        rows: as in `encode_rows`, all rows of the data set.

    Raises:
        AmplifyError: if an answer contains a token that the model can never generate.
    """
    _check_answers(form, task, rows)
    return pack(jax.device_get(jax.jit(functools.partial(encode_rows, form))(dict(rows))))


def _check_answers(form: PromptFormat, task: Task, rows: Mapping[str, np.ndarray]) -> None:
    # The tokenizer's end-of-sequence token is generated as task token 0, never as itself.
    if form.vocabulary is not None:
        return
    answers = np.asarray(rows["answers"])
    for row, column in np.argwhere((answers == form.end + 1).any(-1))[:1]:
        question, answer = np.asarray(rows["questions"])[row, column], answers[row, column]
        raise AmplifyError(
            f"row {row}: the answer {format_tokens(task, answer)!r} to"
            f" {format_tokens(task, question)!r} contains the end-of-sequence token, which"
            " the model cannot generate inside an answer"
        )


def _repeat(tokens: tuple[int, ...], shape: tuple[int, ...]) -> Int[Array, "*b n"]:
    return jnp.broadcast_to(jnp.asarray(tokens, jnp.int32), (*shape, len(tokens)))


def up_to_end(answers: Int[Array, "*b answer_length"]) -> Bool[Array, "*b answer_length"]:
    """True up to and including the first 0, which ends an answer; nowhere in one of FAILED."""
    is_zero = jnp.int32(answers == 0)
    return (jnp.cumsum(is_zero, axis=-1) == is_zero) & (answers != FAILED)
