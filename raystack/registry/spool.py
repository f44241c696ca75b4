"""Spool files: unsent commands on disk, written while MLflow is unavailable and sent by the next tracker.

A file holds one command on each line, which belongs to the run that the nearest line above names. The writer
keeps it locked until its process ends, so no other process reads it before.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from raystack.registry.command import LINE, Command, Run, now_ms


def spool_folder(storage: str) -> Path:
    """Return `<storage>/spool` for local storage, otherwise a folder in the user's cache."""
    return Path.home() / ".cache/raystack/spool" if "://" in storage else Path(storage) / "spool"


Entry = tuple[Run, Command]


class Spool:
    """The spool file of a run and those nested in it, which exists from the first `append` to `discard`."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.path = folder / f"{run.run_id}.{now_ms()}.jsonl"
        self._last: Run | None = None  # the run that the last line belongs to
        self._file: FileIO | None = None
        self._whole = 0  # bytes of the file that are whole lines

    def append(self, entries: Sequence[Entry]) -> None:
        """Write all of the commands and sync them to disk, or raise OSError and write none."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = FileIO(
                self.path, "xb"
            )  # without a buffer, which a full disk would leave for `close`
            fcntl.flock(self._file, fcntl.LOCK_EX)
        lines: list[Run | Command] = []
        last = self._last
        for run, command in entries:
            lines += [command] if run is last else [run, command]
            last = run
        content = "".join(f"{line.model_dump_json()}\n" for line in lines).encode()
        try:
            written = 0
            while written < len(content):
                written += self._file.write(content[written:])
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._whole)
            self._file.seek(self._whole)
            raise
        self._whole += written
        self._last = last

    def discard(self) -> None:
        """Delete the file, because all its commands were sent. Raise OSError."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        """Close and unlock the file, and leave it for the next tracker, if anything is in it."""
        if self._file is not None:
            if not self._whole:
                self.path.unlink(missing_ok=True)
            self._file.close()
            self._file, self._whole, self._last = None, 0, None


@contextmanager
def claim(path: Path) -> Iterator[list[tuple[Run, list[Command]]] | None]:
    """Lock the spool file and yield each run's commands in a row, or None while its writer holds it.

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
        content: list[tuple[Run, list[Command]]] = []
        for line in lines:
            match LINE.validate_json(line):
                case Run() as run:
                    content.append((run, []))
                case command if content:
                    content[-1][1].append(command)
                case _:
                    raise ValueError("its first line does not name a run")
        yield content or None  # None: its writer has just made it
