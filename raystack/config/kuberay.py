"""Where the plan runs on Kubernetes, through KubeRay: images, pods, queue, GPUs, storage, security and the
life of a job.

How many workers there are, and what each of them gets, is in `resources`; here is what only Kubernetes asks
for.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from raystack.config.names import VariableName
from raystack.config.secret import no_password
from raystack.config.section import ConflictError, Pattern, Section, Text

NonNegativeInt = Annotated[int, Field(ge=0)]
Percent = Annotated[int, Field(ge=0, le=100)]
Quantity = Annotated[
    str,
    Pattern(
        r"^\d+(\.\d+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", "should be a Kubernetes quantity, e.g. 16Gi or 500m"
    ),
]
Name = Annotated[
    str,
    Pattern(
        r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$",
        "should be the name of a Kubernetes object: lower case, digits, dashes and dots",
    ),
]
SecretKey = Annotated[
    str,
    Pattern(
        r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-._a-zA-Z0-9]+$",
        "should be secret/key: the name of a Kubernetes Secret and a key in it",
    ),
]
Duration = Annotated[int, Field(gt=0)]
Labels = dict[Text, str]


class Toleration(Section):
    """Lets pods onto nodes with a taint."""

    key: Text | None = None
    """Key of the taint. Left out: every taint."""

    operator: Literal["Exists", "Equal"] = "Exists"
    """Whether the value counts."""

    value: str | None = None
    """Value of the taint, with operator Equal."""

    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Left out: all."""


class Pod(Section):
    """Pods of one kind."""

    cpus: Annotated[float, Field(gt=0)] | None = None
    """CPU cores of the pod. Left out: for the head 2; for a worker what `resources` says."""

    memory: Quantity = "8Gi"
    """Memory of the pod; request and limit are equal, so that nobody else's pod can take it."""

    ephemeral_storage: Quantity | None = None
    """Local disk of the pod, where Ray spills objects to."""

    node_selector: Labels = Field(default={})
    """Labels of the nodes it may run on."""

    tolerations: Annotated[tuple[Toleration, ...], Field(strict=False)] = ()
    """Taints it may run beside."""

    labels: Labels = Field(default={})
    """Further labels of the pods."""

    annotations: Labels = Field(default={})
    """Further annotations of the pods."""

    priority_class: Text | None = None
    """PriorityClass of the pods, for the scheduler."""


class Autoscaling(Section):
    """Ray's autoscaler inside the cluster; it adds worker pods as the run asks for them. Version v2 is always
    named explicitly.
    """

    enabled: bool = False
    """On needs an elastic number of workers, `resources.workers: [min, max]`, or a service."""

    max_workers: PositiveInt | None = None
    """Most worker pods. Left out: as many as the run or the replicas can use."""

    idle_timeout_s: Duration = 60
    """Seconds after which an idle worker pod is removed."""

    upscaling: Literal["Default", "Aggressive", "Conservative"] = "Default"
    """How fast pods are added."""


class Queue(Section):
    """Who decides when the pods may run."""

    scheduler: Literal["none", "kueue", "volcano", "yunikorn", "kai", "scheduler-plugins"] = "none"
    """`none` is Kubernetes' own scheduler. The others have to be installed; all but kueue also have to be
    named to the operator (`batchScheduler.name`).
    """

    name: Name | None = None
    """The queue: Kueue's LocalQueue, Volcano's, YuniKorn's (`root.team`) or KAI's queue."""

    priority: Name | None = None
    """Priority class: Kueue's WorkloadPriorityClass, or the PriorityClass of the pods."""

    gang: bool = True
    """All pods at once or none; kueue, volcano and kai know nothing else."""

    topology: Text | None = None
    """Key of a node label within which all workers are placed, e.g. `cloud.provider.com/topology-rack`:
    Kueue's required topology, or Volcano's highest tier as a number.
    """

    multikueue: bool = False
    """Have Kueue run it in another cluster."""

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


