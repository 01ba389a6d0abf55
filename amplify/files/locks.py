"""A lock that one process holds at a time, and that says who holds it.

The kernel frees it with the process, so no lock is ever stale. The holder's text is in the lock's
file, which stays when the lock is released.
"""

import os
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout


class ProcessLock:
    """A lock between processes on one file. Released at the end of a `with` block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = ""
        # Where the file system knows no locks, that is an error: a substitute could go stale.
        self._lock = FileLock(
            path, thread_local=False, fallback_to_soft=False, on_acquired=self._write
        )

    def take(self, holder: str) -> bool:
        """Takes the lock, if no other process has it.

        Args:
            holder: what others are told of whoever holds it, in one line.

        Returns:
            Whether this process has it now.
        """
        self._text = holder
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def wait(self, holder: str = "") -> None:
        """Takes the lock once no other process has it."""
        self._text = holder
        self._lock.acquire()

    def holder(self) -> str:
        """What the process that holds the lock, or held it last, says of itself; "" if nothing."""
        try:
            return self.path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    def _write(self, descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, self._text.encode(), 0)

    def __enter__(self) -> "ProcessLock":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()
