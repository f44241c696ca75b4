"""Temporary folders that do not outlive their process. What a killed one left is deleted by the next that
needs a folder.

A process holds a lock on each of its folders, which the system releases when the process ends, however it
ends.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Scratch:
    """One empty folder, on the disk that TMPDIR names."""

    folder: Path
    """It exists until `remove`."""

    def __init__(self) -> None:
        home = Path(tempfile.gettempdir()) / f"raystack-{os.getuid()}" / "scratch"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Under the lock of their parent, so that no folder is seen between its making and its own lock.
        parent = _lock(home, wait=True)
        try:
            _sweep(home)
            self.folder = Path(tempfile.mkdtemp(dir=home))
            self._lock: int | None = _lock(self.folder, wait=True)
        finally:
            os.close(parent)

    def remove(self) -> None:
        """Delete the folder with what is in it."""
        if self._lock is not None:
            remove(self.folder)
            os.close(self._lock)
            self._lock = None


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for the time of a block."""
    own = Scratch()
    try:
        yield own.folder
    finally:
        own.remove()


def remove(folder: Path) -> None:
    """Delete a folder that other processes may be deleting too."""

    def ignore_gone(
        function: object, path: str, info: tuple[type[BaseException], BaseException, object]
    ) -> None:
        if not isinstance(info[1], FileNotFoundError):
            raise info[1]

    shutil.rmtree(folder, onerror=ignore_gone)


def _lock(folder: Path, *, wait: bool) -> int:
    """A descriptor that holds the folder's lock. Raises BlockingIOError where it may not `wait` for another
    process.
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
