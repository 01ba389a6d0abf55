"""Parses a language model's reply as a sub-question or a conclusion.

Models format the line in many ways: after their reasoning, as Markdown, in lower case, or followed
by the rest of an imagined transcript. The task parses the text of the line.
"""

import re
from typing import NamedTuple

ASK, CONCLUDE = "Ask:", "Conclude:"

_REASONING = r"(think|thinking|reasoning|thought)>"
_REASONING_ENDS = re.compile("</" + _REASONING, re.IGNORECASE)
_REASONING_BEGINS = re.compile("<" + _REASONING, re.IGNORECASE)
_MARKED = re.compile(
    r"""^(?:[\s>\#•\-\d.)]|\*\s)*?    # a quote, a heading, an item of a list
    (?P<open>\*{1,3}|_{1,3}|`)?
    (?P<kind>ask|conclude)\s*
    (?P<before>\*{1,3}|_{1,3}|`)?\s*[:\uff1a]
    (?P<rest>.*)$""",
    re.IGNORECASE | re.VERBOSE,
)
_WRAPPED = re.compile(r"(\*\*|`|\"|“|')(?P<inside>.+)(\*\*|`|\"|”|')")
_PAIRS = {"**": "**", "`": "`", '"': '"', "“": "”", "'": "'"}


class ParsedReply(NamedTuple):
    """A sub-question or a conclusion."""

    asks: bool  # False: it concludes
    readings: tuple[str, ...]  # possible texts, likeliest first


def read_reply(text: str, *, cut_off: bool = False) -> ParsedReply | str:
    """Finds the first question or conclusion in a reply.

    Args:
        text: the reply.
        cut_off: whether the reply ended at the limit of tokens.

    Returns:
        The parsed reply; or, as a string, why the reply cannot be used.
    """
    *_, visible = _REASONING_ENDS.split(text)  # some servers send only the end tag
    visible, *_ = _REASONING_BEGINS.split(visible, maxsplit=1)
    lines = [line.strip() for line in re.split(r"[\r\n\u2028\u2029\x85]+", visible)]
    lines = [line for line in lines if line.strip("*_`#> ")]
    for number, line in enumerate(lines):
        found = _MARKED.match(line)
        if found is None:
            continue
        rest, is_last = found["rest"].strip(), number == len(lines) - 1
        if not rest.strip("*_` ") and not is_last:  # the text is on the next line
            rest, is_last = lines[number + 1], number == len(lines) - 2
        if cut_off and is_last:
            return f"it was cut off at the limit of tokens, in {_quote(line)}"
        if readings := _readings(rest, found["open"] or "", found["before"] or ""):
            return ParsedReply(found["kind"].lower() == "ask", readings)
        return f"said {_quote(line)}, with nothing after it"
    if cut_off:
        return "it was cut off at the limit of tokens (overseer.max_tokens) before it said anything"
    if not lines:
        return "it said nothing"
    return f"said {_quote(lines[0])}, which is neither a question nor an answer"


def _readings(rest: str, opened: str, closed: str) -> tuple[str, ...]:
    """Possible texts after the colon, likeliest first: without surrounding emphasis or quotes, and
    with them. The task decides, because in some tasks `**` is a question.

    Args:
        rest: the line after the colon.
        opened: emphasis mark before the line's first word; "" if there is none.
        closed: emphasis mark between this word and the colon; "" if there is none.
    """
    readings = [rest]
    if opened and closed != opened:
        if rest.startswith(opened):  # **Ask:** what
            readings = [rest.removeprefix(opened).strip()]
        elif rest.endswith(opened):  # **Ask: what**
            readings.insert(0, rest.removesuffix(opened).strip())
    wrapped = _WRAPPED.fullmatch(readings[0])
    if wrapped and _PAIRS[wrapped[1]] == wrapped[3]:
        readings.insert(0, wrapped["inside"].strip())
    return tuple(reading for reading in readings if reading)


def _quote(line: str) -> str:
    return repr(line if len(line) <= 80 else line[:77] + "...")
