"""Run a plan as a job of a Ray cluster that runs somewhere, through its Jobs API. In: a TrainPlan, a
TunePlan or a PredictPlan. Out: a Status; and a JobHandle for it.

The config and the task's folder travel as the job's working directory, and its entrypoint is the command of a
local run. Whoever waits for a job whose driver is lost starts its next attempt, on the same cluster and of
the same run.
"""

import ipaddress
import json
import logging
import math
import shlex
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raystack.code.bundle import CONFIG, Bundle, bundle
from raystack.config.target import Job
from raystack.errors import LaunchError, PausedError, Problem, RaystackError
from raystack.job_context import ATTEMPT, RUN
from raystack.launch import attempts, remains
from raystack.launch.attempts import FOLDER, LAST, REQUEST, Attempt, attempt_id
from raystack.launch.dashboard import Dashboard
from raystack.launch.remains import Remains
from raystack.plan import PredictPlan, TrainPlan, TunePlan
from raystack.plan.target import module_of
from raystack.ray_internals.variables import JOB_STOP_WAIT
from raystack.runs import ending, kept, ledger
from raystack.status import FINISHED, Diagnosis, LogLine, Status

logger = logging.getLogger(__name__)

JOBS = "/api/jobs/"
STOP_S = "60"
"""Seconds that a driver may take to stop: it writes a checkpoint. Ray allows only three."""
POLL_S = 0.5
PIN_S = 120.0
"""Between two signs that the job's code is still needed; Ray drops what nobody asked for in ten minutes."""
PATIENCE_S = 60.0
"""Seconds that a dashboard may be silent while a job is waited for, once it has answered."""
NEXT_S = 15.0
"""Seconds that a followed log waits for the next attempt of a job whose driver was lost."""
CANCEL_S = 90.0


def submit(plan: TrainPlan | TunePlan | PredictPlan, options: tuple[str, ...] = ()) -> Status:
    """Submit a plan as the next attempt of its run or study; return when Ray has accepted it.

    Uploads what the plan's config needs. `options` are added to the driver's command. Raises PlanError if the
    task's folder is too large to upload, LaunchError if the cluster does not answer, rejects the job, or
    still runs it.
    """
    config, run_id = plan.config, plan.run_id
    target = config.target
    assert isinstance(target, Job), "other targets have other doors"
    remote = JobRemote(target.address, target.token, run_id)
    dashboard, before = remote.dashboard, remote.attempts()
    if before and not before[-1].over:
        remedy = f"follow it with `raystack logs -f job/{run_id}`, or cancel it first"
        raise LaunchError(Problem(f"job/{run_id}", rule="it still goes on", got=before[-1].id, remedy=remedy))
    _warn_of_storage(config.experiment.storage, dashboard.address)
    package = _upload(dashboard, bundle(config, None if isinstance(plan, PredictPlan) else plan))
    number = before[-1].number + 1 if before else 1
    metadata = {RUN: run_id, LAST: str(number + target.retries)}
    if not isinstance(plan, PredictPlan):  # what a prediction writes is its readers' alone
        metadata[FOLDER] = plan.paths.folder
    _post(dashboard, _request(plan, target, package, options), metadata, number)
    return remote.status()


def jobs(address: str, token: str | None) -> list[Status]:
    """Return the jobs of a cluster, newest first."""
    dashboard = Dashboard(address, token)
    known = _list(dashboard)
    return [
        attempts.read(known, name)[-1].status(name, {}, waited_for=False) for name in attempts.names(known)
    ]


