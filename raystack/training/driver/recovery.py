"""The cause of an attempt's end, and the budget for another one.

In: the workers' errors and the watchdog's alarm. Out: a Cause. Pure: `retries.py` acts on it, for the
policies in `trainer.py` inside Ray Train's controller and for `processes.py`. Ray is imported only to read an
error of its own, because a driver of processes does without it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from raystack.code.loading import brief
from raystack.config.faults import Faults, Retry
from raystack.errors import (
    ConfigError,
    ExhaustedError,
    PausedError,
    PlanError,
    Problem,
    RaystackError,
    SupersededError,
    TrainingError,
    WorkerLostError,
)

FailureKind = Literal["error", "lost", "memory", "hang", "preemption", "resize", "terminate"]
"""Kinds of failures.

`error` is the task's or the config's own and would come again. `resize` and `terminate` follow a request to
stop.
"""

LONGEST_WAIT_S = 300.0

Error = TypeVar("Error", bound=BaseException)


@dataclass(frozen=True)
class Cause:
    """Why an attempt ended."""

    kind: FailureKind
    error: RaystackError
    """The error for the user."""


class DiedError(Exception):
    """Stands for the error of a worker whose process ended without one; `cause` says how it ended."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(str(cause.error))
        self.cause = cause


def classify(failures: Mapping[int, BaseException], alarm: str | None) -> Cause:
    """Return the one failure that explains the others.

    `failures` are by rank; `alarm` is the watchdog's reason if it ended the attempt.
    """
    # The first match wins. What a worker says of itself comes first: the other workers then lose their
    # connection to that rank, and the watchdog may have seen it missing.
    if (
        own := _first(failures, RaystackError, but=(WorkerLostError, PausedError, ExhaustedError))
    ) is not None:
        return Cause("error", own)
    # All have stopped with a whole checkpoint, whatever became of one of them afterwards.
    if (paused := _first(failures, PausedError)) is not None:
        kinds: Mapping[str, FailureKind] = {
            "terminate": "terminate",
            "drain": "preemption",
            "resize": "resize",
        }
        return Cause(kinds[paused.why], paused)
    if (exhausted := _first(failures, ExhaustedError)) is not None:
        return Cause("memory", exhausted)
    deaths = [
        death for rank, failure in sorted(failures.items()) if (death := _death(rank, failure)) is not None
    ]
    # "lost" says the least: an alarm ends the other workers, which are then found dead.
    if (told := next((death for death in deaths if death.kind != "lost"), None)) is not None:
        return told
    if alarm is not None:
        return Cause("hang", TrainingError(Problem("watchdog", rule=alarm)))
    if deaths:
        return deaths[0]
    lost = _first(failures, WorkerLostError)
    rank, failure = min(failures.items(), key=lambda item: item[0])
    return (
        Cause("lost", lost)
        if lost is not None
        else Cause("error", TrainingError(_unknown(f"rank {rank}", failure)))
    )


def classify_start(failure: BaseException) -> Cause:
    """Return why the workers did not start."""
    if isinstance(failure, RaystackError):
        return classify({0: failure}, None)
    # Mostly a process, a port or a connection that was lost meanwhile, so "lost", which is retried.
    died = (_death(None, one) for one in (failure, failure.__cause__) if one is not None)
    return next(filter(None, died), None) or Cause(
        "lost", TrainingError(_unknown("start of the workers", failure))
    )


def controller_lost(failure: BaseException) -> TrainingError:
    """Return the error of a run whose controller, an actor of Ray Train's, has died."""
    from ray.exceptions import OutOfMemoryError

    if isinstance(failure, OutOfMemoryError):
        rule = "Ray ended the run's controller, because its node ran out of memory"
        remedy = "give the node more memory, or make training.batch.micro smaller; go on with --resume"
        return ExhaustedError(Problem("Ray", rule=rule, remedy=remedy))
    first = _unknown("Ray", failure).rule
    return TrainingError(
        Problem("Ray", rule=f"the run's controller is gone: {first}", remedy="go on with --resume")
    )


def told_to_stop() -> PausedError:
    """Return the error of a run that was told to stop between two attempts, or before the first."""
    problem = Problem("run", rule="it was told to stop while no worker ran", remedy="go on with --resume")
    return PausedError(problem, "terminate")


