"""Who hears of every request after its answer: metrics, payload logs, drift, traces."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

from raystack.serving.protocol import InferRequest
from raystack.serving.protocol.tensors import Array

Transport = Literal["rest", "grpc", "v1"]


class Observed(NamedTuple):
    """One request and what became of it. Times are in seconds."""

    model: str
    version: str
    id: str | None
    protocol: Transport
    request: InferRequest | None
    """None if it could not be read."""
    outputs: Mapping[str, Array] | None
    """None if it failed."""
    status: int
    """HTTP status, of any transport."""
    started: float
    """When it arrived, as `time.time()`."""
    wait_s: float
    """Until its forward pass started."""
    compute_s: float
    """In forward passes."""
    total_s: float
    batch: int
    """Number of samples in the forward pass that it shared."""
    trace: str | None
    """Header `traceparent` of the W3C's trace context."""
    headers: Mapping[str, str] | None
    error: str | None = None
    """What a client was told whose request failed."""
    run: str | None = None
    """Id of the run that trained the version."""


class Observer(Protocol):
    """Hears of requests on the event loop, between others: it returns at once and never raises."""

    def observed(self, seen: Observed) -> None:
        """Take note of a request."""


class Watcher(Observer, Protocol):
    """An observer with work beside the requests, which ends with the replica."""

    def end(self) -> None:
        """Have the work end, and return at once."""

    def close(self) -> None:
        """End the work; what is left is done within some seconds or given up."""
