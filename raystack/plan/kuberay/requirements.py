"""Requirements: versions, feature gates, operator settings, components and objects."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from raystack.config.kuberay import KubeRay
from raystack.config.volumes import Csi, Files
from raystack.errors import Problem
from raystack.plan.kuberay.container_rules import pods
from raystack.plan.kuberay.facts import (
    ON_SINCE,
    SIDECAR_SINCE,
    SINCE,
    TOKEN_RAY,
    at_least,
    minor,
    newest,
    ray_of,
)
from raystack.plan.kuberay.pods import GROUP, PRODUCT
from raystack.plan.kuberay.queue import OPERATOR
from raystack.plan.kuberay.shape import DRIVEN, Form, Group, Requirement

CLUSTER, JOB, SERVICE, CRON = (SINCE[part] for part in ("cluster", "job", "service", "cron"))
OLDEST = CLUSTER["autoscalerOptions.version"]
"""First KubeRay that has `autoscalerOptions.version` and requires no rayStartParams."""

KATIB = (
    "Katib with RayJob.v1.ray.io among its trialResources and with the right to manage rayjobs, and the label"
    " katib.kubeflow.org/metrics-collector-injection=enabled on the namespace"
)
QUEUE_KINDS: Mapping[str, str] = {
    "kueue": "LocalQueue",
    "volcano": "Queue",
    "yunikorn": "YuniKorn's queue",
    "kai": "Queue.scheduling.run.ai",
}
"""Kinds of queues by scheduler. Volcano and KAI share a name; KAI's is followed by its API group."""
WEBHOOK = "GKE's Ray add-on, whose webhook tells the hosts of a slice of each other"
_LABELLED = f"{PRODUCT} on the nodes, from NVIDIA's GPU feature discovery"


def plan_needs(
    target: KubeRay, form: Form, groups: Sequence[Group], more: Iterable[Requirement] = ()
) -> tuple[Requirement, ...]:
    """Return requirements by kind; of each version only the highest, with the key that needs it.

    Of `more` those that nothing else requires.
    """
    found = list(
        dict.fromkeys(
            [*_of_operator(target, form, groups), *_of_cluster(target, form, groups), *_objects(target)]
        )
    )
    versions = [need for need in found if need.kind == "version"]
    name = newest(need.name for need in versions)
    highest = next(need for need in versions if need.name == name)
    named = {need.name for need in found}
    others = dict.fromkeys(need for need in more if need.name not in named)
    return (highest, *(need for need in found if need.kind != "version"), *others)


def _of_operator(target: KubeRay, form: Form, groups: Sequence[Group]) -> Iterator[Requirement]:
    """Yield required versions and feature gates of KubeRay."""
    job, security = form in DRIVEN, target.security
    off = {gate for gate, since in ON_SINCE.items() if not at_least(target.kuberay_version, since)}
    yield Requirement("version", OLDEST, "target.kind")
    told = [name for group in groups for name in group.ray]
    if told:
        yield Requirement(
            "version",
            CLUSTER["workerGroupSpecs.*.resources"],
            "target.gpu" if "GPU" in told else "resources",
        )
    for key, (pod, node) in pods(target).items():
        if pod.ray_labels and node != "submitter":
            yield Requirement("version", CLUSTER["workerGroupSpecs.*.labels"], f"target.{key}.ray_labels")
    if any(group.config.priority for group in groups):
        yield Requirement("version", CLUSTER["workerGroupSpecs.*.priority"], "target.worker.priority")
    if security.auth == "token":
        field = "authOptions.secretName" if security.auth_secret else "authOptions"
        yield Requirement("version", CLUSTER[field], "target.security.auth")
    if security.tls:
        yield Requirement("version", CLUSTER["tlsOptions"], "target.security.tls")
        yield Requirement("gate", "RayClusterMTLS", "target.security.tls")
    if security.network_policy and security.network_policy_by == "kuberay":
        yield Requirement("version", CLUSTER["networkPolicy"], "target.security.network_policy")
        yield Requirement("gate", "RayClusterNetworkPolicy", "target.security.network_policy")
    if target.high_availability.backend == "rocksdb":
        since = CLUSTER["gcsFaultToleranceOptions.backend"]
        yield Requirement("version", since, "target.high_availability.backend")
        yield Requirement("gate", "GCSFaultToleranceEmbeddedStorage", "target.high_availability.backend")
    if job and target.submission.mode == "SidecarMode":
        yield Requirement("version", SIDECAR_SINCE, "target.submission.mode")
    if job and target.submission.start_deadline_s is not None and target.submission.mode != "InteractiveMode":
        since = JOB["preRunningDeadlineSeconds"]
        yield Requirement("version", since, "target.submission.start_deadline_s")
    if job and target.lifetime.rules:
        failed = any(rule.after == "FAILED" for rule in target.lifetime.rules)
        field = "deletionStrategy.deletionRules"
        field += ".*.condition.jobDeploymentStatus" if failed else ""
        yield Requirement("version", JOB[field], "target.lifetime.rules")
        if "RayJobDeletionPolicy" in off:
            yield Requirement("gate", "RayJobDeletionPolicy", "target.lifetime.rules")
    if form == "service" and target.upgrade.kind == "NewClusterWithIncrementalUpgrade":
        since = SERVICE["spec.upgradeStrategy.clusterUpgradeOptions"]
        yield Requirement("version", since, "target.upgrade.kind")
        if "RayServiceIncrementalUpgrade" in off:
            yield Requirement("gate", "RayServiceIncrementalUpgrade", "target.upgrade.kind")
    if form == "service" and target.queue.multikueue:
        yield Requirement("version", SERVICE["spec.managedBy"], "target.queue.multikueue")
    if form == "cron" and target.queue.scheduler == "none":
        since = CRON["spec.timeZone" if target.cron.time_zone else "spec"]
        yield Requirement("version", since, "target.cron")
        yield Requirement("gate", "RayCronJob", "target.cron.schedule")
    if target.queue.scheduler in OPERATOR:
        yield Requirement("scheduler", OPERATOR[target.queue.scheduler], "target.queue.scheduler")


