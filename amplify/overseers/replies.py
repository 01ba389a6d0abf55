"""What a language model replied, read as a question or a conclusion.

Models frame a line in many ways: with their reasoning before it, as Markdown, in lower case, with
the rest of an imagined transcript after it. What the line says is a task's business.
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


class Said(NamedTuple):
    asks: bool  # or it concludes
    readings: tuple[str, ...]  # what it may have meant to say, likeliest first


def read_reply(text: str, *, cut_off: bool = False) -> Said | str:
    """The first question or conclusion in a reply; or, as a string, why it cannot be used.

    Args:
        cut_off: whether the reply reached its limit of tokens.
    """
    *_, spoken = _REASONING_ENDS.split(text)  # some servers send only the end of the reasoning
    spoken, *_ = _REASONING_BEGINS.split(spoken, maxsplit=1)
    lines = [line.strip() for line in re.split(r"[\r\n\u2028\u2029\x85]+", spoken)]
    lines = [line for line in lines if line.strip("*_`#> ")]
    for number, line in enumerate(lines):
        found = _MARKED.match(line)
        if found is None:
            continue
        rest, is_last = found["rest"].strip(), number == len(lines) - 1
        if not rest.strip("*_` ") and not is_last:  # it stands on the next line
            rest, is_last = lines[number + 1], number == len(lines) - 2
        if cut_off and is_last:
            return f"it was cut off at the limit of tokens, in {_short(line)}"
        if readings := _readings(rest, found["open"] or "", found["before"] or ""):
            return Said(found["kind"].lower() == "ask", readings)
        return f"said {_short(line)}, with nothing after it"
    if cut_off:
        return "it was cut off at the limit of tokens (overseer.max_tokens) before it said anything"
    if not lines:
        return "it said nothing"
    return f"said {_short(lines[0])}, which is neither a question nor an answer"


def _readings(rest: str, opened: str, closed: str) -> tuple[str, ...]:
    """What may be meant by the text after the colon, likeliest first: without marks of emphasis or
    quotes around it, and with them. The task decides: in some, `**` is a question.

    Args:
        opened: a mark of emphasis that began before the line's first word; "" if none did.
        closed: the one that ended between that word and the colon.
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


def _short(line: str) -> str:
    return repr(line if len(line) <= 80 else line[:77] + "...")
