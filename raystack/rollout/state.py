"""Where a rollout is: one frozen value, which is written after every interval."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from raystack.rollout.counts import Counts
from raystack.rollout.evidence import Bets

Status = Literal["running", "paused", "finished", "rolled back", "failed", "aborted"]
Doing = Literal["load", "steer", "watch", "promote", "tidy", "alias", "go back"]
"""What is done at the moment. All but `watch` change the service, and are done again after a crash."""

OVER: tuple[Status, ...] = ("finished", "rolled back", "failed", "aborted")
"""Statuses that stay."""


@dataclass(frozen=True)
class Test:
    """What is known of one bound."""

    bets: Bets = field(default_factory=Bets)
    beside: Bets = field(default_factory=Bets)
    """The second ones, where two things have to speak against the version."""
    e: float = 1.0
    """Evidence that the bound is broken, never more than 1 to be expected if it is kept."""
    highest: float = 1.0
    first_bad: float | None = None
    """Beginning of the first interval that was beyond the bound, in seconds since 1970."""


@dataclass(frozen=True)
class Value:
    """What is known of a number in Prometheus."""

    value: float | None = None
    """None: there is none yet."""
    broken: int = 0
    """Looks in a row at which it was out of bounds."""
    first_bad: float | None = None
    trouble: str | None = None
    """Why there is no number."""


@dataclass(frozen=True)
class State:
    """A rollout."""

    id: str
    name: str
    """Name of the model in the protocol."""
    stable: str
    """Reference of the version that is served."""
    candidate: str
    """Reference of the version that is rolled out."""
    began: float
    """Seconds since 1970, as all times."""
    status: Status = "running"
    doing: Doing = "load"
    cause: str = ""
    """Why it paused or ended, in words."""
    ending: Status | None = None
    """Status that it goes back with."""
    first_bad: float | None = None
    """Beginning of the first interval beyond the bound that it goes back for."""
    paused_by: Literal["step", "order", "patience"] | None = None
    step: int = 0
    """Number of the step, from 0 on."""
    weight: float = 0.0
    """Share of the requests that the new version is given now."""
    since: float = 0.0
    """Time when the step's weight was given; 0 before that."""
    waits_since: float = 0.0
    """Time from which on the patience with the step counts."""
    before: int = 0
    """Requests and copies that the new version had answered when the step began."""
    seen: Mapping[str, Counts] = field(default_factory=dict)
    """Counters as they were read last, by replica and version."""
    history: Counts = field(default_factory=Counts)
    """What the version that is served had answered before the rollout, in the replicas that there were."""
    old: Counts = field(default_factory=Counts)
    """What the version that is served did since then."""
    new: Counts = field(default_factory=Counts)
    """What the new version did."""
    tests: Mapping[str, Test] = field(default_factory=dict)
    metrics: Mapping[str, Value] = field(default_factory=dict)
    metrics_at: float = 0.0
    """Time of the last look at the metrics."""
    read_at: float = 0.0
    """Time when the counters were read last."""
    slow_s: float | None = None
    """Time beyond which a request of the new version is slow, in the next interval."""
    p_old_ms: float | None = None
    p_new_ms: float | None = None
    """The percentile of the latency that is compared, since the rollout began."""
    order: str = ""
    """The order that was taken last."""
    decided: int = 0
    """Number of decisions."""
    last: str = ""
    """The last decision, in words."""
    trouble: str = ""
    """Why what is being done does not succeed, while it is tried again."""
    trouble_since: float = 0.0
    reaction_s: float | None = None
    """Seconds from the beginning of the first interval beyond the bound that was broken until no request
    went to the new version.
    """

    @property
    def over(self) -> bool:
        return self.status in OVER

    @property
    def in_step(self) -> int:
        """Requests and copies that the new version has answered in this step."""
        return self.new.answered - self.before


@dataclass(frozen=True)
class Decision:
    """One decision with its numbers. It holds the state that follows from it."""

    at: float
    what: str
    """One word: start, step, pause, resume, promote, finish, roll back, abort, fail, refuse."""
    why: str
    who: str = "raystack"
    order: str = ""
    """The order that it answers."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
