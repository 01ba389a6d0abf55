"""The prompt format of a pretrained model: token ids from its tokenizer and its chat template."""

import datetime
import re
from typing import Any

from tokenizers import Tokenizer

from amplify.errors import AmplifyError, first_line
from amplify.models.pretrained.control_tokens import control_tokens
from amplify.models.pretrained.pretrained import Pretrained, open_tokenizer
from amplify.models.prompts import PromptFormat
from amplify.types import Task

TODAY = datetime.datetime(2025, 1, 1)
"""The date that chat templates get: a round must not depend on the day it runs."""


def tokenizer_format(task: Task, checkpoint: Pretrained, chat: bool) -> PromptFormat:
    """Makes the prompt format of a pretrained model from its tokenizer.

    Args:
        task: the task, whose every word must be a single token of the tokenizer; or whose
            vocabulary is the tokenizer's own.
        checkpoint: the checkpoint folder.
        chat: whether contexts and questions are framed by the chat template.

    Raises:
        AmplifyError: if the tokenizer does not suit the task, or there is no usable template.
    """
    tokenizer = open_tokenizer(checkpoint)
    if tokenizer.eos_token_id is None:
        raise AmplifyError(f"{checkpoint.folder}: the tokenizer has no end-of-sequence token")
    before, after = _context_and_answer_prefix(tokenizer, checkpoint, chat)

    backend = getattr(tokenizer, "backend_tokenizer", None)
    control = control_tokens(backend) if isinstance(backend, Tokenizer) else {}

    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    def single_token(word: str) -> int:
        ids = encode(f" {word}")
        if len(ids) != 1 or ids[0] >= checkpoint.architecture.vocabulary:
            raise AmplifyError(
                f"{checkpoint.folder}: the tokenizer has no single token for {' ' + word!r}, a word"
                " of the task"
            )
        if ids[0] in control:
            raise AmplifyError(
                f"{checkpoint.folder}: {' ' + word!r}, a word of the task, is a control token of"
                " the tokenizer"
            )
        return ids[0]

    vocabulary = None
    if list(task.vocabulary[1:]) != tokenizer.convert_ids_to_tokens(range(len(tokenizer))):
        vocabulary = (tokenizer.eos_token_id, *map(single_token, task.vocabulary[1:]))
        if len(set(vocabulary)) < len(vocabulary):
            raise AmplifyError(
                f"{checkpoint.folder}: the tokenizer has the same token for several words of the"
                " task"
            )
    elif len(tokenizer) > checkpoint.architecture.vocabulary:
        raise AmplifyError(
            f"{checkpoint.folder}: the tokenizer has {len(tokenizer)} tokens, but the model"
            f" {checkpoint.architecture.vocabulary}"
        )
    return PromptFormat(
        vocabulary, tokenizer.eos_token_id, encode(before), encode("\n"), encode(after)
    )


def _context_and_answer_prefix(
    tokenizer: Any, checkpoint: Pretrained, chat: bool
) -> tuple[str, str]:
    if not chat:
        return tokenizer.bos_token or tokenizer.eos_token, ":"
    if tokenizer.chat_template is None:
        raise AmplifyError(
            f"{checkpoint.folder}: the tokenizer has no chat template; assistant.chat must be false"
        )
    # With two messages: what the template puts around them must not depend on them.
    frames = {
        _frame_of_message(tokenizer, checkpoint, content)
        for content in ("[context]", "Who is x?\n1: y")
    }
    if len(frames) > 1:
        raise AmplifyError(f"{checkpoint.folder}: the chat template depends on what a message says")
    return frames.pop()


def _frame_of_message(tokenizer: Any, checkpoint: Pretrained, content: str) -> tuple[str, str]:
    message = [{"role": "user", "content": content}]
    try:
        framed = tokenizer.apply_chat_template(
            message,
            chat_template=_with_fixed_date(tokenizer.get_chat_template()),
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception as error:  # a template is a program, and may raise anything
        raise AmplifyError(f"{checkpoint.folder}: chat template: {first_line(error)}") from None
    if framed.count(content) != 1:
        how = "leaves out or changes" if content not in framed else "repeats"
        raise AmplifyError(f"{checkpoint.folder}: the chat template {how} what a message says")
    before, _, after = framed.partition(content)
    return before, after


def _with_fixed_date(template: str) -> str:
    """Makes a chat template's `strftime_now`, which transformers provides, always return `TODAY`.

    Calls with a literal format are replaced by the date in that format; any other call gets the
    date in the macro's format.
    """
    call = r"""strftime_now\(\s*(["'])(?P<form>[^"'\\]*)\1\s*\)"""
    dated = re.sub(call, lambda match: repr(TODAY.strftime(match["form"])), template)
    macro = "{% macro strftime_now(form='') %}" + f"{TODAY:%d %b %Y}" + "{% endmacro %}{{ '' }}"
    return macro + dated
