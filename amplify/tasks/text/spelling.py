"""Text as tokens and back, for tasks in plain language.

A task's token t is the tokenizer's token t - 1: 0 pads, ends a text, and alone says "don't know".
What somebody wrote is text to the last character: where it says "</s>", it is spelled with the
tokens of "<", "/s" and ">", never with the control token that looks like this.
"""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from amplify.errors import AmplifyError, first_line
from amplify.models.pretrained.control_tokens import control_tokens, without_control

NOTHING = "<?>"
"""What token 0 looks like in a vocabulary: no tokenizer's token looks like this."""


class Spelling:
    """What a tokenizer makes of texts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._plain = without_control(tokenizer)
        self._control = frozenset(control_tokens(tokenizer))
        size = tokenizer.get_vocab_size(with_added_tokens=True)
        tokens = (tokenizer.id_to_token(number) or "" for number in range(size))
        self.vocabulary = (NOTHING, *tokens)
        self._tokens = functools.lru_cache(maxsize=1 << 18)(self._encode)

    def tokens(self, text: str) -> tuple[int, ...]:
        """Without any at its ends that mark them. Beginnings are spelled like what stands after a
        space, so that a name is the same tokens wherever it stands.
        """
        return self._tokens(text)

    def write(self, texts: Sequence[str], length: int) -> Int[np.ndarray, "n length"]:
        """Rows of tokens, cut off after `length`, between characters."""
        rows = np.zeros((len(texts), length), np.int32)
        for row, text in zip(rows, texts, strict=True):
            tokens = self.tokens(text)
            if len(tokens) > length:
                tokens = self._cut(tokens, length)
            row[: len(tokens)] = tokens
        return rows

    def _cut(self, tokens: tuple[int, ...], length: int) -> tuple[int, ...]:
        """At most so many tokens. Those of half a character are left out: it may take several."""
        for end in range(length, max(length - 4, 0), -1):
            if not self._tokenizer.decode([t - 1 for t in tokens[:end]]).endswith("\ufffd"):
                return tokens[:end]
        return tokens[:length]

    def check(self, text: str) -> None:
        """Raises ValueError, saying what comes out, unless a text's tokens give the text again."""
        tokens = self.tokens(text)
        [back] = self.read(np.array([(*tokens, 0)], np.int32))
        if back != text.strip():
            place = next(
                (n for n, (a, b) in enumerate(zip(text.strip(), back, strict=False)) if a != b),
                min(len(text.strip()), len(back)),
            )
            there, here = (one[max(place - 5, 0) : place + 15] for one in (text.strip(), back))
            raise ValueError(f"the tokenizer makes {here!r} of {there!r}")

    def read(self, rows: Int[np.ndarray, "n length"]) -> list[str]:
        """The texts of rows of tokens, up to the first 0; "" for an answer that was not had."""
        ends = np.where((rows <= 0).any(-1), (rows <= 0).argmax(-1), rows.shape[-1])
        ids = [(row[:end] - 1).tolist() for row, end in zip(rows, ends, strict=True)]
        return [text.strip() for text in self._tokenizer.decode_batch(ids)]

    def show(self, words: Sequence[str]) -> str:
        """The text of words of the vocabulary."""
        known = [word for word in words if word != NOTHING]
        decoder = self._tokenizer.decoder
        text = decoder.decode(known) if decoder is not None else " ".join(known)
        return text.strip() or "?"

    def _encode(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        ids = self._plain.encode(" " + text, add_special_tokens=False).ids
        # A tokenizer without merges may know a control token as a word; see `check`.
        return tuple(number + 1 for number in ids if number not in self._control)


def learn_spelling(texts: Iterable[str], size: int) -> Spelling:
    """A byte-level BPE tokenizer of at most so many tokens (256 at least), learned from texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator((" " + text for text in texts), trainer)
    return Spelling(tokenizer)


def open_spelling(folder: Path) -> Spelling:
    """The tokenizer of a checkpoint folder. Raises AmplifyError if there is none."""
    file = folder / "tokenizer.json"
    try:
        return Spelling(Tokenizer.from_file(str(file)))
    except Exception as error:  # tokenizers raises plain Exceptions
        raise AmplifyError(f"{file}: cannot be read: {first_line(error)}") from None
