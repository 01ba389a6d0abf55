"""The language model as an assistant: what it reads, says and learns, in whole rounds too."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.models.language_model import LanguageModelConfig
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import draw_problems
from tests.checkpoints import checkpoint_folder

SMALL = LanguageModelConfig(width=16, heads=2, key_heads=1, layers=2)


@dataclasses.dataclass(frozen=True)
class Spoken(Wildcard):
    """The answer is three words long; none of what is tested here asks what is true."""

    answer_length = 3


TASK = Spoken(3)
MODEL = dataclasses.replace(SMALL, temperature=0.7, reach=3).build(TASK)


def setting(contexts: int = 6):
    problems = draw_problems(Wildcard(3), 0, 1, "train", contexts, [1, 2, 3, 1])
    return jax.jit(MODEL.init)(jax.random.key(0)), problems


@jax.jit
def answered(params, contexts, questions, keys):
    return MODEL.answer(params, MODEL.encode(params, contexts), questions, keys)


def test_the_samplers_log_probabilities_are_those_of_the_training_pass():
    """At temperature 0.7: the loss of a model whose logits are divided by it."""
    params, problems = setting()
    keys = jax.random.split(jax.random.key(1), (6, 4))
    answers = answered(params, problems.contexts, problems.questions, keys)
    assert len(np.unique(np.asarray(answers.tokens).reshape(-1, 3), axis=0)) > 6
    colder = MODEL.architecture.width**0.0 / MODEL.config.temperature
    scaled = dict(params)
    scaled["out_norm"] = jax.tree.map(lambda leaf: leaf * colder, params["out_norm"])
    batch = {
        "context": problems.contexts,
        "questions": problems.questions,
        "answers": answers.tokens,
    }
    loss, metrics = jax.jit(MODEL.loss)(type(params)(scaled), batch)
    np.testing.assert_allclose(-jnp.mean(answers.log_prob), loss, rtol=1e-5)
    assert 0 <= float(metrics["agreement"]) <= 1


def test_each_sampled_token_has_the_log_probability_that_training_computes():
    """Whatever stands in the padding after an answer's end, which has none."""
    params, problems = setting()
    wide = jnp.tile(problems.questions, (1, 10, 1))
    keys = jax.random.split(jax.random.key(1), wide.shape[:2])
    answers = answered(params, problems.contexts, wide, keys)
    chosen = MODEL.chosen(answers.tokens)
    lengths = np.asarray(jnp.sum(chosen.tokens, axis=-1))
    assert {*lengths.ravel()} == {1, 2, 3}
    said = np.asarray(answers.tokens)
    assert (np.asarray(chosen.ended) == (said == 0).any(axis=-1)).all()
    assert 0 < np.mean(chosen.ended) < 1
    scored = jax.jit(
        lambda tokens: MODEL.log_prob(params, MODEL.encode(params, problems.contexts), wide, tokens)
    )
    log_prob = scored(answers.tokens)
    np.testing.assert_allclose(jnp.sum(log_prob, -1), answers.log_prob, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(log_prob[~chosen.tokens], 0)
    assert (log_prob[chosen.tokens] < 0).all()
    np.testing.assert_array_equal(scored(jnp.where(chosen.tokens, said, 2)), log_prob)


def test_an_answer_ends_with_the_first_zero():
    params, problems = setting()
    wide = jnp.tile(problems.questions, (1, 40, 1))
    keys = jax.random.split(jax.random.key(1), wide.shape[:2])
    tokens = np.asarray(answered(params, problems.contexts, wide, keys).tokens)
    assert (tokens[..., 0] == 0).any()  # some say nothing at all
    ended = np.cumsum(tokens == 0, axis=-1) > 0
    assert (tokens[ended] == 0).all()


def test_a_shared_context_answers_as_one_that_is_read_again_for_each_question():
    params, problems = setting()
    keys = jax.random.split(jax.random.key(1), (6, 4))
    shared = answered(params, problems.contexts, problems.questions, keys)
    again = answered(
        params,
        jnp.repeat(problems.contexts, 4, axis=0),
        problems.questions.reshape(24, 1, -1),
        keys.reshape(24, 1),
    )
    assert shared.tokens.reshape(24, 3).tolist() == again.tokens[:, 0].tolist()
    np.testing.assert_allclose(shared.log_prob.reshape(24), again.log_prob[:, 0], rtol=1e-4)


def test_padding_is_never_read():
    """Facts of zeros, and zeros at a question's end, change nothing at all."""
    params, problems = setting()
    keys = jax.random.split(jax.random.key(1), (6, 4))
    fewer = problems.contexts.at[:, -3:].set(0)
    moved = jnp.concatenate([fewer[:, :2], fewer[:, -3:], fewer[:, 2:-3]], axis=1)
    first = answered(params, fewer, problems.questions, keys)
    second = answered(params, moved, problems.questions, keys)
    np.testing.assert_allclose(first.log_prob, second.log_prob, rtol=1e-4)
    longer = jnp.pad(problems.questions, [(0, 0), (0, 0), (0, 2)])
    padded = answered(params, fewer, longer, keys)
    assert first.tokens.tolist() == second.tokens.tolist() == padded.tokens.tolist()


@dataclasses.dataclass(frozen=True)
class Wordy(Spoken):
    question_length = 20


def test_short_questions_are_answered_as_they_are_beside_a_long_one():
    """Among themselves, the padding in front of them is left out."""
    model = dataclasses.replace(SMALL, temperature=0.7, reach=3).build(Wordy(3))
    params, problems = setting()
    short = np.zeros((6, 5, 20), np.int32)
    short[:, :4, : problems.questions.shape[-1]] = problems.questions
    mixed = short.copy()
    mixed[2, 4] = np.resize(mixed[2, 0][mixed[2, 0] != 0], 20)
    keys = jax.random.split(jax.random.key(1), (6, 5))

    @jax.jit
    def answer(questions):
        return model.answer(params, model.encode(params, problems.contexts), questions, keys)

    among_themselves, beside = answer(short), answer(mixed)
    assert not among_themselves.tokens[:, 4].any()  # where nothing is asked, nothing is said
    assert not among_themselves.log_prob[:, 4].any()
    np.testing.assert_array_equal(among_themselves.tokens[:, :4], beside.tokens[:, :4])
    np.testing.assert_allclose(
        among_themselves.log_prob[:, :4], beside.log_prob[:, :4], rtol=1e-4, atol=1e-5
    )


def test_only_the_likeliest_tokens_are_sampled_with_top_p():
    config = dataclasses.replace(SMALL, top_p=0.5)
    model = config.build(Wildcard(3))
    params = jax.tree.map(lambda leaf: 3 * leaf, jax.jit(model.init)(jax.random.key(0)))
    problems = draw_problems(Wildcard(3), 0, 1, "train", 1, [1])
    questions = jnp.broadcast_to(problems.questions, (1, 4000, Wildcard(3).question_length))
    keys = jax.random.split(jax.random.key(1), (1, 4000))

    def shares(model):
        memory = jax.jit(model.encode)(params, problems.contexts)
        said = np.asarray(jax.jit(model.answer)(params, memory, questions, keys).tokens).ravel()
        return np.bincount(said, minlength=len(TASK.vocabulary)) / 4000

    everything, nucleus = shares(SMALL.build(Wildcard(3))), shares(model)
    ordered = np.argsort(-everything)
    count = int(np.sum(nucleus > 0))
    assert 0 < count < np.sum(everything > 0)
    assert set(np.flatnonzero(nucleus)) == set(ordered[:count])
    assert everything[ordered[: count - 1]].sum() < 0.5 + 0.03
    assert everything[ordered[:count]].sum() > 0.5 - 0.03


TOML = """
[task]
kind = "permutation"
symbols = 3
bits = 2

[assistant]
kind = "language-model"
{assistant}

[overseer]
kind = "simulated"

[questions]
contexts = 200
per_context = 16

[training]
steps = {steps}
batch = 16
learning_rate = 5e-3

[evals]
select = 24
final = 24
apart = false
"""


def run(capsys, *arguments: str) -> str:
    main(list(arguments))
    return capsys.readouterr().out


def experiment(folder, assistant: str, steps: int = 800):
    folder.mkdir()
    text = TOML.format(assistant=assistant, steps=steps)
    (folder / "experiment.toml").write_text(text, encoding="utf-8")
    return folder


def accuracy(folder, number: int) -> float:
    text = (folder / f"{number:03}/evals.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return float(np.mean([row["alone"] for row in rows if row["class"] == "k 2-3"]))


@pytest.mark.slow
def test_a_round_teaches_a_language_model(tmp_path, capsys):
    sizes = "width = 32\nlayers = 2\nheads = 2\nkey_heads = 1"
    folder = experiment(tmp_path / "lm", sizes, steps=200)
    run(capsys, "round", str(folder), "--n", "1")
    assert accuracy(folder, 1) > 0.5 > 0.4 > accuracy(folder, 0)
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(folder), str(tmp_path / "out")])
    assert "only a pretrained assistant can be exported" in capsys.readouterr().err


