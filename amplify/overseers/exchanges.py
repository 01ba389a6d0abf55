"""What an overseer behind a server was asked and what it replied: the file `exchanges.jsonl` of a
round.

Each exchange is one JSON line, written and synced to disk as soon as the reply arrives, and only
ever appended. A stage that is run again, after a kill or for a replay, reads its replies from here.
Before a request is sent, a line says so: what a stage cost is counted from those, so that a killed
process loses none. Prompts of a language model in this process are counted in the same way, and
what it said is not kept, for it says the same again. Knows nothing of tasks or of HTTP.

Nothing between a stage and the overseer that it asks knows of this file, so the one in use is state
of the process: a stage opens it with `recording`, a replay with `recorded`, and the overseer calls
`current`.
"""

import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from amplify.errors import AmplifyError, first_line
from amplify.runtime import calls, processes
from amplify.runtime.calls import Call

FILE = "exchanges.jsonl"
"""Of the first process; process n writes `exchanges-n.jsonl`."""

FORMERLY = {"data": "distillation/data", "checkpoint": "distillation/checkpoint"}
"""Names under which earlier versions filed stages."""

Message = Mapping[str, str]
"""`{"role": "user" or "assistant", "content": text}`."""


class Reply(NamedTuple):
    """What a server said, and what that took."""

    text: str
    cut_off: bool = False  # it reached the limit of tokens before it ended
    model: str = ""  # what the server calls itself
    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 1  # sent until this reply came


