"""Whose run it is: the driver's that took it last. In: the run's folder and a driver's number. Out: leave to
publish, or SupersededError.

Every driver that takes a run gets the next number (`runs/lease.py`). One that was given up for dead may
still live, and so may its workers: they ask here before they publish or delete anything, and are refused once
a driver with a greater number has begun. Each driver has a file of its own, so that a late sign of life
overwrites nobody's.
"""

import json
import re
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from raystack.errors import Problem, SupersededError
from raystack.storage import Storage

FOLDER = "drivers"
"""Below the run's folder: a file for each driver, named after its number."""


@dataclass(frozen=True)
class Holder:
    """A driver of a run, as its file has it."""

    number: int
    """Counted from 1; the driver that takes the run next has a greater one."""
    token: str
    """Tells two drivers with one number apart, which began in the same moment."""
    host: str
    pid: int
    job: str | None = None
    """The job that it runs in, by the name it was submitted under; None: it runs in none of raystack's."""
    attempt: int | None = None
    """Of that job, counted from 1; None where nobody counts."""
    held: bool = True
    """False: it has ended, and said so."""
    time: float = 0.0
    """Its last sign of life, seconds since 1970 by its own clock."""

    def yields_to(self, other: "Holder | None") -> bool:
        """Whether `other`, the newest there is now, took the run after this one."""
        return other is not None and (
            other.number > self.number or (other.number == self.number and other.token != self.token)
        )

    def __str__(self) -> str:
        attempt = f"attempt {self.attempt}, " if self.attempt is not None else ""
        return f"{attempt}process {self.pid} on {self.host}"


@dataclass(frozen=True)
class Fence:
    """What a driver and its workers know of their right to a run. It travels to them."""

    folder: str
    """The run's folder, a local path or fsspec URL."""
    holder: Holder

    def check(self, stop: threading.Event | None = None) -> None:
        """Return where the run is still this driver's. Raises SupersededError where another one has taken it.

        A store that is away is waited for until `stop` is set. Where no driver has left a file, nobody has
        taken anything.
        """
        storage = Storage(self.folder)
        other = read(storage.until(stop) if stop is not None else storage)
        if other is not None and self.holder.yields_to(other):
            raise superseded(other)


def read(storage: Storage) -> Holder | None:
    """The driver that took the run last; None where there was none. Of one whose file cannot be read only the
    number is known.
    """
    files = sorted(name for name in storage.files(FOLDER) if re.fullmatch(r"\d{8}\.json", name))
    if not files:
        return None
    try:
        return Holder(**json.loads(storage.read(f"{FOLDER}/{files[-1]}")))
    except (FileNotFoundError, ValueError, TypeError):
        return Holder(int(files[-1].removesuffix(".json")), "", "an unknown machine", 0)


def write(storage: Storage, holder: Holder, time: float) -> None:
    """Leave a sign of life."""
    if storage.local:
        storage.make(FOLDER)
    storage.write(_file(holder), json.dumps(asdict(replace(holder, time=time))))


def forget(storage: Storage, holder: Holder) -> None:
    """A driver that has ended, or was given up, needs no file once another one has taken the run."""
    with suppress(FileNotFoundError):
        storage.delete(_file(holder))


def _file(holder: Holder) -> str:
    return f"{FOLDER}/{holder.number:08d}.json"


def superseded(other: Holder) -> SupersededError:
    """What the driver ends with from which `other` has taken the run."""
    rule = (
        f"another driver has taken this run and goes on with it: {other}; this one publishes nothing any more"
    )
    return SupersededError(
        Problem("run", rule=rule, remedy="leave it to that one; --resume is for when it has ended")
    )