@pytest.mark.slow
def test_rounds_begin_with_a_checkpoint_and_end_with_one_that_transformers_opens(tmp_path, capsys):
    torch.manual_seed(0)
    checkpoint_folder(tmp_path / "checkpoint")
    folder = experiment(tmp_path / "lm", 'pretrained = "../checkpoint"')
    run(capsys, "round", str(folder), "--n", "1")
    assert accuracy(folder, 1) > 0.9 > 0.5 > accuracy(folder, 0)
    out = tmp_path / "out"
    assert "the assistant of round 1" in " ".join(
        run(capsys, "export", str(folder), str(out), "--round", "1").split()
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    # transformers gives our answers to every question of class k 2-3, and most of them are right.
    images = list(itertools.permutations((1, 2, 3)))
    contexts = np.array([list(zip((1, 2, 3), image, strict=True)) for image in images], np.int32)
    asked = np.array([(x, 2, bit) for x in (1, 2, 3) for bit in (1, 2)], np.int32)
    theirs = np.zeros((len(images), len(asked)), np.int32)
    for row, column in np.ndindex(theirs.shape):
        facts = "\n".join(f" {x} {y}" for x, y in contexts[row])
        text = f"<s>{facts}\n {' '.join(map(str, asked[column]))}:"
        ids = tokenizer.encode(text, add_special_tokens=False)
        with torch.no_grad():
            likeliest = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        theirs[row, column] = int(tokenizer.decode([likeliest]))
    task, questions = Permutation(3, 2), np.broadcast_to(asked, (len(images), *asked.shape))
    ours = LanguageModelConfig(pretrained=str(out)).build(task)
    params = ours.load()
    said = ours.answer(
        params, ours.encode(params, jnp.asarray(contexts)), jnp.asarray(questions), None
    )
    np.testing.assert_array_equal(theirs, said.tokens[..., 0])
    right = vmap_questions(task.is_right)(contexts, questions, said.tokens)
    assert np.mean(np.asarray(right)) > 0.8  # by chance 1/3; rounding, and so it, differs by CPU


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: checkpoint_folder(folder, positions=8), "but the model has 8 positions"),
        (
            lambda folder: checkpoint_folder(folder, words="no numbers"),
            "the tokenizer has no single token for ' 1'",
        ),
        (lambda folder: folder.mkdir(), "not a checkpoint folder"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_clear_line(change, said, tmp_path, capsys):
    change(tmp_path / "checkpoint")
    folder = experiment(tmp_path / "lm", 'pretrained = "../checkpoint"')
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["experiment.toml"]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"width": 30}, "assistant.heads must divide assistant.width"),
        ({"key_heads": 3}, "assistant.key_heads must divide assistant.heads"),
        ({"width": 12}, "assistant.width must be an even multiple"),
    ],
)
def test_sizes_that_do_not_fit_together_are_named(sizes, said):
    with pytest.raises((AmplifyError, ValueError), match=said):
        LanguageModelConfig(**sizes).build(TASK)
