"""Send manifests. In: rendered manifests. Out: the name of the main object, accepted, with all others owned by it.

All of them are tried by the server before the first is applied, so that nothing is half there; and the operator is given a moment to
say that it finds the object invalid, which it says in events alone.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from raystack.errors import LaunchError, Problem
from raystack.launch.kuberay.changes import Change, changes
from raystack.launch.kuberay.client import Client
from raystack.launch.kuberay.kinds import RAY, RESOURCES, Object

MOMENT_S = 3.0
"""How long the operator is listened to."""
_LASTING = ("Namespace", "PersistentVolumeClaim")
"""Never owned by a job: what is in them outlives it."""
IDENTITIES = frozenset({"eks.amazonaws.com/role-arn", "iam.gke.io/gcp-service-account"})
"""Annotations of a ServiceAccount that a cloud trusts by its name, whichever run it is for."""
_AGAIN = 3


def submit(client: Client, manifests: Sequence[Object], *, force: bool = False, wait_s: float = MOMENT_S) -> str:
    """Apply all; returns the name of the main object. LaunchError, with every problem, where the cluster or the operator refuses.

    `force` takes over fields that somebody else has set. What is new and was refused is deleted again.
    """
    main = main_of(manifests)
    helpers = [each for each in manifests if each is not main]
    _refuse_invalid(client, [*helpers, main], force=force)
    new = [each for each in helpers if _live(client, each) is None]
    began = _live(client, main) is None
    try:
        for helper in helpers:
            _apply(client, helper, force=force)
        made = _apply(client, main, force=force)
    except LaunchError:
        for helper in new:
            if helper["kind"] not in _LASTING:
                with suppress(LaunchError):  # the first error is the one to tell
                    _of(client, helper).delete(helper["kind"], helper["metadata"]["name"])
        raise
    for helper in helpers:
        if _may_be_owned(helper, made):
            _apply(client, owned(helper, made), force=force)
    _listen(_of(client, main), made, wait_s=wait_s, delete=began)
    return str(made["metadata"]["name"])


def preview(client: Client, manifests: Sequence[Object], *, force: bool = True) -> dict[str, list[Change]]:
    """What `submit` would change, by `kind/name`; tried by the server, and nothing is written."""
    found: dict[str, list[Change]] = {}
    for each in manifests:
        live = _live(client, each)
        after = client.apply(_asked(live, each), dry_run=True, force=force)
        found[f"{each['kind'].lower()}/{each['metadata']['name']}"] = changes(live, after)
    return found


def main_of(manifests: Sequence[Object]) -> Object:
    """The one object that the others are there for: KubeRay's, or else the CronJob."""
    for kinds in (RAY, ("CronJob",)):
        found = [each for each in manifests if each["kind"] in kinds]
        if len(found) == 1:
            return found[0]
    got = ", ".join(each["kind"] for each in manifests) or "nothing"
    raise LaunchError(Problem("manifests", rule=f"one of them should be a {', '.join(RAY)} or CronJob", got=got))


def owned(helper: Object, owner: Object) -> Object:
    """The same object, deleted with its owner."""
    metadata = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    return {**helper, "metadata": {**helper["metadata"], "ownerReferences": [reference]}}


def with_autoscaled(live: Object, asked: Object) -> Object:
    """A RayCluster as asked, with the numbers that the autoscaler has set in the live one.

    The list of worker groups is one value to server-side apply: a number that is left out of it is set to its default, which
    ends workers. So the live numbers are sent along, under the live version, which the server refuses if it has changed since.
    """
    if asked["kind"] != "RayCluster" or not asked["spec"].get("enableInTreeAutoscaling"):
        return asked
    now = {group["groupName"]: group for group in live["spec"].get("workerGroupSpecs") or []}
    sent = copy.deepcopy(asked)
    for group in sent["spec"].get("workerGroupSpecs") or []:
        if (same := now.get(group["groupName"])) is not None:
            for key in ("replicas", "scaleStrategy"):
                group.pop(key, None)
                if key in same:
                    group[key] = same[key]
    sent["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    return sent


def _asked(live: Object | None, manifest: Object) -> Object:
    return manifest if live is None else with_autoscaled(live, manifest)


def _refuse_invalid(client: Client, manifests: Sequence[Object], *, force: bool) -> None:
    """The server tries them all, and every problem is told."""
    problems: list[Problem] = []
    for each in manifests:
        live = _live(client, each)
        sent = _asked(live, each)
        try:
            client.apply(sent, dry_run=True, force=force or sent is not each)
        except LaunchError as error:
            problems += error.problems
    if problems:
        raise LaunchError(problems)


def _apply(client: Client, manifest: Object, *, force: bool) -> Object:
    """Apply once more where the autoscaler was quicker."""
    for last in (attempt == _AGAIN for attempt in range(1, _AGAIN + 1)):
        live = _live(client, manifest)
        sent = _asked(live, manifest)
        try:
            return client.apply(sent, force=force or sent is not manifest)
        except LaunchError:
            if last or sent is manifest or _live(client, manifest) == live:
                raise
    raise AssertionError("the last try returns or raises")


def _of(client: Client, manifest: Object) -> Client:
    """The client in the manifest's namespace."""
    namespace = manifest["metadata"].get("namespace", client.namespace)
    return client if namespace == client.namespace else client.within(namespace)


def _live(client: Client, manifest: Object) -> Object | None:
    kind = manifest["kind"]
    return _of(client, manifest).get(kind, manifest["metadata"]["name"]) if kind in RESOURCES else None


def _may_be_owned(helper: Object, owner: Object) -> bool:
    """Of the owner's namespace, and nothing that lasts or belongs to all: a ServiceAccount with an identity is every run's."""
    known = RESOURCES.get(helper["kind"])
    namespace = owner["metadata"].get("namespace")
    within = known is not None and known.namespaced and helper["metadata"].get("namespace", namespace) == namespace
    shared = helper["kind"] == "ServiceAccount" and bool(IDENTITIES & helper["metadata"].get("annotations", {}).keys())
    return within and helper["kind"] not in _LASTING and not shared


def _listen(client: Client, made: Object, *, wait_s: float, delete: bool) -> None:
    """Until the operator has taken the object up, or a moment. LaunchError where it says that it is invalid."""
    kind, name, uid = made["kind"], made["metadata"]["name"], made["metadata"]["uid"]
    if kind not in RAY:
        return
    deadline = time.monotonic() + wait_s
    while True:
        said = [
            event.get("message", "")
            for event in client.events(kind, name)
            if str(event.get("reason", "")).startswith("Invalid") and (event.get("involvedObject") or {}).get("uid", uid) == uid
        ]
        current = client.get(kind, name)
        status = (current or {}).get("status") or {}
        if status.get("jobDeploymentStatus") == "ValidationFailed":
            said = said or [status.get("message") or "the operator finds it invalid"]
        if said:
            if delete:
                client.delete(kind, name)
            remedy = "it was deleted again" if delete else "apply what was there before"
            raise LaunchError(Problem(f"{kind.lower()}/{name}", rule=str(said[-1]).splitlines()[0], remedy=remedy))
        if current is None or _taken_up(status) or time.monotonic() >= deadline:
            return
        time.sleep(min(0.25, wait_s))


def _taken_up(status: Mapping[str, Any]) -> bool:
    """Whether the operator has begun with it: it writes no status of what it finds invalid, but for a RayJob's ValidationFailed."""
    return any(status.get(field) for field in ("jobDeploymentStatus", "state", "conditions", "lastScheduleTime"))
