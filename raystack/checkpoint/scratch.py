"""Temporary folders that are cleaned up even after a process was killed.

A process holds a file lock on each of its folders. The kernel releases the lock when the process ends,
however it ends, and the next process that needs a folder deletes those without a lock.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Scratch:
    """An empty folder below TMPDIR."""

    folder: Path
    """Its path; it exists until `remove`."""

    def __init__(self) -> None:
        home = Path(tempfile.gettempdir()) / f"raystack-{os.getuid()}" / "scratch"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The parent's lock keeps other processes from sweeping a folder between mkdtemp and its own lock.
        parent = _lock(home, wait=True)
        try:
            _sweep(home)
            self.folder = Path(tempfile.mkdtemp(dir=home))
            self._lock: int | None = _lock(self.folder, wait=True)
        finally:
            os.close(parent)

    def remove(self) -> None:
        """Delete the folder and its contents."""
        if self._lock is not None:
            remove(self.folder)
            os.close(self._lock)
            self._lock = None


@contextmanager
def scratch() -> Iterator[Path]:
    """Provide an empty folder for the time of a block."""
    own = Scratch()
    try:
        yield own.folder
    finally:
        own.remove()


def remove(folder: Path) -> None:
    """Delete a folder that other processes may be deleting at the same time."""

    def ignore_gone(
        function: object, path: str, info: tuple[type[BaseException], BaseException, object]
    ) -> None:
        if not isinstance(info[1], FileNotFoundError):
            raise info[1]

    shutil.rmtree(folder, onerror=ignore_gone)


def _lock(folder: Path, *, wait: bool) -> int:
    """Lock a folder and return the descriptor that holds the lock.

    Raises BlockingIOError if another process holds it and `wait` is false.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(home: Path) -> None:
    for folder in home.iterdir():
        with suppress(BlockingIOError, FileNotFoundError):
            descriptor = _lock(folder, wait=False)
            try:
                remove(folder)
            finally:
                os.close(descriptor)
