"""What the applications of a RayService say."""

from collections.abc import Iterator

from raystack.launch.kuberay.causes.pod import first_line, told
from raystack.launch.kuberay.kinds import Object
from raystack.launch.kuberay.observed import Observed, at, condition
from raystack.launch.status import Diagnosis

BROKEN = ("DEPLOY_FAILED", "UNHEALTHY")


def applications(observed: Observed, now: float) -> Diagnosis | None:
    """Why a service does not answer."""
    if observed.kind != "rayservice":
        return None
    ready = condition(observed.thing, "Ready")
    if ready.get("reason") == "InitializingTimeout":
        remedy = f"see `raystack logs --all {observed.reference}`, then cancel it and submit it again"
        return Diagnosis("it did not answer within the time it had to start, and will not go on", remedy, told(observed.events))
    for cluster in ("pendingServiceStatus", "activeServiceStatus"):
        for name, app in apps(observed, cluster):
            if app.get("status") in BROKEN:
                return _broken(observed, name, app)
    return None


def apps(observed: Observed, cluster: str) -> Iterator[tuple[str, Object]]:
    """Applications of the cluster that answers, `activeServiceStatus`, or of the next one, `pendingServiceStatus`."""
    yield from (at(observed.status, cluster, "applicationStatuses") or {}).items()


def _broken(observed: Observed, name: str, app: Object) -> Diagnosis:
    deployments = (app.get("serveDeploymentStatuses") or {}).items()
    ill = [f"{deployment}: {first_line(entry.get('message'))}" for deployment, entry in deployments if entry.get("status") == "UNHEALTHY"]
    why = last_line(app.get("message")) or (ill[0] if ill else "it does not say why")
    verb = "cannot be deployed" if app.get("status") == "DEPLOY_FAILED" else "is unhealthy"
    return Diagnosis(f"application {name} {verb}: {why}", f"read its log: raystack logs --all {observed.reference}", tuple(ill))


def last_line(text: str | None) -> str:
    """Serve's messages are tracebacks, and the error is their last line."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0]]
    return (errors or lines or [""])[-1]
