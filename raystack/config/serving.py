"""The serving section: model, address, replicas, limits and batching."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from raystack.config.names import Host, check_version
from raystack.config.secret import no_password
from raystack.config.section import NonNegativeFloat, NonNegativeInt, Pattern, Section, Text
from raystack.config.telemetry import Drift, Payloads, Telemetry

Port = Annotated[int, Field(ge=1, le=65535)]

NAME = r"^[A-Za-z0-9][\w.-]{0,254}$"
"""Pattern of a model name that is safe in a URL."""

PLACE = ("host", "port", "grpc_port")
"""Fields that say where Serve listens, which whoever starts it decides before there is an application."""


def _model(reference: str) -> str:
    """Accept MLflow model URIs that name one version, and folders or URLs of checkpoints."""
    if reference.startswith("models:"):
        check_version(reference)
    return no_password(reference)


def _whole_or_shared(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("should be a whole number of GPUs, or less than 1 to share one")
    return gpus


class Batching(Section):
    """Dynamic batching: one forward pass for requests that arrive together."""

    max_size: PositiveInt = 32
    """Maximum number of samples in one forward pass."""

    wait_ms: NonNegativeFloat = 1.0
    """Maximum milliseconds that a request waits for others. 0 never waits."""


class Deployment(Section):
    """Options of Ray Serve's deployment, under Serve's own names."""

    health_check_period_s: PositiveFloat = 2.0
    """Seconds between two health checks of a replica, in which a lost one is noticed. The model is asked for
    a prediction once in 10 seconds at most.
    """

    health_check_timeout_s: PositiveFloat = 30.0
    """Seconds after which a check counts as failed; after three in a row the replica is replaced. Set
    more for a model whose forward pass holds the GIL for long.
    """

    graceful_shutdown_timeout_s: PositiveFloat = 20.0
    """Seconds in which a replica that is replaced or removed may finish its requests."""

    max_surge_percent: Annotated[int, Field(ge=0, le=100)] = 25
    """Replicas beyond `replicas`, in percent of them and at least one, that may be started before those that
    they replace are stopped. 0 stops a replica first, which leaves a gap where there is only one.
    """


class Serving(Section):
    """Serving of a model."""

    model: Annotated[Text, AfterValidator(_model)] | None = None
    """`models:/name@alias` or `models:/name/version` from the registry, or a checkpoint's folder or URL."""

    name: Annotated[str, Pattern(NAME, "should be letters, digits, '_', '.' and '-'")] | None = None
    """Name of the model in the protocol, `/v2/models/<name>`. Not set: the registered name, else the
    experiment's.
    """

    host: Host = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface."""

    port: Port = 8000
    """HTTP port."""

    grpc_port: Port | None = None
    """gRPC port. Not set: no gRPC."""

    replicas: PositiveInt = 1
    """Number of replicas of the model."""

    cpus_per_replica: NonNegativeFloat = 1.0
    """CPU cores that Ray reserves for each replica; also its number of compute threads, at least 1."""

    gpus_per_replica: Annotated[NonNegativeFloat, AfterValidator(_whole_or_shared)] = 0.0
    """GPUs of each replica; a fraction shares one."""

    max_ongoing: PositiveInt = 100
    """Maximum number of concurrent requests of one replica; others wait in its queue."""

    max_queued: PositiveInt = 1000
    """Maximum number of waiting requests; others are refused with status 429 and `Retry-After`."""

    body_mb: PositiveFloat = 64.0
    """Megabytes (10^6 bytes) of the largest body of a request, unpacked if it is compressed; a larger one is
    refused with status 413.
    """

    body_s: PositiveFloat = 60.0
    """Seconds in which the body of a request has to arrive; then it is refused with status 408."""

    timeout_s: PositiveFloat | None = None
    """Seconds in which a request has to be answered, from its last byte on; then it ends with status 504. Not
    set: no limit. A client may ask for less.
    """

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 compute under autocast. Weights stay as stored, outputs are as the signature says."""

    compile: bool = False
    """Compile the task's `blocks`, or the whole model where it has none, with torch.compile. The first
    predictions take long: see `warm_up`.
    """

    warm_up: NonNegativeInt = 1
    """Number of predictions of `batching.max_size` samples of zeros before a version answers requests, after
    the one that checks it.
    """

    health: Literal["prediction", "process"] = "prediction"
    """Check of a replica's health: a prediction for one sample of zeros, unless it has answered a request
    since the last check, or only that its process reacts.
    """

    batching: Batching = Batching()
    """Batching of requests."""

    deployment: Deployment = Deployment()
    """Health checks and shutdown of the replicas."""

    telemetry: Telemetry = Telemetry()
    """Metrics and traces."""

    payloads: Payloads = Payloads()
    """Log of requests and answers."""

    drift: Drift = Drift()
    """Comparison of the served data with that of the training."""

    @property
    def body_bytes(self) -> int:
        """Largest body of a request in bytes."""
        return int(self.body_mb * 1_000_000)

    @property
    def threads(self) -> int:
        """Number of compute threads of each replica."""
        return max(1, int(self.cpus_per_replica))
