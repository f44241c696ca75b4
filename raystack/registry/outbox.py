"""Commands that wait to be sent, of a run and those nested in it. The caller locks."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain, islice

from raystack.registry.command import Command, Registered, Run, request_of


@dataclass
class Waiting:
    """A command that waits."""

    run: Run
    command: Command
    answer: Future[Registered | None] = field(default_factory=Future)
    """Done once the command was sent or rejected."""
    spooled: bool = False
    """Whether the spool file has it."""


class Outbox:
    """A queue for each run, so that the commands of one are in order and can share requests."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Waiting]] = {}  # by run id, none empty; the first is sent first

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Waiting]:
        return chain.from_iterable(self._queues.values())

    def add(self, run: Run, command: Command) -> Waiting:
        """Add a command behind the others of the run."""
        waiting = Waiting(run, command)
        self._queues.setdefault(run.run_id, deque()).append(waiting)
        return waiting

    def put_last(self, run: Run) -> None:
        """Send the run's commands after those of all others."""
        self._queues[run.run_id] = self._queues.pop(run.run_id)

    def front(self) -> list[Waiting]:
        """Return what is sent next: commands of one run that fit into one request."""
        queue = next(iter(self._queues.values()), deque())
        return list(islice(queue, len(request_of(each.command for each in queue))))

    def drop(self, sent: Sequence[Waiting]) -> None:
        """Drop what `front` returned."""
        run_id = sent[0].run.run_id
        for _ in sent:
            self._queues[run_id].popleft()
        if not self._queues[run_id]:
            del self._queues[run_id]
