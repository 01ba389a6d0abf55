"""Forms that no page of ours sends, made by chance from a seed: what scripts, broken browsers and
people who look for a hole may send to any route that takes a form.
"""

import random
import uuid
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote_plus, urlencode

FORM = "application/x-www-form-urlencoded"
LIMIT = 2000

PERSON = {
    "/items/{item}/ask": {"text": "Which?"},
    "/items/{item}/expand": {"number": "1", "part": "", "text": "in the box"},
    "/items/{item}/submit": {"answer": "1"},
    "/items/{item}/skip": {"reason": "unclear"},
    "/items/{item}/draft": {"text": "perhaps", "answer": "perhaps"},
    "/undo": {"event": "1", "text": "in the box"},
    "/items/{item}/seen": {},
}
ADMIN = {
    "/admin/answers/{item}/adjudicate": {"answer": "1", "other": "", "then": ""},
    "/admin/answers/{item}/correct": {"person": "person-01", "answer": "1", "number": ""},
    "/admin/answers/{item}/withdraw": {"reason": "unclear"},
}
TYPED = {"text", "answer", "reason", "other"}

BYTES = (
    b"\xed\xa0\x80 hello",  # half of a surrogate pair, as some encode it
    b"\xc0\x80",  # NUL, in more bytes than it has
    b"caf\xe9",  # in Latin-1
    b"\xff\xfeh\x00i\x00",  # in UTF-16
    b"\xf5\x80\x80\x80",  # beyond Unicode
)
CONTROLS = [chr(code) for code in [*range(32), *range(0x7F, 0xA0)] if chr(code) not in "\t\n\r"]


class Hostile(NamedTuple):
    what: str
    path: str  # with {item} in it
    content_type: str
    body: bytes


def hostile_forms(csrf: Mapping[str, str], count: int, seed: int = 0) -> list[tuple[str, Hostile]]:
    """So many forms, with whose each is: "person" or "admin".

    Args:
        csrf: the token of each of the two.
    """
    chance, made = random.Random(seed), []
    kinds = list(KINDS)
    for number in range(count):
        whose, routes = chance.choice([("person", PERSON), ("admin", ADMIN)])
        path = chance.choice(list(routes))
        fields = {"csrf": csrf[whose], "request": uuid.uuid4().hex, "seconds": "1", **routes[path]}
        kind = kinds[number % len(kinds)]  # each several times
        content_type, body = KINDS[kind](chance, path, fields)
        made.append((whose, Hostile(f"{kind}: {path}", path, content_type, body)))
    return made


def _field(chance: random.Random, fields: Mapping[str, str]) -> str:
    """One that is typed into, or any."""
    return chance.choice([name for name in fields if name in TYPED] or ["text"])


def _with(fields: Mapping[str, str], name: str, value: bytes) -> tuple[str, bytes]:
    others = {key: text for key, text in fields.items() if key != name}
    return FORM, f"{urlencode(others)}&{name}={quote_plus(value)}".encode()


def _bytes(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    return _with(fields, _field(chance, fields), chance.choice(BYTES))


def _control(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    text = f"hel{chance.choice(CONTROLS)}lo"
    return _with(fields, _field(chance, fields), text.encode())


def _lost(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    return _with(fields, _field(chance, fields), "hel\ufffdlo".encode())


def _multipart(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    """With a charset by which a server might read it."""
    charset = chance.choice(["unicode_escape", "utf-7", "utf-16", "punycode", "utf-8", "nonsense"])
    name = _field(chance, fields)
    parts = {**fields, name: r"\ud800 hello" if charset == "unicode_escape" else "+2AA- hello"}
    body = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{text}\r\n'
        for key, text in parts.items()
    )
    return f"multipart/form-data; boundary=b; charset={charset}", f"{body}--b--\r\n".encode()


def _charset(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    charset = chance.choice(["utf-16", "latin-1", "unicode_escape", '"utf-7"'])
    return f"{FORM}; charset={charset}", urlencode(fields).encode()


def _other_type(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    kinds = ["application/json", "text/plain", "", "multipart/form-data", "a" * 5000, "é"]
    return chance.choice(kinds), urlencode(fields).encode()


def _raw(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    return FORM, urlencode(fields).encode() + b"&text=\x00\xff" + chance.randbytes(20) + b"\xff"


def _twice(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    name = chance.choice(list(fields))
    return FORM, f"{urlencode(fields)}&{name}=another".encode()


def _many(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    more = {f"field-{n}": "x" for n in range(chance.randint(100, 2000))}
    return FORM, urlencode({**fields, **more}).encode()


def _long(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    length = chance.choice([LIMIT + 1, 10 * LIMIT, 70_000])
    if not fields.keys() & {"answer", "reason"} and not path.endswith("/ask"):
        length = 70_000  # of what is not looked at, only the whole is limited
    name = "text" if path.endswith(("/ask", "/draft")) else _field(chance, fields)
    return _with(fields, name, b"x" * length)


def _no_token(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    fewer = {name: text for name, text in fields.items() if name != "csrf"}
    return FORM, urlencode(fewer).encode()


def _number(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    """Where a number is asked for; else of the seconds, which are one everywhere."""
    name = next((name for name in ("number", "event") if name in fields), "seconds")
    numbers = [b"1" + b"0" * 40, b"9" * 5001, b"-1", b"1e9", b"\xd9\xa1", b"0x10", b"many"]
    wrong = [b"many", b"1/2", b"", b"0x10"]
    value = chance.choice(numbers) if name != "seconds" else chance.choice(wrong[:2] + wrong[3:])
    return _with(fields, name, value)


def _request(chance: random.Random, path: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    return _with(fields, "request", b"r" * chance.randint(101, 9999))


KINDS: dict[str, Callable[..., tuple[str, bytes]]] = {
    "bytes that are no UTF-8": _bytes,
    "a control character": _control,
    "a character that was lost": _lost,
    "multipart in some charset": _multipart,
    "a charset": _charset,
    "another content type": _other_type,
    "raw bytes": _raw,
    "a field twice": _twice,
    "many fields": _many,
    "a long text": _long,
    "no token": _no_token,
    "a strange number": _number,
    "a long request": _request,
}
