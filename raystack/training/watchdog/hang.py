"""Detection of hangs and stragglers. In: the workers' heartbeats. Out: alarms.

It reports a step that does not end, the worker that the others wait for, and slow workers. Pure: no thread,
no clock, no collective; the time is passed in. The workers' side is `heartbeat.py`. It works on any backend,
because a heartbeat says how many collectives its worker has issued and whether it is blocked in one.
"""

from dataclasses import dataclass, replace
from statistics import median, median_low
from typing import Literal, get_args

from raystack.config.faults import Watchdog
from raystack.events import Alarm, Slow

StepPhase = Literal["data", "forward", "backward", "wait", "optimizer", "idle", "evaluate", "save", "over"]
"""Phases of a worker, in the order of the loop.

`wait`: its gradients are done and those of others are not. `idle`: before, between and after steps. `over`:
its loop has ended.
"""

ORDER: tuple[StepPhase, ...] = get_args(StepPhase)

# Twenty heartbeats: a driver that is busy for a moment is no reason for an alarm.
SILENT_S = 10.0
"""Seconds without a heartbeat after which a worker counts as silent."""

COLLECT_S = 5.0
"""Seconds that the workers have to send their stacks; the alarm does not wait for the rest."""

HOLD_S = 5.0
"""Seconds for which a worker has to be slow, or to have caught up, before an event reports it."""

FEWEST_STEPS = 5
"""Number of timed steps from which a worker's pace is judged."""

# If the device is the bottleneck, a slow host costs nothing, however much slower than the others it is.
WORTH = 0.1
"""Fraction of a step that a slow worker has to cost."""


LEFT_S = 30.0
"""Seconds that a worker may have left before it counts as late; its error, or its last checkpoint, is on its
way to the driver.
"""

NAMED = 3
"""Number of workers that the alarm's line names; the others are counted."""


@dataclass(frozen=True)
class Pace:
    """A worker's recent steps, without the first of an attempt, which is slower."""

    steps: int
    """Number of steps, at most 50."""
    step_s: float
    """Median seconds of a step."""
    own_s: float
    """Median seconds of a step in which this worker did not wait for others."""
    most: StepPhase
    """The phase that took the largest part of `own_s`."""


@dataclass(frozen=True)
class Stacks:
    """The stacks of all threads of a worker."""

    text: str
    """All stacks, the training thread's first; frames in the user's folder are marked."""
    at: str
    """Position of the training thread, as `file:line in function`.

    It is the innermost frame in the user's folder, or the innermost of all if none is there.
    """


@dataclass(frozen=True)
class Heartbeat:
    """A worker's report of its state, sent twice a second."""

    attempt: int
    """Number of the attempt; it grows with every start of the worker group."""
    rank: int
    world: int
    """Number of workers in this attempt."""
    node: str
    pid: int
    step: int
    """The step begun last, counted from 1; 0 before the first of the attempt."""
    phase: StepPhase
    seconds: float
    """Seconds since the step began; outside of a step, since the phase began."""
    collectives: int | None
    """Collectives issued so far on groups of all workers; None if no such group counts them."""
    waiting: bool
    """True while the worker is blocked in a collective."""
    pace: Pace | None
    stacks: Stacks | None = None
    """The answer to `Orders.dump`."""


@dataclass(frozen=True)
class Orders:
    """Orders to a worker, in answer to a heartbeat."""

    dump: bool = False
    """Send the stacks of all threads."""
    abort: str | None = None
    """End the process at once, for this reason."""
    # Not the watchdog's: the coordinator adds it, because the answer to a heartbeat is the way to a worker.
    stop: str | None = None
    """Stop at the next step with a checkpoint, for this reason."""


@dataclass(frozen=True)
class _Seen:
    """The last heartbeat of a worker and the time of its arrival."""

    heartbeat: Heartbeat
    at: float

    def seconds(self, now: float) -> float:
        return self.heartbeat.seconds + now - self.at

    def talks(self, now: float) -> bool:
        return self.heartbeat.phase != "over" and now - self.at <= SILENT_S

    @property
    def where(self) -> tuple[int, int]:
        return self.heartbeat.step, ORDER.index(self.heartbeat.phase)


