"""The sections of a ServePlan -> the Ray Serve application: replicas that each read the model and answer the
protocol over HTTP.

One deployment, and it is the ingress: a request reaches the model without passing through another Python
process.
"""

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from raystack import registry
from raystack.config.serving import Serving
from raystack.config.tracking import Tracking
from raystack.serving.endpoint import Endpoint
from raystack.serving.engine import ModelEngine
from raystack.serving.pin import version_of
from raystack.serving.predictor import Predictor
from raystack.serving.protocol import Contract
from raystack.serving.rest.body import Limits
from raystack.serving.server import Admission, Model, Server, Version

DEPLOYMENT = "model"
QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)
"""An access log costs a good part of a small request's time."""


def bind(serving: Serving, tracking: Tracking) -> Application:
    """The Serve application of a plan's sections, whose model is pinned.

    Serve's own limits lie above the endpoint's, which refuses with the protocol's error where Serve would
    with plain text. A constructor that fails is not tried again: a wrong folder or a broken task stays wrong.
    """
    deployment = Replica.options(  # type: ignore[attr-defined]
        num_replicas=serving.replicas,
        ray_actor_options={"num_cpus": serving.cpus_per_replica, "num_gpus": serving.gpus_per_replica},
        max_ongoing_requests=serving.max_ongoing + serving.max_queued + 1,
        max_queued_requests=-1,
        max_constructor_retry_count=1,
        logging_config=QUIET,
        **serving.deployment.model_dump(),
    )
    bound: Application = deployment.bind(serving, tracking)
    return bound


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
class Replica:
    """One copy of the model and the endpoint in front of it."""

    def __init__(self, serving: Serving, tracking: Tracking) -> None:
        assert serving.model is not None
        assert serving.name is not None
        folder = registry.resolve(serving.model, tracking)
        predictor = Predictor.read(folder, "cuda" if serving.gpus_per_replica else "cpu", serving.threads)
        version = version_of(serving.model) or str(predictor.card.step)
        contract = Contract(serving.name, version, predictor.signature)
        engine = ModelEngine(
            predictor.signature,
            predictor.forward,
            serving.batching.max_size,
            serving.batching.wait_ms / 1000,
        )
        server = Server()
        server.add(Model(serving.name, Admission(serving.max_ongoing, serving.max_queued), serving.timeout_s))
        server.put(Version(contract, engine, "ready"))
        self._endpoint = Endpoint(server, Limits(serving.body_bytes, serving.body_s))

    def __serve_build_asgi_app__(self) -> Any:
        return self._endpoint