def final(cause: RaystackError) -> RaystackError:
    """Return the error that a run ends with, which says how to go on."""
    if isinstance(cause, (ConfigError, PlanError, PausedError, SupersededError)):
        return cause  # the config or the request is to be changed first, or the remedy says how to go on
    return type(cause)(
        [replace(problem, remedy=_and_resume(problem.remedy)) for problem in cause.problems], cause.trace
    )


def _and_resume(remedy: str | None) -> str:
    return f"{remedy}; go on with --resume" if remedy else "go on with --resume"


def _first(
    failures: Mapping[int, BaseException], kind: type[Error], but: tuple[type[BaseException], ...] = ()
) -> Error | None:
    found: Iterable[BaseException] = (failures[rank] for rank in sorted(failures))
    return next(
        (failure for failure in found if isinstance(failure, kind) and not isinstance(failure, but)), None
    )


def _death(rank: int | None, failure: BaseException) -> Cause | None:
    """Return how a worker's process died; None if it lives and its code raised `failure`.

    `rank` is None if it is not known, at the start of the workers.
    """
    if isinstance(failure, DiedError):
        return failure.cause
    if isinstance(failure, RaystackError):
        return None
    from ray.exceptions import OutOfMemoryError, RayActorError

    from raystack.ray_internals.train import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

    inner = failure.health_check_failure if isinstance(failure, WorkerHealthCheckFailedError) else failure
    where = "start of a worker" if rank is None else f"rank {rank}"
    # If Ray's memory monitor ends an actor, only the text of the RayActorError may say so.
    if isinstance(inner, OutOfMemoryError) or (
        isinstance(inner, RayActorError) and "running low on memory" in str(inner)
    ):
        remedy = "give each worker more memory, or make training.batch.micro smaller"
        return Cause(
            "memory",
            ExhaustedError(
                Problem(where, rule="Ray ended it, because its node ran out of memory", remedy=remedy)
            ),
        )
    if isinstance(inner, WorkerHealthCheckTimeoutError):
        return Cause("lost", TrainingError(Problem(where, rule="its process does not answer")))
    if not isinstance(inner, RayActorError):
        return None
    if inner.preempted:
        return Cause(
            "preemption", TrainingError(Problem(where, rule="its node was taken back by the cluster"))
        )
    # Ray has no attribute for this, only the text.
    node = re.search(r"node.{0,40}(died|dead|removed)", str(inner), re.IGNORECASE)
    return Cause(
        "lost", TrainingError(Problem(where, rule="its node is gone" if node else "its process is gone"))
    )


def _unknown(where: str, failure: BaseException) -> Problem:
    from ray.exceptions import RayTaskError

    # The text of an error that was raised in a worker begins with the worker.
    failure = failure.cause if isinstance(failure, RayTaskError) else failure
    lines = [line for line in str(failure).splitlines() if line.strip()] or [""]
    return Problem(where, rule=brief(f"{type(failure).__name__}: {lines[0].strip()}"))


class Budget:
    """The remaining attempts by kind of failure; a newer checkpoint starts the counts again."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._newest = 0
        self._used: dict[FailureKind, int] = {}

    def take(self, kind: FailureKind, newest: int) -> float | None:
        """Take one attempt, and return the seconds to wait before it; None if no attempt is left.

        `newest` is the step of the newest checkpoint.
        """
        if kind == "resize":
            return 0.0
        if kind in ("error", "terminate"):
            return None
        # A run that makes progress never uses up its budget, however many failures it has.
        if newest > self._newest:
            self._used = {}
        # Also where it is older: a damaged checkpoint was replaced, and the run goes on from the one before.
        self._newest = newest
        used = self._used[kind] = self._used.get(kind, 0) + 1
        retry: Retry = getattr(self._faults, kind)
        return None if used > retry.times else min(retry.wait_s * 2 ** (used - 1), LONGEST_WAIT_S)

    def used(self, kind: FailureKind) -> str:
        """Return how much of a kind's budget is used, as text."""
        retry: Retry = getattr(self._faults, kind)
        return f"{min(self._used.get(kind, 0), retry.times)} of {retry.times} in a row"
