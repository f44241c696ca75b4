"""The status of something that runs elsewhere, with one meaning of finished for all targets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from raystack.errors import (
    BudgetError,
    ConfigError,
    LaunchError,
    PausedError,
    PlanError,
    Problem,
    RaystackError,
    ServingError,
    TrainingError,
)

ObjectKind = Literal["job", "rayjob", "rayservice", "raycluster", "raycronjob"]
"""`job`: of the Ray Jobs API; the others: objects of KubeRay."""

Phase = Literal[
    "queued",  # a queue holds it
    "starting",  # pods, images, places
    "running",  # the entrypoint runs; the cluster is up; the service answers
    "degraded",  # it runs with less than was asked for, or answers no more
    "updating",  # a service is changed in place, or moves to its next cluster
    "retrying",
    "suspended",
    "succeeded",
    "failed",
    "stopped",  # on request
    "invalid",  # refused for good: delete it and create it again
    "gone",  # there is no such thing, or no longer
]
FINISHED: frozenset[Phase] = frozenset({"succeeded", "failed", "stopped", "invalid", "gone"})

ENDINGS: Mapping[int | None, type[RaystackError]] = {
    each.exit_code: each for each in (ConfigError, PlanError, LaunchError, ServingError, BudgetError)
}
"""The error of each exit status; any other is an error of training, or of serving."""


@dataclass(frozen=True)
class Status:
    """A snapshot of something that runs elsewhere."""

    kind: ObjectKind
    name: str
    phase: Phase
    reason: str = ""
    """One line: why it is in that phase, or what it waits for."""
    namespace: str | None = None
    attempt: int = 1
    """Counted from 1; a retry is the next one."""
    ready: int | None = None
    wanted: int | None = None
    """Number of worker pods that are ready, and the number requested."""
    started_at: float | None = None
    finished_at: float | None = None
    """Seconds since 1970."""
    cluster: str | None = None
    """The RayCluster it runs on."""
    exit_code: int | None = None
    """Exit status of its driver if known; it says what to do next."""
    step: int | None = None
    checkpoint: str | None = None
    problems: tuple[Problem, ...] = ()
    """Last step, newest checkpoint and problems of a driver that has ended.

    Known if the run's folder can be read from here.
    """
    spent: str = ""
    """What the run has used, if its folder can be read from here: `3.2 h, 25.6 GPU-hours, 88.04 USD`."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Addresses and next commands, by what they show."""

    @property
    def finished(self) -> bool:
        """Return whether it has ended for good: it will not continue by itself."""
        return self.phase in FINISHED

    @property
    def line(self) -> str:
        """Return one line for people: `rayjob/digits-7f3a: running, 2/2 workers, attempt 1`."""
        workers = f", {self.ready}/{self.wanted} workers" if self.wanted is not None else ""
        attempt = f", attempt {self.attempt}" if self.attempt > 1 else ""
        reason = f": {self.reason}" if self.reason else ""
        spent = f" ({self.spent})" if self.spent else ""
        return f"{self.kind}/{self.name} is {self.phase}{workers}{attempt}{spent}{reason}"

    def raise_for_status(self) -> None:
        """Raise the error whose exit code says what to do next; return if nothing is wrong."""
        where = f"{self.kind}/{self.name}"
        reason = self.reason.removeprefix("error: ").removeprefix("paused: ")
        if self.exit_code == PausedError.exit_code:
            remedy = "submit it with --resume: it goes on from there"
            raise PausedError(self.problems or Problem(where, rule=reason, remedy=remedy), why=reason)
        match self.phase:
            case "succeeded":
                return
            case "running" if self.kind not in ("job", "rayjob"):
                return
            case "failed":
                other = ServingError if self.kind == "rayservice" else TrainingError
                error = ENDINGS.get(self.exit_code, other)
                look = f"see `raystack logs {where}`"
                raise error(self.problems or Problem(where, rule=reason or "it failed", remedy=look))
            case "stopped" if self.exit_code == BudgetError.exit_code:
                remedy = "raise the budget, and submit it with --resume"
                raise BudgetError(self.problems or Problem(where, rule=reason, remedy=remedy))
            case "stopped" | "invalid" | "gone":
                raise LaunchError(Problem(where, rule=reason or f"it is {self.phase}"))
            case _:
                rule = f"it has not ended in the time given, and is {self.phase}"
                remedy = f"it goes on; see `raystack status --watch {where}`"
                raise LaunchError(Problem(where, rule=f"{rule}: {reason}" if reason else rule, remedy=remedy))


@dataclass(frozen=True)
class Diagnosis:
    """The reason why something does not run: one cause, one remedy, and the evidence."""

    cause: str
    remedy: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogLine:
    """A line of a log, without its end."""

    source: str
    """`driver`, or the pod and container."""
    text: str


class JobHandle(Protocol):
    """A handle of something that runs elsewhere.

    All methods raise LaunchError if the place does not answer or refuses.
    """

    def status(self) -> Status:
        """Return the current status."""

    def watch(self, timeout_s: float | None = None) -> Iterator[Status]:
        """Yield the status now and after every change, until it is finished or the time is over.

        For a cluster or service: until it runs.
        """

    def logs(self, *, follow: bool, everything: bool) -> Iterator[LogLine]:
        """Yield the log of the driver, or of all pods and containers with `everything`.

        With `follow` until it is finished.
        """

    def diagnose(self) -> Diagnosis:
        """Return why it does not run, or that it does."""

    def cancel(self) -> Status:
        """Stop it and release its resources, after its logs were archived."""

    def suspend(self) -> Status:
        """Release its resources and keep the object. LaunchError if that would end it."""

    def resume(self) -> Status:
        """Resume after `suspend`."""

    def scale(self, workers: int, group: str | None = None, model: str | None = None) -> Status:
        """Change the number of worker pods, of a group or model if there are several."""
