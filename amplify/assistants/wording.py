"""Which tokens of a language model say what a task says, and what stands between."""

import datetime
import re
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from amplify.assistants.pretrained import Pretrained, open_tokenizer
from amplify.control_tokens import control_tokens
from amplify.errors import AmplifyError, first_line
from amplify.types import Task

TODAY = datetime.datetime(2025, 1, 1)
"""What a chat template is told when it asks for the date: a round must not depend on its day."""


class Words(NamedTuple):
    """Which token of the model stands for what."""

    of_task: tuple[int, ...] | None  # for each token of the task; None: for t it is t - 1
    end: int  # for token 0, which ends an answer
    begin: tuple[int, ...]  # before a context
    stop: tuple[int, ...]  # after each fact
    answer: tuple[int, ...]  # between a question and its answer


def words_of_its_own(task: Task) -> Words:
    """The task's tokens, and three more."""
    size = len(task.vocabulary)
    return Words(tuple(range(size)), 0, (size,), (size + 1,), (size + 2,))


def words_of_tokenizer(task: Task, opened: Pretrained, chat: bool) -> Words:
    """A token for each of the task's words. Raises AmplifyError if one takes several."""
    tokenizer = open_tokenizer(opened)
    if tokenizer.eos_token_id is None:
        raise AmplifyError(f"{opened.folder}: the tokenizer has no end-of-sequence token")
    before, after = _frame(tokenizer, opened, chat)

    backend = getattr(tokenizer, "backend_tokenizer", None)
    control = control_tokens(backend) if isinstance(backend, Tokenizer) else {}

    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    def only(word: str) -> int:
        ids = encode(f" {word}")
        if len(ids) != 1 or ids[0] >= opened.architecture.vocabulary:
            raise AmplifyError(
                f"{opened.folder}: the tokenizer has no single token for {' ' + word!r}, a word of"
                " the task"
            )
        if ids[0] in control:
            raise AmplifyError(
                f"{opened.folder}: {' ' + word!r}, a word of the task, is a control token of the"
                " tokenizer"
            )
        return ids[0]

    of_task = None
    if list(task.vocabulary[1:]) != tokenizer.convert_ids_to_tokens(range(len(tokenizer))):
        of_task = (tokenizer.eos_token_id, *map(only, task.vocabulary[1:]))
        if len(set(of_task)) < len(of_task):
            raise AmplifyError(
                f"{opened.folder}: the tokenizer has one token for several words of the task"
            )
    elif len(tokenizer) > opened.architecture.vocabulary:
        raise AmplifyError(
            f"{opened.folder}: the tokenizer has {len(tokenizer)} tokens, but the model"
            f" {opened.architecture.vocabulary}"
        )
    return Words(of_task, tokenizer.eos_token_id, encode(before), encode("\n"), encode(after))


def _frame(tokenizer: Any, opened: Pretrained, chat: bool) -> tuple[str, str]:
    """What stands before a context, and between a question and its answer."""
    if not chat:
        return tokenizer.bos_token or tokenizer.eos_token, ":"
    if tokenizer.chat_template is None:
        raise AmplifyError(
            f"{opened.folder}: the tokenizer has no chat template; assistant.chat must be false"
        )
    # Twice, with other words: what stands around them must not depend on them.
    frames = {_around(tokenizer, opened, content) for content in ("[context]", "Who is x?\n1: y")}
    if len(frames) > 1:
        raise AmplifyError(f"{opened.folder}: the chat template depends on what a message says")
    return frames.pop()


def _around(tokenizer: Any, opened: Pretrained, content: str) -> tuple[str, str]:
    """What a chat template puts before and after a message."""
    message = [{"role": "user", "content": content}]
    try:
        framed = tokenizer.apply_chat_template(
            message,
            chat_template=_on_one_day(tokenizer.get_chat_template()),
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception as error:  # a template is a program, and fails as it likes
        raise AmplifyError(f"{opened.folder}: chat template: {first_line(error)}") from None
    if framed.count(content) != 1:
        how = "leaves out or changes" if content not in framed else "repeats"
        raise AmplifyError(f"{opened.folder}: the chat template {how} what a message says")
    before, _, after = framed.partition(content)
    return before, after


def _on_one_day(template: str) -> str:
    """A chat template whose `strftime_now`, which transformers gives it, always says `TODAY`. What
    it is called with is nearly always a string; else the date comes in the form of the macro.
    """
    call = r"""strftime_now\(\s*(["'])(?P<form>[^"'\\]*)\1\s*\)"""
    dated = re.sub(call, lambda found: repr(TODAY.strftime(found["form"])), template)
    macro = "{% macro strftime_now(form='') %}" + f"{TODAY:%d %b %Y}" + "{% endmacro %}{{ '' }}"
    return macro + dated
