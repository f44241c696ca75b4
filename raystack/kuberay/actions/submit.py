"""Send manifests. In: rendered manifests. Out: the name of the main object, accepted, with all others owned
by it.

All of them are tried by the server before the first is applied, so that nothing is half there; and the
operator is given a moment to say that it finds the object invalid, which it says in events alone.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from raystack.errors import LaunchError, Problem
from raystack.kuberay.actions.changes import Change, changes
from raystack.kuberay.api.client import Client, ConflictError, ForbiddenError
from raystack.kuberay.api.kinds import RESOURCES, Object
from raystack.kuberay.api.owners import marked, refused
from raystack.plan.kuberay.facts import RAY_KINDS

MOMENT_S = 3.0
"""How long the operator is listened to."""
_LASTING = ("Namespace", "PersistentVolumeClaim")
"""Never owned by a job: what is in them outlives it."""
IDENTITIES = frozenset({"eks.amazonaws.com/role-arn", "iam.gke.io/gcp-service-account"})
"""Annotations of a ServiceAccount that a cloud trusts by its name, whichever run it is for."""
Heard = TypeVar("Heard")
_AGAIN = 5
"""How often it is tried: the operator writes the status of what starts every other second."""


def submit(
    client: Client, manifests: Sequence[Object], *, force: bool = False, wait_s: float = MOMENT_S
) -> str:
    """Apply all; returns the name of the main object. LaunchError, with every problem, where the cluster or
    the operator refuses.

    Fields that the operator merely wrote back are taken over; with `force`, those that somebody else has set,
    too. What is new and was refused is deleted again.
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
    """What `submit` would change and what it would refuse, by `kind/name`; tried by the server, and nothing
    is written.
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
    """The one object that the others are there for: KubeRay's, or else the CronJob."""
    for kinds in (RAY_KINDS, ("CronJob",)):
        found = [each for each in manifests if each["kind"] in kinds]
        if len(found) == 1:
            return found[0]
    got = ", ".join(each["kind"] for each in manifests) or "nothing"
    raise LaunchError(
        Problem("manifests", rule=f"one of them should be a {', '.join(RAY_KINDS)} or CronJob", got=got)
    )


def owned(helper: Object, owner: Object) -> Object:
    """The same object, deleted with its owner."""
    metadata = owner["metadata"]
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {**helper, "metadata": {**helper["metadata"], "ownerReferences": [reference]}}


def with_autoscaled(live: Object, config: Object) -> Object:
    """A RayCluster as asked, with the numbers that the autoscaler has set in the live one.

    The list of worker groups is one value to server-side apply: a number that is left out of it is set to its
    default, which ends workers. So the live numbers are sent along, under the live version, which the server
    refuses if it has changed since.
    """
    if config["kind"] != "RayCluster" or not config["spec"].get("enableInTreeAutoscaling"):
        return config
    now = {group["groupName"]: group for group in live["spec"].get("workerGroupSpecs") or []}
    sent = copy.deepcopy(config)
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


def _refuse_invalid(client: Client, manifests: Sequence[Object], *, force: bool) -> list[Object]:
    """Have the server try them all, and report every problem. Returns what they would become."""
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
    """Apply once more where the operator or the autoscaler was quicker."""
    for last in (attempt == _AGAIN for attempt in range(1, _AGAIN + 1)):
        live = _live(client, manifest)
        try:
            return _taking_over(client, live, _asked(live, manifest), force=force, dry_run=dry_run)
        except LaunchError:
            if last or live is None or _live(client, manifest) == live:
                raise
    raise AssertionError("the last try returns or raises")


def _taking_over(client: Client, live: Object | None, sent: Object, *, force: bool, dry_run: bool) -> Object:
    """Apply with the fields that may be taken over. ConflictError, of those alone that may not, where there
    are others.

    What was decided by the live object is sent under its version, which the server refuses if it has changed
    since.
    """
    try:
        return client.apply(sent, dry_run=dry_run, force=force)
    except ConflictError as error:
        if live is None:
            raise
        if others := refused(live, error.contested):
            raise ConflictError(error.where, others) from None
    version = live["metadata"]["resourceVersion"]
    return client.apply(
        {**sent, "metadata": {**sent["metadata"], "resourceVersion": version}}, dry_run=dry_run, force=True
    )


def _of(client: Client, manifest: Object) -> Client:
    """The client in the manifest's namespace."""
    namespace = manifest["metadata"].get("namespace", client.namespace)
    return client if namespace == client.namespace else client.within(namespace)


def _live(client: Client, manifest: Object) -> Object | None:
    """None where there is none, or where it may not be read: the server knows it all the same."""
    return _readable(client, manifest)[0]


def _is_new(client: Client, manifest: Object) -> bool:
    """Whether it is there only after it was applied; what may not be read may have been there before."""
    return _readable(client, manifest) == (None, True)


def _readable(client: Client, manifest: Object) -> tuple[Object | None, bool]:
    """The live object, and whether it may be read."""
    kind = manifest["kind"]
    try:
        return (
            _of(client, manifest).get(kind, manifest["metadata"]["name"]) if kind in RESOURCES else None
        ), True
    except ForbiddenError as error:
        client.left_out([str(error)])
        return None, False


def _may_be_owned(helper: Object, owner: Object) -> bool:
    """Of the owner's namespace, and nothing that lasts or belongs to all: a ServiceAccount with an identity
    is every run's.
    """
    known = RESOURCES.get(helper["kind"])
    namespace = owner["metadata"].get("namespace")
    within = (
        known is not None and known.namespaced and helper["metadata"].get("namespace", namespace) == namespace
    )
    shared = helper["kind"] == "ServiceAccount" and bool(
        IDENTITIES & helper["metadata"].get("annotations", {}).keys()
    )
    return within and helper["kind"] not in _LASTING and not shared


def _listen(client: Client, made: Object, known: frozenset[str], *, wait_s: float, delete: bool) -> None:
    """Until the operator has taken the object up, or a moment. LaunchError where it says that it is invalid,
    and had not said so before.

    The object was accepted by then: what cannot be read of it is left out.
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
    """What the operator has said against an object, by the event and its version."""
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
    """The answer, or what is supposed where there is none to be had."""
    try:
        return ask()
    except LaunchError as error:
        client.left_out([str(error)])
        return otherwise


def _refuted(client: Client, made: Object, rule: str, *, delete: bool) -> LaunchError:
    """The error for an object that the operator finds invalid; a new one is deleted first."""
    where, remedy = f"{made['kind'].lower()}/{made['metadata']['name']}", "apply what was there before"
    if delete:
        try:
            client.delete(made["kind"], made["metadata"]["name"])
            remedy = "it was deleted again"
        except LaunchError as error:
            remedy = f"it is still there, as it cannot be deleted: {error.problems[0].rule}"
    return LaunchError(Problem(where, rule=rule, remedy=remedy))


def _taken_up(status: Mapping[str, Any], generation: int) -> bool:
    """Whether the operator has begun with it: it writes no status of what it finds invalid, but for a
    RayJob's ValidationFailed.
    """
    if status.get("observedGeneration", generation) < generation:
        return False
    return any(
        status.get(field) for field in ("jobDeploymentStatus", "state", "conditions", "lastScheduleTime")
    )
