"""Commands that MLflow has not got yet, on disk: written while it is away, said again by the next tracker.

A file holds the run on its first line and one command on each further line. Its writer keeps it locked, so
that nobody reads it before the writer has ended, however it ended.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from raystack.registry.command import LINE, Command, Run, now_ms


def spool_folder(storage: str) -> Path:
    """`<storage>/spool` where storage is a local folder, else a folder of the user's cache."""
    return Path.home() / ".cache/raystack/spool" if "://" in storage else Path(storage) / "spool"


class Spool:
    """The spool file of one run; it exists from the first `append` to `discard`."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.path = folder / f"{run.run_id}.{now_ms()}.jsonl"
        self._run = run
        self._file: BinaryIO | None = None

    def append(self, commands: Sequence[Command]) -> None:
        """Write the commands through to the disk. Raises OSError."""
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
        """Everything in it has been said."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        """Leave it for the next tracker."""
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def claim(path: Path) -> Iterator[tuple[Run, list[Command]] | None]:
    """The content of the spool file while it is locked for this process; None where its writer has it.

    Raises ValueError where it is damaged. A last line that was cut off, because its writer was killed, is
    left out.
    """
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        lines = file.read().split(b"\n")[:-1]
        content = [LINE.validate_json(line) for line in lines]
        if not content:
            yield None  # its writer has just made it
            return
        run, *commands = content
        if not isinstance(run, Run):
            raise ValueError("its first line does not name a run")
        yield run, [command for command in commands if not isinstance(command, Run)]
