"""What is served -> the Ray Serve application: replicas that each read the model and answer the protocol over
HTTP.

One deployment, and it is the ingress: a request reaches the model without passing through another Python
process.
"""

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from raystack import registry
from raystack.serving.batcher import Batcher
from raystack.serving.endpoint import Endpoint
from raystack.serving.predictor import Predictor
from raystack.serving.protocol import Contract
from raystack.serving.served import Served

DEPLOYMENT = "model"
QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)
"""An access log costs a good part of a small request's time."""


def bind(served: Served) -> Application:
    """The Serve application of `served`, whose model is pinned.

    Serve's own limits lie above the endpoint's, which refuses with the protocol's error where Serve would
    with plain text. A constructor that fails is not tried again: a wrong folder or a broken task stays wrong.
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
        folder = registry.resolve(served.model, served.tracking, served.tracking_uri)
        predictor = Predictor.load(folder, "cuda" if served.gpus else "cpu", served.threads)
        version = served.version or str(predictor.card.step)
        batcher = Batcher(predictor.predict, served.batching.max_size, served.batching.wait_ms / 1000)
        self._endpoint = Endpoint(
            Contract(served.name, version, predictor.signature),
            batcher,
            served.max_ongoing,
            served.max_queued,
        )

    def __serve_build_asgi_app__(self) -> Any:
        return self._endpoint
