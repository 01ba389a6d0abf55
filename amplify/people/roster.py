"""Everybody who has a link to the pages: pseudonyms, and the tokens in the links.

Kept in two files in `people/`, beside the experiment's rounds, that only their owner may read:
`tokens.json`, and `names.csv`, which says who is behind a pseudonym and is never read again. The
log and all reports contain pseudonyms only.
"""

import contextlib
import csv
import hmac
import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from amplify.errors import AmplifyError
from amplify.files.locks import ProcessLock
from amplify.files.writing import make_private_folder, open_private, write_atomically
from amplify.people.text import LINES, shown, why_not_kept

ADMIN = "admin"
DAYS = 30.0
"""How long a link works by default."""
MOST_DAYS = 3650.0
DAY = 24 * 60 * 60.0
MOST_PEOPLE = 1000
"""Maximum number of people who are invited at a time."""
LONGEST_NAME = 200


class Member(NamedTuple):
    """A person with a link."""

    person: str  # a pseudonym, or ADMIN
    token: str
    expires: float | None  # seconds since 1970; None: never
    simulated: bool = False

    @property
    def is_admin(self) -> bool:
        return self.person == ADMIN


def check_names(names: Sequence[str]) -> None:
    """Checks names of people to invite.

    Raises:
        AmplifyError: one cannot be written in a line of text, or there are too many.
    """
    if len(names) > MOST_PEOPLE:
        raise AmplifyError(f"at most {MOST_PEOPLE} people are invited at a time, got {len(names)}")
    for name in names:
        problem = why_not_kept(name)
        if any(character in LINES for character in name):
            problem = "must be in one line"
        if len(name) > LONGEST_NAME:
            problem = f"has at most {LONGEST_NAME} characters, this one {len(name)}"
        if problem:
            raise AmplifyError(f"a name {problem}: {shown(name)[:60]!r}")


class NotAllowedError(Exception):
    """A link does not work, or opens other pages. The message says why, and who can help."""


class Roster:
    """The links of one experiment; any number of processes may change them."""

    def __init__(self, experiment: Path) -> None:
        self.folder = experiment / "people"
        self._file, self._names = self.folder / "tokens.json", self.folder / "names.csv"
        self._seen: tuple[int, int] | None = None
        self._members: dict[str, Member] = {}

    def members(self) -> list[Member]:
        """Everybody, in the order in which they were invited."""
        self._refresh()
        return list(self._members.values())

    def admin(self) -> Member:
        """Whoever runs the experiment; invited on first use, and again once revoked."""
        self._refresh()
        return self._working_admin() or self._invite_admin()

    def invite(
        self, names: Sequence[str], now: float, days: float = DAYS, *, simulated: bool = False
    ) -> list[Member]:
        """Invites people.

        Args:
            names: one for each person; "" is allowed. They go into `names.csv` only.
            now: seconds since 1970.
            days: how long the links work.
            simulated: whether a program uses the links.

        Raises:
            AmplifyError: a name cannot be written, or there are too many, or too many days.
        """
        check_names(names)
        if not 0 < days <= MOST_DAYS:  # also refuses NaN
            raise AmplifyError(f"a link works for more than 0 and at most {MOST_DAYS:.0f} days")
        with self._locked():
            self._refresh()
            count = sum(not member.is_admin for member in self._members.values())
            numbers = range(count + 1, count + 1 + len(names))
            people = [f"person-{number:02d}" for number in numbers]
            self._note_names(people, names)
            return self._add(people, now + days * DAY, simulated)

    def revoke(self, person: str) -> None:
        """Ends a person's link.

        Raises:
            AmplifyError: nobody has this pseudonym.
        """
        with self._locked():
            self._refresh()
            if person not in self._members:
                known = ", ".join(name for name in self._members if name != ADMIN) or "nobody"
                raise AmplifyError(f"{self.folder}: there is no {person!r}, only {known}")
            self._write({**self._members, person: self._members[person]._replace(expires=0.0)})

    def who(self, token: str, now: float) -> Member:
        """Returns whose token it is.

        Raises:
            NotAllowedError: it is nobody's, or no longer works.
        """
        self._refresh()
        for member in self._members.values():
            if hmac.compare_digest(member.token.encode(), token.encode()):
                if member.expires is not None and now >= member.expires:
                    raise NotAllowedError(
                        "this link has expired; ask whoever sent it for a new one"
                    )
                return member
        raise NotAllowedError(
            "this link is not valid; check that it is whole, or ask for a new one"
        )

    def _working_admin(self) -> Member | None:
        known = self._members.get(ADMIN)
        return known if known is not None and known.expires is None else None

    def _invite_admin(self) -> Member:
        with self._locked():
            self._refresh()
            if (known := self._working_admin()) is not None:
                return known
            self._write({name: one for name, one in self._members.items() if name != ADMIN})
            return self._add([ADMIN], None, simulated=False)[0]

    def _add(self, people: list[str], expires: float | None, simulated: bool) -> list[Member]:
        new = [Member(name, secrets.token_urlsafe(24), expires, simulated) for name in people]
        known = [self._members.get(member.person, member) for member in new]
        self._write(self._members | {member.person: member for member in known})
        return known

    def _refresh(self) -> None:
        """Reads the file again if it has changed."""
        try:
            stat = self._file.stat()
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen != self._seen:
                rows = json.loads(self._file.read_text(encoding="utf-8"))
                self._members = {row["person"]: Member(**row) for row in rows}
                self._seen = seen
        except FileNotFoundError:
            self._members, self._seen = {}, None
        except (ValueError, KeyError, TypeError) as error:
            raise AmplifyError(
                f"{self._file}: damaged ({error}); move it away, and invite people anew"
            ) from None

    def _write(self, members: dict[str, Member]) -> None:
        text = json.dumps([member._asdict() for member in members.values()], indent=1)
        write_atomically(self._file, text + "\n", private=True)
        self._members, self._seen = members, None

    def _note_names(self, people: Sequence[str], names: Sequence[str]) -> None:
        if not any(names):
            return
        new = not self._names.exists()
        with open(self._names, "a", encoding="utf-8", newline="", opener=open_private) as file:
            rows = csv.writer(file)
            if new:
                rows.writerow(["pseudonym", "name"])
            rows.writerows(zip(people, names, strict=True))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        make_private_folder(self.folder)
        with ProcessLock(self.folder / ".lock") as lock:
            lock.wait()
            yield
