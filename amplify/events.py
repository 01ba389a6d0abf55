"""The log of what people said and did: appended to, never changed.

One SQLite file an experiment, in which web process, worker and round meet. Corrections are new
events; what an event means is decided by who folds them (see `people.state`). An event is on disk
when `append` returns. Knows files and rows, and nothing of questions; never imports jax.
"""

import contextlib
import functools
import itertools
import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from amplify.errors import AmplifyError, first_line
from amplify.private_files import make_private, open_private

EVENTS = "events.sqlite"
"""Its name in an experiment's folder."""

UNREADABLE = "unreadable"
"""In the body of an event whose line in the file is damaged: what is wrong with it."""

VERSION = 1
"""Of the schema; a file of a later one is refused."""

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


class Event(NamedTuple):
    id: int  # in the order of the log, from 1
    at: float  # seconds since 1970
    kind: str
    round: int
    item: str | None = None
    person: str | None = None  # a pseudonym
    checkpoint: str | None = None  # digest of the weights that answered
    seconds: float | None = None  # of a person's attention
    request: str | None = None  # whoever sends the same twice meant it once
    body: Mapping[str, Any] = {}

    def as_row(self) -> dict[str, Any]:
        """For JSON: what it has no value for is left out."""
        return {key: value for key, value in self._asdict().items() if value is not None}


Decide = Callable[[], list[dict[str, Any]]]


class Log:
    """An experiment's events. Any number of processes may have it open; one writes at a time."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Opens the file, or makes it.

        Raises AmplifyError if it is damaged or of a later version.
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
        self._connection.close()

    def since(self, last: int = 0, round: int | None = None) -> Iterator[Event]:
        """Events after the one numbered `last`, in order; of one round, if it is given. A damaged
        one says `UNREADABLE` in its body.
        """
        where = "" if round is None else " AND round = ?"
        values = (last,) if round is None else (last, round)
        rows = self._connection.execute(
            f"SELECT {', '.join(Event._fields)} FROM events WHERE id > ?{where} ORDER BY id", values
        )
        for row in rows:
            yield _event(*row)

    def append(self, *events: Mapping[str, Any]) -> list[int]:
        """Appends events (fields of `Event` but `id` and `at`), all or none; returns their ids."""
        return self.decide(lambda: [dict(event) for event in events])

    def decide(self, decision: Decide, request: str | None = None) -> list[int]:
        """Appends what `decision` returns, nothing having been appended by others since it looked.
        Returns the ids.

        What is sent twice under one `request` counts once: the decision is then not taken again.
        Raises AmplifyError if the disk is full or the file cannot be written, and whatever
        `decision` does; then nothing was appended.
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
        """A number that is another once some other process has appended."""
        [(version,)] = self._connection.execute("PRAGMA data_version")
        return version

    def has_request(self, beginning: str) -> bool:
        """Whether something was sent under a request that begins so."""
        after = beginning[:-1] + chr(ord(beginning[-1]) + 1)
        rows = self._connection.execute(
            "SELECT 1 FROM events WHERE request >= ? AND request < ? LIMIT 1", (beginning, after)
        )
        return rows.fetchone() is not None

    def _known(self, request: str) -> list[int]:
        rows = self._connection.execute("SELECT id FROM events WHERE request = ?", (request,))
        return list(itertools.chain.from_iterable(rows))

    def _insert(self, event: dict[str, Any]) -> int:
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
    """From a row of the file, whatever is in it."""
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


def without_surrogates(value: Any) -> Any:
    """A JSON value in which each lone surrogate, which no file can hold, is U+FFFD instead."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(inner) for key, inner in value.items()}
    return [without_surrogates(inner) for inner in value] if isinstance(value, list) else value


def _make_private_log(path: Path) -> None:
    """The file is there and its owner's alone, with those that SQLite puts beside it."""
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
    """Writes all events as .jsonl or .parquet, by the file's name. Returns how many.

    Raises AmplifyError if it is named otherwise.
    """
    rows = [event.as_row() for event in log.since()]
    temporary = out.with_name(f".{out.name}.tmp")
    if out.suffix == ".jsonl":
        with open(temporary, "w", encoding="utf-8", opener=open_private) as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    elif out.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        flat = [{**row, "body": json.dumps(row["body"])} for row in rows]
        table = pyarrow.Table.from_pylist(flat, schema=_parquet_schema(pyarrow))
        with open(temporary, "wb", opener=open_private) as binary:
            pyarrow.parquet.write_table(table, binary)
    else:
        raise AmplifyError(f"{out}: events are written as .jsonl or .parquet")
    temporary.rename(out)
    return len(rows)


def _parquet_schema(pyarrow: Any) -> Any:
    kinds = {"id": pyarrow.int64(), "round": pyarrow.int64()}
    kinds |= {"at": pyarrow.float64(), "seconds": pyarrow.float64()}
    return pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in Event._fields])
