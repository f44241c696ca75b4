"""Scaling of worker groups, and of the replicas that run on them.

In: a RayCluster or RayService and a number. Out: the operations of a JSON patch.

The list of worker groups is one value to server-side apply, so an apply would own all of it. A patch of
single numbers, tested against the group's name, leaves the rest to its owners.

A service has its numbers twice: in the RayService, for its next cluster, and in the RayCluster that runs. The
operator does not carry a number over, so both are changed. An annotation has the numbers from before, so that
an update of the service keeps what was scaled until its config says another number. Of several models one is
named, and the workers that come or go are its own.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from raystack.errors import LaunchError, Problem, nearest
from raystack.kuberay.api.client import Client
from raystack.kuberay.api.kinds import Object
from raystack.kuberay.api.owners import APPLIED, SCALER, as_applied, digest
from raystack.plan.serving import SERVER

Numbers = dict[str, Any]
"""`workers`, and `replicas` by application."""
SCALED = "raystack/scaled"
"""Annotation of a RayService with its numbers before and after."""


def scale(client: Client, cluster: str, workers: int, group: str | None = None) -> Object:
    """Set the number of worker pods in a group of a RayCluster, by default its only one.

    Raises LaunchError if the number cannot be set.
    """
    found = client.get("RayCluster", cluster)
    if found is None:
        raise LaunchError(Problem(f"raycluster/{cluster}", rule="there is no such cluster"))
    return client.patch("RayCluster", cluster, operations(found, workers, group), manager=SCALER)


def scale_service(
    client: Client, service: Object, workers: int, group: str | None = None, model: str | None = None
) -> None:
    """Set the number of worker pods in a group of a RayService, and of the replicas on them.

    The replicas change in proportion to all workers; those of `model`, one of several, by the workers that
    come or go.

    Raises LaunchError if the numbers cannot be set.
    """
    name = service["metadata"]["name"]
    client.patch("RayService", name, service_operations(service, workers, group, model), manager=SCALER)
    status = service.get("status") or {}
    parts = (status.get(part) or {} for part in ("activeServiceStatus", "pendingServiceStatus"))
    for cluster in filter(None, (part.get("rayClusterName") for part in parts)):
        if (found := client.get("RayCluster", cluster)) is not None:
            client.patch("RayCluster", cluster, operations(found, workers, group), manager=SCALER)


def service_operations(
    service: Object, workers: int, group: str | None = None, model: str | None = None
) -> list[Object]:
    """Return the JSON patch of a RayService."""
    where = f"rayservice/{service['metadata']['name']}"
    spec, inside = service["spec"], "/spec/rayClusterConfig"
    moved = [
        {**each, "path": each["path"].replace("/spec", inside, 1)}
        for each in _operations(where, spec["rayClusterConfig"], workers, group)
    ]
    groups = copy.deepcopy(spec["rayClusterConfig"]["workerGroupSpecs"])
    for each in moved:
        *_, index, key = each["path"].split("/")
        if each["op"] == "add":
            groups[int(index)][key] = each["value"]
    before, total = _numbers(service), _pods(groups)
    if total < 1:
        remedy = f"raystack suspend {where} gives all its pods back"
        raise LaunchError(Problem(where, rule="a service needs a worker", got=str(workers), remedy=remedy))
    now: Numbers = {"workers": total, "replicas": _scaled(spec["serveConfigV2"], where, before, total, model)}
    config = _with_replicas(spec["serveConfigV2"], now["replicas"])
    said = _noted(service)
    was = said["was"] if said is not None and said["now"] == before else before
    noted = {SCALED: json.dumps({"was": was, "now": now}), APPLIED: digest(groups)}
    annotations = service["metadata"].get("annotations")
    marks = [
        {"op": "add", "path": f"/metadata/annotations/{key.replace('/', '~1')}", "value": value}
        for key, value in noted.items()
        # A digest that does not fit any more tells of somebody's edit.
        if key != APPLIED or as_applied(service)
    ]
    whole = [{"op": "add", "path": "/metadata/annotations", "value": {}}] if annotations is None else []
    text = "/spec/serveConfigV2"
    return [
        *moved,
        {"op": "test", "path": text, "value": spec["serveConfigV2"]},
        {"op": "replace", "path": text, "value": config},
        *whole,
        *marks,
    ]


def with_scaled(live: Object, manifest: Object) -> Object:
    """Return the RayService with the numbers that were scaled, if it has the numbers from before.

    A config with other numbers is a decision of its own, and so is a number that was set since.
    """
    said = _noted(live) if manifest["kind"] == "RayService" else None
    if said is None or _numbers(manifest) != said["was"] or _numbers(live) != said["now"]:
        return manifest
    sent = copy.deepcopy(manifest)
    spec = sent["spec"]
    there = {group["groupName"]: group for group in live["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    for group in spec["rayClusterConfig"]["workerGroupSpecs"]:
        same = there.get(group["groupName"], {})
        group.update({key: same[key] for key in ("replicas", "minReplicas", "maxReplicas") if key in same})
    spec["serveConfigV2"] = _with_replicas(spec["serveConfigV2"], said["now"]["replicas"])
    return sent


def _noted(service: Object) -> dict[str, Numbers] | None:
    """Return the numbers before and after the last scaling, or None if it was not scaled."""
    noted = (service["metadata"].get("annotations") or {}).get(SCALED)
    try:
        said = json.loads(noted or "")
        return {"was": dict(said["was"]), "now": dict(said["now"])}
    except (ValueError, KeyError, TypeError):
        return None


def _numbers(service: Object) -> Numbers:
    """Return the numbers of workers, and of the replicas of each application that has a number."""
    workers = _pods(service["spec"]["rayClusterConfig"].get("workerGroupSpecs") or [])
    return {"workers": workers, "replicas": _replicas(service["spec"]["serveConfigV2"])}


def _pods(groups: list[Object]) -> int:
    return sum((group.get("replicas") or 0) * (group.get("numOfHosts") or 1) for group in groups)


def _with_replicas(text: str, replicas: Mapping[str, int]) -> str:
    """Return the config of Serve with other numbers of replicas."""
    config = yaml.safe_load(text)
    for application, deployment in _deployments(config):
        if (number := replicas.get(application.get("name"))) is not None:
            deployment["num_replicas"] = number
    return yaml.safe_dump(config, sort_keys=False, width=1000)


def _replicas(text: str) -> dict[str, int]:
    """Return the replicas by application, of those whose number Serve does not set itself."""
    return {
        application.get("name", ""): deployment["num_replicas"]
        for application, deployment in _deployments(yaml.safe_load(text))
        if isinstance(deployment.get("num_replicas"), int)
    }


def _deployments(config: Any) -> Iterator[tuple[Any, Any]]:
    """Yield application and deployment of what has replicas on workers.

    What only answers for a server of several models has one for all, and no core.
    """
    for application in (config or {}).get("applications") or ():
        for deployment in application.get("deployments") or ():
            if not (application.get("name") == SERVER and _share(application) == 0):
                yield application, deployment


def _share(application: Any) -> int:
    """Return the number of replicas on a worker; 0 for those that need nothing of it."""
    needs = application.get("args") or {}
    cpus, gpus = needs.get("cpus_per_replica", 1), needs.get("gpus_per_replica", 0)
    if not cpus and not gpus:
        return 0
    return int(1 / gpus + 1e-9) if 0 < gpus < 1 else 1


def _scaled(text: str, where: str, before: Numbers, workers: int, model: str | None) -> dict[str, int]:
    """Return the replicas by application on so many workers.

    Raises LaunchError if there are several models and none is named, or if Serve sets the number.
    """
    config = yaml.safe_load(text)
    found = {each.get("name", ""): (each, deployment) for each, deployment in _deployments(config)}
    if model is None and len(found) != 1:
        rule = f"it has {len(found) or 'no'} models, and the workers are of one"
        remedy = f"say which one: --model {' or '.join(found)}"
        raise LaunchError(Problem(where, rule=rule, remedy=remedy if found else None))
    name = next(iter(found)) if model is None else model
    if name not in found:
        close = nearest(name, [*found])
        remedy = f"did you mean {close}?" if close else f"it has {', '.join(found)}"
        raise LaunchError(Problem(where, rule="it has no such model", got=name, remedy=remedy))
    application, deployment = found[name]
    if deployment.get("autoscaling_config") is not None or name not in before["replicas"]:
        rule = f"Serve sets the number of the replicas of {name} by their load"
        bounds = "change serving.autoscaling, and run raystack serve again"
        raise LaunchError(Problem(where, rule=rule, remedy=bounds))
    own = before["replicas"][name]
    if len(found) == 1:
        number = -(-own * workers // max(before["workers"], 1))
    else:
        number = own + (workers - before["workers"]) * _share(application)
    if number < 1:
        rule = f"{name} has {own} replicas, and would have none"
        least = before["workers"] - (own - 1) // max(_share(application), 1)
        raise LaunchError(
            Problem(where, rule=rule, got=str(workers), remedy=f"leave at least {least} workers")
        )
    return {**before["replicas"], name: number}


def operations(cluster: Object, workers: int, group: str | None = None) -> list[Object]:
    """Return the JSON patch of a RayCluster."""
    return _operations(f"raycluster/{cluster['metadata']['name']}", cluster["spec"], workers, group)


def _operations(where: str, spec: Object, workers: int, group: str | None) -> list[Object]:
    if spec.get("enableInTreeAutoscaling"):
        remedy = "change minReplicas and maxReplicas: target.autoscaling.max_workers, or resources.workers"
        raise LaunchError(
            Problem(
                where, rule="the autoscaler sets the number of its workers", got=str(workers), remedy=remedy
            )
        )
    groups = spec.get("workerGroupSpecs") or []
    names = [each["groupName"] for each in groups]
    if not names:
        raise LaunchError(Problem(where, rule="it has no group of workers"))
    if group is None and len(names) > 1:
        raise LaunchError(
            Problem(
                where,
                rule="it has several groups of workers",
                got=", ".join(names),
                remedy="say which one: --group NAME",
            )
        )
    if group is not None and group not in names:
        raise LaunchError(
            Problem(
                where, rule="it has no such group of workers", got=group, remedy=f"it has {', '.join(names)}"
            )
        )
    index = 0 if group is None else names.index(group)
    hosts = groups[index].get("numOfHosts") or 1
    replicas, rest = divmod(workers, hosts)
    if rest:
        rule = f"workers come in groups of {hosts} hosts"
        raise LaunchError(Problem(where, rule=rule, got=str(workers), remedy=f"ask for {replicas * hosts}"))
    path, now = f"/spec/workerGroupSpecs/{index}", groups[index]
    # The operator silently clamps replicas to the bounds, so the bounds move along if needed.
    numbers = {
        "replicas": replicas,
        "minReplicas": min(replicas, now.get("minReplicas", 0)),
        "maxReplicas": max(replicas, now.get("maxReplicas", replicas)),
    }
    changed = [
        {"op": "add", "path": f"{path}/{key}", "value": value}
        for key, value in numbers.items()
        if now.get(key) != value
    ]
    return [{"op": "test", "path": f"{path}/groupName", "value": names[index]}, *changed]
