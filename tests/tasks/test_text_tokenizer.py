"""Text as tokens and back: what somebody wrote stays what they wrote."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from amplify.errors import AmplifyError
from amplify.models.pretrained.control_tokens import control_tokens
from amplify.tasks.text.documents import Documents
from amplify.tasks.text.search import Search
from amplify.tasks.text.text_tokenizer import TextTokenizer, train_tokenizer
from tests.checkpoints import checkpoint_folder
from tests.documents import written

CONTROL = ["</s>", "<|im_start|>", "<tool_call>", "[INST]"]
WORDS = ["Paris", "is", "big"]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(ALPHABET)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(CONTROL[:2])
    tokenizer.add_tokens([*CONTROL[2:], AddedToken("COVID", special=False)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    return tokenizer


ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENIZER = TextTokenizer(byte_level())


@given(
    st.lists(st.one_of(st.sampled_from([*CONTROL, "COVID"]), st.text(st.characters(codec="utf-8"))))
)
def test_any_text_comes_back_and_none_becomes_a_control_token(parts):
    text = "".join(parts).strip()
    tokens = TOKENIZER.encode(text)
    assert not {token - 1 for token in tokens} & set(control_tokens(byte_level()))
    assert TOKENIZER.decode_batch(np.array([(*tokens, 0)], np.int32)) == [text]
    TOKENIZER.check_round_trip(text)


def test_a_token_that_was_added_for_a_word_is_still_used():
    known = byte_level().token_to_id("COVID") + 1
    assert known in TOKENIZER.encode("COVID is it")


def test_a_text_is_cut_off_between_characters():
    text = "日本語のテキスト"
    for length in range(1, 30):
        [back] = TOKENIZER.decode_batch(TOKENIZER.encode_batch([text], length))
        assert "\ufffd" not in back or length < 4
        assert length < 4 or text.startswith(back)


def words_only(lowercase: bool) -> Tokenizer:
    vocabulary = [*(word.lower() if lowercase else word for word in WORDS), "</s>", "?"]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(vocabulary)}, "?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


@pytest.mark.parametrize(
    ("lowercase", "text"), [(True, "Paris is big"), (False, "Rome is"), (False, "Paris </s> is")]
)
def test_what_a_tokenizer_changes_is_said(lowercase, text):
    with pytest.raises(ValueError, match="the tokenizer makes"):
        TextTokenizer(words_only(lowercase)).check_round_trip(text)


@pytest.mark.parametrize(
    ("rows", "asked", "said"),
    [
        ([{"title": "T", "text": "Is big"}], {}, "document 'T' cannot be encoded by"),
        ([], {"question": "IS it?"}, "question 'IS it?' cannot be encoded by"),
        ([], {"answer": "Big"}, "the answer to 'is it?' cannot be encoded by"),
    ],
)
def test_a_text_that_the_tokenizer_changes_is_refused_in_a_line_that_names_it(
    rows, asked, said, tmp_path
):
    checkpoint_folder(tmp_path / "checkpoint", texts=["is it big?"] * 9)
    file = tmp_path / "checkpoint/tokenizer.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps(state | {"normalizer": {"type": "Lowercase"}}))
    documents = written(tmp_path / "d.jsonl", [{"title": "d", "text": "d: it is big."}, *rows])
    question = {"question": "is it?", "answer": "big", "documents": ["d"]} | asked
    task = {"tokenizer": str(tmp_path / "checkpoint"), "documents": str(documents)}
    with pytest.raises(AmplifyError, match=re.escape(said)) as caught:
        Documents(**task, questions=str(written(tmp_path / "q.jsonl", [question]))).prepare()
    assert "\n" not in str(caught.value)


def test_a_name_that_the_tokenizer_changes_is_said_in_one_line(tmp_path):
    checkpoint_folder(tmp_path / "checkpoint", texts=["is it big?"] * 9)
    file = tmp_path / "checkpoint/tokenizer.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps(state | {"normalizer": {"type": "Lowercase"}}))
    lengths = {"passage_length": 190, "question_length": 190, "answer_length": 190}
    task = Search(regions=64, tokenizer=str(tmp_path / "checkpoint"), **lengths)
    with pytest.raises(AmplifyError, match=r"the name .* cannot be encoded by") as caught:
        task.prepare()
    assert "\n" not in str(caught.value)


def test_a_learned_tokenizer_spells_everything():
    train_tokenizer(["a"], 300).check_round_trip("日本語 \u2028 </s> \x00 é e\u0301")