class Gpu(Section):
    """What a worker's GPU is to Kubernetes; how many a worker has is in `resources.gpus_per_worker`."""

    key: (
        Annotated[
            str, Pattern(r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", "should be a resource name, e.g. nvidia.com/gpu")
        ]
        | None
    ) = None
    """Name of the resource. Left out: `nvidia.com/gpu`, or what `share` makes of it."""

    model: Text | None = None
    """Value of the node label `nvidia.com/gpu.product`, e.g. `NVIDIA-H100-80GB-HBM3`."""

    share: Annotated[
        str,
        Pattern(
            r"^(none|time-slice|mps|mig:[1-7]g\.\d+gb(\.me)?)$",
            "should be none, time-slice, mps or mig:<n>g.<m>gb, e.g. mig:1g.10gb",
        ),
    ] = "none"
    """`none`: whole GPUs. `mig:1g.10gb`: a MIG slice of that profile. `time-slice` and `mps`:
    `nvidia.com/gpu.shared`, as the device plugin names them.
    """

    dra: Name | None = None
    """ResourceClaimTemplate to claim GPUs through (Dynamic Resource Allocation), instead of counting a
    resource.
    """

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.dra is not None and (self.share != "none" or self.key is not None):
            raise ConflictError(
                "a resource claim says itself how GPUs are shared",
                "dra",
                "share",
                "key",
                remedy="drop share and key",
            )
        return self


class Spot(Section):
    """Workers on machines that may be taken away; the head never runs there."""

    enabled: bool = False
    """Ask for spot machines."""

    provider: Literal["gke", "eks", "karpenter", "aks"] = "karpenter"
    """Whose labels and taints mark them."""

    fallback: bool = True
    """Take machines on demand where there are no spot ones."""


class Volume(Section):
    """A file system that exists in the cluster, mounted into all pods."""

    kind: Literal["pvc", "nfs", "gcsfuse"]
    """`pvc`: a PersistentVolumeClaim, ReadWriteMany. `nfs`: an NFS export. `gcsfuse`: a bucket through GKE's
    CSI driver.
    """

    name: Text
    """The claim, `server:/export` of NFS, or the bucket."""

    mount: Annotated[str, Pattern(r"^/[^:]+$", "should be an absolute path")]
    """Where it is mounted. `experiment.storage` may lie below it."""

    read_only: bool = False
    """Mount it read-only."""

    @model_validator(mode="after")
    def _found(self) -> Self:
        if self.kind == "nfs" and not re.fullmatch(r"[^:/\s]+:/\S*", self.name):
            raise ConflictError(
                "an NFS export is server:/export", "name", remedy="e.g. nfs.example.com:/runs"
            )
        if self.kind != "nfs" and not re.fullmatch(r"[a-z0-9]([-a-z0-9._]*[a-z0-9])?", self.name):
            raise ConflictError("should be the name of a claim or a bucket", "name")
        return self


class Storage(Section):
    """What pods may reach: volumes, and the identity with which they reach object stores."""

    volumes: Annotated[tuple[Volume, ...], Field(strict=False)] = ()
    """File systems to mount."""

    s3_secret: Name | None = None
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Left out: the service account's role (IRSA),
    or none.
    """

    s3_endpoint: Text | None = None
    """Endpoint of an object store that is not AWS, e.g. MinIO's."""

    aws_role: Text | None = None
    """ARN of the role that the service account takes on (IRSA)."""

    gcp_service_account: Text | None = None
    """Google service account that the service account acts as (workload identity)."""


class HighAvailability(Section):
    """Lets a cluster live on when its head is lost."""

    backend: Literal["none", "redis", "rocksdb"] = "none"
    """Where Ray keeps the cluster's state: nowhere, in a Redis, or on a volume of the head (KubeRay 1.7,
    feature gate GCSFaultToleranceEmbeddedStorage).
    """

    redis: Annotated[str, AfterValidator(no_password)] | None = None
    """Address, `redis://host:port` or `rediss://host:port`."""

    redis_password: SecretKey | None = None
    """`secret/key` of its password."""

    claim: Name | None = None
    """PersistentVolumeClaim for rocksdb. Left out: KubeRay makes one of `size`."""

    size: Quantity = "1Gi"
    """Size of the claim that KubeRay makes."""

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
    """Who may do what."""

    auth: Literal["token", "disabled"] = "token"
    """Ray's token: whoever submits to or looks at the cluster has to bring it."""

    auth_secret: Name | None = None
    """Secret with the key `auth_token`. Left out: KubeRay makes one with the cluster's name."""

    tls: bool = False
    """mTLS between Ray's processes through cert-manager (KubeRay 1.7, feature gate RayClusterMTLS)."""

    network_policy: bool = False
    """Refuse traffic from and to other pods, but for DNS, the API server, the operator and `allow` (KubeRay
    1.7, feature gate RayClusterNetworkPolicy).
    """

    operator_namespace: Name = "kuberay-system"
    """Where the operator runs, which has to reach the dashboard."""

    allow: Annotated[tuple[Text, ...], Field(strict=False)] = ("0.0.0.0/0",)
    """CIDRs that pods may reach besides: object stores, MLflow."""

    run_as: PositiveInt | None = 1000
    """User id of the containers, which is not root; null: the image's own, which has to be a number other
    than 0.
    """


class Submission(Section):
    """How a RayJob's entrypoint is started, and what follows a failure."""

    mode: Literal["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"] = "K8sJobMode"
    """A Kubernetes Job that submits, the operator itself, a container beside the head, or you."""

    retries: NonNegativeInt = 0
    """New clusters after a failure. A run goes on from its last checkpoint."""

    deadline_s: Duration | None = None
    """Seconds that the job may take from its start."""

    start_deadline_s: Duration | None = 1800
    """Seconds that may pass until it runs: pulling images and waiting for nodes. Not counted while a queue
    holds it; null: for ever.
    """


class Rule(Section):
    """What is deleted some time after a job has ended."""

    policy: Literal["DeleteWorkers", "DeleteCluster", "DeleteSelf", "DeleteNone"]
    """What to delete."""

    after: Literal["SUCCEEDED", "FAILED"]
    """After which end."""

    ttl_s: NonNegativeInt = 0
    """Seconds after it."""


class Lifetime(Section):
    """What is left of a job that has ended."""

    ttl_s: NonNegativeInt = 600
    """Seconds after which its cluster is deleted. Not with `rules`."""

    rules: Annotated[tuple[Rule, ...], Field(strict=False)] = ()
    """What is deleted when, by its end. Excludes `ttl_s`, suspending and kueue."""


class Upgrade(Section):
    """What a changed RayService does."""

    kind: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"] = "NewCluster"
    """`NewCluster`: a second cluster beside the first, then all traffic. `NewClusterWithIncrementalUpgrade`:
    traffic moves in steps through the Gateway API. `None`: nothing is changed while it runs.
    """

    gateway_class: Name | None = None
    """GatewayClass, for the incremental kind."""

    step_percent: Percent = 10
    """Share of the traffic that moves at a time."""

    interval_s: Duration = 10
    """Seconds between two steps."""

    surge_percent: Percent = 100
    """How much more capacity may run meanwhile."""

    @model_validator(mode="after")
    def _gateway(self) -> Self:
        if (self.kind == "NewClusterWithIncrementalUpgrade") != (self.gateway_class is not None):
            raise ConflictError(
                "the incremental kind and a gateway class belong together", "kind", "gateway_class"
            )
        return self


class Cron(Section):
    """Train again and again."""

    schedule: Text | None = None
    """Five fields, or `@hourly`, `@daily` and so on. Left out: not periodic."""

    time_zone: Text | None = None
    """IANA name, e.g. `Europe/Berlin`. Left out: the operator's, UTC as a rule."""

    suspend: bool = False
    """Keep it, and start nothing."""


class KubeRay(Section):
    """Kubernetes, through KubeRay: a RayJob, RayService, RayCluster or RayCronJob."""

    kind: Literal["kuberay"]
    """The target."""

    image: Text
    """Image with Ray and raystack, for all pods; kuberay/Dockerfile makes one."""

    namespace: Name = "default"
    """Namespace of everything."""

    context: Text | None = None
    """Context of the kubeconfig. Left out: the current one, or the pod's own service account inside a
    cluster.
    """

    kubeconfig: Text | None = None
    """Path of the kubeconfig. Left out: KUBECONFIG or ~/.kube/config."""

    kuberay_version: Annotated[str, Pattern(r"^\d+\.\d+\.\d+$", "should be a version, e.g. 1.7.0")] = "1.7.0"
    """Version of the operator and its CRDs; what it does not know is refused before it is sent."""

    ray_version: Annotated[str, Pattern(r"^\d+\.\d+\.\d+$", "should be a version, e.g. 2.60.0")] = "2.60.0"
    """Version of Ray in the image."""

    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the image is pulled."""

    pull_secrets: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    """Secrets with which it is pulled."""

    service_account: Name | None = None
    """ServiceAccount of the pods. Left out: one is made that may do nothing but what the autoscaler needs."""

    env: dict[VariableName, str] = Field(default={})
    """Environment variables of all pods."""

    secrets: dict[VariableName, SecretKey] = Field(default={})
    """Environment variables from Secrets: `{HF_TOKEN: hugging-face/token}`. A `secret:env:NAME` of the config
    needs its NAME here.
    """

    labels: Labels = Field(default={})
    """Labels of every object."""

    annotations: Labels = Field(default={})
    """Annotations of every object."""

    head: Pod = Pod()
    """The head pod. It runs no tasks of the training."""

    worker: Pod = Pod()
    """The worker pods, one for each Ray Train worker or Serve replica; with placement STRICT_PACK one for all
    workers, and replicas with less than a GPU share one.
    """

    autoscaling: Autoscaling = Autoscaling()
    """Ray's autoscaler."""

    queue: Queue = Queue()
    """Who decides when the pods may run."""

    gpu: Gpu = Gpu()
    """What a worker's GPU is to Kubernetes."""

    spot: Spot = Spot()
    """Workers on machines that may be taken away."""

    storage: Storage = Storage()
    """Volumes and object stores."""

    high_availability: HighAvailability = HighAvailability()
    """Losing the head."""

    security: Security = Security()
    """Who may do what."""

    submission: Submission = Submission()
    """How the entrypoint is started."""

    lifetime: Lifetime = Lifetime()
    """What is left of a job that has ended."""

    upgrade: Upgrade = Upgrade()
    """What a changed service does."""

    cron: Cron = Cron()
    """Train again and again."""

    pod_monitor: bool = False
    """Render PodMonitors for the Prometheus operator."""

    overlay: dict[str, Any] = Field(default={})
    """Merged over the spec of the RayCluster last, for what has no key here; lists are replaced."""
