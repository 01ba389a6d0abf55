"""Language models beside the tools that one would use otherwise: transformers' `generate` and TRL's
trainer, on the same machine, with the same weights, in one run. TRL is in the extra `bench`.
"""

import dataclasses
import statistics
import time
from types import SimpleNamespace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from amplify.models.language_model import LanguageModel, LanguageModelConfig
from amplify.models.pretrained import pretrained
from amplify.models.prompts import PromptFormat
from amplify.training.options import Training
from amplify.types import Task
from tests.training import step_of, untrained

VOCABULARY = 4096
LLAMA = {
    "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 688,
    "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
}  # fmt: skip
"""6.45 million weights."""
NEW = 8
REPEATS = 5


@dataclasses.dataclass(frozen=True)
class Shapes(Task):
    """As much of a task as a language model asks for."""

    facts: int = 1
    fact_length: int = 1
    question_length: int = 1
    answer_length: int = 1
    vocabulary: tuple[str, ...] = tuple(map(str, range(VOCABULARY - 3)))
    max_depth: ClassVar = 1
    classes: ClassVar = ("",)


def ours(folder, shapes: Shapes) -> tuple[LanguageModel, object]:
    opened = pretrained.open_folder(folder)
    form = PromptFormat(
        tuple(range(VOCABULARY - 3)), 0, (VOCABULARY - 3,), (VOCABULARY - 2,), (VOCABULARY - 1,)
    )
    model = LanguageModel(LanguageModelConfig(sampling="greedy"), shapes, opened.architecture, form)
    return model, pretrained.load(opened, dtype=jnp.float32)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**LLAMA))
    assert round(model.num_parameters() / 1e6, 2) == 6.45
    model.save_pretrained(tmp_path)
    return tmp_path


def test_answers_to_64_questions_about_one_context_beside_generate(folder):
    """A context of 512 tokens, questions of 16, 8 new tokens each; nothing stops early."""
    shapes = Shapes(facts=1, fact_length=510, question_length=15, answer_length=NEW)
    model, params = ours(folder, shapes)
    random = np.random.default_rng(0)
    context = random.integers(1, VOCABULARY - 3, (1, 1, 510)).astype(np.int32)
    questions = random.integers(1, VOCABULARY - 3, (1, 64, 15)).astype(np.int32)
    answer = jax.jit(lambda p, c, q: model.answer(p, model.encode(p, c), q, None).tokens)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    read = np.concatenate([[VOCABULARY - 3], context[0, 0], [VOCABULARY - 2]])
    rows = [np.concatenate([read, question, [VOCABULARY - 1]]) for question in questions[0]]
    prompts = torch.tensor(np.array(rows))
    allowed = {"suppress_tokens": [0, VOCABULARY - 3, VOCABULARY - 2, VOCABULARY - 1]}
    settings = transformers.GenerationConfig(
        max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0, **allowed
    )

    def generate() -> np.ndarray:
        with torch.inference_mode():
            out = theirs.generate(
                prompts, attention_mask=torch.ones_like(prompts), generation_config=settings
            )
        return out[:, -NEW:].numpy()

    said = np.asarray(answer(params, context, questions))[0]
    running = (said != 0).all(axis=1)  # ours may say that nothing follows; theirs may not
    assert running.mean() > 0.9
    assert (said == generate())[running].all(axis=1).mean() > 0.9
    mine, others = _in_turn(
        lambda: jax.block_until_ready(answer(params, context, questions)), generate
    )
    print(
        f"\n64 answers on a shared context of 512 tokens: {64 / mine:.0f} a second, generate"
        f" {64 / others:.1f}: {others / mine:.1f} times (target 20)"
    )
    assert others / mine > 5


def test_training_beside_trl(folder, tmp_path):
    """Rows of 128 tokens, 16 a step, the last 32 of each learned; the same weights, Adam, and
    clipped gradients.
    """
    trl = pytest.importorskip("trl", reason="pip install -e '.[bench]'")
    from datasets import Dataset

    steps, random = 30, np.random.default_rng(0)
    rows = random.integers(1, VOCABULARY - 3, (16 * steps, 128))
    seconds = SimpleNamespace(began=0.0, took=[])

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            seconds.began = time.perf_counter()

        def on_step_end(self, *_, **__):
            seconds.took.append(time.perf_counter() - seconds.began)

    data = Dataset.from_dict(
        {"input_ids": rows.tolist(), "labels": [[-100] * 96 + row[96:] for row in rows.tolist()]}
    )
    trainer = trl.SFTTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(folder),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=16,
            max_steps=steps,
            learning_rate=1e-4,
            max_length=128,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            logging_steps=steps,
            disable_tqdm=True,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=data,
        processing_class=_tokenizer(),
        callbacks=[Clock()],
    )
    trainer.train()
    theirs = statistics.median(seconds.took[5:])

    shapes = Shapes(facts=1, fact_length=62, question_length=31, answer_length=32)
    model, params = ours(folder, shapes)
    training = Training(steps=steps, batch=16, learning_rate=1e-4)
    step = step_of(model, training)
    columns = np.split(rows.astype(np.int32), [62, 93, 125], axis=1)[:3]
    laid_out = model.lay_out(
        dict(zip(("context", "questions", "answers"), (c[:, None] for c in columns), strict=True))
    )
    state, took = untrained(model, params, training), []
    for number in range(steps):
        batch = {name: column[number * 16 : number * 16 + 16] for name, column in laid_out.items()}
        began = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        took.append(time.perf_counter() - began)
    mine = statistics.median(took[5:])
    print(
        f"\ntraining, 16 x 128 tokens: {2048 / mine:.0f} tokens a second, TRL {2048 / theirs:.0f}:"
        f" {theirs / mine:.2f} times (target 1)"
    )
    assert theirs / mine > 0.3


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    words = {str(number): number for number in range(VOCABULARY)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="0")),
        eos_token="0",
        pad_token="0",
    )


def _in_turn(*functions) -> list[float]:
    """Seconds each takes, the median of several turns."""
    took = [[] for _ in functions]
    for _ in range(REPEATS + 1):
        for function, seconds in zip(functions, took, strict=True):
            began = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - began)
    return [statistics.median(seconds[1:]) for seconds in took]