class JobRemote:
    """A job, by the name it was submitted under or by the id of one submission.

    `token` is a reference; None is the token that Ray itself finds. A run whose cluster is gone, or has
    forgotten it, is looked for in `storage`.
    """

    def __init__(self, address: str, token: str | None, name: str, storage: str | None = None) -> None:
        self.dashboard, self._name, self._storage = Dashboard(address, token), name, storage

    def attempts(self) -> list[Attempt]:
        """Return the attempts, oldest first; empty if there is no such job."""
        return attempts.read(_list(self.dashboard), self._name)

    def status(self) -> Status:
        """Return the current status; that of a run whose cluster is gone is its last one."""
        known = self._known()
        if isinstance(known, Remains):
            return known.status()
        folder = (known[-1].details.get("metadata") or {}).get(FOLDER) if known else None
        return replace(self._status(known), spent=ledger.spent(folder) if folder is not None else "")

    def watch(self, timeout_s: float | None = None) -> Iterator[Status]:
        """Yield the status now and after every change, until the job has ended or the time is over.

        Starts the next attempt if one may follow.
        """
        deadline = time.monotonic() + timeout_s if timeout_s is not None else math.inf
        shown: Status | None = None
        status: Status | None = None
        every: list[Attempt] = []
        pinned, answered = -math.inf, time.monotonic()
        while True:
            try:
                if status is not None and status.phase == "retrying":
                    self._again(every[-1])
                every = self.attempts()
                # Asking for the package keeps the cluster from deleting it, so that another attempt can
                # start.
                if every and every[-1].number < every[-1].last and time.monotonic() - pinned > PIN_S:
                    self.dashboard.has(_package_path(every[-1]))
                    pinned = time.monotonic()
                answered = time.monotonic()
            except LaunchError:
                if shown is None and (left := self._remains()) is not None:
                    yield left.status()
                    return
                # A dashboard that never answered is an error at once; one that did may be away for a while.
                if shown is None or time.monotonic() - answered > PATIENCE_S:
                    raise
            if not every and (left := self._remains()) is not None:
                yield left.status()
                return
            status = self._status(every, waited_for=True)
            if status.phase in FINISHED and every:
                self._keep(every)
            if status != shown:
                yield status
                shown = status
            if status.phase in FINISHED:
                return
            if time.monotonic() >= deadline:
                return
            time.sleep(POLL_S)

    def logs(self, *, follow: bool, everything: bool) -> Iterator[LogLine]:
        """Yield the log of the newest attempt's driver, or of all attempts with `everything`.

        With `follow` until the job has ended.
        """
        known = self._known()
        if isinstance(known, Remains):
            yield from known.logs(everything=everything)
            return
        *older, newest = self._there(known)
        for attempt in older if everything else []:
            yield from self._lines(attempt, self._whole(attempt), everything=everything)
        if not follow:
            yield from self._lines(newest, self._whole(newest), everything=everything)
            return
        current: Attempt | None = newest
        while current is not None:
            yield from self._lines(current, self._tail(current), everything=everything)
            current = self._after(current)

    def diagnose(self) -> Diagnosis:
        """Return why it does not run, or that it does."""
        known = self._known()
        if isinstance(known, Remains):
            return known.diagnose()
        return _with_ending(self._there(known)[-1]).diagnosis()

    def cancel(self) -> Status:
        """Stop the driver, which leaves a checkpoint; return when it has ended.

        Its log stays on the cluster, and is kept in the run's folder if that is reached from here.
        """
        told_to_stop: set[str] = set()
        deadline = time.monotonic() + CANCEL_S
        while not (newest := self._existing()[-1]).over:
            if newest.id not in told_to_stop:  # whoever waits for it may start another attempt meanwhile
                told_to_stop.add(newest.id)
                self.dashboard.post(f"{JOBS}{newest.id}/stop")
            if time.monotonic() > deadline:
                raise LaunchError(
                    Problem(
                        f"job/{self._name}",
                        rule=f"it was told to stop and still runs after {CANCEL_S:.0f} seconds",
                    )
                )
            time.sleep(POLL_S)
        self._keep(self.attempts())
        status = self.status()
        if status.phase != "stopped" or status.exit_code is not None:
            return status
        # Where the run's folder cannot be read from here, its log alone says that there is a checkpoint.
        paused = next((line for line in reversed(self._whole(newest)) if line.startswith("paused: ")), None)
        return replace(status, reason=paused, exit_code=PausedError.exit_code) if paused else status

    def suspend(self) -> Status:
        """Raise LaunchError: Ray has no suspended jobs."""
        raise self._no(
            "suspended",
            f"`raystack cancel job/{self._name}` leaves a checkpoint, and --resume goes on from there",
        )

    def resume(self) -> Status:
        """Raise LaunchError: Ray has no suspended jobs."""
        raise self._no("resumed", "submit its config with --resume: it goes on from its last checkpoint")

    def scale(self, workers: int, group: str | None = None, model: str | None = None) -> Status:
        """Raise LaunchError: the cluster does not belong to the job."""
        raise self._no(
            "scaled", "give resources.workers=[min, max]; the run then grows and shrinks with its cluster"
        )

    def _status(self, every: Sequence[Attempt], *, waited_for: bool = False) -> Status:
        if not every:
            return Status("job", self._name, "gone", "the cluster knows no such job")
        links = {"dashboard": f"{self.dashboard.address}/#/jobs"}
        return _with_ending(every[-1]).status(self._name, links, waited_for=waited_for)

    def _known(self) -> list[Attempt] | Remains:
        """Return the attempts, or what is left of a run that the cluster does not know.

        Raises LaunchError if nothing is left and the cluster does not answer.
        """
        try:
            return self.attempts() or self._remains() or []
        except LaunchError:
            if (left := self._remains()) is None:
                raise
            return left

    def _remains(self) -> Remains | None:
        return remains.find("job", self._name, self._storage)

    def _keep(self, every: Sequence[Attempt]) -> None:
        """Keep the drivers' logs in the run's folder, if that is reached from here."""
        folder = (every[-1].details.get("metadata") or {}).get(FOLDER)
        if folder is None:
            return
        try:
            with tempfile.TemporaryDirectory() as made:
                for attempt in every:
                    file = Path(made, kept.DRIVER, f"{attempt.id}.log")
                    file.parent.mkdir(exist_ok=True)
                    file.write_text("".join(f"{line}\n" for line in self._whole(attempt)), encoding="utf-8")
                kept.put(folder, made)
        except (RaystackError, OSError) as error:
            logger.warning("logs could not be kept in %s: %s", folder, error)

    def _existing(self) -> list[Attempt]:
        return self._there(self.attempts())

    def _there(self, every: list[Attempt]) -> list[Attempt]:
        if not every:
            remedy = f"`raystack status --address {self.dashboard.address}` lists those there are"
            raise LaunchError(
                Problem(f"job/{self._name}", rule="the cluster knows no such job", remedy=remedy)
            )
        return every

    def _again(self, lost: Attempt) -> None:
        """Start the attempt after `lost`, unless another client already has."""
        if not self.dashboard.has(_package_path(lost)):
            rule = "its driver was lost, and the cluster has dropped the code that it was submitted with"
            raise LaunchError(
                Problem(
                    f"job/{self._name}",
                    rule=rule,
                    remedy="submit it with --resume: it goes on from its last checkpoint",
                )
            )
        details = lost.details
        request = {
            "entrypoint": details["entrypoint"],
            "runtime_env": details["runtime_env"],
            **json.loads(details["metadata"][REQUEST]),
        }
        try:
            _post(self.dashboard, request, details["metadata"], lost.number + 1)
        except LaunchError:
            # Two clients may submit the same attempt: Ray accepts one, and the other finds it there.
            if self.attempts()[-1].number == lost.number:
                raise

    def _after(self, ended: Attempt) -> Attempt | None:
        """Return the attempt after one whose log has ended, or None."""
        deadline = time.monotonic() + NEXT_S
        while every := self.attempts():
            newest = _with_ending(every[-1])
            if newest.number > ended.number:
                return newest
            # A log may end a moment before Ray says that its job has.
            if (newest.over and not newest.goes_on) or time.monotonic() > deadline:
                return None
            time.sleep(POLL_S)
        return None

    def _whole(self, attempt: Attempt) -> list[str]:
        answer: Mapping[str, str] | None = self.dashboard.get(f"{JOBS}{attempt.id}/logs")
        return (answer or {}).get("logs", "").splitlines()

    def _lines(self, attempt: Attempt, lines: Iterable[str], *, everything: bool) -> Iterator[LogLine]:
        return (LogLine(attempt.id if everything else "driver", line) for line in lines)

    def _tail(self, attempt: Attempt) -> Iterator[str]:
        """Yield log lines as they arrive.

        After a lost connection the log begins anew, and the lines already seen are skipped.
        """
        given, failures = 0, 0
        while True:
            seen, rest = 0, ""
            try:
                for piece in self.dashboard.follow(f"{JOBS}{attempt.id}/logs/tail"):
                    *lines, rest = (rest + piece).split("\n")
                    for line in lines:
                        seen += 1
                        # A new connection starts the log from its first line.
                        if seen > given:
                            given, failures = seen, 0
                            yield line.rstrip("\r")
            except LaunchError:
                failures += 1
                if failures > 5:
                    raise
                time.sleep(POLL_S * 2**failures)
                continue
            if rest:
                yield rest
            return

    def _no(self, what: str, remedy: str) -> LaunchError:
        return LaunchError(
            Problem(f"job/{self._name}", rule=f"a job of the Ray Jobs API cannot be {what}", remedy=remedy)
        )


