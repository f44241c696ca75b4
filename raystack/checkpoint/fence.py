"""Whose run it is: the driver's that took it last. In: the run's folder and a driver's number. Out: leave to publish, or TrainingError.

Every driver that takes a run gets the next number (`launch/lease.py`). One that was given up for dead may still live, and so may
its workers: they ask here before they publish or delete anything, and are refused once a driver with a greater number has begun.
"""

import json
import threading
from dataclasses import asdict, dataclass, replace

from raystack.checkpoint.storage import Storage
from raystack.errors import Problem, TrainingError

NAME = "driver.json"


@dataclass(frozen=True)
class Holder:
    """A driver of a run, as the file in the run's folder has it."""

    number: int
    """Counted from 1; the driver that takes the run next has a greater one."""
    token: str
    """Tells two drivers with one number apart, which began in the same moment."""
    host: str
    pid: int
    job: int | None = None
    """Number of the attempt of the job that it runs in; None: it runs in none."""
    held: bool = True
    """False: it has ended, and said so."""
    time: float = 0.0
    """Its last sign of life, seconds since 1970 by its own clock."""

    def yields_to(self, other: "Holder | None") -> bool:
        """Whether `other`, which the file has now, took the run after this one."""
        return other is not None and (other.number > self.number or (other.number == self.number and other.token != self.token))

    def __str__(self) -> str:
        attempt = f"attempt {self.job}, " if self.job is not None else ""
        return f"{attempt}process {self.pid} on {self.host}"


@dataclass(frozen=True)
class Fence:
    """What a driver and its workers know of their right to a run. It travels to them."""

    folder: str
    """The run's folder, a local path or fsspec URL."""
    holder: Holder

    def check(self, stop: threading.Event | None = None) -> None:
        """Return where the run is still this driver's. Raises TrainingError where another one has taken it.

        A store that is away is waited for until `stop` is set. Where no driver has left a file, nobody has taken anything.
        """
        storage = Storage(self.folder)
        other = read(storage.until(stop) if stop is not None else storage)
        if other is not None and self.holder.yields_to(other):
            raise superseded(other)


def read(storage: Storage) -> Holder | None:
    """What the file in the run's folder says; None where there is none, or none that can be read."""
    try:
        return Holder(**json.loads(storage.read(NAME)))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write(storage: Storage, holder: Holder, time: float) -> None:
    """Leave a sign of life."""
    storage.write(NAME, json.dumps(asdict(replace(holder, time=time))))


def superseded(other: Holder) -> TrainingError:
    """What the driver ends with from which `other` has taken the run."""
    rule = f"another driver has taken this run and goes on with it: {other}; this one publishes nothing any more"
    return TrainingError(Problem("run", rule=rule, remedy="leave it to that one; --resume is for when it has ended"))
