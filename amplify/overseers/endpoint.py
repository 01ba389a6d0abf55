"""Texts continued by a server that speaks as OpenAI's does: most that serve language models do.

What it said is kept in a file of the user's cache, so that a round that was interrupted asks
nothing twice. Trouble is met with patience, and in the end with None. Knows nothing of tasks.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from amplify.errors import first_line

AT_ONCE = 16
"""Requests under way at a time."""
KEY = "OPENAI_API_KEY"
"""The environment variable whose value is sent as a key, if there is one."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    address: str  # such as http://localhost:8000/v1
    model: str
    instructions: str
    tries: int = 4
    patience: float = 1.0  # seconds before the second try, twice as many before each one after it
    timeout: float = 60.0  # seconds

    def answer(
        self, prompts: Sequence[str], accepts: Callable[[str], bool]
    ) -> tuple[list[str | None], str]:
        """One line for each prompt, and the last trouble, if any.

        Args:
            accepts: whether a line makes sense; what does not is asked for again.

        Returns:
            For each prompt what was said first that makes sense; None where nothing did, or nobody
            answered. If the first prompts all fail, the others are not tried.
        """
        wanted = list(dict.fromkeys(prompts))
        with _memory() as known:
            said = {prompt: known.get(self._key(prompt)) for prompt in wanted}
            new = [prompt for prompt in wanted if said[prompt] is None]
            trouble = ""
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for start in range(0, len(new), AT_ONCE):
                    some = new[start : start + AT_ONCE]
                    lines = list(pool.map(functools.partial(self._ask, accepts), some))
                    for prompt, (line, problem) in zip(some, lines, strict=True):
                        said[prompt], trouble = line, problem or trouble
                        if line is not None:
                            known.put(self._key(prompt), line)
                    if start == 0 and all(line is None for line, _ in lines):
                        break
        return [said[prompt] for prompt in prompts], trouble

    def _ask(self, accepts: Callable[[str], bool], prompt: str) -> tuple[str | None, str]:
        trouble = ""
        for number in range(self.tries):
            if number:
                time.sleep(self.patience * 2 ** (number - 1))
            try:
                line = self._request(prompt)
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                trouble = f"{self.address}: {first_line(error)}"
                continue
            if accepts(line):
                return line, ""
            trouble = f"{self.address}: {nonsense(line)}"
        return None, trouble

    def _request(self, prompt: str) -> str:
        messages = [
            {"role": "system", "content": self.instructions},
            {"role": "user", "content": prompt},
        ]
        body = {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": 100}
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.address.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            text = json.load(response)["choices"][0]["message"]["content"]
        return text.strip().splitlines()[0].strip()

    def _key(self, prompt: str) -> str:
        whole = json.dumps([self.address, self.model, self.instructions, prompt])
        return hashlib.sha256(whole.encode()).hexdigest()


def nonsense(line: str) -> str:
    """What to say of a line that nothing can be made of."""
    return f"said {line[:80]!r}, which is neither a question nor an answer"


class _Memory:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, key: str) -> str | None:
        row = self._connection.execute("SELECT line FROM said WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, key: str, line: str) -> None:
        self._connection.execute("INSERT OR IGNORE INTO said VALUES (?, ?)", (key, line))
        self._connection.commit()


@contextlib.contextmanager
def _memory() -> Iterator[_Memory]:
    """What endpoints have said, on this machine."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amplify"
    home.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(home / "said.sqlite", timeout=60)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS said (key TEXT PRIMARY KEY, line TEXT)")
        yield _Memory(connection)
    finally:
        connection.close()
