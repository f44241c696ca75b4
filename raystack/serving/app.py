"""What is served -> the Ray Serve application: replicas that each read the model and answer the protocol over HTTP.

One deployment, and it is the ingress: a request reaches the model without passing through another Python process.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from raystack.config.serving import Batching
from raystack.config.tracking import Tracking
from raystack.plan import ServePlan
from raystack.serving.batcher import Batcher
from raystack.serving.endpoint import Endpoint
from raystack.serving.predictor import Predictor
from raystack.serving.protocol import Contract

DEPLOYMENT = "model"
QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)
"""An access log costs a good part of a small request's time."""


@dataclass(frozen=True)
class Served:
    """What each replica needs to know."""

    name: str
    model: str
    """A URI or folder. A registered model carries its version, not an alias, so that all replicas serve the same one."""
    tracking: Tracking
    tracking_uri: str | None
    replicas: int
    cpus: float
    gpus: float
    threads: int
    max_ongoing: int
    max_queued: int
    batching: Batching

    @classmethod
    def of(cls, plan: ServePlan) -> "Served":
        """What a plan serves. An alias is followed here, once, to the version that it points to now."""
        tracking = plan.config.tracking
        return cls(
            name=plan.name,
            model=pin(plan.model, tracking, plan.tracking_uri),
            tracking=tracking,
            tracking_uri=plan.tracking_uri,
            replicas=plan.replicas,
            cpus=plan.cpus,
            gpus=plan.gpus,
            threads=plan.threads,
            max_ongoing=plan.max_ongoing,
            max_queued=plan.max_queued,
            batching=plan.batching,
        )


def bind(served: Served) -> Application:
    """The Serve application of `served`, whose model is pinned.

    Serve's own limits lie above the endpoint's, which refuses with the protocol's error where Serve would with plain text.
    A constructor that fails is not tried again: a wrong folder or a broken task stays wrong.
    """
    deployment = Replica.options(  # type: ignore[attr-defined]
        num_replicas=served.replicas,
        ray_actor_options={"num_cpus": served.cpus, "num_gpus": served.gpus},
        max_ongoing_requests=served.max_ongoing + served.max_queued + 1,
        max_queued_requests=-1,
        max_constructor_retry_count=1,
        logging_config=QUIET,
    )
    bound: Application = deployment.bind(served)
    return bound


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
class Replica:
    """One copy of the model and the endpoint in front of it."""

    def __init__(self, served: Served) -> None:
        folder = resolve(served.model, served.tracking, served.tracking_uri)
        predictor = Predictor.load(folder, "cuda" if served.gpus else "cpu", served.threads)
        version = version_of(served.model) or str(predictor.card.step)
        batcher = Batcher(predictor.predict, served.batching.max_size, served.batching.wait_ms / 1000)
        self._endpoint = Endpoint(Contract(served.name, version, predictor.signature), batcher, served.max_ongoing, served.max_queued)

    def __serve_build_asgi_app__(self) -> Any:
        return self._endpoint


def version_of(model: str) -> str | None:
    """Version of `models:/name/version`; None for anything else, whose version is the training step."""
    return model.rpartition("/")[2] if model.startswith("models:/") else None


def pin(model: str, tracking: Tracking, tracking_uri: str | None) -> str:
    """`models:/name@alias` -> `models:/name/version`; a version, and anything that is not in the registry, stays as it is."""
    if not (model.startswith("models:/") and "@" in model):
        return model
    from raystack.registry import pin as pin_alias

    return pin_alias(model, tracking, tracking_uri)


def resolve(model: str, tracking: Tracking, tracking_uri: str | None) -> Path:
    """The `model/` folder on this node. Imported here because replicas alone need the registry, and MLflow behind it."""
    from raystack.registry import resolve as resolve_uri

    return resolve_uri(model, tracking, tracking_uri)