def _with_ending(attempt: Attempt) -> Attempt:
    """Return the attempt with its driver's record, if the run's folder can be read from here."""
    folder = (attempt.details.get("metadata") or {}).get(FOLDER)
    if folder is None or not attempt.over:
        return attempt
    found = ending.read(folder)
    # A study's folder may hold the record of an earlier job's attempt of the same number.
    own = found and found.attempt == attempt.number and found.finished_at >= (attempt.started_at or 0.0)
    return replace(attempt, ending=found if own else None)


def _list(dashboard: Dashboard) -> list[dict[str, Any]]:
    known = dashboard.get(JOBS)
    if not isinstance(known, list):
        rule = "what answers there has no Jobs API"
        raise LaunchError(
            Problem(
                "target.address",
                rule=rule,
                got=dashboard.address,
                remedy="name the dashboard of a Ray cluster",
            )
        )
    return known


def _request(
    plan: TrainPlan | TunePlan | PredictPlan, target: Job, package: str, options: tuple[str, ...]
) -> dict[str, Any]:
    """Return the request to Ray, without its name and metadata."""
    # The trials of a study run in actors of their own, also where a run would be the driver itself.
    inline = not isinstance(plan, TunePlan) and plan.workers.inline
    amounts = {
        "entrypoint_num_cpus": target.cpus,
        "entrypoint_num_gpus": plan.config.resources.gpus_per_worker if inline else 0,
        "entrypoint_memory": int(target.memory_gib * 2**30) if target.memory_gib is not None else 0,
        "entrypoint_resources": target.custom,
    }
    environment: dict[str, Any] = {
        "working_dir": package,
        "env_vars": {JOB_STOP_WAIT: STOP_S, **target.env},
    }
    if target.packages:
        environment["pip"] = list(target.packages)
    return {
        "entrypoint": shlex.join(["python", "-m", module_of(plan), CONFIG, *options]),
        "runtime_env": environment,
        **{key: amount for key, amount in amounts.items() if amount},
    }