class HangDetector:
    """Judges the heartbeats of one attempt; a heartbeat of a later attempt starts anew.

    `now` is seconds on any one clock. A step may take `multiple` times the median of the recent steps, or
    `min_s` if that is longer. Until that median is known, and in an evaluation or a checkpoint, which are no
    steps and have no median, the limit is `startup_s`. An alarm needs a worker that still sends heartbeats
    and is over its limit, and the workers that the others wait for have to be over theirs. With
    `multiple: null` nothing is ever reported.
    """

    def __init__(self, config: Watchdog) -> None:
        self._config = config
        self._attempt = -1
        self._ended = False
        self._reset(0.0)

    def _reset(self, now: float) -> None:
        self._began = now
        self._seen: dict[int, _Seen] = {}
        self._stacks: dict[int, Stacks] = {}
        self._asked: float | None = None
        """Time when the stacks were requested; None while nothing is wrong."""
        self._told = False
        self._abort: str | None = None
        self._slow: set[int] = set()
        self._turning: dict[int, float] = {}
        """Time since when a worker's state differs from the last report of it, by rank."""

    def observe(self, heartbeat: Heartbeat, now: float) -> Orders:
        """Take a heartbeat and return its worker's orders."""
        # A worker of an earlier attempt that has not ended yet must not mix with those of this one.
        if heartbeat.attempt < self._attempt or (self._ended and heartbeat.attempt == self._attempt):
            return Orders()
        if heartbeat.attempt > self._attempt:
            self._attempt, self._ended = heartbeat.attempt, False
            self._reset(now)
        self._seen[heartbeat.rank] = _Seen(replace(heartbeat, stacks=None), now)
        if heartbeat.stacks is not None:
            self._stacks[heartbeat.rank] = heartbeat.stacks
        return Orders(dump=self._asked is not None and heartbeat.rank not in self._stacks, abort=self._abort)

    def check(self, now: float) -> Alarm | None:
        """Return an alarm once for each stall, with the stacks of all workers that could send them."""
        late = self._stalled(now)
        if late is None:
            self._asked, self._told, self._stacks = None, False, {}
            return None
        if self._told:
            return None
        if self._asked is None:
            self._asked, self._stacks = now, {}
        # The stacks come with the next heartbeats, so the alarm is raised by a later call.
        owing = [rank for rank, seen in self._seen.items() if seen.talks(now) and rank not in self._stacks]
        if owing and now - self._asked < COLLECT_S:
            return None
        self._told = True
        step = max(seen.heartbeat.step for seen in self._seen.values())
        return Alarm(
            step,
            tuple(late),
            self._tell(late, now),
            {rank: stacks.text for rank, stacks in sorted(self._stacks.items())},
        )

    def end(self) -> None:
        """Forget the attempt, which has ended: nothing of it is judged any more."""
        self._ended = True
        self._reset(0.0)

    def abort(self, reason: str) -> None:
        """Order every worker of this attempt to end at once; a frozen one has to be ended from outside."""
        self._abort = reason

    def slow(self, now: float) -> tuple[Slow, ...]:
        """Return the workers that became slow, or caught up, since the last call.

        A worker is slow if, for five seconds, its own part of a step is `slow` times the median worker's and
        costs at least a tenth of a step.
        """
        talking = {rank: seen.heartbeat.pace for rank, seen in sorted(self._seen.items()) if seen.talks(now)}
        paces = {
            rank: pace for rank, pace in talking.items() if pace is not None and pace.steps >= FEWEST_STEPS
        }
        if self._config.multiple is None or len(paces) < 2:
            return ()
        # The lower median, so that of two workers the faster one is typical and the other can be slow.
        typical = median_low(pace.own_s for pace in paces.values())
        step_s = median(pace.step_s for pace in paces.values())
        changes = []
        for rank, pace in paces.items():
            was = rank in self._slow
            # Hysteresis: to catch up, a worker has to come half the way back, so one at the edge counts once.
            ease = 0.5 if was else 1.0
            bar = typical * (1 + ease * (self._config.slow - 1))
            if (pace.own_s > bar and pace.own_s - typical > ease * WORTH * step_s) == was:
                self._turning.pop(rank, None)
            elif now - self._turning.setdefault(rank, now) >= HOLD_S:
                del self._turning[rank]
                self._slow ^= {rank}
                changes.append(self._change(self._seen[rank].heartbeat, pace, typical, step_s, caught_up=was))
        return tuple(changes)

    def _stalled(self, now: float) -> list[int] | None:
        """Return the workers that the others wait for, [] if no one is behind; None while all is well."""
        active = [seen for seen in self._seen.values() if seen.heartbeat.phase != "over"]
        talking = [seen for seen in active if seen.talks(now)]
        if self._config.multiple is None or not any(self._expired(seen, now) for seen in talking or active):
            return None
        # Ranks that have sent nothing yet: they may still be importing, for which `startup_s` allows.
        missing = [rank for rank in range(active[0].heartbeat.world) if rank not in self._seen]
        if missing:
            return missing if now - self._began > self._config.startup_s else None
        late = sorted(
            seen.heartbeat.rank
            for seen in _late(active, [seen for seen in self._seen.values() if seen not in active], now)
        )
        # Those that the others wait for have to be late themselves: one in a long checkpoint is not, and one
        # that only lost its heartbeats holds nobody up.
        waited_for = [self._seen[rank] for rank in late] or active
        return late if all(self._expired(seen, now) for seen in waited_for) else None

    def _expired(self, seen: _Seen, now: float) -> bool:
        return seen.seconds(now) > self._limit(seen.heartbeat.phase)

    def _limit(self, phase: StepPhase) -> float:
        typical = self._step_s()
        if self._config.multiple is None or typical is None or phase in ("evaluate", "save"):
            return self._config.startup_s
        limit = max(self._config.multiple * typical, self._config.min_s)
        return max(limit, LEFT_S) if phase == "over" else limit

    def _step_s(self) -> float | None:
        paces = [
            seen.heartbeat.pace.step_s for seen in self._seen.values() if seen.heartbeat.pace is not None
        ]
        return median(paces) if paces else None

    def _tell(self, late: list[int], now: float) -> str:
        """Describe the alarm in one line."""
        active = {rank: seen for rank, seen in sorted(self._seen.items()) if seen.heartbeat.phase != "over"}
        others = [seen for rank, seen in active.items() if rank not in late]
        places = [self._place(rank, now) for rank in late[:NAMED]] + (
            [f"{len(late) - NAMED} more"] if len(late) > NAMED else []
        )
        told = "; ".join(places)
        if not late:
            told = (
                f"no worker is behind the others: {self._place(next(iter(active)), now)}, and so are the"
                " others"
            )
        elif others and _apart([*others, *(self._seen[rank] for rank in late if rank in self._seen)]):
            told += (
                f"; {self._place(others[0].heartbeat.rank, now)}: all wait, at different places, so one left"
                " out a collective of the others"
            )
        elif others:
            told += (
                "; the other worker waits for it"
                if len(others) == 1
                else f"; the other {len(others)} workers wait"
            )
        typical = self._step_s()
        pace = "" if typical is None else f", a step takes {typical:.3g} s"
        limit = max(
            (
                self._limit(seen.heartbeat.phase)
                for rank, seen in self._seen.items()
                if rank in late or (not late and rank in active)
            ),
            default=None,
        )
        return f"{told} (limit {self._config.startup_s if limit is None else limit:.3g} s{pace})"

    def _place(self, rank: int, now: float) -> str:
        """Describe a worker and where it is."""
        seen = self._seen.get(rank)
        if seen is None:
            return f"rank {rank} has sent nothing for the {now - self._began:.0f} s of this attempt"
        heartbeat = seen.heartbeat
        name = f"rank {rank} (pid {heartbeat.pid} on node {heartbeat.node})"
        if heartbeat.phase == "over":
            return f"{name} has left the training"
        if not seen.talks(now):
            why = "the process is frozen, cut off, or holds the interpreter's lock in C code"
            return (
                f"{name} has given no sign of life for {now - seen.at:.0f} s ({why}); it was"
                f" {_doing(heartbeat)}"
            )
        at = f" at {self._stacks[rank].at}" if rank in self._stacks else ""
        return f"{name} is {_doing(heartbeat)} for {seen.seconds(now):.0f} s{at}"

    def _change(
        self, heartbeat: Heartbeat, pace: Pace, typical: float, step_s: float, *, caught_up: bool
    ) -> Slow:
        name = f"rank {heartbeat.rank} (pid {heartbeat.pid} on node {heartbeat.node})"
        verb = "has caught up" if caught_up else "is slow"
        most = "" if caught_up else f", most of it in {pace.most}"
        text = (
            f"{name} {verb}: its own part of a step takes {pace.own_s:.3g} s{most}; the median worker's"
            f" {typical:.3g} s"
        )
        return Slow(heartbeat.step, heartbeat.rank, pace.own_s, typical, step_s, text, caught_up)