@dataclasses.dataclass
class Exchanges:
    """The exchanges of one stage of a round, in use by one process at a time.

    Args:
        folder: the round's; None keeps exchanges in memory only.
        stage: under which what is new is filed and counted.
        asks: whether anything that is not on file may be asked of a server.
        keeps: whether what is new goes on file.
    """

    folder: Path | None
    stage: str
    asks: bool = True
    keeps: bool = True
    trouble: str = ""
    """The last reason why a question got no answer."""
    down: str = ""
    """Why no server is asked any more in this stage; "" while one is."""
    failures_in_a_row: int = 0
    """Requests that found nobody, or nobody with time, since the last reply."""
    broken: str = ""
    """Why the file cannot be written any more; "" while it can."""

    def __post_init__(self) -> None:
        self._replies: dict[str, Reply] = {}
        self._failed: dict[str, str] = {}  # in this stage
        self._settings: set[str] = set()
        self._calls: list[Call] = []  # of this stage, added up
        self._lock = threading.Lock()
        for file in sorted(self.folder.glob("exchanges*.jsonl")) if self.folder else []:
            self._read(file)
        if self.asks and self._failed:  # what failed in an earlier attempt may be tried again
            self._failed.clear()
            self._write({"began": self.stage})

    @property
    def _file(self) -> Path | None:
        """Where this process writes; the others' files it only reads."""
        number = processes.number()
        name = FILE if number == 0 else f"exchanges-{number}.jsonl"
        return self.folder / name if self.folder else None

    def sending(self, name: str, settings: Mapping[str, Any]) -> None:
        """Notes that a request is about to be sent; returns once that is on disk."""
        self._describe(settings)
        self._append({"part": calls.SERVER, "sent": 1, "id": name})

    def prompting(self, model: str, prompts: int) -> None:
        """Notes that a model in this process is about to read so many prompts."""
        self._append({"part": calls.LANGUAGE_MODEL, "sent": prompts, "model": model})

    def reusing(self, prompts: int) -> None:
        """Notes that the answers to so many prompts were taken from the file."""
        if prompts:
            self._append({"part": calls.SERVER, "reused": prompts})

    def find(self, name: str) -> Reply | None:
        """The reply to a request; None if there is none, or the stage went on without it."""
        return None if name in self._failed else self._replies.get(name)

    def failed(self, name: str) -> str:
        """Why a request that has no reply is not sent, or not again; "" if it may be."""
        if name in self._failed:
            return self._failed[name]
        return self.down if self.asks else "it is not in the round's exchanges"

    def add(
        self, name: str, settings: Mapping[str, Any], messages: Sequence[Message], reply: Reply
    ) -> None:
        """Keeps a reply; returns once it is on disk."""
        self._replies[name] = reply
        self.failures_in_a_row = 0
        self._describe(settings)
        said = {"settings": digest(settings), "messages": list(messages)}
        self._append({"id": name, **said, **reply._asdict()})

    def fail(self, name: str, reason: str, requests: int) -> None:
        """Keeps that a request got no reply, so that a replay of the stage gets none either."""
        if name in self._failed:
            return
        self._failed[name] = self.trouble = reason
        self._append({"id": name, "failed": reason, "requests": requests})

    def counted(self) -> list[Call]:
        """What the stage has sent and reused so far, over all its attempts.

        Of several processes each knows its own part, so they must all be done: files are read.
        """
        if processes.are_several() and self.folder and self.keeps:
            return recorded(self.folder, self.stage).counted()
        return [call for call in self._calls if any(call[3:])]

    def unanswered(self) -> int:
        """How many requests of the stage got no reply in its last attempt."""
        if processes.are_several() and self.folder and self.keeps:
            return recorded(self.folder, self.stage).unanswered()
        return len(self._failed)

    def spent(self) -> dict[str, int]:
        """Requests and tokens of the stage, over all its attempts; empty if it asked no server."""
        found = [call for call in self.counted() if call.part == calls.SERVER]
        if not (sent := sum(call.calls for call in found)):
            return {}
        return {"overseer_requests": sent, "overseer_tokens": sum(call.tokens for call in found)}

    def _describe(self, settings: Mapping[str, Any]) -> None:
        """Writes once what many requests have in common: server, instructions, parameters."""
        if (name := digest(settings)) not in self._settings:
            self._settings.add(name)
            self._write({"described": name, **settings})

    def _append(self, row: dict[str, Any]) -> None:
        """Files a row under the stage, and what it is asked for at the moment, and counts it."""
        purpose = calls.current_purpose() or calls.purpose_of(self.stage)
        row = {**row, "stage": self.stage, "purpose": purpose}
        self._count(row)
        self._write(row)

    def _write(self, row: dict[str, Any]) -> None:
        with self._lock:
            path = self._file
            if path is None or not self.keeps or self.broken:
                return
            row = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **row}
            try:
                with path.open("ab") as file:  # ASCII: characters that are no text are escaped
                    file.write(json.dumps(row).encode("ascii") + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                self.broken = self.down = f"{path}: cannot be written ({error.strerror or error})"

    def _read(self, file: Path) -> None:
        """Takes in a file of exchanges. Its last line may be torn: a killed process left it."""
        try:
            text = file.read_bytes()
        except OSError as error:
            raise AmplifyError(f"{file}: cannot be read ({error.strerror})") from None
        *lines, torn = text.split(b"\n")
        failed: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            try:
                self._take_in(json.loads(line), failed)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise AmplifyError(
                    f"{file}: line {number} is damaged ({first_line(error)}); without it what was"
                    " said cannot be replayed: restore the file, or delete it to ask again"
                ) from None
        if torn and self.keeps and file == self._file:
            os.truncate(file, len(text) - len(torn))
        self._failed |= failed

    def _take_in(self, row: dict[str, Any], failed: dict[str, str]) -> None:
        if "described" in row:
            self._settings.add(row["described"])
        elif "began" in row:
            if self._is_own(row["began"]):
                failed.clear()
        elif "failed" in row:
            if self._is_own(row["stage"]):
                failed[row["id"]] = row["failed"]
        elif not {"sent", "reused"} & row.keys():
            self._replies[row["id"]] = Reply(**{key: row[key] for key in Reply._fields})
            if self._is_own(row["stage"]):
                failed.pop(row["id"], None)
        self._count(row)

    def _is_own(self, stage: str) -> bool:
        """Whether a row's stage is this one, under whichever version's name."""
        return FORMERLY.get(stage, stage) == FORMERLY.get(self.stage, self.stage)

    def _count(self, row: Mapping[str, Any]) -> None:
        if not self._is_own(row.get("stage", "")):
            return
        # Earlier versions noted requests with the reply alone, and not what they were for.
        sent = row.get("sent", 0) if "purpose" in row else row.get("requests", 0)
        call = Call(
            FORMERLY.get(self.stage, self.stage),
            row.get("purpose") or calls.purpose_of(self.stage),
            row.get("part", calls.SERVER),
            sent,
            row.get("reused", 0),
            row.get("prompt_tokens", 0) + row.get("completion_tokens", 0),
        )
        with self._lock:
            self._calls = calls.summed([*self._calls, call])

    def __enter__(self) -> "Exchanges":
        _open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _open.remove(self)


_open: list[Exchanges] = []


def recording(folder: Path, stage: str) -> Exchanges:
    """A round's exchanges while a stage runs: what is not on file is asked, and filed."""
    return Exchanges(folder, stage)


def recorded(folder: Path, stage: str) -> Exchanges:
    """A round's exchanges as a stage left them: nothing is asked, and no file is touched."""
    return Exchanges(folder, stage, asks=False, keeps=False)


def consulting(folder: Path, stage: str) -> Exchanges:
    """A round's exchanges, and a server for what is not among them; no file is touched."""
    return Exchanges(folder, stage, keeps=False)


def current() -> Exchanges:
    """Those of the stage that runs; outside of one, exchanges that are forgotten at once."""
    return _open[-1] if _open else Exchanges(None, "")


def digest(value: Any) -> str:
    """A name for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
