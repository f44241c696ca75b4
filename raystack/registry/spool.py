"""Spool files: unsent commands on disk, written while MLflow is unavailable and sent by the next tracker.

A file holds the run on its first line and one command on each further line. The writer keeps it locked until
its process ends, so no other process reads it before.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from raystack.registry.command import LINE, Command, Run, now_ms


def spool_folder(storage: str) -> Path:
    """Return `<storage>/spool` for local storage, otherwise a folder in the user's cache."""
    return Path.home() / ".cache/raystack/spool" if "://" in storage else Path(storage) / "spool"


class Spool:
    """The spool file of one run, which exists from the first `append` to `discard`."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.path = folder / f"{run.run_id}.{now_ms()}.jsonl"
        self._run = run
        self._file: BinaryIO | None = None

    def append(self, commands: Sequence[Command]) -> None:
        """Write the commands and sync them to disk. Raise OSError."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "xb")  # noqa: SIM115 - stays open, because it stays locked
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._write([self._run])
        self._write(commands)

    def _write(self, lines: Sequence[Run | Command]) -> None:
        assert self._file is not None
        self._file.write("".join(f"{line.model_dump_json()}\n" for line in lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Delete the file, because all its commands were sent."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        """Close and unlock the file, and leave it for the next tracker."""
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def claim(path: Path) -> Iterator[tuple[Run, list[Command]] | None]:
    """Lock the spool file and yield its content, or None while its writer holds it.

    Raises ValueError if the file is damaged.
    """
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        # Without the last part: it is empty, or a line that was cut off because the writer was killed.
        lines = file.read().split(b"\n")[:-1]
        content = [LINE.validate_json(line) for line in lines]
        if not content:
            yield None  # its writer has just made it
            return
        run, *commands = content
        if not isinstance(run, Run):
            raise ValueError("its first line does not name a run")
        yield run, [command for command in commands if not isinstance(command, Run)]
