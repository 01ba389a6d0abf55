"""The log of what people said and did: appended to, never changed.

One SQLite file per experiment, which the web process and the round share. A correction is a new
event; what events amount to is decided by whoever folds them (see `state`). An event is on disk
once `append` returns. Knows files and rows; what an event may say is defined in `events`.
"""

import contextlib
import functools
import itertools
import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, first_line
from amplify.files.writing import check_output, make_private, open_private, replacing
from amplify.people.events import UNREADABLE, Event, New, check_new
from amplify.people.text import without_surrogates

EVENTS = "events.sqlite"
"""The log's file in an experiment's folder."""

VERSION = 2
"""Version of the log; a file with a later one is refused. The table has been the same since version
1; version 2 may have several stages in a round, which earlier versions would take for one."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    round INTEGER NOT NULL,
    item TEXT,
    person TEXT,
    checkpoint TEXT,
    seconds REAL,
    request TEXT UNIQUE,
    body TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS never_changed BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER IF NOT EXISTS never_deleted BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
"""


Decide = Callable[[], list[New]]


class Log:
    """An experiment's events. Any number of processes may have it open; one writes at a time."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Opens the file, or makes it.

        Args:
            path: of the file.
            clock: gives the time of events, in seconds since 1970.

        Raises:
            AmplifyError: the file is damaged, no log, or was written by a later version.
        """
        self.path, self._clock = path, clock
        _make_private_log(path)
        try:
            # Transactions are begun by hand; one connection a log, and one thread at a time.
            self._connection = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
            # What was once written in another encoding is shown as well as it can be.
            self._connection.text_factory = functools.partial(
                str, encoding="utf-8", errors="replace"
            )
            with contextlib.ExitStack() as unless_it_is_whole:
                unless_it_is_whole.callback(self.close)
                self._prepare()
                unless_it_is_whole.pop_all()
        except sqlite3.Error as error:
            raise AmplifyError(
                f"{path}: no log of events, or a damaged one ({first_line(error)}); put back a copy"
                " of it, or move it away to begin with none"
            ) from None

    def _prepare(self) -> None:
        connection = self._connection
        [(version,)] = connection.execute("PRAGMA user_version")
        if version > VERSION:
            raise AmplifyError(
                f"{self.path}: written by a newer Amplify (version {version} of the log, this one"
                f" reads up to {VERSION}); update Amplify"
            )
        [(state,)] = connection.execute("PRAGMA quick_check(1)")
        if state != "ok":
            raise sqlite3.DatabaseError(state)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # acknowledged is on disk
        if version < VERSION:
            with self._transaction():
                for statement in _statements(SCHEMA):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def since(self, last: int = 0) -> Iterator[Event]:
        """Yields events in order. The body of a damaged one has the key `UNREADABLE`.

        Args:
            last: id after which to begin.
        """
        rows = self._connection.execute(
            f"SELECT {', '.join(Event._fields)} FROM events WHERE id > ? ORDER BY id", (last,)
        )
        for row in rows:
            yield _event(*row)

    def append(self, *events: New) -> list[int]:
        """Appends all of the events or none, and returns their ids; see `decide`."""
        return self.decide(lambda: list(events))

    def decide(self, decision: Decide, request: str | None = None) -> list[int]:
        """Appends the events that `decision` returns; nobody else can append in between.

        Args:
            decision: called in the transaction, so what it reads from the log is the latest.
            request: an id of whoever asks for it. If something was appended under the same id
                before, `decision` is not called.

        Returns:
            The ids of the events, or of those that were appended under this request before.

        Raises:
            AmplifyError: the disk is full or the file cannot be written. Nothing was appended.
            ValueError: an event is of an unknown kind or does not say what its kind must (see
                `check_new`). Nothing was appended.
        """
        try:
            with self._transaction():
                if request is not None and (known := self._known(request)):
                    return known
                new = decision()
                if new and request is not None:
                    new[-1] = {**new[-1], "request": request}
                return [self._insert(event) for event in new]
        except sqlite3.Error as error:
            raise AmplifyError(
                f"{self.path}: could not be written ({first_line(error)}); nothing before is lost"
            ) from error

    def change(self) -> int:
        """Returns a number that changes whenever another process appends."""
        [(version,)] = self._connection.execute("PRAGMA data_version")
        return version

    def has_request(self, beginning: str) -> bool:
        """Whether an event was appended under a request with this beginning."""
        after = beginning[:-1] + chr(ord(beginning[-1]) + 1)
        rows = self._connection.execute(
            "SELECT 1 FROM events WHERE request >= ? AND request < ? LIMIT 1", (beginning, after)
        )
        return rows.fetchone() is not None

    def _known(self, request: str) -> list[int]:
        rows = self._connection.execute("SELECT id FROM events WHERE request = ?", (request,))
        return list(itertools.chain.from_iterable(rows))

    def _insert(self, event: New) -> int:
        check_new(event)
        if (request := event.get("request")) and (known := self._known(request)):
            return known[0]
        row = {"at": self._clock(), **event, "body": json.dumps(event.get("body", {}))}
        columns = ", ".join(row)
        marks = ", ".join("?" * len(row))
        cursor = self._connection.execute(
            f"INSERT INTO events ({columns}) VALUES ({marks})", tuple(row.values())
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk may have ended it already
                self._connection.execute("ROLLBACK")
            raise


def _event(*row: Any) -> Event:
    """An event from a row of the file, whatever that contains."""
    event, at, kind, number, item, person, checkpoint, seconds, request, body = row
    wrong, said = "", {}
    try:
        said = json.loads(body)
        if not isinstance(said, dict):
            raise ValueError("is no table")
        if "\\u" in body:  # perhaps half of a pair
            said = without_surrogates(said)
    except (ValueError, TypeError, RecursionError) as error:
        wrong = f"cannot be read ({first_line(error)})"
    if not isinstance(number, int) or not isinstance(at, float) or not math.isfinite(at):
        number, at, wrong = -1, 0.0, "is of no round, or of no time"
    if not (isinstance(seconds, float) and math.isfinite(seconds)):
        seconds = None
    item, person, checkpoint = (None if x is None else str(x) for x in (item, person, checkpoint))
    said = {UNREADABLE: wrong} if wrong else said
    return Event(event, at, str(kind), number, item, person, checkpoint, seconds, request, said)


def _make_private_log(path: Path) -> None:
    """Makes the file if need be, readable by its owner only, as the files that SQLite adds."""
    with contextlib.suppress(OSError):  # SQLite says what is wrong
        os.close(open_private(path, os.O_RDWR | os.O_CREAT))
    make_private(*(path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm")))


def _statements(script: str) -> Iterator[str]:
    """One by one: sqlite3's own `executescript` would commit in between."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def export_events(log: Log, out: Path) -> int:
    """Writes all events to a file and returns their number.

    Args:
        log: whose events.
        out: a file whose name ends in .jsonl or .parquet.

    Raises:
        AmplifyError: it ends otherwise, or is a folder's.
    """
    check_output(out, (".jsonl", ".parquet"), "events")
    rows = [event.as_row() for event in log.since()]
    if out.suffix == ".jsonl":
        with replacing(out, private=True) as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        import pyarrow
        import pyarrow.parquet

        flat = [{**row, "body": json.dumps(row["body"])} for row in rows]
        table = pyarrow.Table.from_pylist(flat, schema=_parquet_schema(pyarrow))
        with replacing(out, "wb", private=True) as binary:
            pyarrow.parquet.write_table(table, binary)
    return len(rows)


def _parquet_schema(pyarrow: Any) -> Any:
    kinds = {"id": pyarrow.int64(), "round": pyarrow.int64()}
    kinds |= {"at": pyarrow.float64(), "seconds": pyarrow.float64()}
    return pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in Event._fields])
