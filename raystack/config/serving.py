"""What to serve, and how."""

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from raystack.config.names import Host, check_version
from raystack.config.secret import no_password
from raystack.config.section import Pattern, Section, Text

NonNegativeFloat = Annotated[float, Field(ge=0)]

NAME = r"^[A-Za-z0-9][\w.-]{0,254}$"
"""What can stand in a URL as the name of a model."""


def _model(reference: str) -> str:
    """Of the forms of MLflow's model URIs, those that name one version; anything else is a checkpoint's
    place.
    """
    if reference.startswith("models:"):
        check_version(reference)
    return no_password(reference)


def _whole_or_shared(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("should be a whole number of GPUs, or less than 1 to share one")
    return gpus


class Batching(Section):
    """Requests that arrive together are answered by one forward pass."""

    max_size: PositiveInt = 32
    """Most samples in one forward pass."""

    wait_ms: NonNegativeFloat = 1.0
    """Longest time in milliseconds that a request waits for others. 0 takes what is there."""


class Deployment(Section):
    """Options of Ray Serve's deployment, passed on under Serve's own names."""

    health_check_period_s: PositiveFloat = 10.0
    """Seconds between two checks whether a replica still answers Serve."""

    health_check_timeout_s: PositiveFloat = 30.0
    """Seconds after which a check counts as failed; after three in a row the replica is replaced. Set
    more for a model whose forward pass holds the interpreter for long.
    """

    graceful_shutdown_timeout_s: PositiveFloat = 20.0
    """Seconds that a replica which is replaced or removed may go on with the requests that it has."""


class Serving(Section):
    """What to serve, and how."""

    model: Annotated[Text, AfterValidator(_model)] | None = None
    """`models:/name@alias` or `models:/name/version` from the registry, or a checkpoint's folder or URL."""

    name: Annotated[str, Pattern(NAME, "should be letters, digits, '_', '.' and '-'")] | None = None
    """The model's name in the protocol, `/v2/models/<name>`. Not set: the registered name, else the
    experiment's.
    """

    host: Host = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """HTTP port."""

    replicas: PositiveInt = 1
    """Copies of the model that answer requests."""

    cpus_per_replica: NonNegativeFloat = 1.0
    """CPU cores that Ray sets aside for each replica; also its number of compute threads, at least 1."""

    gpus_per_replica: Annotated[NonNegativeFloat, AfterValidator(_whole_or_shared)] = 0.0
    """GPUs of each replica; fractions share one."""

    max_ongoing: PositiveInt = 100
    """Requests that one replica works on at a time; further ones wait in its queue."""

    max_queued: PositiveInt = 1000
    """Requests that may wait; beyond it they are refused with status 503."""

    batching: Batching = Batching()
    """Batching of requests."""

    deployment: Deployment = Deployment()
    """How Ray Serve looks after the replicas."""

    @property
    def threads(self) -> int:
        """Compute threads of each replica."""
        return max(1, int(self.cpus_per_replica))
