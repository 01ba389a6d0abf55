"""A Llama of 6.45 million weights, which transformers writes and we open, and its tokenizer."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import torch
import transformers
from jaxtyping import Array, PyTree
from tokenizers import Tokenizer, models, pre_tokenizers

from amplify.models.language_model import LanguageModel, LanguageModelConfig
from amplify.models.pretrained import pretrained
from amplify.models.prompts import PromptFormat
from amplify.types import Task

VOCABULARY = 4096
BEGIN, SEPARATOR, ANSWER = range(VOCABULARY - 3, VOCABULARY)
"""Before a context, after its one fact, and between a question and its answer."""
LLAMA = {
    "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 688,
    "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shapes(Task):
    """As much of a task as a language model asks for."""

    facts: int = 1
    fact_length: int = 1
    question_length: int = 1
    answer_length: int = 1
    vocabulary: tuple[str, ...] = tuple(map(str, range(BEGIN)))
    max_depth: ClassVar = 1
    classes: ClassVar = ("",)


def write(folder: Path) -> None:
    """Writes the untrained Llama to a folder."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**LLAMA))
    assert round(model.num_parameters() / 1e6, 2) == 6.45
    model.save_pretrained(folder)


def ours(folder: Path, shapes: Shapes) -> tuple[LanguageModel, PyTree[Array]]:
    """Opens the Llama as an assistant that answers greedily, and loads its weights."""
    opened = pretrained.open_folder(folder)
    form = PromptFormat(tuple(range(BEGIN)), 0, (BEGIN,), (SEPARATOR,), (ANSWER,))
    model = LanguageModel(LanguageModelConfig(sampling="greedy"), shapes, opened.architecture, form)
    return model, pretrained.load(opened, dtype=jnp.float32)


def tokenizer(end: int = 0) -> transformers.PreTrainedTokenizerFast:
    """Makes a tokenizer of numbers with spaces between them, each of which is a token.

    Args:
        end: the token that ends a text, and pads it.
    """
    words = {str(number): number for number in {*range(VOCABULARY), end}}
    numbers = Tokenizer(models.WordLevel(words, unk_token="0"))
    numbers.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=numbers, eos_token=str(end), pad_token=str(end)
    )