def _doing(heartbeat: Heartbeat) -> str:
    if heartbeat.step == 0:
        return "preparing the training"
    if heartbeat.phase == "idle":
        return f"between the steps {heartbeat.step} and {heartbeat.step + 1}"
    if heartbeat.phase == "wait":
        return f"waiting for the gradients of step {heartbeat.step}"
    return (
        f"in {heartbeat.phase} {'after' if heartbeat.phase in ('evaluate', 'save') else 'of'} step"
        f" {heartbeat.step}"
    )


def _late(active: list[_Seen], gone: list[_Seen], now: float) -> list[_Seen]:
    """Return the workers that have not arrived, by the best evidence there is; [] if all look alike.

    The evidence, best first: having left while all others wait, the fewest collectives, silence, not being
    blocked in a collective, the earliest phase.
    """
    if gone and all(seen.heartbeat.waiting for seen in active):
        return gone
    counts = [seen.heartbeat.collectives for seen in active]
    least = min((count for count in counts if count is not None), default=None)
    behind = [seen for seen in active if None not in counts and seen.heartbeat.collectives == least]
    if 0 < len(behind) < len(active):
        # A worker that is blocked in the last collective it issued waits itself, for those that are not.
        return [seen for seen in behind if not seen.heartbeat.waiting or not seen.talks(now)] or behind
    silent = [seen for seen in active if not seen.talks(now)]
    awake = [seen for seen in active if not seen.heartbeat.waiting]
    earliest = min(seen.where for seen in active)
    first = [seen for seen in active if seen.where == earliest]
    return next(
        (some for some in (silent, awake, first) if 0 < len(some) < len(active)),
        active if len(active) == 1 else [],
    )


def _apart(seen: list[_Seen]) -> bool:
    """Return whether all wait in a collective of the same number, but at different places."""
    return (
        all(one.heartbeat.waiting for one in seen)
        and len({one.heartbeat.collectives for one in seen}) == 1
        and len({one.where for one in seen}) > 1
    )
