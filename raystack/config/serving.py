"""The serving section: model, address, replicas and batching."""

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from raystack.config.names import Host, check_version
from raystack.config.secret import no_password
from raystack.config.section import Pattern, Section, Text

NonNegativeFloat = Annotated[float, Field(ge=0)]

NAME = r"^[A-Za-z0-9][\w.-]{0,254}$"
"""Pattern of a model name that is safe in a URL."""


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

    health_check_period_s: PositiveFloat = 10.0
    """Seconds between two health checks of a replica."""

    health_check_timeout_s: PositiveFloat = 30.0
    """Seconds after which a check counts as failed; after three in a row the replica is replaced. Set
    more for a model whose forward pass holds the GIL for long.
    """

    graceful_shutdown_timeout_s: PositiveFloat = 20.0
    """Seconds in which a replica that is replaced or removed may finish its requests."""


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

    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """HTTP port."""

    replicas: PositiveInt = 1
    """Number of replicas of the model."""

    cpus_per_replica: NonNegativeFloat = 1.0
    """CPU cores that Ray reserves for each replica; also its number of compute threads, at least 1."""

    gpus_per_replica: Annotated[NonNegativeFloat, AfterValidator(_whole_or_shared)] = 0.0
    """GPUs of each replica; a fraction shares one."""

    max_ongoing: PositiveInt = 100
    """Maximum number of concurrent requests of one replica; others wait in its queue."""

    max_queued: PositiveInt = 1000
    """Maximum number of waiting requests; others are rejected with status 503."""

    batching: Batching = Batching()
    """Batching of requests."""

    deployment: Deployment = Deployment()
    """Health checks and shutdown of the replicas."""

    @property
    def threads(self) -> int:
        """Number of compute threads of each replica."""
        return max(1, int(self.cpus_per_replica))
