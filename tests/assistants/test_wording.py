"""What a checkpoint reads around and inside of a task's texts."""

import datetime
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from amplify.errors import AmplifyError
from amplify.models.language_model import LanguageModelConfig
from amplify.models.pretrained import wording
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.text.documents import Documents
from amplify.words import format_tokens, read_answer
from tests.checkpoints import CHAT, checkpoint_folder
from tests.documents import written


def chat_folder(folder, template: str):
    checkpoint_folder(folder, chat=True)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return LanguageModelConfig(pretrained=str(folder), chat=True)


def test_a_chat_template_is_told_one_date_whatever_day_it_is(tmp_path, monkeypatch):
    dated = (
        "\n {{ strftime_now('%d %b %Y') }}{% set form = '%Y' %}"
        "{% if strftime_now is defined %}{{ strftime_now(form) }}{% endif %}" + CHAT
    )
    formats = []
    for day in (26, 27):

        class Now(datetime.datetime):
            @classmethod
            def now(cls, tz=None, day=day):
                return datetime.datetime(2026, 11, day, tzinfo=tz)

        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Now)
        config = chat_folder(tmp_path / str(day), dated)
        formats.append(config.build(Permutation(3, 2)).format)
    assert formats[0] == formats[1]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "27")
    assert tokenizer.decode(formats[0].context_prefix) == "\n 01 Jan 202501 Jan 2025<|user|>"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('only\nsystem messages') }}", "chat template: only"),
        ("{{ nothing.at.all }}", "chat template: "),
        ("{% for", "chat template: "),
        ("{{ 1 / 0 }}", "chat template: "),
        ("Hello", "leaves out or changes what a message says"),
        ("{{ messages[0]['content'] | upper }}", "leaves out or changes what a message says"),
        ("{{ messages[0]['content'][:9] }}", "leaves out or changes what a message says"),
        ("{{ messages[0]['content'] * 2 }}", "repeats what a message says"),
        (
            "{{ messages[0]['content'] }}{{ messages[0]['content'] | length }}",
            "depends on what a message says",
        ),
    ],
)
def test_a_chat_template_that_cannot_frame_a_message_is_one_line(template, said, tmp_path):
    config = chat_folder(tmp_path / "chat", template)
    with pytest.raises(AmplifyError, match=said) as caught:
        config.build(Permutation(3, 2)).prepare()
    assert "\n" not in str(caught.value)


TEXTS = [
    "In HTML, </s> strikes a text through, and <s> begins it. <|user|>Hello<|assistant|>",
    "Tools are called with <tool_call> and [INST], and <unk> is not known.",
]


@pytest.fixture(scope="module")
def spelled(tmp_path_factory):
    """A task whose texts are full of what looks like control tokens, and a checkpoint."""
    folder = tmp_path_factory.mktemp("spelled")
    checkpoint_folder(folder / "checkpoint", texts=TEXTS * 4, chat=True, positions=900)
    rows = [{"title": f"d{n}", "text": text} for n, text in enumerate(TEXTS)]
    asked = [
        {"question": "What strikes through </s>?", "answer": "</s>", "documents": ["d0"]},
        {"question": "What is <unk>?", "answer": "a <tool_call> </s> b", "documents": ["d1"]},
    ]
    return Documents(
        documents=str(written(folder / "documents.jsonl", rows)),
        questions=str(written(folder / "questions.jsonl", asked)),
        tokenizer=str(folder / "checkpoint"),
        passages=2,
    ), folder / "checkpoint"


def test_what_looks_like_a_control_token_in_a_text_is_text(spelled):
    task, folder = spelled
    special = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    control = {token["id"] + 1 for token in special}
    question = np.asarray(task.draw_question(jax.random.key(0), jnp.array([[1]]), jnp.int32(1)))
    found = np.asarray(task.find(jnp.asarray(question)[None, None]))
    answer = read_answer(task, "a <tool_call> </s> b")
    for tokens in (question, found, answer):
        assert tokens.any()
        assert not control & set(np.ravel(tokens).tolist())
    assert format_tokens(task, answer) == "a <tool_call> </s> b"


def test_an_answer_that_cannot_be_said_is_reported_with_its_question(spelled):
    task, folder = spelled
    model = LanguageModelConfig(pretrained=str(folder)).build(task)
    question = np.zeros((1, 1, task.question_length), np.int32)
    question[0, 0, :3] = read_answer(task, "Who?")[:3]
    answers = np.zeros((1, 1, task.answer_length), np.int32)
    context = np.zeros((1, task.passages, task.passage_length), np.int32)
    rows = {"context": context, "questions": question, "answers": answers}
    model.lay_out(rows)
    answers[0, 0, 1] = model.format.end + 1
    message = r"row 0: the answer .* to 'W.* contains the end-of-sequence token"
    with pytest.raises(AmplifyError, match=message):
        model.lay_out(rows)


def test_a_word_of_a_task_must_be_one_ordinary_token_of_its_own(tmp_path):
    checkpoint_folder(tmp_path / "checkpoint")
    tokenizer = tmp_path / "checkpoint/tokenizer.json"
    state = json.loads(tokenizer.read_text())
    state["added_tokens"].append(
        {**state["added_tokens"][0], "id": state["model"]["vocab"]["\u01202"], "content": " 2"}
    )
    tokenizer.write_text(json.dumps(state))
    config = json.loads((tmp_path / "checkpoint/config.json").read_text())
    (tmp_path / "checkpoint/config.json").write_text(json.dumps(config | {"vocab_size": 999}))
    task = Permutation(3, 2)
    with pytest.raises(AmplifyError, match="' 2', a word of the task, is a control token"):
        LanguageModelConfig(pretrained=str(tmp_path / "checkpoint")).build(task).prepare()


def test_the_date_is_a_constant():
    assert datetime.datetime(2025, 1, 1) == wording.TODAY
