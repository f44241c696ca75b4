"""Rules on tokens and TLS of a RayCluster."""

from collections.abc import Iterator

from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import INVALID, Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject
from raystack.plan.kuberay.facts import KUBERNETES_TOKEN_RAY, TOKEN_RAY

TLS_ENV = ("RAY_USE_TLS", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")


@rule(
    "RS322",
    on=ClusterSubject,
    says=f"token authentication needs rayVersion {TOKEN_RAY} or newer",
    why=INVALID,
    remedy="set rayVersion to that of the image",
    since="1.5.1",
)
def token_version(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    mode = cluster.node.at("authOptions", "mode")
    if mode.text == "token" and not cluster.has_ray(TOKEN_RAY):
        yield Breach(mode)


@rule(
    "RS323",
    on=ClusterSubject,
    says=f"Kubernetes tokens need mode token, rayVersion {KUBERNETES_TOKEN_RAY} or newer, and no secretName",
    why=INVALID,
    remedy="set them, or drop enableK8sTokenAuth",
    kinds=("RayCluster",),
    since="1.6.0",
)
def kubernetes_tokens(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    options = cluster.node["authOptions"]
    fits = (
        options["mode"].text == "token"
        and cluster.has_ray(KUBERNETES_TOKEN_RAY)
        and not options["secretName"].text
    )
    if options["enableK8sTokenAuth"].true and not fits:
        yield Breach(options["enableK8sTokenAuth"])


@rule(
    "RS411",
    on=ClusterSubject,
    says="Kubernetes tokens are for a RayCluster that stands alone",
    why=INVALID,
    remedy="drop enableK8sTokenAuth",
    kinds=("RayJob", "RayCronJob"),
    since="1.6.0",
)
def no_kubernetes_tokens_of_jobs(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    yield from _kubernetes_tokens(cluster)


@rule(
    "RS501",
    on=ClusterSubject,
    says="Kubernetes tokens are for a RayCluster that stands alone",
    why=INVALID,
    remedy="drop enableK8sTokenAuth",
    kinds=("RayService",),
    since="1.6.0",
)
def no_kubernetes_tokens_of_services(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    yield from _kubernetes_tokens(cluster)


@rule(
    "RS325",
    on=ClusterSubject,
    says="with tlsOptions the operator sets Ray's TLS variables and mounts ray-tls at /etc/ray/tls",
    why=INVALID,
    remedy="drop it",
    since="1.7.0",
)
def room_for_tls(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    if not cluster.node.at("tlsOptions", "enabled").true:
        return
    autoscaler = cluster.node["autoscalerOptions"]
    for container in [*(group.ray for group in cluster.groups), autoscaler]:
        yield from (Breach(env) for env in container["env"].items if env["name"].text in TLS_ENV)
        for mount in container["volumeMounts"].items:
            if mount["name"].text == "ray-tls" or mount["mountPath"].text.rstrip("/") == "/etc/ray/tls":
                yield Breach(mount)


@rule(
    "RS702",
    on=ClusterSubject,
    says="authOptions names its mode",
    why="without it a Secret with a token is made, and nobody is asked for the token",
    remedy="set mode: token, or mode: disabled",
    since="1.5.1",
)
def mode_named(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    options = cluster.node["authOptions"]
    if options.present and not options["mode"].present:
        yield Breach(options)


def _kubernetes_tokens(cluster: ClusterSubject) -> Iterator[Breach]:
    option = cluster.node.at("authOptions", "enableK8sTokenAuth")
    if option.true:
        yield Breach(option)
