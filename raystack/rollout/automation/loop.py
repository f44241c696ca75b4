"""The loop of an automation: look, decide, record, do. It can be killed between any two lines and goes on.

The state is written before what it asks for is done, and what is done again does nothing new.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from raystack.errors import ConfigError, PlanError, RaystackError
from raystack.plan.automation import AutomationPlan
from raystack.plan.naming import run_id
from raystack.rollout.automation import rounds
from raystack.rollout.automation.record import Entry
from raystack.rollout.automation.rounds import Round, Seen, State

PATIENCE_S = 3600.0
"""Seconds for which the check or the release of a version is tried while what it needs is away."""

_ONCE = frozenset(("began", "started", "lost", "trained", "passed", "refused", "releasing", "ended"))
"""Steps that a round, or an attempt of its training, takes once."""


@dataclass(frozen=True)
class Ended:
    """The end of a training."""

    at: float
    version: str | None = None
    """`models:/name/version`; None if there is a problem."""
    problem: str = ""
    lost: bool = False
    """Whether its process was lost, so that it can go on."""


@dataclass(frozen=True)
class Verdict:
    """What became of a version."""

    good: bool
    why: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


class Acts(Protocol):
    """What is done outside. All of it can be done twice."""

    def look(self, state: State, now: float) -> Seen:
        """Look at the sources of triggers."""

    def stops(self) -> bool:
        """Return whether the file is there that stops everything."""

    def train(self, round: Round) -> int:
        """Start the attempt of a training, or go on with its run; return its process."""

    def trained(self, round: Round) -> Ended | None:
        """Return how the training has ended; None if it goes on."""

    def check(self, round: Round) -> Verdict:
        """Check the version by the gates."""

    def release(self, round: Round) -> str | None:
        """Promote the version, or begin its rollout; return the id of the rollout, if one was begun."""

    def released(self, round: Round) -> Verdict | None:
        """Return what became of the rollout; None if it goes on."""

    def end(self, round: Round, why: str) -> None:
        """End the training or the rollout of a round at once."""


class Keeps(Protocol):
    """What is remembered; `Record` is one."""

    def state(self) -> State | None:
        """Return the state; None before the first step."""

    def write(self, state: State) -> None:
        """Remember a state."""

    def add(self, entry: Entry) -> Entry:
        """Append a step."""


class Loop:
    """One automation."""

    def __init__(
        self, plan: AutomationPlan, record: Keeps, acts: Acts, tell: Callable[[Entry], None], now: float
    ) -> None:
        self._plan, self._record, self._acts, self._tell = plan, record, acts, tell
        self._config = plan.automation
        self._failing: float | None = None
        known = record.state()
        self.state = known or State(now)
        if known is None:
            self._record.write(self.state)

    @property
    def rests(self) -> bool:
        """Return whether no round is on its way, and none can begin now."""
        current, state = self.state.round, self.state
        idle = current is None or current.phase == "over"
        return idle and (not state.pending or state.held is not None or state.stopped)

    def step(self, now: float) -> None:
        """Look once, and do what is to be done."""
        if self._acts.stops():
            self._halt(now)
            return
        if self.state.stopped:
            self._keep(replace(self.state, stopped=False))
            self._note(now, "resumed", f"{self._plan.stop} is gone")
        before = {trigger.cause for trigger in self.state.pending}
        self._keep(rounds.observe(self._config, self.state, self._acts.look(self.state, now), now))
        for trigger in self.state.pending:
            if trigger.cause not in before:
                self._note(now, "triggered", trigger.what, cause=trigger.cause, since=trigger.at)
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        current = self.state.round
        if current is None or current.phase == "over":
            if self.state.pending:
                self._begin(now)
            return
        try:
            match current.phase:
                case "training":
                    self._train(current, now)
                case "checking":
                    self._check(current, now)
                case "releasing":
                    self._release(current, now)
            self._failing = None
        except RaystackError as error:
            self._failed(error, now)

    def _begin(self, now: float) -> None:
        held = rounds.hindrance(self._config, self.state, now)
        if held is not None:
            if held.rule != self.state.held:
                self._keep(replace(self.state, held=held.rule))
                self._note(now, "held", f"{held.rule}: {held.why}")
            return
        experiment = self._plan.name
        if self._config.action.verb == "tune":  # the name of a study has 60 characters at most
            experiment = experiment[:38].rstrip("-")
        name = run_id(experiment, datetime.fromtimestamp(now), secrets.token_hex(2))
        self._keep(rounds.begin(self.state, now, name))
        self._go_on(now)

    def _train(self, current: Round, now: float) -> None:
        if current.attempt == 0:
            cause = current.trigger.cause
            self._note(current.began, "began", current.trigger.what, cause=cause, run=current.run)
            self._start(current, now)
            return
        ended = self._acts.trained(current)
        if ended is None:
            if rounds.left_s(self._config, self.state, now) <= 0:
                self._acts.end(current, "its time is over")
                self._over(now, "the training was stopped: its time, or that of the budget, is over")
        elif ended.lost and current.attempt < self._config.action.attempts:
            self._note(now, "lost", ended.problem, attempt=current.attempt)
            self._start(current, now)
        elif ended.version is None:
            self._over(now, f"the training has failed: {ended.problem}")
        else:
            self._note(ended.at, "trained", f"{current.run} is {ended.version}", version=ended.version)
            self._keep(rounds.trained(self.state, ended.at, ended.version))

    def _start(self, current: Round, now: float) -> None:
        number, verb = current.attempt + 1, self._config.action.verb
        self._note(now, "started", f"{verb} {current.run}", attempt=number, run=current.run)
        self._keep(rounds.moved(self.state, "training", attempt=number, pid=None))
        assert self.state.round is not None
        pid = self._acts.train(self.state.round)
        self._keep(rounds.moved(self.state, "training", pid=pid))

    def _check(self, current: Round, now: float) -> None:
        verdict = self._acts.check(current)
        step = "passed" if verdict.good else "refused"
        self._note(now, step, verdict.why, version=current.version, **verdict.numbers)
        if not verdict.good:
            self._over(now, f"{current.version} was refused: {verdict.why}")
        elif self._config.then == "nothing":
            self._over(now, f"{current.version} is registered", good=True)
        else:
            self._keep(rounds.moved(self.state, "releasing"))

    def _release(self, current: Round, now: float) -> None:
        if current.rollout is None:
            rollout = self._acts.release(current)
            if rollout is None:
                self._over(now, f"{current.version} was promoted to {self._plan.alias}", good=True)
                return
            self._note(now, "releasing", f"rollout {rollout} of {current.version}", rollout=rollout)
            self._keep(rounds.moved(self.state, "releasing", rollout=rollout))
            return
        verdict = self._acts.released(current)
        if verdict is not None:
            self._over(now, f"{current.version}: {verdict.why}", good=verdict.good, **verdict.numbers)

    def _failed(self, error: RaystackError, now: float) -> None:
        """End the round if another attempt would fail in the same way; else try again, for a time."""
        first, self._failing = self._failing is None, self._failing or now
        if isinstance(error, (ConfigError, PlanError)) or now - self._failing > PATIENCE_S:
            self._over(now, str(error))
        elif first:
            self._note(now, "waiting", str(error))

    def _halt(self, now: float) -> None:
        current = self.state.round
        if current is not None and current.phase != "over":
            self._acts.end(current, f"{self._plan.stop} is there")
            self._over(now, f"stopped by {self._plan.stop}")
        if not self.state.stopped:
            self._keep(replace(self.state, stopped=True))
            self._note(now, "stopped", f"{self._plan.stop} is there: nothing begins")

    def _over(self, now: float, result: str, *, good: bool = False, **numbers: Any) -> None:
        self._note(now, "ended", result, good=good, **numbers)
        self._keep(rounds.over(self.state, now, result, good=good))
        self._failing = None

    def _keep(self, state: State) -> None:
        if state != self.state:
            self._record.write(state)
            self.state = state

    def _note(self, now: float, step: str, what: str, **numbers: Any) -> None:
        """Record a step. One of a round is the same if the process is killed here and comes by again."""
        current = self.state.round
        name = current.id if current is not None and current.phase != "over" else None
        once = name is not None and step in _ONCE
        number = numbers.get("attempt")
        identity = "-".join(map(str, filter(None, (name, step, number)))) if once else ""
        self._tell(self._record.add(Entry(now, step, what, name, numbers, id=identity)))