def _post(dashboard: Dashboard, request: Mapping[str, Any], metadata: Mapping[str, str], number: int) -> None:
    # Ray tells a job's entrypoint and environment again, but not what it was asked to set aside for it.
    amounts = {key: value for key, value in request.items() if key.startswith("entrypoint_")}
    told = {**metadata, ATTEMPT: str(number), REQUEST: json.dumps(amounts)}
    known = {"submission_id": attempt_id(metadata[RUN], number), "metadata": told}
    dashboard.post(JOBS, {**request, **known})


def _upload(dashboard: Dashboard, made: Bundle) -> str:
    """Upload the bundle, which the cluster keeps until the job is over; return its name there."""
    name = f"_ray_pkg_{made.digest[:32]}.zip"
    if not dashboard.has(f"/api/packages/gcs/{name}"):
        dashboard.put(f"/api/packages/gcs/{name}", made.zip())
    return f"gcs://{name}"


def _package_path(attempt: Attempt) -> str:
    protocol, _, name = str(attempt.details["runtime_env"]["working_dir"]).partition("://")
    return f"/api/packages/{protocol}/{name}"


def _warn_of_storage(storage: str, address: str) -> None:
    if "://" in storage or _is_here(urlsplit(address).hostname or ""):
        return
    logger.warning(
        "experiment.storage=%s is a folder: on the cluster at %s it has to be one that all nodes share, or"
        " give an s3:// URL",
        shlex.quote(storage),
        address,
    )


def _is_here(host: str) -> bool:
    """Return whether the address is this machine, judging by its name; a forwarded port looks like it too."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", socket.gethostname(), socket.getfqdn())
