"""Ends and retries of a RayJob: the driver's last error, or one of KubeRay's deadlines."""

import re

from raystack.errors import BudgetError, PausedError
from raystack.kuberay.observe.causes.evidence import first_line, told
from raystack.kuberay.observe.causes.pod import memory_of, out_of_memory, pods
from raystack.kuberay.observe.snapshot import SUBMITTER, Snapshot, at, driver_pod
from raystack.status import Diagnosis


def ending(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Return why a RayJob failed or was retried."""
    if snapshot.kind != "rayjob" or not ended(snapshot):
        return None
    if exit_code(snapshot) == BudgetError.exit_code:
        return Diagnosis(
            "its budget is used up: it stopped with a checkpoint",
            "raise the budget, and submit it with --resume: it goes on from there",
            _last(snapshot),
        )
    if paused(snapshot):
        return Diagnosis(
            "it stopped on request, with a checkpoint",
            "submit it with --resume: it goes on from there",
            _last(snapshot),
        )
    told_by_operator = _REASONS.get(snapshot.status.get("reason", ""), _application)
    return told_by_operator(snapshot, now)


def ended(snapshot: Snapshot) -> bool:
    """Return whether an attempt ended without success."""
    if snapshot.status.get("jobStatus") in ("SUCCEEDED", "STOPPED"):
        return False
    return snapshot.status.get("jobDeploymentStatus") in ("Failed", "Complete", "Retrying")


def paused(snapshot: Snapshot) -> bool:
    """Return whether the driver stopped with a checkpoint, on request or at the end of its budget."""
    return exit_code(snapshot) in (PausedError.exit_code, BudgetError.exit_code)


def exit_code(snapshot: Snapshot) -> int | None:
    """Return the driver's exit code from Ray's message or its container, or None if neither has it."""
    if (told := re.search(r"exit code (\d+)", _message(snapshot).split("\n", 1)[0])) is not None:
        return int(told[1])
    for entry in at(driver_pod(snapshot.pods), "status", "containerStatuses") or ():
        code = at(entry, "state", "terminated", "exitCode")
        if entry.get("name") == SUBMITTER and code is not None:
            return int(code)
    return None


def driver_said(snapshot: Snapshot) -> str | None:
    """Return the driver's last line `error: ...`, or the last exception of other code."""
    lines = [
        re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
        for line in (*_message(snapshot).splitlines(), *snapshot.driver)
    ]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
    return next(reversed(errors or raised), None)


def _application(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Return the cause if the driver ended with an error."""
    logs = f"read its log: raystack logs {snapshot.reference}"
    said = driver_said(snapshot)
    for which in ("head", "worker"):
        pod = out_of_memory(snapshot, which)
        if pod is not None and (
            said is None or which == "head" or re.search(r"lost|died|killed|memory", said, re.I)
        ):
            return Diagnosis(*memory_of(pod), _last(snapshot))
    if said is not None:
        return Diagnosis(said, logs, _last(snapshot))
    message = first_line(_message(snapshot))
    if not message:
        message = f"it ended as {snapshot.status.get('jobStatus') or 'unknown'}, and nobody says why"
    return Diagnosis(message, logs, told(snapshot.events))


def _deadline(snapshot: Snapshot, now: float) -> Diagnosis:
    limit = snapshot.spec.get("activeDeadlineSeconds")
    remedy = (
        "raise target.submission.deadline_s, and submit it with --resume: it goes on from its last checkpoint"
    )
    return Diagnosis(f"it took longer than its deadline of {limit} s", remedy)


def _start_deadline(snapshot: Snapshot, now: float) -> Diagnosis:
    limit = snapshot.spec.get("preRunningDeadlineSeconds")
    under = pods(snapshot, now)
    text = f"it did not run within {limit} s"
    if under is None:
        return Diagnosis(
            text,
            "raise target.submission.start_deadline_s, or see why its pods took so long",
            told(snapshot.events),
        )
    return Diagnosis(f"{text}: {under.cause}", under.remedy, under.evidence)


def _submission(snapshot: Snapshot, now: float) -> Diagnosis:
    under = pods(snapshot, now)
    if under is not None:
        return under
    why = driver_said(snapshot) or first_line(_message(snapshot)) or "the submitter failed"
    remedy = (
        "see that its token and the dashboard are right (target.security), or change target.submission.mode"
    )
    return Diagnosis(f"it could not be submitted: {why}", remedy, _last(snapshot))


def _unreachable(snapshot: Snapshot, now: float) -> Diagnosis:
    head = out_of_memory(snapshot, "head")
    if head is not None:
        return Diagnosis(*memory_of(head), told(snapshot.events))
    remedy = (
        "let the operator reach the head: target.security.operator_namespace, target.security.network_policy;"
        " or raise target.head.memory"
    )
    return Diagnosis(
        "the operator could not reach the dashboard of its cluster for too long",
        remedy,
        told(snapshot.events),
    )


def _transition(snapshot: Snapshot, now: float) -> Diagnosis:
    text = "its driver ended and its submitter did not"
    return Diagnosis(
        text,
        "set target.submission.mode to HTTPMode or SidecarMode, and submit it again",
        told(snapshot.events),
    )


_REASONS = {
    "DeadlineExceeded": _deadline,
    "PreRunningDeadlineExceeded": _start_deadline,
    "SubmissionFailed": _submission,
    "JobStatusCheckTimeoutExceeded": _unreachable,
    "JobDeploymentStatusTransitionGracePeriodExceeded": _transition,
}


def _message(snapshot: Snapshot) -> str:
    return snapshot.status.get("message") or ""


def _last(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the last lines of the driver's log."""
    lines = snapshot.driver or tuple(_message(snapshot).splitlines())
    return tuple(line for line in lines if line.strip())[-5:]