def _of_cluster(target: KubeRay, form: Form, groups: Sequence[Group]) -> Iterator[Requirement]:
    """Yield other components that have to be installed."""
    if target.queue.scheduler == "kueue":
        yield Requirement("component", "Kueue", "target.queue.scheduler")
        if target.autoscaling.enabled:
            yield Requirement(
                "component",
                "Kueue's feature gate ElasticJobsViaWorkloadSlices=true",
                "target.autoscaling.enabled",
            )
    if form == "katib":
        yield Requirement("component", KATIB, "--as katib")
    if target.security.tls:
        yield Requirement("component", "cert-manager", "target.security.tls")
    if target.pod_monitor:
        yield Requirement("component", "the Prometheus operator", "target.pod_monitor")
    if form == "service" and target.upgrade.gateway_class is not None:
        yield Requirement(
            "component",
            f"the Gateway API with the class {target.upgrade.gateway_class}",
            "target.upgrade.gateway_class",
        )
    yield from _of_pods(target)
    for group in groups:
        if group.config.tpu is not None and group.hosts > 1:
            key = "worker" if group.name == GROUP else f"groups.{group.name}"
            yield Requirement("component", WEBHOOK, f"target.{key}.tpu")
    if any(group.pod.devices.claim is not None for group in groups):
        yield Requirement("component", "Dynamic Resource Allocation", "target.gpu.dra")
    if any(
        PRODUCT in (*group.pod.node_selector, *(match.key for match in group.pod.required))
        for group in groups
    ):
        yield Requirement(
            "component", _LABELLED, "target.gpu.model" if target.gpu.model else "resources.accelerator_type"
        )


def _of_pods(target: KubeRay) -> Iterator[Requirement]:
    """Yield drivers of volumes, and what the restricted Pod Security Standard does not allow."""
    volumes = target.storage.volumes
    if any(volume.kind == "gcsfuse" for volume in volumes):
        yield Requirement("component", "GKE's Cloud Storage FUSE CSI driver", "target.storage.volumes")
    for driver in dict.fromkeys(volume.driver for volume in volumes if isinstance(volume, Csi)):
        yield Requirement("component", f"the CSI driver {driver}", "target.storage.volumes")
    for kind, words in (("nfs", "NFS volumes"), ("hostpath", "paths of the node as volumes")):
        if any(volume.kind == kind for volume in volumes):
            yield Requirement("component", _unrestricted(words), "target.storage.volumes")
    for key, (pod, _) in pods(target).items():
        if pod.host_network:
            words = _unrestricted("pods on the node's network")
            yield Requirement("component", words, f"target.{key}.host_network")
        if set(pod.capabilities) - {"NET_BIND_SERVICE"}:
            words = _unrestricted(f"the capability {', '.join(pod.capabilities)}")
            yield Requirement("component", words, f"target.{key}.capabilities")


def _unrestricted(words: str) -> str:
    return f"a namespace that allows {words}, which the restricted Pod Security Standard does not"


