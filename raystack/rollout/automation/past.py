"""What an automation would have done over the recorded past: the same loop, whose clock runs through it.

Events of drift, times of the schedule and times of files are the past; indices of metrics are not recorded.
Trainings are taken to last as long as those of the record did, and all versions to pass and be rolled out.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from raystack.plan.automation import AutomationPlan, firings, last_firing
from raystack.rollout.automation.loop import Ended, Loop, Verdict
from raystack.rollout.automation.record import Entry, Record
from raystack.rollout.automation.rounds import DAY_S, Round, Seen, State
from raystack.rollout.automation.sources import Change, Sources, still_drifted
from raystack.storage import Storage

LONGEST_S = 30 * DAY_S
"""How far back it goes."""
TICK_S, LOOKS = 60.0, 10_000
"""Longest time between two looks in a short past, and how many there are at most."""
GUESS_S = 600.0
"""Seconds of a training where none is recorded."""


class Past:
    """The recorded past as what an automation acts on."""

    def __init__(self, plan: AutomationPlan, until: float) -> None:
        triggers, self._plan = plan.automation.triggers, plan
        self._changes: list[Change] = []
        if triggers.drift is not None and triggers.drift.events is not None:
            self._changes = Sources(plan.automation).changes(triggers.drift.events)
        self._arrivals = sorted(_arrivals(triggers.data.url)) if triggers.data is not None else []
        self.takes_s = _usual_s(Record(plan.folder)) if Storage(plan.folder).names() else None
        first = [change.at for change in self._changes[:1]] + self._arrivals[:1]
        if (schedule := triggers.schedule) is not None:
            week = firings(schedule, plan.automation.timezone, until - 7 * DAY_S, until)
            first.append(next(iter(week), until))
        self.first = max(until - LONGEST_S, min(first, default=until) - TICK_S)
        self.now = self.first
        self._next, self._last = 0, dict[tuple[str, str], Change]()

    def look(self, state: State, now: float) -> Seen:
        """Return what a look at that time would have found."""
        triggers = self._plan.automation.triggers
        while self._next < len(self._changes) and self._changes[self._next].at <= now:
            change = self._changes[self._next]
            self._last[change.replica, change.key] = change
            self._next += 1
        drifted = still_drifted(self._last.values())
        schedule = triggers.schedule
        fired = last_firing(schedule, self._plan.automation.timezone, now) if schedule is not None else None
        data = str(sum(at <= now for at in self._arrivals)) if triggers.data is not None else None
        return Seen(tuple(drifted), fired, data)

    def stops(self) -> bool:
        """Return False: when the file was there is not known."""
        return False

    def train(self, round: Round) -> int:
        """Take note of nothing."""
        return 0

    def trained(self, round: Round) -> Ended | None:
        """Return the end of a training after the usual time."""
        ends = round.began + (self.takes_s or GUESS_S)
        return Ended(ends, f"models:/{self._plan.model}/?") if self.now >= ends else None

    def check(self, round: Round) -> Verdict:
        """Pass."""
        return Verdict(True, "the gates are taken to pass")

    def release(self, round: Round) -> str | None:
        """Begin what ends at once."""
        return "?" if self._plan.automation.then == "rollout" else None

    def released(self, round: Round) -> Verdict | None:
        """Return an end."""
        return Verdict(True, "the rollout is taken to succeed")

    def end(self, round: Round, why: str) -> None:
        """Take note of nothing."""


class Memory:
    """A record that is not written."""

    def __init__(self, state: State) -> None:
        self._state, self.entries = state, list[Entry]()

    def state(self) -> State | None:
        """Return the state."""
        return self._state

    def write(self, state: State) -> None:
        """Take it."""
        self._state = state

    def add(self, entry: Entry) -> Entry:
        """Take it."""
        self.entries.append(replace(entry, number=len(self.entries) + 1))
        return self.entries[-1]


def rehearse(plan: AutomationPlan, until: float) -> tuple[str, list[Entry]]:
    """Return what would have been done up to a time, after a line on what is assumed."""
    past = Past(plan, until)
    memory = Memory(State(past.first))
    loop = Loop(plan, memory, past, lambda entry: None, past.first)
    tick = max(min(TICK_S, plan.automation.poll_s), (until - past.first) / LOOKS)
    past.now += tick / 2  # so that no look falls between events of one moment
    while past.now <= until:
        before = None
        while before != loop.state:
            before = loop.state
            loop.step(past.now)
        past.now += tick
    recorded = "as those in the record" if past.takes_s is not None else "as none is recorded"
    takes = f"each training is taken to last {past.takes_s or GUESS_S:.0f} s, {recorded}"
    since = datetime.fromtimestamp(past.first).strftime("%Y-%m-%d %H:%M:%S")
    return f"since {since}; {takes}, and to pass what follows", memory.entries


def _arrivals(url: str) -> Iterator[float]:
    """Yield when each file was changed last, as far as its store says."""
    for info in Storage(url).found().values():
        try:
            yield float(info.mark)
        except ValueError:
            try:
                yield datetime.fromisoformat(info.mark).timestamp()
            except ValueError:
                continue


def _usual_s(record: Record) -> float | None:
    """Return the mean duration of the trainings in a record."""
    began: dict[str | None, float] = {}
    taken = []
    for entry in record.entries():
        if entry.step == "began":
            began[entry.round] = entry.at
        elif entry.step == "trained" and entry.round in began:
            taken.append(entry.at - began[entry.round])
    return sum(taken) / len(taken) if taken else None
