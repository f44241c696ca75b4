"""How a RayJob came to its end, or to a retry: what its driver said last, or which of KubeRay's deadlines struck."""

import re

from raystack.errors import PausedError
from raystack.kuberay.observe.causes.pod import first_line, memory_of, out_of_memory, pods, told
from raystack.kuberay.observe.snapshot import SUBMITTER, Snapshot, at, driver_pod
from raystack.status import Diagnosis


def ending(observed: Snapshot, now: float) -> Diagnosis | None:
    """Why a RayJob failed, or was started again."""
    if observed.kind != "rayjob" or not ended(observed):
        return None
    if paused(observed):
        return Diagnosis("it stopped on request, with a checkpoint", "submit it with --resume: it goes on from there", _last(observed))
    told_by_operator = _REASONS.get(observed.status.get("reason", ""), _application)
    return told_by_operator(observed, now)


def ended(observed: Snapshot) -> bool:
    """Whether an attempt ended without success."""
    if observed.status.get("jobStatus") in ("SUCCEEDED", "STOPPED"):
        return False
    return observed.status.get("jobDeploymentStatus") in ("Failed", "Complete", "Retrying")


def paused(observed: Snapshot) -> bool:
    """Whether the driver stopped on request, with a checkpoint."""
    return exit_code(observed) == PausedError.exit_code


def exit_code(observed: Snapshot) -> int | None:
    """The driver's, from Ray's message or the container that ran it; None where neither has it."""
    if (told := re.search(r"exit code (\d+)", _message(observed).split("\n", 1)[0])) is not None:
        return int(told[1])
    for entry in at(driver_pod(observed.pods), "status", "containerStatuses") or ():
        code = at(entry, "state", "terminated", "exitCode")
        if entry.get("name") == SUBMITTER and code is not None:
            return int(code)
    return None


def driver_said(observed: Snapshot) -> str | None:
    """What the driver ended with: the last line `error: ...`, or the last exception of somebody else's code."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in (*_message(observed).splitlines(), *observed.driver)]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
    return next(reversed(errors or raised), None)


def _application(observed: Snapshot, now: float) -> Diagnosis | None:
    """The driver ended with an error."""
    logs = f"read its log: raystack logs {observed.reference}"
    said = driver_said(observed)
    for which in ("head", "worker"):
        pod = out_of_memory(observed, which)
        if pod is not None and (said is None or which == "head" or re.search(r"lost|died|killed|memory", said, re.I)):
            return Diagnosis(*memory_of(pod), _last(observed))
    if said is not None:
        return Diagnosis(said, logs, _last(observed))
    message = first_line(_message(observed))
    if not message:
        message = f"it ended as {observed.status.get('jobStatus') or 'unknown'}, and nobody says why"
    return Diagnosis(message, logs, told(observed.events))


def _deadline(observed: Snapshot, now: float) -> Diagnosis:
    limit = observed.spec.get("activeDeadlineSeconds")
    remedy = "raise target.submission.deadline_s, and submit it with --resume: it goes on from its last checkpoint"
    return Diagnosis(f"it took longer than its deadline of {limit} s", remedy)


def _start_deadline(observed: Snapshot, now: float) -> Diagnosis:
    limit = observed.spec.get("preRunningDeadlineSeconds")
    under = pods(observed, now)
    text = f"it did not run within {limit} s"
    if under is None:
        return Diagnosis(text, "raise target.submission.start_deadline_s, or see why its pods took so long", told(observed.events))
    return Diagnosis(f"{text}: {under.cause}", under.remedy, under.evidence)


def _submission(observed: Snapshot, now: float) -> Diagnosis:
    under = pods(observed, now)
    if under is not None:
        return under
    why = driver_said(observed) or first_line(_message(observed)) or "the submitter failed"
    remedy = "see that its token and the dashboard are right (target.security), or change target.submission.mode"
    return Diagnosis(f"it could not be submitted: {why}", remedy, _last(observed))


def _unreachable(observed: Snapshot, now: float) -> Diagnosis:
    head = out_of_memory(observed, "head")
    if head is not None:
        return Diagnosis(*memory_of(head), told(observed.events))
    remedy = (
        "let the operator reach the head: target.security.operator_namespace, target.security.network_policy; or raise target.head.memory"
    )
    return Diagnosis("the operator could not reach the dashboard of its cluster for too long", remedy, told(observed.events))


def _transition(observed: Snapshot, now: float) -> Diagnosis:
    text = "its driver ended and its submitter did not"
    return Diagnosis(text, "set target.submission.mode to HTTPMode or SidecarMode, and submit it again", told(observed.events))


_REASONS = {
    "DeadlineExceeded": _deadline,
    "PreRunningDeadlineExceeded": _start_deadline,
    "SubmissionFailed": _submission,
    "JobStatusCheckTimeoutExceeded": _unreachable,
    "JobDeploymentStatusTransitionGracePeriodExceeded": _transition,
}


def _message(observed: Snapshot) -> str:
    return observed.status.get("message") or ""


def _last(observed: Snapshot) -> tuple[str, ...]:
    """The last lines of the driver's log."""
    lines = observed.driver or tuple(_message(observed).splitlines())
    return tuple(line for line in lines if line.strip())[-5:]
