"""The attempts of a run, from Ray's Jobs API. In: its JSON. Out: attempts, in order, and their meaning.

The attempts of a job are submissions `<name>-a1`, `<name>-a2` and so on. Pure; `job.py` does the requests.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from raystack.errors import BudgetError, ConfigError, LaunchError, PausedError, PlanError, TrainingError
from raystack.job_context import ATTEMPT, RUN
from raystack.runs.ending import Ending
from raystack.status import Diagnosis, Phase, Status

LAST, REQUEST, FOLDER = "raystack_last", "raystack_request", "raystack_folder"
"""Keys of the metadata: the number of the last attempt that may be made, what Ray does not tell of a
submission, as JSON, and the run's folder.
"""

State = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]
PHASES: Mapping[State, Phase] = {
    "PENDING": "starting",
    "RUNNING": "running",
    "STOPPED": "stopped",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
}
LOST = frozenset({"JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE"})
"""Ray's error types for a driver whose process was killed with its parent."""
REMEDIES: Mapping[int, str] = {
    1: "the log says where; if it is raystack's own mistake, please report it",
    ConfigError.exit_code: "edit the config or the override that the log names, and submit it again",
    PlanError.exit_code: "change the request, and submit it again",
    LaunchError.exit_code: "look at the cluster: what the log names is not there",
    TrainingError.exit_code: "look at the run: the log names the step, the line and the last good checkpoint",
    PausedError.exit_code: "submit it with --resume: it goes on from the checkpoint of that very step",
    BudgetError.exit_code: "raise the budget, and submit it with --resume: it goes on from its checkpoint",
}
"""What to do next, by exit status."""


@dataclass(frozen=True)
class Attempt:
    """One submission."""

    id: str
    number: int
    last: int
    """Number of the last attempt that may be made."""
    state: State
    message: str
    """Ray's message, with the end of the log if the driver failed."""
    error: str | None
    """Ray's error type."""
    exit_code: int | None
    placed: bool
    """True if the driver was started on a node."""
    started_at: float | None
    finished_at: float | None
    details: Mapping[str, Any]
    """The job as Ray's API returns it."""
    ending: Ending | None = None
    """The driver's record in the run's folder; None if it is missing or unreadable."""

    @property
    def over(self) -> bool:
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def code(self) -> int | None:
        """Return the driver's exit status, from its own record or else from Ray; None if unknown."""
        return self.ending.exit_code if self.ending is not None else self.exit_code

    @property
    def lost(self) -> bool:
        """Return whether the driver was killed, or stopped although the job was not cancelled.

        Such an attempt is retried. An error of the driver itself would come again.
        """
        if self.state != "FAILED":
            return False
        if self.code is not None:
            return self.code < 0 or self.code > 128 or self.code == PausedError.exit_code
        return self.error in LOST or (self.error == "JOB_SUPERVISOR_ACTOR_START_FAILURE" and self.placed)

    @property
    def goes_on(self) -> bool:
        """Return whether another attempt may follow."""
        return self.lost and self.number < self.last

    @property
    def reason(self) -> str:
        """Return the reason in one line; empty if nothing is wrong."""
        if self.ending is not None and self.state in ("STOPPED", "FAILED"):
            return self.ending.reason
        if self.state in ("RUNNING", "SUCCEEDED", "STOPPED"):
            return ""
        if self.state == "PENDING":
            return self.message.removeprefix("Job has not started yet.").strip() or "it has not started yet"
        ended = "its driver was lost" if self.lost else "its driver failed"
        if self.exit_code is not None:
            # Where the run's folder cannot be read from here, there is only the end of the log.
            said = [
                line.strip()
                for line in self.message.splitlines()
                if re.match(r"(error|paused): ", line.strip())
            ]
            return said[-1] if said else f"{ended}, with exit status {self.exit_code}"
        first = next(
            (line.strip() for line in self.message.splitlines() if line.strip()),
            self.error or "no reason given",
        )
        return f"{ended if self.lost else 'its driver did not start'}: {first}"

    def status(self, name: str, links: Mapping[str, str], *, waited_for: bool) -> Status:
        """Return the attempt as a Status of the job called `name`.

        Another attempt follows a lost one only if the job is waited for.
        """
        told = (
            f"; attempt {self.number + 1} of {self.last} begins when somebody waits for it"
            if self.goes_on and not waited_for
            else ""
        )
        return Status(
            kind="job",
            name=name,
            phase="retrying" if self.goes_on and waited_for else PHASES[self.state],
            reason=f"{self.reason}{told}",
            attempt=self.number,
            started_at=self.started_at,
            finished_at=self.finished_at,
            links=links,
            exit_code=self.code,
            step=self.ending.outcome.step if self.ending is not None else None,
            checkpoint=self.ending.outcome.checkpoint if self.ending is not None else None,
            problems=self.ending.problems if self.ending is not None else (),
        )

    def diagnosis(self) -> Diagnosis:
        """Return why it does not run, or that it does."""
        evidence = tuple(
            line for line in (self.error, *self.message.splitlines()[-10:]) if line and line.strip()
        )
        cause, remedy = self._ended() if self.state == "FAILED" else self._standing()
        return Diagnosis(cause, remedy, evidence)

    def _standing(self) -> tuple[str, str]:
        """Return cause and remedy of an attempt that has not failed."""
        match self.state:
            case "PENDING" if self.asks_for_resources:
                where = "compare target.cpus, memory_gib and custom with `ray status`"
                remedy = f"{where}; the driver needs them on one node"
                return "the driver waits for its resources or its packages", remedy
            case "PENDING" if "pip" in (self.details.get("runtime_env") or {}):
                return "the driver's packages are being installed", "wait; `raystack logs` shows pip's words"
            case "PENDING":
                return "the driver is about to start", "wait"
            case "RUNNING":
                return "it runs", "`raystack logs -f` follows it"
            case "SUCCEEDED":
                return "it has succeeded", "nothing"
        return "it was cancelled", "submit it with --resume: it goes on from its last checkpoint"

    def _ended(self) -> tuple[str, str]:
        """Return cause and remedy of an attempt that has failed."""
        if self.lost:
            again = "submit it with --resume: it goes on from its last checkpoint"
            return self.reason, f"{again}; target.retries has whoever waits for it do that"
        if self.code is not None:
            return self.reason, REMEDIES.get(self.code, "read the log's last lines with `raystack logs`")
        if self.error == "RUNTIME_ENV_SETUP_FAILURE":
            return self.reason, "look at target.packages: pip could not install them on the cluster"
        if self.asks_for_resources:
            return self.reason, "look at target.cpus, memory_gib and custom: no node has that much"
        return self.reason, "look at the cluster's dashboard: its job agent says why"

    @property
    def asks_for_resources(self) -> bool:
        """Return whether the driver requests resources, so that Ray has to schedule it."""
        return "entrypoint_" in (self.details.get("metadata") or {}).get(REQUEST, "")


