"""Control tokens of tokenizers, such as </s> or <|user|>, and how to keep them out of texts.

A text that somebody wrote must never be tokenized as the end of a sequence or as another speaker.
"""

import json
import re

from tokenizers import Tokenizer

_LOOKS_LIKE_CONTROL = re.compile(r"<.*>|\[[A-Z_]+\]")
"""Some tokenizers do not mark all of their control tokens as special, such as <tool_call>."""


def control_tokens(tokenizer: Tokenizer) -> dict[int, str]:
    """Returns the control tokens of a tokenizer, by id, as they are written."""
    return {
        number: added.content
        for number, added in tokenizer.get_added_tokens_decoder().items()
        if added.special or _LOOKS_LIKE_CONTROL.fullmatch(added.content)
    }


def without_control(tokenizer: Tokenizer) -> Tokenizer:
    """Returns a copy of a tokenizer for untrusted texts: control tokens in a text are tokenized as
    ordinary characters, and nothing is truncated or padded.
    """
    state, control = json.loads(tokenizer.to_str()), control_tokens(tokenizer)
    for added in state["added_tokens"]:
        added["special"] = added["id"] in control
    plain = Tokenizer.from_str(json.dumps(state))
    plain.encode_special_tokens = True  # "special tokens" in a text become ordinary ones
    plain.no_truncation()
    plain.no_padding()
    return plain
