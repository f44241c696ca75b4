"""The KubeRay target: images, pods, queue, GPUs, storage, security and the lifetime of a job.

The number of workers and their resources are in `resources`; this section holds what only Kubernetes needs.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from raystack.config.gitops import GitOps
from raystack.config.kubernetes import Labels, Name, PartName, Quantity, Seconds, SecretKey
from raystack.config.machines import Gpu, Spot
from raystack.config.names import VariableName
from raystack.config.pods import LIKE_HEAD, Pod, Submitter, WorkerGroup, Workers
from raystack.config.secret import no_password
from raystack.config.section import ConflictError, Pattern, Section, Text
from raystack.config.volumes import Storage

NonNegativeInt = Annotated[int, Field(ge=0)]
Percent = Annotated[int, Field(ge=0, le=100)]


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


class Autoscaling(Section):
    """Ray's autoscaler in the cluster, which adds worker pods on demand.

    The manifest always names autoscaler v2 explicitly.
    """

    enabled: bool | None = None
    """Enable the autoscaler. Needs elastic workers, `resources.workers: [min, max]`, a study with several
    trials at once, or a service. Not set: for such a study, unless a queue admits the pods.
    """

    max_workers: PositiveInt | None = None
    """Maximum number of worker pods. Not set: as many as the run, the replicas or `tuning.parallel` trials
    can use.
    """

    idle_timeout_s: Seconds = 60
    """Seconds after which an idle worker pod is removed."""

    upscaling: Literal["Default", "Aggressive", "Conservative"] = "Default"
    """Speed at which pods are added."""


class Queue(Section):
    """The queue and scheduler that admit the pods."""

    scheduler: Literal["none", "kueue", "volcano", "yunikorn", "kai", "scheduler-plugins"] = "none"
    """Batch scheduler; `none` is Kubernetes' own. The others have to be installed, and all but kueue also
    have to be set in the operator's values (`batchScheduler.name`).
    """

    name: Name | None = None
    """Queue: a LocalQueue of Kueue, or a queue of Volcano, YuniKorn (`root.team`) or KAI."""

    priority: Name | None = None
    """Priority class: Kueue's WorkloadPriorityClass, or the PriorityClass of the pods."""

    gang: bool = True
    """Start all pods at once or none. kueue, volcano and kai always do."""

    topology: Text | None = None
    """Key of a node label within which all workers are placed, e.g. `cloud.provider.com/topology-rack`:
    Kueue's required topology, or Volcano's highest tier as a number.
    """

    multikueue: bool = False
    """Let Kueue dispatch the job to another cluster (MultiKueue)."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.scheduler in ("kueue", "kai") and self.name is None:
            raise ConflictError(
                f"{self.scheduler} needs the name of a queue",
                "scheduler",
                "name",
                remedy="set target.queue.name",
            )
        if self.multikueue and self.scheduler != "kueue":
            raise ConflictError(
                "only kueue has other clusters",
                "multikueue",
                "scheduler",
                remedy="set target.queue.scheduler=kueue",
            )
        return self


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


class Security(Section):
    """Authentication, encryption, network policy and the user of the containers."""

    auth: Literal["token", "disabled"] = "token"
    """Ray's token authentication: submitting to the cluster and opening its dashboard need the token."""

    auth_secret: Name | None = None
    """Secret with the key `auth_token`. Not set: KubeRay creates one with the name of the cluster."""

    tls: bool = False
    """mTLS between Ray's processes, by cert-manager (KubeRay 1.7, feature gate RayClusterMTLS)."""

    network_policy: bool = False
    """Deny traffic from and to other pods, except DNS, the API server, the operator and `allow`."""

    network_policy_by: Literal["kuberay", "manifest"] = "kuberay"
    """Who makes the NetworkPolicies. `kuberay`: the operator, one for each group (KubeRay 1.7, feature gate
    RayClusterNetworkPolicy). `manifest`: they are rendered beside the other objects, for any KubeRay, and are
    there before the pods.
    """

    operator_namespace: Name = "kuberay-system"
    """Namespace of the operator, which has to reach the dashboard."""

    allow: Annotated[tuple[Text, ...], Field(strict=False)] = ("0.0.0.0/0",)
    """Additional CIDRs that pods may reach, e.g. object stores and MLflow."""

    run_as: PositiveInt | None = 1000
    """User id of the containers, never root. null: the image's own user, which has to be a number other than
    0.
    """


class Submission(Section):
    """Submission of a RayJob's entrypoint, retries and deadlines."""

    mode: Literal["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"] = "K8sJobMode"
    """Submitter: a Kubernetes Job, the operator (HTTP), a sidecar of the head, or the user."""

    retries: NonNegativeInt = 0
    """Retries after a failure, each on a new cluster. A run resumes from its last checkpoint."""

    deadline_s: Seconds | None = None
    """Maximum seconds of the job, from its start."""

    start_deadline_s: Seconds | None = 1800
    """Maximum seconds until the job runs, which include pulling images and waiting for nodes but not the time
    in a queue. null: no limit.
    """


class Rule(Section):
    """A deletion rule, applied some time after a job has ended."""

    policy: Literal["DeleteWorkers", "DeleteCluster", "DeleteSelf", "DeleteNone"]
    """Object to delete."""

    after: Literal["SUCCEEDED", "FAILED"]
    """Final status of the job to which the rule applies."""

    ttl_s: NonNegativeInt = 0
    """Seconds between the end of the job and the deletion."""


class Lifetime(Section):
    """Clean-up of a job that has ended."""

    ttl_s: NonNegativeInt = 600
    """Seconds after which the cluster is deleted. Excludes `rules`."""

    rules: Annotated[tuple[Rule, ...], Field(strict=False)] = ()
    """Deletion rules by final status. Excludes `ttl_s`, suspending and kueue."""


class Upgrade(Section):
    """Upgrade of a RayService whose config has changed."""

    kind: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"] = "NewCluster"
    """`NewCluster`: start a second cluster, then switch all traffic. `NewClusterWithIncrementalUpgrade`: move
    the traffic in steps through the Gateway API. `None`: change nothing while the service runs.
    """

    gateway_class: Name | None = None
    """GatewayClass for the incremental upgrade."""

    step_percent: Percent = 10
    """Percentage of the traffic that moves in one step."""

    interval_s: Seconds = 10
    """Seconds between two steps."""

    surge_percent: Percent = 100
    """Additional capacity during the upgrade, in percent."""

    @model_validator(mode="after")
    def _gateway(self) -> Self:
        if (self.kind == "NewClusterWithIncrementalUpgrade") != (self.gateway_class is not None):
            raise ConflictError(
                "the incremental kind and a gateway class belong together", "kind", "gateway_class"
            )
        return self


class Cron(Section):
    """Periodic training (RayCronJob)."""

    schedule: Text | None = None
    """Cron schedule: five fields, or `@hourly`, `@daily` and so on. Not set: not periodic."""

    time_zone: Text | None = None
    """IANA name of the time zone, e.g. `Europe/Berlin`. Not set: the operator's, usually UTC."""

    suspend: bool = False
    """Keep the schedule but start no jobs."""


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
