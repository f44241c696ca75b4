"""Fencing: only the driver that took a run last may publish. In: the run's folder. Out: SupersededError.

Every driver that takes a run gets the next number (`runs/lease.py`). A driver that was presumed dead may
still be alive, and so may its workers. They check here before they publish or delete anything, and are
rejected once a driver with a greater number has taken the run.
"""

import json
import re
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from raystack.errors import Problem, SupersededError
from raystack.storage import Storage

FOLDER = "drivers"
"""Folder below the run's, with one file for each driver, named after its number."""

# One file for each driver, and not one for the run: a renewal that arrives late can then only overwrite the
# file of the driver that sent it.


@dataclass(frozen=True)
class Holder:
    """A driver that holds or has held a run, as its file describes it."""

    number: int
    """Counted from 1; each driver that takes the run gets a greater one."""
    token: str
    """Random; distinguishes two drivers that took the run at the same moment and got the same number."""
    host: str
    pid: int
    job: str | None = None
    """Name under which its job was submitted; None if raystack did not submit it."""
    attempt: int | None = None
    """Attempt of that job, counted from 1; None if it is not counted."""
    held: bool = True
    """False once the driver has ended and released the run."""
    time: float = 0.0
    """Last renewal, in seconds since 1970 by the driver's own clock."""

    def yields_to(self, other: "Holder | None") -> bool:
        """Return whether `other`, the current holder, took the run after this one."""
        # With equal numbers both yield to whichever file was written last, which is the one that is read.
        return other is not None and (
            other.number > self.number or (other.number == self.number and other.token != self.token)
        )

    def __str__(self) -> str:
        attempt = f"attempt {self.attempt}, " if self.attempt is not None else ""
        return f"{attempt}process {self.pid} on {self.host}"


@dataclass(frozen=True)
class Fence:
    """A driver's claim to a run; it is sent to every worker."""

    folder: str
    """The run's folder, a local path or fsspec URL."""
    holder: Holder

    def check(self, stop: threading.Event | None = None) -> None:
        """Raise SupersededError if another driver has taken the run.

        Retries an unavailable store until `stop` is set. Passes if no driver has left a file.
        """
        storage = Storage(self.folder)
        other = read(storage.until(stop) if stop is not None else storage)
        if other is not None and self.holder.yields_to(other):
            raise superseded(other)


def read(storage: Storage) -> Holder | None:
    """Return the driver that took the run last, or None.

    If its file cannot be read, only its number is known, from the file's name; that is enough to yield to it.
    """
    files = sorted(name for name in storage.files(FOLDER) if re.fullmatch(r"\d{8}\.json", name))
    if not files:
        return None
    try:
        return Holder(**json.loads(storage.read(f"{FOLDER}/{files[-1]}")))
    except (OSError, ValueError, TypeError):
        return Holder(int(files[-1].removesuffix(".json")), "", "an unknown machine", 0)


def write(storage: Storage, holder: Holder, time: float) -> None:
    """Write the file of `holder`, renewed at `time`, in seconds since 1970."""
    if storage.local:
        storage.make(FOLDER)
    storage.write(_file(holder), json.dumps(asdict(replace(holder, time=time))))


def forget(storage: Storage, holder: Holder) -> None:
    """Delete the file of a driver that has ended or was presumed dead, once another one has taken the run."""
    with suppress(FileNotFoundError):
        storage.delete(_file(holder))


def _file(holder: Holder) -> str:
    return f"{FOLDER}/{holder.number:08d}.json"


def superseded(other: Holder) -> SupersededError:
    """Return the error that ends a driver whose run `other` has taken."""
    rule = (
        f"another driver has taken this run and goes on with it: {other}; this one publishes nothing any more"
    )
    return SupersededError(
        Problem("run", rule=rule, remedy="leave it to that one; --resume is for when it has ended")
    )
