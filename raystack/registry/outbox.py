"""Commands that wait to be sent, of a run and those nested in it. The caller locks."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice

from raystack.registry.command import Command, Registered, Run, request_of


@dataclass
class Waiting:
    """A command that waits."""

    command: Command
    answer: Future[Registered | None] = field(default_factory=Future)
    """Done once the command was sent or rejected."""
    spooled: bool = False
    """Whether the spool file has it."""


@dataclass(frozen=True)
class _Queue:
    run: Run
    waiting: deque[Waiting] = field(default_factory=deque)


class Outbox:
    """A queue for each run, so that the commands of one are in order and can share requests."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}  # by run id, none empty; the first is sent first

    def __len__(self) -> int:
        return sum(len(queue.waiting) for queue in self._queues.values())

    def __iter__(self) -> Iterator[tuple[Run, Waiting]]:
        return ((queue.run, waiting) for queue in self._queues.values() for waiting in queue.waiting)

    def add(self, run: Run, command: Command) -> Waiting:
        """Add a command behind the others of the run."""
        waiting = Waiting(command)
        self._queues.setdefault(run.run_id, _Queue(run)).waiting.append(waiting)
        return waiting

    def put_last(self, run: Run) -> None:
        """Send the run's commands after those of all others."""
        self._queues[run.run_id] = self._queues.pop(run.run_id)

    def front(self) -> tuple[Run, list[Waiting]] | None:
        """Return what is sent next, as far as it fits into one request."""
        queue = next(iter(self._queues.values()), None)
        if queue is None:
            return None
        size = len(request_of(each.command for each in queue.waiting))
        return queue.run, list(islice(queue.waiting, size))

    def drop(self, run: Run, count: int) -> None:
        """Drop the first commands of a run, which were sent."""
        queue = self._queues[run.run_id].waiting
        for _ in range(count):
            queue.popleft()
        if not queue:
            del self._queues[run.run_id]
