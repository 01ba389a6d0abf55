"""Tokens that structure what a model reads, such as </s> or <|user|>, and how to keep texts free of
them: what somebody wrote must never be read as the end of a text or as another speaker.
"""

import json
import re

from tokenizers import Tokenizer

_LOOKS_LIKE_CONTROL = re.compile(r"<.*>|\[[A-Z_]+\]")
"""Some tokenizers do not mark all of their control tokens as special, such as <tool_call>."""


def control_tokens(tokenizer: Tokenizer) -> dict[int, str]:
    """Tokens that structure what a model reads, and what each looks like."""
    return {
        number: added.content
        for number, added in tokenizer.get_added_tokens_decoder().items()
        if added.special or _LOOKS_LIKE_CONTROL.fullmatch(added.content)
    }


def without_control(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer for texts that others wrote: no control token is seen in them, and nothing is
    cut off or filled up.
    """
    state, control = json.loads(tokenizer.to_str()), control_tokens(tokenizer)
    for added in state["added_tokens"]:
        added["special"] = added["id"] in control
    plain = Tokenizer.from_str(json.dumps(state))
    plain.encode_special_tokens = True  # as the characters that they are
    plain.no_truncation()
    plain.no_padding()
    return plain
