"""Scaling of a cluster's worker groups.

In: a RayCluster and a number. Out: the operations of a JSON patch.

The list of worker groups is one value to server-side apply, so an apply would own all of it. A patch of
single numbers, tested against the group's name, leaves the rest to its owners.
"""

from raystack.errors import LaunchError, Problem
from raystack.kuberay.api.client import Client
from raystack.kuberay.api.kinds import Object

MANAGER = "raystack-scale"


def scale(client: Client, cluster: str, workers: int, group: str | None = None) -> Object:
    """Set the number of worker pods in a group of a RayCluster, by default its only one.

    Raises LaunchError if the number cannot be set.
    """
    found = client.get("RayCluster", cluster)
    if found is None:
        raise LaunchError(Problem(f"raycluster/{cluster}", rule="there is no such cluster"))
    return client.patch("RayCluster", cluster, operations(found, workers, group), manager=MANAGER)


def operations(cluster: Object, workers: int, group: str | None = None) -> list[Object]:
    """Return the JSON patch."""
    where = f"raycluster/{cluster['metadata']['name']}"
    if cluster["spec"].get("enableInTreeAutoscaling"):
        remedy = "change minReplicas and maxReplicas: target.autoscaling.max_workers, or resources.workers"
        raise LaunchError(
            Problem(
                where, rule="the autoscaler sets the number of its workers", got=str(workers), remedy=remedy
            )
        )
    groups = cluster["spec"].get("workerGroupSpecs") or []
    names = [each["groupName"] for each in groups]
    if not names:
        raise LaunchError(Problem(where, rule="it has no group of workers"))
    if group is None and len(names) > 1:
        raise LaunchError(
            Problem(
                where, rule="it has several groups of workers", got=", ".join(names), remedy="say which one"
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
