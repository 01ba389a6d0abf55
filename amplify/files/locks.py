"""Locks between processes that name their holder.

The kernel releases a lock when its process ends, so locks are never stale. The lock file contains
the holder's text and is kept after release.
"""

import os
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout


class ProcessLock:
    """A file lock between processes; a context manager that releases it at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = ""
        # A file system without locks is an error: the soft locks of filelock could become stale.
        self._lock = FileLock(
            path, thread_local=False, fallback_to_soft=False, on_acquired=self._write
        )

    def take(self, holder: str) -> bool:
        """Tries to acquire the lock without waiting.

        Args:
            holder: one line that identifies the holder to others.

        Returns:
            Whether this process now holds the lock.
        """
        self._text = holder
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def wait(self, holder: str = "") -> None:
        """Waits until the lock is free, and acquires it.

        Args:
            holder: one line that identifies the holder to others.
        """
        self._text = holder
        self._lock.acquire()

    def holder(self) -> str:
        """Returns the text of the current or last holder; "" if there is none."""
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
