"""Submission of manifests.

In: rendered manifests. Out: the name of the accepted main object, which owns all others.

The server dry-runs all manifests before the first is applied, so that nothing is left half applied. Then the
operator gets a moment to reject the object, which it reports only in events.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from raystack.errors import LaunchError, Problem
from raystack.kuberay.actions.changes import Change, changes
from raystack.kuberay.actions.scale import with_scaled
from raystack.kuberay.api.client import Client, ConflictError, ForbiddenError
from raystack.kuberay.api.kinds import RESOURCES, Object
from raystack.kuberay.api.owners import marked, refused
from raystack.plan.kuberay.facts import RAY_KINDS

MOMENT_S = 3.0
"""Time that the operator has to reject an object."""
_LASTING = ("Namespace", "PersistentVolumeClaim")
"""Kinds that a job never owns, because their content outlives it."""
IDENTITIES = frozenset({"eks.amazonaws.com/role-arn", "iam.gke.io/gcp-service-account"})
"""Annotations of ServiceAccounts that a cloud trusts by name, for all runs."""
Heard = TypeVar("Heard")
_AGAIN = 5
"""Attempts to apply: the operator writes the status of starting objects every other second."""


def submit(
    client: Client, manifests: Sequence[Object], *, force: bool = False, wait_s: float = MOMENT_S
) -> str:
    """Apply all manifests and return the name of the main object.

    Fields that the operator merely wrote back are taken over; with `force`, those of other managers, too. New
    objects that are rejected are deleted again. Raises LaunchError with every problem if the cluster or the
    operator rejects them.
    """
    main = main_of(manifests)
    helpers = [each for each in manifests if each is not main]
    tried = _refuse_invalid(client, [*helpers, main], force=force)
    new = [each for each in helpers if _is_new(client, each)]
    began = _is_new(client, main)
    known = frozenset[str]() if began else frozenset(_objections(_of(client, main), main))
    try:
        for helper in helpers:
            _apply(client, helper, force=force)
        made = _apply(client, marked(main, tried[-1]), force=force)
    except LaunchError:
        for helper in new:
            if helper["kind"] not in _LASTING:
                with suppress(LaunchError):  # the first error is the one to tell
                    _of(client, helper).delete(helper["kind"], helper["metadata"]["name"])
        raise
    for helper in helpers:
        if _may_be_owned(helper, made):
            _apply(client, owned(helper, made), force=force)
    _listen(_of(client, main), made, known, wait_s=wait_s, delete=began)
    return str(made["metadata"]["name"])


def preview(client: Client, manifests: Sequence[Object], *, force: bool = False) -> dict[str, list[Change]]:
    """Return what `submit` would change and what would be rejected, by `kind/name`.

    Uses dry runs only: nothing is written.
    """
    found: dict[str, list[Change]] = {}
    main = main_of(manifests)
    owner = _live(client, main)
    for each in manifests:
        live = _live(client, each)
        sent = _asked(live, each)
        if owner is not None and each is not main and _may_be_owned(each, owner):
            sent = owned(sent, owner)
        contested: Mapping[str, str] = {}
        try:
            after = _taking_over(client, live, sent, force=force, dry_run=True)
        except ConflictError as error:
            contested = {field.path: f"it {field.why}" for field in error.contested}
            after = client.apply(sent, dry_run=True, force=True)
        found[f"{each['kind'].lower()}/{each['metadata']['name']}"] = changes(live, after, contested)
    return found


def main_of(manifests: Sequence[Object]) -> Object:
    """Return the object that the others belong to: KubeRay's, or else the CronJob."""
    for kinds in (RAY_KINDS, ("CronJob",)):
        found = [each for each in manifests if each["kind"] in kinds]
        if len(found) == 1:
            return found[0]
    got = ", ".join(each["kind"] for each in manifests) or "nothing"
    raise LaunchError(
        Problem("manifests", rule=f"one of them should be a {', '.join(RAY_KINDS)} or CronJob", got=got)
    )


def owned(helper: Object, owner: Object) -> Object:
    """Return the object with an owner reference, so that it is deleted with its owner."""
    metadata = owner["metadata"]
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {**helper, "metadata": {**helper["metadata"], "ownerReferences": [reference]}}


