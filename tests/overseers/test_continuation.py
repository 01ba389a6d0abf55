"""A checkpoint that oversees in this process, held against transformers on torch."""

import jax
import numpy as np
import pytest
import torch
import transformers

from amplify.cli.commands import main
from amplify.overseers.continuation import Continuation, _full_text, _shared_prefix
from tests.checkpoints import checkpoint_folder
from tests.tiny import TOML, tiny_experiment

INSTRUCTIONS = "Ask about the pattern.\n\nQuestion: *a\nAsk: aa\nAnswer: +1\nConclude: +2\n"
TEXTS = ["Question: ab", "Question: *b\nAsk: ab\nAnswer: -1", "Question: b"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "llama"
    checkpoint_folder(folder, "Question Ask Answer Conclude a b", positions=600)
    return folder


def test_it_says_what_transformers_generates_up_to_the_end_of_the_line(checkpoint):
    backend = Continuation(str(checkpoint), INSTRUCTIONS, line=12, dtype="float32")
    assert len(_shared_prefix(backend)) > 20
    spelled = np.concatenate([backend.tokenize(TEXTS, 40), np.full((1, 40), -1)]).astype(np.int32)
    said = np.asarray(jax.jit(backend.continue_texts)(backend.load(), spelled))
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    for row, text in zip(said, TEXTS, strict=False):
        asked = torch.tensor([tokenizer.encode(_full_text(backend, text))])
        end = tokenizer.eos_token_id
        there = model.generate(
            asked, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=end
        )
        expected = [token for token in there[0, asked.shape[1] :].tolist() if token != end]
        stops = [i for i, token in enumerate(expected) if "\n" in tokenizer.decode([token])]
        expected = expected[: stops[0] + 1] if stops else expected
        assert [token - 1 for token in row.tolist() if token] == expected
        assert expected
    assert not said[-1].any()  # where nothing is asked, nothing is said
    line = tokenizer.decode([token - 1 for token in said[0] if token], skip_special_tokens=True)
    assert backend.decode(said[:1]) == [line.strip().splitlines()[0].strip()]


def test_what_does_not_fit_is_not_read(checkpoint):
    backend = Continuation(str(checkpoint), INSTRUCTIONS, line=12, dtype="float32")
    assert (backend.tokenize([TEXTS[1] * 9, TEXTS[0]], 40) >= 0).any(axis=-1).tolist() == [
        False,
        True,
    ]


def overseen(folder, checkpoint, overseer: str):
    overseer = f'[overseer]\nkind = "language-model"\nprompt = "prompt.txt"\n{overseer}\n'
    made = tiny_experiment(folder, TOML.replace('[overseer]\nkind = "simulated"\n', overseer))
    (made / "prompt.txt").write_text(INSTRUCTIONS, encoding="utf-8")
    (made / "llama").symlink_to(checkpoint)
    return made


@pytest.mark.parametrize(
    ("overseer", "said"),
    [
        ('pretrained = "llama"\nline = 8\nasks = 1', "which is neither a question nor an answer"),
        ('pretrained = "llama"\nline = 64\nasks = 8', "but the model has 600 positions"),
        ('pretrained = "llama"\nmodel = "x"', "either endpoint and model, or pretrained"),
        ("", "either endpoint and model, or pretrained"),
    ],
)
def test_what_it_cannot_do_is_one_clear_line(overseer, said, checkpoint, tmp_path, capsys):
    """The weights are as they are drawn: what they say makes no sense."""
    folder = overseen(tmp_path / "tiny", checkpoint, overseer)
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert said in line
    assert line.startswith("amplify: ")


def test_what_looks_like_a_control_token_in_a_text_is_text(checkpoint):
    backend = Continuation(str(checkpoint), INSTRUCTIONS, line=12, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    [row] = backend.tokenize(["Question: </s> <s>"], 60)
    read = [*_shared_prefix(backend), *row[row >= 0].tolist()]
    assert not {tokenizer.eos_token_id, tokenizer.bos_token_id} & set(read)
    assert tokenizer.decode(read) == _full_text(backend, "Question: </s> <s>")


def test_control_tokens_in_the_instructions_are_what_they_look_like(checkpoint):
    """Whoever writes instructions may frame them as a checkpoint expects it."""
    backend = Continuation(str(checkpoint), "<s>Ask.</s>\n<s>", line=12, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    [row] = backend.tokenize(["Question: </s>"], 60)
    read = [*_shared_prefix(backend), *row[row >= 0].tolist()]
    assert read.count(tokenizer.bos_token_id) == 2
    assert read.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(read) == _full_text(backend, "Question: </s>")
