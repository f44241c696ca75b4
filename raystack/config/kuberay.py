"""The KubeRay target: images, pods, queue, GPUs, storage, security and the lifetime of a job.

The number of workers and their resources are in `resources`; this section holds what only Kubernetes needs.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from raystack.config.gitops import GitOps
from raystack.config.kubernetes import Labels, Name, PartName, Quantity, SecretKey
from raystack.config.lifecycle import Cron, Lifetime, Submission, Upgrade
from raystack.config.machines import Gpu, Spot
from raystack.config.names import VariableName
from raystack.config.pods import LIKE_HEAD, Pod, Submitter, WorkerGroup, Workers
from raystack.config.queue import Autoscaling, Queue
from raystack.config.secret import no_password
from raystack.config.section import ConflictError, Pattern, Section, Text
from raystack.config.security import Security
from raystack.config.volumes import Storage

PodField = Annotated[
    str,
    Pattern(
        r"^((metadata|spec|status)\.[A-Za-z.]+(\['[^']+'\])?|(limits|requests)\.[a-z0-9./-]+)$",
        "should be a field of the pod, e.g. status.podIP, or an amount, e.g. limits.memory",
    ),
]


class EnvFrom(Section):
    """Environment variables from all keys of an object."""

    kind: Literal["secret", "configmap"]
    """Kind of the object."""

    name: Name
    """Name of the object."""

    prefix: str = ""
    """Text before each key."""

    optional: bool = False
    """Start also without the object."""


class HighAvailability(Section):
    """Fault tolerance of the head (GCS): the cluster survives the loss of its head pod."""

    backend: Literal["none", "redis", "rocksdb"] = "none"
    """Store of the cluster's state: none, a Redis, or RocksDB on a volume of the head (KubeRay 1.7, feature
    gate GCSFaultToleranceEmbeddedStorage).
    """

    redis: Annotated[str, AfterValidator(no_password)] | None = None
    """Address of the Redis, `redis://host:port` or `rediss://host:port`."""

    redis_password: SecretKey | None = None
    """`secret/key` of the Redis password."""

    claim: Name | None = None
    """PersistentVolumeClaim for rocksdb. Not set: KubeRay creates one of `size`."""

    size: Quantity = "1Gi"
    """Size of the claim that KubeRay creates."""

    @model_validator(mode="after")
    def _where(self) -> Self:
        if (self.backend == "redis") != (self.redis is not None):
            raise ConflictError(
                "redis and its address belong together", "backend", "redis", remedy="set both"
            )
        if self.redis_password is not None and self.backend != "redis":
            raise ConflictError("only redis has a password", "redis_password", "backend")
        if self.claim is not None and self.backend != "rocksdb":
            raise ConflictError("only rocksdb has a volume", "claim", "backend")
        return self


class KubeRay(Section):
    """Kubernetes, through KubeRay: a RayJob, RayService, RayCluster or RayCronJob."""

    kind: Literal["kuberay"]
    """The target."""

    image: Text
    """Image with Ray and raystack for all pods; kuberay/Dockerfile builds one."""

    namespace: Name | None = None
    """Namespace of all objects. Not set: that of the kubeconfig's context, as for kubectl, else `default`."""

    context: Text | None = None
    """Context of the kubeconfig. Not set: the current one, or the pod's own service account inside a
    cluster.
    """

    kubeconfig: Text | None = None
    """Path of the kubeconfig. Not set: KUBECONFIG or ~/.kube/config."""

    kuberay_version: Annotated[str, Pattern(r"^\d+\.\d+\.\d+$", "should be a version, e.g. 1.7.0")] = "1.7.0"
    """Version of the operator and its CRDs. Fields it does not support are rejected before submission."""

    ray_version: Annotated[str, Pattern(r"^\d+\.\d+\.\d+$", "should be a version, e.g. 2.60.0")] = "2.60.0"
    """Version of Ray in the image."""

    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Pull policy of the image."""

    pull_secrets: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    """Secrets for pulling the image."""

    service_account: Name | None = None
    """ServiceAccount of the pods. Not set: one is created with only the rights that the autoscaler needs."""

    env: dict[VariableName, str] = Field(default={})
    """Environment variables of all pods."""

    secrets: dict[VariableName, SecretKey] = Field(default={})
    """Environment variables from Secrets: `{HF_TOKEN: hugging-face/token}`. A `secret:env:NAME` of the config
    needs its NAME here.
    """

    env_from: Annotated[tuple[EnvFrom, ...], Field(strict=False)] = ()
    """Secrets and ConfigMaps of which every key is an environment variable."""

    pod_fields: dict[VariableName, PodField] = Field(default={})
    """Environment variables with a field of the pod, `{POD_IP: status.podIP}`, or an amount of its container,
    `{MEMORY: limits.memory}`.
    """

    runtime_env: dict[Text, Any] = Field(default={})
    """Ray's runtime environment of the job (`runtimeEnvYAML`), and of each application that is served."""

    labels: Labels = Field(default={})
    """Labels of every object."""

    annotations: Labels = Field(default={})
    """Annotations of every object."""

    head: Pod = Pod()
    """The head pod, which runs no training workers."""

    worker: Workers = Workers()
    """The worker pods, one for each Ray Train worker or Serve replica. With placement STRICT_PACK all workers
    share one pod; replicas with less than a GPU share one as well.
    """

    groups: dict[PartName, WorkerGroup] = Field(default={})
    """Further groups of worker pods by name, with a size, machine, image or priority of their own. What they
    hold comes on top of the pods that the run, study or service needs.
    """

    submitter: Submitter | None = None
    """The pod that submits a job (K8sJobMode). Set, it has the environment of the other pods as well."""

    autoscaling: Autoscaling = Autoscaling()
    """Ray's autoscaler."""

    queue: Queue = Queue()
    """Queue and scheduler."""

    gpu: Gpu = Gpu()
    """Kubernetes resource of the GPUs."""

    spot: Spot = Spot()
    """Workers on spot machines."""

    storage: Storage = Storage()
    """Volumes and object stores."""

    high_availability: HighAvailability = HighAvailability()
    """Fault tolerance of the head."""

    security: Security = Security()
    """Authentication, encryption and network policy."""

    submission: Submission = Submission()
    """Submission of the entrypoint."""

    lifetime: Lifetime = Lifetime()
    """Clean-up of a job that has ended."""

    upgrade: Upgrade = Upgrade()
    """Upgrade of a changed service."""

    cron: Cron = Cron()
    """Periodic training."""

    gitops: GitOps = GitOps()
    """The bundle for Argo CD, Flux or Helm."""

    protect_head: bool = True
    """Keep the head from being drained, with a PodDisruptionBudget."""

    pod_monitor: bool = False
    """Render PodMonitors for the Prometheus operator."""

    overlay: dict[str, Any] = Field(default={})
    """Fields without a key here, merged over the object last, as Kubernetes' strategic merge does: lists by
    name, `groupName`, `mountPath` or `containerPort`, `null` and `$patch: delete` remove. A field is one of
    the RayJob's or RayService's spec, else of its RayCluster's; `metadata` holds labels and annotations. What
    no kind of object has is refused, and what is of another kind waits for it.
    """

    @model_validator(mode="before")
    @classmethod
    def _as_other_pods(cls, values: Any) -> Any:
        """Fill in what a further group of workers, or the submitter, does not set."""
        match values:
            case {"worker": dict(worker), "groups": dict(groups)}:
                filled = {
                    name: {**worker, **group} if isinstance(group, dict) else group
                    for name, group in groups.items()
                }
                values = {**values, "groups": filled}
        match values:
            case {"head": dict(head), "submitter": dict(submitter)}:
                shared = {key: head[key] for key in LIKE_HEAD if key in head}
                values = {**values, "submitter": {**shared, **submitter}}
        return values