def with_autoscaled(live: Object, config: Object) -> Object:
    """Return the RayCluster with the numbers that the autoscaler has set in the live one."""
    if config["kind"] != "RayCluster" or not config["spec"].get("enableInTreeAutoscaling"):
        return config
    now = {group["groupName"]: group for group in live["spec"].get("workerGroupSpecs") or []}
    sent = copy.deepcopy(config)
    for group in sent["spec"].get("workerGroupSpecs") or []:
        if (same := now.get(group["groupName"])) is not None:
            for key in ("replicas", "scaleStrategy"):
                # The worker groups are one value to server-side apply: a number that is not sent is set to
                # its default, which ends workers.
                group.pop(key, None)
                if key in same:
                    group[key] = same[key]
    # The server rejects the apply if the autoscaler has changed the numbers since they were read.
    sent["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    return sent


def _asked(live: Object | None, manifest: Object) -> Object:
    return manifest if live is None else with_autoscaled(live, with_scaled(live, manifest))


def _refuse_invalid(client: Client, manifests: Sequence[Object], *, force: bool) -> list[Object]:
    """Dry-run all manifests and return the results. Raises LaunchError with every problem."""
    problems: list[Problem] = []
    tried: list[Object] = []
    for each in manifests:
        try:
            tried.append(_apply(client, each, force=force, dry_run=True))
        except LaunchError as error:
            problems += error.problems
    if problems:
        raise LaunchError(problems)
    return tried


def _apply(client: Client, manifest: Object, *, force: bool, dry_run: bool = False) -> Object:
    """Apply, and retry if the operator or the autoscaler changed the object meanwhile."""
    for last in (attempt == _AGAIN for attempt in range(1, _AGAIN + 1)):
        live = _live(client, manifest)
        try:
            return _taking_over(client, live, _asked(live, manifest), force=force, dry_run=dry_run)
        except LaunchError:
            if last or live is None or _live(client, manifest) == live:
                raise
    raise AssertionError("the last try returns or raises")


def _taking_over(client: Client, live: Object | None, sent: Object, *, force: bool, dry_run: bool) -> Object:
    """Apply, with the fields that may be taken over. Raises ConflictError for all others."""
    try:
        return client.apply(sent, dry_run=dry_run, force=force)
    except ConflictError as error:
        if live is None:
            raise
        if others := refused(live, error.contested):
            raise ConflictError(error.where, others) from None
    # The decision was made on the live object, so the server rejects it if that has changed since.
    version = live["metadata"]["resourceVersion"]
    return client.apply(
        {**sent, "metadata": {**sent["metadata"], "resourceVersion": version}}, dry_run=dry_run, force=True
    )


def _of(client: Client, manifest: Object) -> Client:
    """Return the client for the manifest's namespace."""
    namespace = manifest["metadata"].get("namespace", client.namespace)
    return client if namespace == client.namespace else client.within(namespace)


def _live(client: Client, manifest: Object) -> Object | None:
    """Return the live object, or None if there is none or it cannot be read."""
    return _readable(client, manifest)[0]


def _is_new(client: Client, manifest: Object) -> bool:
    """Return whether the object does not exist yet; an unreadable one may exist."""
    return _readable(client, manifest) == (None, True)


def _readable(client: Client, manifest: Object) -> tuple[Object | None, bool]:
    """Return the live object, and whether it can be read."""
    kind = manifest["kind"]
    try:
        return (
            _of(client, manifest).get(kind, manifest["metadata"]["name"]) if kind in RESOURCES else None
        ), True
    except ForbiddenError as error:
        client.left_out([str(error)])
        return None, False


def _may_be_owned(helper: Object, owner: Object) -> bool:
    """Return whether a helper can be deleted with its owner."""
    known = RESOURCES.get(helper["kind"])
    namespace = owner["metadata"].get("namespace")
    within = (
        known is not None and known.namespaced and helper["metadata"].get("namespace", namespace) == namespace
    )
    # A ServiceAccount with a cloud identity is shared by all runs.
    shared = helper["kind"] == "ServiceAccount" and bool(
        IDENTITIES & helper["metadata"].get("annotations", {}).keys()
    )
    return within and helper["kind"] not in _LASTING and not shared


def _listen(client: Client, made: Object, known: frozenset[str], *, wait_s: float, delete: bool) -> None:
    """Wait until the operator has processed the object, or `wait_s`.

    Raises LaunchError if it reports for the first time that the object is invalid.
    """
    if made["kind"] not in RAY_KINDS:
        return
    deadline = time.monotonic() + wait_s
    unseen: Object | None = made
    while True:
        said = [message for key, message in _objections(client, made).items() if key not in known]
        current = _heard(client, lambda: client.get(made["kind"], made["metadata"]["name"]), unseen)
        status = (current or {}).get("status") or {}
        if status.get("jobDeploymentStatus") == "ValidationFailed":
            said = said or [status.get("message") or "the operator finds it invalid"]
        if said:
            raise _refuted(client, made, said[-1].splitlines()[0], delete=delete)
        if (
            current is None
            or _taken_up(status, made["metadata"]["generation"])
            or time.monotonic() >= deadline
        ):
            return
        time.sleep(min(0.25, wait_s))


def _objections(client: Client, thing: Object) -> dict[str, str]:
    """Return the operator's validation errors for an object, by event and version."""
    kind, name, uid = thing["kind"], thing["metadata"]["name"], thing["metadata"].get("uid")
    nothing: list[Object] = []
    return {
        f"{event['metadata']['uid']} {event['metadata']['resourceVersion']}": str(
            event.get("message") or "it is invalid"
        )
        for event in _heard(client, lambda: client.events(kind, name), nothing)
        if str(event.get("reason", "")).startswith("Invalid")
        and uid in (None, (event.get("involvedObject") or {}).get("uid", uid))
    }


def _heard(client: Client, ask: Callable[[], Heard], otherwise: Heard) -> Heard:
    """Return the answer, or `otherwise` if it cannot be read."""
    try:
        return ask()
    except LaunchError as error:
        client.left_out([str(error)])
        # The object is already accepted, so a failed read must not fail the submission.
        return otherwise


def _refuted(client: Client, made: Object, rule: str, *, delete: bool) -> LaunchError:
    """Return the error for an object that the operator rejects, after deleting it if it is new."""
    where, remedy = f"{made['kind'].lower()}/{made['metadata']['name']}", "apply what was there before"
    if delete:
        try:
            client.delete(made["kind"], made["metadata"]["name"])
            remedy = "it was deleted again"
        except LaunchError as error:
            remedy = f"it is still there, as it cannot be deleted: {error.problems[0].rule}"
    return LaunchError(Problem(where, rule=rule, remedy=remedy))


def _taken_up(status: Mapping[str, Any], generation: int) -> bool:
    """Return whether the operator has started to process the object."""
    if status.get("observedGeneration", generation) < generation:
        return False
    return any(
        # The operator writes no status of an invalid object, except a RayJob's ValidationFailed.
        status.get(field)
        for field in ("jobDeploymentStatus", "state", "conditions", "lastScheduleTime")
    )
