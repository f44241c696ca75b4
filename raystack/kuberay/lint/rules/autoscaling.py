"""Rules on Ray's autoscaler in a RayCluster."""

from collections.abc import Iterator

from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import INVALID, Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject
from raystack.plan.kuberay.facts import PRIORITY_RAY

V2 = "set autoscalerOptions.version: v2"
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"


@rule(
    "RS308",
    on=ClusterSubject,
    says="a worker group's idleTimeoutSeconds is at least 0 and needs autoscaler v2",
    why=INVALID,
    remedy=V2,
    since="1.6.0",
)
def group_idle(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.workers:
        idle = group.node["idleTimeoutSeconds"]
        if idle.present and ((idle.number or 0) < 0 or not cluster.v2):
            yield Breach(idle)


@rule(
    "RS309",
    on=ClusterSubject,
    says=f"a worker group's priority needs rayVersion {PRIORITY_RAY} or newer, and autoscaler v2",
    why=INVALID,
    remedy=f"set rayVersion; {V2}",
    since="1.7.0",
)
def group_priority(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.workers:
        if group.node["priority"].number and not (cluster.v2 and cluster.has_ray(PRIORITY_RAY)):
            yield Breach(group.node["priority"])


@rule(
    "RS315",
    on=ClusterSubject,
    says="a worker group is not suspended while Ray's autoscaler runs",
    why=INVALID,
    remedy="drop the group's suspend, or set its maxReplicas to 0",
    since="1.3.0",
)
def group_suspended(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.workers:
        if cluster.autoscaling and group.node["suspend"].true:
            yield Breach(group.node["suspend"])


@rule(
    "RS316",
    on=ClusterSubject,
    says="RAY_enable_autoscaler_v2 is for clusters with autoscaling",
    why=INVALID,
    remedy="drop the variable, or set enableInTreeAutoscaling: true",
    since="1.4.0",
)
def v2_without_autoscaling(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    if not cluster.autoscaling and cluster.v2_by_env is not None:
        yield Breach(cluster.v2_by_env)


@rule(
    "RS317",
    on=ClusterSubject,
    says="the autoscaler's version is said once",
    why=INVALID,
    remedy="drop RAY_enable_autoscaler_v2; autoscalerOptions.version sets it",
    since="1.4.0",
)
def v2_said_once(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    env = next(cluster.head.env("RAY_enable_autoscaler_v2"), None)
    if cluster.autoscaling and cluster.node.at("autoscalerOptions", "version").present and env is not None:
        yield Breach(env)


@rule(
    "RS318",
    on=ClusterSubject,
    says="with autoscaler v2 the restartPolicy of head and workers is Never or left out",
    why=INVALID,
    remedy="drop restartPolicy",
    since="1.4.0",
)
def v2_restarts(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    # The operator does not look at the variable, and refuses nothing where it alone says v2.
    for group in cluster.groups if cluster.autoscaling and cluster.v2_named else []:
        policy = group.pod["restartPolicy"]
        if policy.text not in ("", "Never"):
            yield Breach(policy)


@rule(
    "RS319",
    on=ClusterSubject,
    says="idleTimeoutSeconds is at least 0",
    why=INVALID,
    remedy="give seconds, e.g. 60",
    since="1.6.0",
)
def idle(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    timeout = cluster.node.at("autoscalerOptions", "idleTimeoutSeconds")
    if (timeout.number or 0) < 0:
        yield Breach(timeout)


@rule(
    "RS320",
    on=ClusterSubject,
    says="KUBERAY_GEN_AUTOSCALER_START_CMD is the operator's",
    why=INVALID,
    remedy="drop the variable",
    since="1.7.0",
)
def autoscaler_command(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for env in cluster.node.at("autoscalerOptions", "env").items:
        if env["name"].text == "KUBERAY_GEN_AUTOSCALER_START_CMD":
            yield Breach(env)


@rule(
    "RS725",
    on=ClusterSubject,
    says="autoscaling names its version",
    why="Ray 2.47 and newer choose v2 by themselves, and the operator then treats it as v1",
    remedy=V2,
    level="warning",
    since="1.4.0",
)
def version_named(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    said = cluster.node.at("autoscalerOptions", "version")
    if cluster.autoscaling and not said.present and cluster.v2_by_env is None:
        yield Breach(said)


@rule(
    "RS739",
    on=ClusterSubject,
    says="the head's pod has a token for the autoscaler",
    why="the autoscaler cannot ask the API server, and no worker is added or removed",
    remedy="drop automountServiceAccountToken, or mount a token by autoscalerOptions.volumeMounts",
)
def token(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    pod = cluster.head.pod
    mounted = pod["automountServiceAccountToken"]
    if not mounted.present:
        account = pod["serviceAccountName"].text
        accounts = [each for each in cluster.beside if each.kind == "ServiceAccount"]
        named = (each.root["automountServiceAccountToken"] for each in accounts if each.name == account)
        mounted = next(named, mounted)
    mounts = cluster.node.at("autoscalerOptions", "volumeMounts").items
    own = any(mount["mountPath"].text.startswith(TOKEN_FOLDER) for mount in mounts)
    if cluster.autoscaling and mounted.value is False and not own:
        yield Breach(mounted)
