"""Health of KubeRay's objects, as Argo CD (Lua) and Flux (CEL) ask for it.

A RayJob is healthy as soon as it runs, so that no later commit waits for hours; as a hook when it has
succeeded. A job that was stopped has not succeeded: KubeRay's `Complete` is not enough. A RayService that
answers is healthy when it does so with the version that it was given. What stands in a status of an older
generation says nothing.
"""

from typing import Any

_COMMON = """\
local status = obj.status or {}
local function holds(name)
  for _, each in ipairs(status.conditions or {}) do
    if each.type == name then return each.status == "True", each.reason or "", each.message or "" end
  end
  return false, "", ""
end
local function health(word, message) return {status = word, message = message} end
local seen = status.observedGeneration
if obj.status == nil or (seen ~= nil and seen < (obj.metadata.generation or 0)) then
  return health("Progressing", "the operator has not seen it yet")
end
"""

_CLUSTER = """\
if holds("RayClusterSuspended") then return health("Suspended", "it is suspended") end
local failed, reason, message = holds("ReplicaFailure")
if failed then return health("Degraded", reason .. ": " .. message) end
local ready, wanted = status.readyWorkerReplicas or 0, status.desiredWorkerReplicas or 0
if holds("HeadPodReady") and ready >= wanted then return health("Healthy", ready .. " workers are ready") end
local _, why = holds("HeadPodReady")
return health("Progressing", ready .. " of " .. wanted .. " workers are ready; head: " .. why)
"""

_SERVICE = """\
if holds("Suspended") then return health("Suspended", "it is suspended") end
local answers, reason, message = holds("Ready")
if reason == "InitializingTimeout" or reason == "ValidationFailed" then
  return health("Degraded", reason .. ": " .. message)
end
for _, part in ipairs({"activeServiceStatus", "pendingServiceStatus"}) do
  for name, app in pairs((status[part] or {}).applicationStatuses or {}) do
    if app.status == "DEPLOY_FAILED" or app.status == "UNHEALTHY" then
      return health("Degraded", name .. " is " .. app.status .. ": " .. (app.message or ""))
    end
  end
end
for name, app in pairs((status.activeServiceStatus or {}).applicationStatuses or {}) do
  if app.status ~= "RUNNING" then return health("Progressing", name .. " is " .. (app.status or "new")) end
end
if holds("UpgradeInProgress") then return health("Progressing", "traffic moves to the next cluster") end
if answers then return health("Healthy", "it answers") end
return health("Progressing", reason)
"""

_JOB = """\
local deployed, job = status.jobDeploymentStatus or "", status.jobStatus or ""
local said = (status.reason or "") .. " " .. (status.message or "")
if deployed == "Suspended" then return health("Suspended", "it is suspended") end
if deployed == "Suspending" or deployed == "Retrying" then return health("Progressing", deployed) end
if job == "SUCCEEDED" then return health("Healthy", "it has succeeded") end
if deployed == "Failed" or deployed == "Complete" or deployed == "ValidationFailed" then
  return health("Degraded", deployed .. " " .. job .. " " .. said)
end
local hook = (obj.metadata.annotations or {})["argocd.argoproj.io/hook"]
if deployed == "Running" and job == "RUNNING" and hook == nil then return health("Healthy", "it runs") end
return health("Progressing", deployed .. " " .. job)
"""

_CRON = """\
if obj.spec.suspend then return {status = "Suspended", message = "it is suspended"} end
return {status = "Healthy", message = "it is scheduled"}
"""

LUA = {
    "RayCluster": _COMMON + _CLUSTER,
    "RayCronJob": _CRON,
    "RayJob": _COMMON + _JOB,
    "RayService": _COMMON + _SERVICE,
}
"""Health checks of Argo CD by kind."""


def _holds(name: str) -> str:
    return f"status.conditions.exists(c, c.type == '{name}' && c.status == 'True')"


def _reason(name: str, *reasons: str) -> str:
    listed = ", ".join(f"'{reason}'" for reason in reasons)
    return f"status.conditions.exists(c, c.type == '{name}' && c.reason in [{listed}])"


def _number(field: str) -> str:
    return f"(has(status.{field}) ? status.{field} : 0)"


_UNSEEN = "has(status.observedGeneration) && status.observedGeneration < metadata.generation"
_CONDITIONS = "has(status.conditions)"
_DEPLOYED = "has(status.jobDeploymentStatus)"
_AGAIN = f"{_DEPLOYED} && status.jobDeploymentStatus in ['Suspending', 'Suspended', 'Retrying']"
_STARTED = "has(status.jobStatus) && status.jobStatus == 'RUNNING'"
_SUCCEEDED = "(has(status.jobStatus) && status.jobStatus == 'SUCCEEDED')"
_RUNS = f"({_DEPLOYED} && status.jobDeploymentStatus == 'Running' && {_STARTED})"
_ENDED = f"({_DEPLOYED} && status.jobDeploymentStatus in ['Failed', 'Complete', 'ValidationFailed'])"


def _apps(macro: str, *states: str) -> str:
    """Return whether all or some of the applications that answer are in one of these states."""
    apps = "status.activeServiceStatus.applicationStatuses"
    there = "has(status.activeServiceStatus) && has(status.activeServiceStatus.applicationStatuses)"
    asked = f"{apps}.{macro}(a, has({apps}[a].status) && {apps}[a].status in {[*states]})"
    return f"({there} && {asked})" if macro == "exists" else f"(!({there}) || {asked})"


CEL: dict[str, dict[str, Any]] = {
    "RayCluster": {
        "inProgress": _UNSEEN,
        "failed": f"{_CONDITIONS} && {_holds('ReplicaFailure')}",
        "current": (
            f"{_CONDITIONS} && {_holds('HeadPodReady')}"
            f" && {_number('readyWorkerReplicas')} >= {_number('desiredWorkerReplicas')}"
        ),
    },
    "RayJob": {
        "inProgress": f"({_UNSEEN}) || ({_AGAIN})",
        "failed": f"{_ENDED} && !{_SUCCEEDED}",
        "current": f"{_SUCCEEDED} || {_RUNS}",
    },
    "RayService": {
        "inProgress": _UNSEEN,
        "failed": (
            f"({_CONDITIONS} && {_reason('Ready', 'InitializingTimeout', 'ValidationFailed')})"
            f" || {_apps('exists', 'DEPLOY_FAILED', 'UNHEALTHY')}"
        ),
        "current": (
            f"{_CONDITIONS} && {_holds('Ready')} && !{_holds('UpgradeInProgress')}"
            f" && {_apps('all', 'RUNNING')}"
        ),
    },
}
"""Health checks of Flux by kind; the first that holds decides."""
