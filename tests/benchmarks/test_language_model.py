"""Language models beside the tools that one would use otherwise: transformers' `generate` and TRL's
trainer, on the same machine, with the same weights, in one run. TRL is in the extra `bench`.
"""

import statistics
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch
import transformers

from amplify.training.options import Training
from tests.benchmarks import llama
from tests.benchmarks.llama import ANSWER, BEGIN, SEPARATOR, Shapes, ours
from tests.training import step_of, untrained

NEW = 8
REPEATS = 5


@pytest.fixture
def folder(tmp_path):
    llama.write(tmp_path)
    return tmp_path


def test_answers_to_64_questions_about_one_context_beside_generate(folder):
    """A context of 512 tokens, questions of 16, 8 new tokens each; nothing stops early."""
    shapes = Shapes(facts=1, fact_length=510, question_length=15, answer_length=NEW)
    model, params = ours(folder, shapes)
    random = np.random.default_rng(0)
    context = random.integers(1, BEGIN, (1, 1, 510)).astype(np.int32)
    questions = random.integers(1, BEGIN, (1, 64, 15)).astype(np.int32)
    answer = jax.jit(lambda p, c, q: model.answer(p, model.encode(p, c), q, None).tokens)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    read = np.concatenate([[BEGIN], context[0, 0], [SEPARATOR]])
    rows = [np.concatenate([read, question, [ANSWER]]) for question in questions[0]]
    prompts = torch.tensor(np.array(rows))
    allowed = {"suppress_tokens": [0, BEGIN, SEPARATOR, ANSWER]}
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
    rows = random.integers(1, BEGIN, (16 * steps, 128))
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
        processing_class=llama.tokenizer(),
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


def _in_turn(*functions) -> list[float]:
    """Seconds each takes, the median of several turns."""
    took = [[] for _ in functions]
    for _ in range(REPEATS + 1):
        for function, seconds in zip(functions, took, strict=True):
            began = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - began)
    return [statistics.median(seconds[1:]) for seconds in took]
