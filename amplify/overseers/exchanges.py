"""The log of requests to an overseer's server and of its replies: `exchanges.jsonl` of a round.

Each exchange is one JSON line, appended and synced to disk as soon as the reply arrives. A stage
that runs again, after a kill or for a replay, reads its replies from here. A line is also written
before each request is sent: the cost of a stage is counted from these, so that a kill loses none.
Prompts of a language model in this process are counted in the same way; its replies are not kept,
because they are deterministic. Independent of tasks and HTTP.

The log in use is global state, because nothing between a stage and its overseer passes it on: a
stage opens it with `recording`, a replay with `replaying`, and the overseer calls `current`.
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
"""File name of the first process; process n writes `exchanges-n.jsonl`."""

OLD_STAGE_NAMES = {"data": "distillation/data", "checkpoint": "distillation/checkpoint"}
"""Names of stages in the logs of earlier versions."""

Message = Mapping[str, str]
"""`{"role": "user" or "assistant", "content": text}`."""


class Reply(NamedTuple):
    """A server's reply, and its cost."""

    text: str
    cut_off: bool = False  # it ended at the limit of tokens
    model: str = ""  # the model's name according to the server
    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 1  # number of requests until this reply


@dataclasses.dataclass
class Exchanges:
    """The exchanges of one stage of a round.

    Args:
        folder: the round's folder; None: exchanges are kept in memory only.
        stage: the stage to which new exchanges are attributed.
        may_send: whether requests without a logged reply may be sent to a server.
        may_write: whether new exchanges are written to the log.
    """

    folder: Path | None
    stage: str
    may_send: bool = True
    may_write: bool = True
    last_error: str = ""
    """The last reason why no answer was obtained."""
    unavailable: str = ""
    """Why no more requests are sent in this stage; "" if they are."""
    consecutive_failures: int = 0
    """Requests since the last reply for which the server was absent or busy."""
    write_error: str = ""
    """Why the log can no longer be written; "" if it can."""

    def __post_init__(self) -> None:
        self._replies: dict[str, Reply] = {}
        self._failed: dict[str, str] = {}  # in this stage
        self._settings: set[str] = set()
        self._calls: list[Call] = []  # of this stage, summed
        self._lock = threading.Lock()
        for file in sorted(self.folder.glob("exchanges*.jsonl")) if self.folder else []:
            self._read(file)
        if self.may_send and self._failed:  # failures of an earlier attempt may be retried
            self._failed.clear()
            self._write({"began": self.stage})

    @property
    def _file(self) -> Path | None:
        """The file that this process writes. Files of other processes are only read."""
        number = processes.number()
        name = FILE if number == 0 else f"exchanges-{number}.jsonl"
        return self.folder / name if self.folder else None

    def log_request(self, name: str, settings: Mapping[str, Any]) -> None:
        """Logs that a request is about to be sent; returns when the line is on disk.

        Args:
            name: the request's name (see `digest`).
            settings: what the request has in common with others.
        """
        self._describe(settings)
        self._append({"part": calls.SERVER, "sent": 1, "id": name})

    def log_prompts(self, model: str, prompts: int) -> None:
        """Logs that a model in this process is about to read prompts.

        Args:
            model: the model's checkpoint.
            prompts: number of prompts.
        """
        self._append({"part": calls.LANGUAGE_MODEL, "sent": prompts, "model": model})

    def log_reused(self, prompts: int) -> None:
        """Logs how many prompts were answered from the log.

        Args:
            prompts: number of prompts.
        """
        if prompts:
            self._append({"part": calls.SERVER, "reused": prompts})

    def find(self, name: str) -> Reply | None:
        """The logged reply to a request.

        Args:
            name: the request's name.

        Returns:
            The reply; None if there is none, or if the request failed in this stage.
        """
        return None if name in self._failed else self._replies.get(name)

    def failure_reason(self, name: str) -> str:
        """Why a request without a reply must not be sent (again).

        Args:
            name: the request's name.

        Returns:
            The reason; "" if the request may be sent.
        """
        if name in self._failed:
            return self._failed[name]
        return self.unavailable if self.may_send else "it is not in the round's exchanges"

    def add_reply(
        self, name: str, settings: Mapping[str, Any], messages: Sequence[Message], reply: Reply
    ) -> None:
        """Logs a reply; returns when it is on disk.

        Args:
            name: the request's name.
            settings: what the request has in common with others.
            messages: of the request, without instructions.
            reply: the server's reply.
        """
        self._replies[name] = reply
        self.consecutive_failures = 0
        self._describe(settings)
        request = {"settings": digest(settings), "messages": list(messages)}
        self._append({"id": name, **request, **reply._asdict()})

    def add_failure(self, name: str, reason: str, requests: int) -> None:
        """Logs that a request got no reply, so that a replay of the stage gets none either.

        Args:
            name: the request's name.
            reason: why it got no reply.
            requests: how often it was sent.
        """
        if name in self._failed:
            return
        self._failed[name] = self.last_error = reason
        self._append({"id": name, "failed": reason, "requests": requests})

    def call_counts(self) -> list[Call]:
        """Counts of what the stage has sent and reused so far, over all its attempts.

        With several processes, the files of all of them are read, so all must be done.
        """
        if processes.are_several() and self.folder and self.may_write:
            return replaying(self.folder, self.stage).call_counts()
        return [call for call in self._calls if any(call[3:])]

    def count_unanswered(self) -> int:
        """Number of requests of the stage that got no reply in its last attempt."""
        if processes.are_several() and self.folder and self.may_write:
            return replaying(self.folder, self.stage).count_unanswered()
        return len(self._failed)

    def usage(self) -> dict[str, int]:
        """Requests and tokens of the stage, over all its attempts; empty if no server was asked."""
        found = [call for call in self.call_counts() if call.part == calls.SERVER]
        if not (sent := sum(call.calls for call in found)):
            return {}
        return {"overseer_requests": sent, "overseer_tokens": sum(call.tokens for call in found)}

    def _describe(self, settings: Mapping[str, Any]) -> None:
        """Logs settings that many requests share (server, instructions, parameters) once."""
        if (name := digest(settings)) not in self._settings:
            self._settings.add(name)
            self._write({"described": name, **settings})

    def _append(self, row: dict[str, Any]) -> None:
        """Logs and counts a row, with the stage and the current purpose."""
        purpose = calls.current_purpose() or calls.purpose_of(self.stage)
        row = {**row, "stage": self.stage, "purpose": purpose}
        self._count(row)
        self._write(row)

    def _write(self, row: dict[str, Any]) -> None:
        with self._lock:
            path = self._file
            if path is None or not self.may_write or self.write_error:
                return
            row = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **row}
            try:
                with path.open("ab") as file:  # ASCII: lone surrogates are escaped
                    file.write(json.dumps(row).encode("ascii") + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                self.write_error = self.unavailable = (
                    f"{path}: cannot be written ({error.strerror or error})"
                )

    def _read(self, file: Path) -> None:
        """Reads a log. Its last line may be incomplete if a process was killed."""
        try:
            text = file.read_bytes()
        except OSError as error:
            raise AmplifyError(f"{file}: cannot be read ({error.strerror})") from None
        *lines, incomplete = text.split(b"\n")
        failed: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            try:
                self._apply(json.loads(line), failed)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise AmplifyError(
                    f"{file}: line {number} is damaged ({first_line(error)}); without it the"
                    " round cannot be replayed: restore the file, or delete it to start over"
                ) from None
        if incomplete and self.may_write and file == self._file:
            os.truncate(file, len(text) - len(incomplete))
        self._failed |= failed

    def _apply(self, row: dict[str, Any], failed: dict[str, str]) -> None:
        if "described" in row:
            self._settings.add(row["described"])
        elif "began" in row:
            if self._is_this_stage(row["began"]):
                failed.clear()
        elif "failed" in row:
            if self._is_this_stage(row["stage"]):
                failed[row["id"]] = row["failed"]
        elif not {"sent", "reused"} & row.keys():
            self._replies[row["id"]] = Reply(**{key: row[key] for key in Reply._fields})
            if self._is_this_stage(row["stage"]):
                failed.pop(row["id"], None)
        self._count(row)

    def _is_this_stage(self, stage: str) -> bool:
        """Whether a row's stage is this one, under its current or an earlier name."""
        return OLD_STAGE_NAMES.get(stage, stage) == OLD_STAGE_NAMES.get(self.stage, self.stage)

    def _count(self, row: Mapping[str, Any]) -> None:
        if not self._is_this_stage(row.get("stage", "")):
            return
        # Earlier versions logged the number of requests with the reply, without a purpose.
        sent = row.get("sent", 0) if "purpose" in row else row.get("requests", 0)
        call = Call(
            OLD_STAGE_NAMES.get(self.stage, self.stage),
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
    """The exchanges of a running stage: requests without a logged reply are sent, and logged.

    Args:
        folder: the round's folder.
        stage: the stage's name.
    """
    return Exchanges(folder, stage)


def replaying(folder: Path, stage: str) -> Exchanges:
    """The exchanges of a finished stage: nothing is sent, and no file is written.

    Args:
        folder: the round's folder.
        stage: the stage's name.
    """
    return Exchanges(folder, stage, may_send=False, may_write=False)


def replaying_with_server(folder: Path, stage: str) -> Exchanges:
    """The exchanges of a finished stage: requests without a logged reply are sent; no file is
    written.

    Args:
        folder: the round's folder.
        stage: the stage's name.
    """
    return Exchanges(folder, stage, may_write=False)


def current() -> Exchanges:
    """The exchanges of the current stage; outside of stages, new ones that are not kept."""
    return _open[-1] if _open else Exchanges(None, "")


def digest(value: Any) -> str:
    """A SHA-256 digest of a JSON value, 32 hexadecimal digits, independent of the order of keys.

    Args:
        value: the value.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