def _objects(target: KubeRay) -> Iterator[Requirement]:
    """Yield objects that raystack refers to but does not create."""
    for name, reference in target.secrets.items():
        secret, _, key = reference.partition("/")
        yield Requirement("object", f"Secret {secret} with {key}", f"target.secrets.{name}")
    if target.storage.s3_secret is not None:
        name = f"Secret {target.storage.s3_secret} with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        yield Requirement("object", name, "target.storage.s3_secret")
    for secret in target.pull_secrets:
        yield Requirement("object", f"Secret {secret}", "target.pull_secrets")
    if target.security.auth_secret is not None and target.security.auth == "token":
        yield Requirement(
            "object", f"Secret {target.security.auth_secret} with auth_token", "target.security.auth_secret"
        )
    if target.high_availability.redis_password is not None:
        secret, _, key = target.high_availability.redis_password.partition("/")
        yield Requirement("object", f"Secret {secret} with {key}", "target.high_availability.redis_password")
    if target.high_availability.claim is not None:
        yield Requirement(
            "object",
            f"PersistentVolumeClaim {target.high_availability.claim}",
            "target.high_availability.claim",
        )
    for index, volume in enumerate(target.storage.volumes):
        where = f"target.storage.volumes.{index}"
        if volume.kind == "pvc":
            yield Requirement("object", f"PersistentVolumeClaim {volume.name}", where)
        elif isinstance(volume, Files) and not volume.optional:
            kind = {"secret": "Secret", "configmap": "ConfigMap"}[volume.kind]
            keys = f" with {' and '.join(volume.items)}" if volume.items else ""
            yield Requirement("object", f"{kind} {volume.name}{keys}", where)
    for index, source in enumerate(target.env_from):
        if not source.optional:
            kind = {"secret": "Secret", "configmap": "ConfigMap"}[source.kind]
            yield Requirement("object", f"{kind} {source.name}", f"target.env_from.{index}")
    if target.service_account is not None:
        yield Requirement("object", f"ServiceAccount {target.service_account}", "target.service_account")
    if target.queue.name is not None and target.queue.scheduler in QUEUE_KINDS:
        kind = QUEUE_KINDS[target.queue.scheduler]
        yield Requirement("object", f"{kind} {target.queue.name}", "target.queue.name")
    if target.queue.priority is not None:
        kind = "WorkloadPriorityClass" if target.queue.scheduler == "kueue" else "PriorityClass"
        yield Requirement("object", f"{kind} {target.queue.priority}", "target.queue.priority")
    if target.gpu.dra is not None:
        yield Requirement("object", f"ResourceClaimTemplate {target.gpu.dra}", "target.gpu.dra")
    for key, (pod, _) in pods(target).items():
        for part, containers in (("init", pod.init), ("sidecars", pod.sidecars)):
            for name, container in containers.items():
                for variable, reference in container.secrets.items():
                    secret, _, inner = reference.partition("/")
                    where = f"target.{key}.{part}.{name}.secrets.{variable}"
                    yield Requirement("object", f"Secret {secret} with {inner}", where)
        if pod.priority_class is not None:
            yield Requirement("object", f"PriorityClass {pod.priority_class}", f"target.{key}.priority_class")
        if pod.runtime_class is not None:
            yield Requirement("object", f"RuntimeClass {pod.runtime_class}", f"target.{key}.runtime_class")


def version_problems(
    target: KubeRay, needs: tuple[Requirement, ...], local_ray: str | None
) -> Iterator[Problem]:
    """Yield conflicts between KubeRay, the image's Ray and the installed Ray."""
    if (needed := needs[0]) and not at_least(target.kuberay_version, needed.name):
        rule = f"{needed.why} needs KubeRay {needed.name} or later"
        yield Problem(
            "target.kuberay_version",
            rule=rule,
            got=target.kuberay_version,
            remedy=f"install it, or leave {needed.why} out",
        )
    if target.security.auth == "token" and not at_least(target.ray_version, TOKEN_RAY):
        rule = f"Ray knows tokens since {TOKEN_RAY}"
        yield Problem(
            "target.ray_version",
            rule=rule,
            got=target.ray_version,
            remedy="use a newer image, or target.security.auth=disabled",
        )
    tagged = ray_of(target.image)
    if tagged is not None and tagged != target.ray_version:
        rule = f"is an image of Ray {tagged}, and target.ray_version is {target.ray_version}"
        fits = local_ray is None or minor(local_ray) == minor(tagged)
        remedy = f"set target.ray_version={tagged}" if fits else f"use an image of Ray {local_ray}"
        yield Problem("target.image", rule=rule, got=target.image, remedy=remedy)
    if local_ray is not None and minor(local_ray) != minor(target.ray_version):
        rule = f"this raystack works with Ray {local_ray}, and the image's would be another"
        yield Problem(
            "target.ray_version",
            rule=rule,
            got=target.ray_version,
            remedy="use an image with the same Ray and raystack",
        )
