"""The end of a driver: one file in its run's folder. In: an Outcome or an error. Out: the same, as a value.

`raystack status`, the attempts of a job and the Python API read it, so no error text has to be searched. A
driver that was killed leaves none: a run without the file is still running, or was lost.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from raystack import strict_json
from raystack.checkpoint.fence import Holder
from raystack.errors import PausedError, Problem, RaystackError
from raystack.interrupts import INTERRUPTED
from raystack.outcome import Outcome
from raystack.storage import Storage

FILE = "outcome.json"
PATIENCE_S = 15.0
"""Seconds for which an unavailable store is retried."""

EndingStatus = Literal["succeeded", "failed", "paused", "interrupted"]
"""`paused`: SIGTERM stopped it with a checkpoint. `interrupted`: Ctrl-C."""


@dataclass(frozen=True)
class Ending:
    """The end of a driver."""

    status: EndingStatus
    exit_code: int
    """Exit status of the command that was the driver."""
    outcome: Outcome
    """The result; after a failure, the last step and checkpoint that were reported to the driver."""
    driver: int
    """Number of the driver, counted from 1."""
    attempt: int | None = None
    """Attempt of the job that the driver ran in, counted from 1; None outside a job."""
    problems: tuple[Problem, ...] = ()
    finished_at: float = 0.0
    """Seconds since 1970, by the driver's clock."""

    @property
    def reason(self) -> str:
        """Return one line: why it did not succeed."""
        return str(self.problems[0]) if self.problems else ""

    def as_json(self) -> str:
        """Return a flat dict: the fields of the Outcome beside the others."""
        values = asdict(replace(self, outcome=Outcome()))
        del values["outcome"]
        return strict_json.dumps({**values, **asdict(self.outcome)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Ending":
        """Parse JSON. Raises ValueError, KeyError or TypeError if the text is not an ending."""
        values: dict[str, Any] = json.loads(text)
        names = {field.name for field in fields(Outcome)}
        outcome = Outcome(**{name: values.pop(name) for name in sorted(names & values.keys())})
        metrics = strict_json.numbers(outcome.metrics)
        outcome = replace(outcome, metrics=metrics, notes=tuple(outcome.notes))
        problems = tuple(Problem(**each) for each in values.pop("problems"))
        return cls(outcome=outcome, problems=problems, **values)


def succeeded(outcome: Outcome, holder: Holder) -> Ending:
    """Return the ending of a driver whose run has its result."""
    return Ending("succeeded", 0, outcome, holder.number, holder.attempt, (), time.time())


def failed(error: BaseException, reached: Outcome, holder: Holder) -> Ending:
    """Return the ending of a driver that `error` ended, at the step and checkpoint in `reached`."""
    status: EndingStatus = "paused" if isinstance(error, PausedError) else "failed"
    if isinstance(error, RaystackError):
        exit_code, problems = error.exit_code, error.problems
    elif isinstance(error, KeyboardInterrupt):
        status, exit_code, problems = "interrupted", INTERRUPTED, (Problem("run", rule="it was interrupted"),)
    else:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        exit_code, problems = 1, (Problem("raystack", rule=text),)
    return Ending(status, exit_code, reached, holder.number, holder.attempt, problems, time.time())


def write(folder: str, ending: Ending) -> None:
    """Write it into the run's folder, a local path or fsspec URL. Raises the store's errors."""
    storage = Storage(folder)
    if storage.local:
        storage.make("")
    with bounded(storage) as patient:
        patient.write(FILE, ending.as_json())


def read(folder: str) -> Ending | None:
    """Return the ending of the driver that ended last; None if it is missing or unreadable."""
    try:
        with bounded(Storage(folder)) as storage:
            return Ending.from_json(storage.read(FILE))
    except Exception:  # whoever asks may lack the store's library, its credentials or the way to it
        return None


@contextmanager
def bounded(storage: Storage, seconds: float = PATIENCE_S) -> Iterator[Storage]:
    """Return the same storage with a time limit on its retries."""
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    timer.start()
    try:
        yield storage.until(stop)
    finally:
        timer.cancel()
