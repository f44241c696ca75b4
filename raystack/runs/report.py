"""What the runs of a storage have used. In: a storage. Out: a Line for each run with a ledger."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raystack.runs import ending, ledger
from raystack.runs.ledger import Spent, added
from raystack.storage import Storage


@dataclass(frozen=True)
class Line:
    """One run."""

    run: str
    status: str
    """How its last driver ended; empty if it goes on, or was killed."""
    drivers: int
    """Number of its drivers."""
    spent: Spent
    idle: Spent
    """What of it was used without a step; its GPU-hours are not counted."""


def report(storage: str, experiment: str | None = None) -> list[Line]:
    """Return the runs of an experiment, or of all, in the order of their names."""
    runs = Storage(f"{storage}/runs")
    pattern = rf"{re.escape(experiment) if experiment else '.+'}-\d{{8}}-\d{{6}}-\w+"
    found: list[Line] = []
    for name in runs.names():
        entries = ledger.read(Storage(f"{runs.url}/{name}")) if re.fullmatch(pattern, name) else []
        if entries:
            last = ending.read(f"{runs.url}/{name}")
            found.append(
                Line(
                    name,
                    last.status if last else "",
                    len(entries),
                    ledger.total(entries),
                    ledger.idle(entries),
                )
            )
    return found


def sums(lines: Sequence[Line]) -> Iterator[str]:
    """Yield a line for people with the sum of each currency."""
    for currency in dict.fromkeys(line.spent.currency for line in lines):
        own = [line for line in lines if line.spent.currency == currency]
        used, idle = added(line.spent for line in own), added(line.idle for line in own)
        yield f"{len(own)} run{'s' if len(own) > 1 else ''} used {used.line}; {idle.line} of it without steps"
