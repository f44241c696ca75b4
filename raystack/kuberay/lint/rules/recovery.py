"""Rules on GCS fault tolerance: where Ray keeps cluster state when the head is lost."""

from collections.abc import Iterator

from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import INVALID, Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject

NAMESPACE = "ray.io/external-storage-namespace"


@rule(
    "RS310",
    on=ClusterSubject,
    says="fault tolerance is asked for once",
    why=INVALID,
    remedy="drop the annotation ray.io/ft-enabled; gcsFaultToleranceOptions says it",
    since="1.3.0",
)
def asked_once(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    annotation = cluster.inherited["ray.io/ft-enabled"]
    if annotation.text and _options(cluster).present:
        yield Breach(annotation)


@rule(
    "RS311",
    on=ClusterSubject,
    says="RAY_REDIS_ADDRESS needs fault tolerance",
    why=INVALID,
    remedy="write the address into gcsFaultToleranceOptions.redisAddress",
)
def redis_without(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    if not cluster.fault_tolerant:
        yield from map(Breach, cluster.head.env("RAY_REDIS_ADDRESS"))


@rule(
    "RS312",
    on=ClusterSubject,
    says="with gcsFaultToleranceOptions the address, password and namespace of Redis stand there alone",
    why=INVALID,
    remedy="move it into gcsFaultToleranceOptions",
    since="1.3.0",
)
def redis_elsewhere(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    if _options(cluster).present:
        places = [cluster.head.params["redis-password"], cluster.inherited[NAMESPACE]]
        yield from (Breach(place) for place in places if place.text)
        yield from map(Breach, cluster.head.env("REDIS_PASSWORD", "RAY_REDIS_ADDRESS"))


@rule(
    "RS313",
    on=ClusterSubject,
    says="options of redis and of rocksdb are not mixed",
    why=INVALID,
    remedy="drop what belongs to the other backend",
    since="1.7.0",
)
def one_backend(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    options = _options(cluster)
    redis = ("redisAddress", "redisUsername", "redisPassword", "externalStorageNamespace")
    for name in redis if _rocksdb(cluster) else ("storage",):
        if options[name].value not in (None, ""):
            yield Breach(options[name])


@rule(
    "RS314",
    on=ClusterSubject,
    says="the name of Redis's user stands in gcsFaultToleranceOptions.redisUsername",
    why=INVALID,
    remedy="move it there",
    since="1.3.0",
)
def redis_user(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    name = cluster.head.params["redis-username"]
    yield from map(Breach, [*([name] if name.text else []), *cluster.head.env("REDIS_USERNAME")])


@rule(
    "RS333",
    on=ClusterSubject,
    says="fault tolerance has somewhere to keep the state",
    why="without Redis or rocksdb Ray keeps it in memory, and it is lost with the head",
    remedy="write Redis's address into gcsFaultToleranceOptions.redisAddress",
    level="warning",
)
def kept_somewhere(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    options, head = _options(cluster), cluster.head
    # Variables of a ConfigMap or Secret may have the address.
    redis = options["redisAddress"].text or [*head.env("RAY_REDIS_ADDRESS"), *head.ray["envFrom"].items]
    if cluster.fault_tolerant and not _rocksdb(cluster) and not redis:
        yield Breach(options["redisAddress"] if options.present else cluster.inherited["ray.io/ft-enabled"])


@rule(
    "RS330",
    on=ClusterSubject,
    says="rocksdb's volume is either a claim that exists, or one that is made by size",
    why=INVALID,
    remedy="give claimName alone, or size, storageClassName and accessModes",
    since="1.7.0",
)
def one_volume(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    storage = _options(cluster)["storage"]
    made = any(storage[name].value not in (None, []) for name in ("size", "storageClassName", "accessModes"))
    if _rocksdb(cluster) and storage["claimName"].text and made:
        yield Breach(storage["claimName"])


@rule(
    "RS331",
    on=ClusterSubject,
    says="with rocksdb the operator sets RAY_gcs_storage, its path, and the volume gcs-storage at /data/gcs",
    why=INVALID,
    remedy="drop it, or rename the volume",
    since="1.7.0",
)
def room_for_rocksdb(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    if _rocksdb(cluster):
        yield from map(Breach, cluster.head.env("RAY_gcs_storage", "RAY_gcs_storage_path"))
        for mount in cluster.head.ray["volumeMounts"].items:
            if mount["name"].text == "gcs-storage" or mount["mountPath"].text.rstrip("/") == "/data/gcs":
                yield Breach(mount)
        yield from (
            Breach(volume)
            for volume in cluster.head.pod["volumes"].items
            if volume["name"].text == "gcs-storage"
        )


@rule(
    "RS724",
    on=ClusterSubject,
    kinds=("RayService",),
    says="rocksdb under a RayService names a claim that exists",
    why=(
        "the operator makes a claim for each RayCluster, so that the next one of an upgrade begins without"
        " the state"
    ),
    remedy="set gcsFaultToleranceOptions.storage.claimName",
    level="warning",
    since="1.7.0",
)
def upgrades_keep_the_claim(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    claim = _options(cluster).at("storage", "claimName")
    if _rocksdb(cluster) and not claim.text:
        yield Breach(claim)


def _options(cluster: ClusterSubject) -> Node:
    return cluster.node["gcsFaultToleranceOptions"]


def _rocksdb(cluster: ClusterSubject) -> bool:
    return _options(cluster)["backend"].text == "rocksdb"