def read(jobs: Iterable[Mapping[str, Any]], name: str) -> list[Attempt]:
    """Return the attempts of the job called `name`, oldest first; empty if there are none.

    `name` may also be the id of one of its submissions.
    """
    known = [(job, found) for job in jobs if (found := _submission(job))]
    called = next((found[0] for job, found in known if job["submission_id"] == name), name)
    return sorted(
        (_attempt(job, found[1]) for job, found in known if found[0] == called),
        key=lambda attempt: attempt.number,
    )


def names(jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of all submitted jobs, newest first."""
    known = [(job.get("start_time") or 0, found[0]) for job in jobs if (found := _submission(job))]
    return list(dict.fromkeys(name for _, name in sorted(known, reverse=True)))


def attempt_id(name: str, number: int) -> str:
    """Return the submission id of an attempt."""
    return f"{name}-a{number}"


def _submission(job: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the job's name and the attempt's number; None for a driver that was not submitted.

    A submission that is not raystack's has its id as name, and number 1.
    """
    submission = job.get("submission_id")
    if not submission:
        return None
    metadata = job.get("metadata") or {}
    number = metadata.get(ATTEMPT, "")
    if RUN in metadata and number.isdigit() and submission == attempt_id(metadata[RUN], int(number)):
        return metadata[RUN], int(number)
    return str(submission), 1


def _attempt(job: Mapping[str, Any], number: int) -> Attempt:
    last = (job.get("metadata") or {}).get(LAST, "")
    return Attempt(
        id=job["submission_id"],
        number=number,
        last=int(last) if last.isdigit() else number,
        state=job["status"],
        message=job.get("message") or "",
        error=job.get("error_type"),
        exit_code=job.get("driver_exit_code"),
        placed=job.get("driver_node_id") is not None,
        started_at=_seconds(job.get("start_time")),
        finished_at=_seconds(job.get("end_time")),
        details=job,
    )


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None
