"""Rules on the history server's collector, a container beside Ray's that uploads logs and events."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from raystack.kuberay.lint.node import Node
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
    if not options["collectorOptions"].present:
        yield Breach(options["collectorOptions"], says="historyServerOptions has collectorOptions")
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
    if not options["collectorOptions"].present:
        return
    env = options.at("collectorOptions", "env")
    # Of a variable that is given twice the operator takes the last.
    entries = {each["name"].text: each for each in env.items}
    given = {name for name, each in entries.items() if each["value"].text or each["valueFrom"].present}
    backend = entries["STORAGE_BACKEND"]["value"].text if "STORAGE_BACKEND" in entries else ""
    store = backend.upper()
    if not backend:
        yield Breach(entries.get("STORAGE_BACKEND", env), says="STORAGE_BACKEND is given as a literal value")
    elif store == "AZUREBLOB":
        yield from _azure(env, entries, given)
    elif store in NEEDS:
        missing = [name for name in NEEDS[store] if name not in given]
        if missing:
            yield Breach(env, says=f"{store} needs {', '.join(missing)}")
    else:
        says = f"STORAGE_BACKEND is one of {', '.join((*NEEDS, 'AZUREBLOB'))} (got {backend})"
        why = "the collector does not start"
        yield Breach(entries["STORAGE_BACKEND"]["value"], says=f"{says}: {why}", level="warning")


def _azure(env: Node, entries: Mapping[str, Node], given: Collection[str]) -> Iterator[Breach]:
    named = entries["AZURE_STORAGE_AUTH_MODE"]["value"].text if "AZURE_STORAGE_AUTH_MODE" in entries else ""
    mode = named.strip().lower()
    needed = AZURE.get(mode, AZURE_EITHER)
    if not any(name in given for name in needed):
        of_mode = f" with {mode}" if mode else ""
        yield Breach(env, says=f"AZUREBLOB{of_mode} needs {' or '.join(needed)}")
