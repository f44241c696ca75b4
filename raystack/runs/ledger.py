"""What a run has used: a small file in its folder, one entry for each of its drivers.

In: an Entry, which a driver writes every few seconds and at its end. Out: the sum over all drivers. A driver
that is killed loses the seconds since its last write.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace

from raystack import strict_json
from raystack.plan.costs import duration, money
from raystack.runs.ending import bounded
from raystack.storage import Storage

FILE = "ledger.json"


@dataclass(frozen=True)
class Entry:
    """What one driver has used."""

    driver: int
    """Number of the driver, counted from 1."""
    began_at: float
    """Seconds since 1970."""
    seconds: float = 0.0
    gpu_hours: float = 0.0
    money: float | None = None
    """Amount in `currency`; None: there was no price."""
    currency: str = "USD"
    workers: int = 0
    """Number of workers of the last attempt."""
    steps: int = 0
    """Optimizer steps done by this driver, over all of its attempts."""
    trained_s: float = 0.0
    """Seconds in which they were done: of each attempt from its start to its last report."""
    total_steps: int = 0
    """Optimizer steps of the whole run."""
    global_batch: int = 0


@dataclass(frozen=True)
class Spent:
    """What a run has used over all of its drivers."""

    seconds: float
    gpu_hours: float
    money: float | None
    currency: str

    @property
    def line(self) -> str:
        """Return text for people: `3.2 h, 25.60 GPU-hours, 88.04 USD`."""
        gpus = f", {self.gpu_hours:.2f} GPU-hours" if self.gpu_hours else ""
        paid = f", {money(self.money)} {self.currency}" if self.money is not None else ""
        return duration(self.seconds) + gpus + paid


def total(entries: Iterable[Entry]) -> Spent:
    """Return the sum of all entries."""
    every = list(entries)
    priced = [each for each in every if each.money is not None]
    return Spent(
        seconds=sum(each.seconds for each in every),
        gpu_hours=sum(each.gpu_hours for each in every),
        money=sum(each.money or 0.0 for each in priced) if priced else None,
        currency=priced[-1].currency if priced else "USD",
    )


def idle(entries: Iterable[Entry]) -> Spent:
    """Return the time and money that were used without a step: at the start, in restarts, and at the end."""
    return total(
        replace(
            each,
            seconds=each.seconds - min(each.trained_s, each.seconds),
            gpu_hours=0.0,
            money=each.money and each.money * (1 - min(each.trained_s / each.seconds, 1.0)),
        )
        for each in entries
        if each.seconds
    )


def added(every: Iterable[Spent]) -> Spent:
    """Return the sum of what runs have used, in one currency."""
    runs = list(every)
    priced = [each.money for each in runs if each.money is not None]
    return Spent(
        seconds=sum(each.seconds for each in runs),
        gpu_hours=sum(each.gpu_hours for each in runs),
        money=sum(priced) if priced else None,
        currency=runs[0].currency if runs else "USD",
    )


def read(storage: Storage, file: str = FILE) -> list[Entry]:
    """Return the entries of a run, the oldest first; empty if there are none."""
    known = {field.name for field in fields(Entry)}
    try:
        return [
            # A later raystack may have written more.
            Entry(**{name: value for name, value in each.items() if name in known})
            for each in json.loads(storage.read(file))["entries"]
        ]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return []


def spent(folder: str) -> str:
    """Return what the run in `folder` has used, as text; empty if that is not known here."""
    try:
        with bounded(Storage(folder)) as storage:
            entries = read(storage)
    except Exception:  # whoever asks may lack the store's library, its credentials or the way to it
        return ""
    return total(entries).line if entries else ""


def write(storage: Storage, entries: Iterable[Entry]) -> None:
    """Write the entries. Raises the store's errors."""
    storage.write(FILE, strict_json.dumps({"entries": [asdict(each) for each in entries]}, indent=2))
