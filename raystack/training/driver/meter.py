"""The meter of a run: what it uses, and the end of its budget.

In: events, and time. Out: the ledger in the run's folder, a warning, and a stop with a checkpoint, as on
SIGTERM. It counts from the driver's start, because a cluster costs from then on; GPUs from the first step on.

A thread counts and judges, and another writes: a budget ends the run also while the store does not answer.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Self

from raystack.checkpoint.fence import Fence
from raystack.errors import BudgetError, PausedError, Problem, RaystackError
from raystack.events import Event, Listener, Started, Stepped, Warned
from raystack.interrupts import graceful, start_deaf
from raystack.plan import TrainPlan
from raystack.plan.costs import HOUR_S, Limit
from raystack.runs import ledger
from raystack.runs.ending import PATIENCE_S, bounded
from raystack.runs.ledger import Entry, Spent
from raystack.storage import Storage

LOOK_S = 0.5
WRITE_S = 15.0
LATE_S = 60.0
"""Seconds without a write after which the run says so, once until the next write."""
Ask = Callable[[], Any]


class Meter:
    """Counts what a driver uses during a `with` block; it is a listener of the run's events.

    `flush` writes what else is kept of the run, each time that the ledger is written.

    Raises BudgetError at the start if the budget is used up already, by earlier drivers.
    """

    def __init__(
        self, plan: TrainPlan, fence: Fence, tell: Listener, flush: Callable[[Storage], None]
    ) -> None:
        self._costs, self._tell, self._flush = plan.costs, tell, flush
        stop = self._stop = threading.Event()
        self._storage = Storage(plan.paths.folder).until(stop)
        number = fence.holder.number
        self._earlier = [entry for entry in ledger.read(Storage(plan.paths.folder)) if entry.driver != number]
        self._entry = Entry(
            number,
            time.time(),
            money=None if plan.costs.worker is None else 0.0,
            currency=plan.costs.currency,
            workers=plan.workers.count,
            global_batch=plan.batch.global_,
        )
        self._last = time.monotonic()
        self._workers = 0
        self._first: tuple[int, float] | None = None
        self._before = (0, 0.0)
        """Steps, and seconds of training, of the attempts before this one."""
        self._lock = threading.Lock()
        self._ask: Ask | None = None
        self._warned: set[str] = set()
        self._over: Limit | None = None
        self._fence = fence
        self._written, self._silent = self._last, False

    def __enter__(self) -> Self:
        self._refuse_over()
        self._counter = start_deaf(self._watch, "raystack-meter")
        self._writer = start_deaf(self._record, "raystack-ledger")
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._counter.join()
        self._writer.join(PATIENCE_S)  # a store may hang in the midst of a write
        self._count()
        # The run's own end counts more than the record of what it has used.
        with suppress(RaystackError, OSError):
            self._fence.check()
            with bounded(Storage(self._fence.folder)) as storage:
                self._write(storage)

    def __call__(self, event: Event) -> None:
        """See how many workers there are, and how far they are."""
        if isinstance(event, Started):
            self._count()
            with self._lock:
                self._workers, self._first = event.world_size, (event.first_step, time.monotonic())
                self._before = (self._entry.steps, self._entry.trained_s)
                self._entry = replace(self._entry, workers=event.world_size, total_steps=event.total_steps)
        elif isinstance(event, Stepped) and self._first is not None:
            (first, began), (steps, trained_s) = self._first, self._before
            with self._lock:
                self._entry = replace(
                    self._entry,
                    steps=steps + event.step - first,
                    trained_s=trained_s + time.monotonic() - began,
                )

    @property
    def spent(self) -> Spent:
        """What the run has used until now, over all drivers."""
        return ledger.total([*self._earlier, self._entry])

    @contextmanager
    def stoppable(self, ask: Ask) -> Iterator[None]:
        """Have `ask` called during the block on SIGTERM, and when the budget is used up.

        Raises BudgetError if it is used up now, by the start of Ray: no worker is started for one step.
        """
        self._refuse_over()
        with graceful(ask):
            self._ask = ask
            try:
                yield
            finally:
                self._ask = None

    def explained(self, error: PausedError) -> BudgetError | None:
        """Return the error of a stop that the meter asked for; None if another did."""
        if self._over is None:
            return None
        how = "; ".join(f"{problem.where}: {problem.rule}" for problem in error.problems)
        return self._used_up(self._over, f"; {how}")

    def _refuse_over(self) -> None:
        self._count()
        if (over := self._reached(1.0)) is not None:
            raise self._used_up(over)

    def _used_up(self, limit: Limit, how: str = "") -> BudgetError:
        rule = f"it is used up: {self._used(limit)}{how}"
        return BudgetError(Problem(limit.key, rule=rule, remedy="raise it, and go on with --resume"))

    def _watch(self) -> None:
        while True:
            self._count()
            self._judge()
            if time.monotonic() - self._written >= LATE_S:
                self._unwritten(f"{self._storage.url} does not answer")
            if self._stop.wait(LOOK_S):
                return

    def _record(self) -> None:
        while True:
            try:
                self._write(self._storage)
                self._written, self._silent = time.monotonic(), False
            except (RaystackError, OSError) as error:  # it is written again
                self._unwritten(str(error).splitlines()[0])
            if self._stop.wait(WRITE_S):
                return

    def _unwritten(self, why: str) -> None:
        """Say once that the run goes on without a record of what it uses."""
        if not self._silent and not self._stop.is_set():
            self._silent = True
            self._tell(Warned(f"the run goes on, but its ledger and metrics are not written: {why}"))

    def _count(self) -> None:
        """Add the time since the last count."""
        with self._lock:
            now = time.monotonic()
            passed, self._last = now - self._last, now
            entry, hours = self._entry, passed / HOUR_S
            hourly = self._costs.per_hour(self._workers or entry.workers)
            self._entry = replace(
                entry,
                seconds=entry.seconds + passed,
                gpu_hours=entry.gpu_hours + hours * self._costs.gpus * self._workers,
                money=None if hourly is None else (entry.money or 0.0) + hours * hourly,
            )

    def _judge(self) -> None:
        """Warn of a limit that is near, and ask for a stop at one that is reached."""
        near = self._reached(self._costs.warn_at)
        if near is not None and near.key not in self._warned:
            self._warned.add(near.key)
            self._tell(Warned(f"{near.key}: {self._used(near)} is used; at the limit it stops"))
        over, ask = self._reached(1.0), self._ask
        if over is not None and ask is not None and self._over is None:
            self._over = over
            ask()

    def _reached(self, fraction: float) -> Limit | None:
        """Return the limit of which this fraction is used, the most used one first."""
        found = [each for each in self._costs.limits if self._amount(each) >= fraction * each.amount]
        return max(found, key=lambda each: self._amount(each) / each.amount, default=None)

    def _amount(self, limit: Limit) -> float:
        spent = self.spent
        return {"s": spent.seconds, "GPU-hours": spent.gpu_hours, "money": spent.money or 0.0}[limit.unit]

    def _used(self, limit: Limit) -> str:
        unit = self._costs.currency if limit.unit == "money" else limit.unit
        return f"{self._amount(limit):.4g} of {limit.amount:g} {unit}"

    def _write(self, storage: Storage) -> None:
        ledger.write(storage, [*self._earlier, self._entry])
        self._flush(storage)
