"""Which tokens of a language model say what a task says, and what stands between."""

from typing import Any, NamedTuple

from amplify.assistants.pretrained import Pretrained, open_tokenizer
from amplify.errors import AmplifyError
from amplify.types import Task


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

    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    def only(word: str) -> int:
        ids = encode(f" {word}")
        if len(ids) != 1 or ids[0] >= opened.architecture.vocabulary:
            raise AmplifyError(
                f"{opened.folder}: the tokenizer has no single token for {' ' + word!r}, a word of"
                " the task"
            )
        return ids[0]

    of_task = None
    if list(task.vocabulary[1:]) != tokenizer.convert_ids_to_tokens(range(len(tokenizer))):
        of_task = (tokenizer.eos_token_id, *map(only, task.vocabulary[1:]))
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
    message = [{"role": "user", "content": "[context and question]"}]
    framed = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    before, _, after = framed.partition(message[0]["content"])
    return before, after
