"""Rules on the history server's collector, a container beside Ray's that uploads logs and events."""

from collections.abc import Iterator, Sequence

from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import INVALID, Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject

OWN = (
    "POD_IP",
    "FQ_RAY_IP",
    "RAY_CLUSTER_NAME",
    "RAY_CLUSTER_NAMESPACE",
    "RAY_ROLE",
    "OWNER_KIND",
    "OWNER_NAME",
    "EVENTS_PORT",
)
NEEDS: dict[str, Sequence[str]] = {
    "GCS": ("GCS_BUCKET",),
    "S3": ("S3_REGION",),
    "ALIYUNOSS": ("OSS_BUCKET", "OSS_ENDPOINT", "OSS_REGION"),
}
AZURE = {
    "connection_string": ("AZURE_STORAGE_CONNECTION_STRING",),
    "workload_identity": ("AZURE_STORAGE_ACCOUNT_URL",),
    "default": ("AZURE_STORAGE_ACCOUNT_URL",),
}
AZURE_EITHER = ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_URL")


@rule(
    "RS321",
    on=ClusterSubject,
    says="the history server's collector has an image, and its name and variables are its own",
    why=INVALID,
    remedy="give collectorOptions.image, and drop what the operator sets",
    since="1.7.0",
)
def collector(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    options = cluster.node["historyServerOptions"]
    if not options.present:
        return
    image = options.at("collectorOptions", "image")
    if not image.text:
        yield Breach(image)
    for group in cluster.groups:
        yield from (
            Breach(container["name"])
            for container in group.containers
            if container["name"].text == "ray-history-collector"
        )
    yield from (Breach(env) for env in options.at("collectorOptions", "env").items if env["name"].text in OWN)


@rule(
    "RS332",
    on=ClusterSubject,
    says=(
        "the history server's collector knows its store: STORAGE_BACKEND as a literal value, and the store's"
        " own variables"
    ),
    why=INVALID,
    remedy="set the variables of the store in collectorOptions.env",
    since="1.7.0",
)
def store(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    options = cluster.node["historyServerOptions"]
    if not options.present:
        return
    env = options.at("collectorOptions", "env")
    values = {each["name"].text: each["value"].text for each in env.items}
    backend = values.get("STORAGE_BACKEND", "")
    if not backend:
        yield Breach(env, says="STORAGE_BACKEND is given as a literal value")
    elif backend == "AZUREBLOB" and (mode := values.get("AZURE_STORAGE_AUTH_MODE", "")) not in AZURE:
        if not any(name in values for name in AZURE_EITHER):
            yield Breach(
                env, says=f"AZUREBLOB{' with ' + mode if mode else ''} needs {' or '.join(AZURE_EITHER)}"
            )
    else:
        wanted = (
            AZURE[values["AZURE_STORAGE_AUTH_MODE"]] if backend == "AZUREBLOB" else NEEDS.get(backend, ())
        )
        missing = [name for name in wanted if name not in values]
        if missing:
            yield Breach(env, says=f"{backend} needs {', '.join(missing)}")
