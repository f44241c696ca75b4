"""The sections of a ServePlan -> the Ray Serve application: replicas that each read the model and answer the
protocol.

One deployment, and it is the ingress: a request reaches the model without passing through another Python
process. What can change while a replica runs is Serve's `user_config`, the rest its constructor's arguments.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from raystack import __version__
from raystack.config.serving import PLACE, Serving
from raystack.config.tracking import Tracking
from raystack.errors import RaystackError
from raystack.plan.serving import BY_SERVE, DEPLOYMENT, MODELS, changeable, replicas, serve_limit
from raystack.ray_internals import serve as internals
from raystack.serving import front
from raystack.serving.front import Whole
from raystack.serving.grpc import ingress
from raystack.serving.llm.app import LanguageModel, resources
from raystack.serving.several.relayed import Relayed
from raystack.serving.split.asked import Asked
from raystack.serving.split.remote import reach

QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)
"""An access log costs a good part of a small request's time."""


def bind(serving: Serving, tracking: Tracking, max_surge_percent: int | None = None) -> Application:
    """The Serve application of a plan's sections, whose model is pinned.

    A constructor that fails is not tried again: a wrong folder or a broken task stays wrong.
    """
    options = serving.deployment.model_dump()
    if max_surge_percent is not None:
        options["max_surge_percent"] = max_surge_percent
    deployed: Any = LanguageModel if serving.kind == "llm" else Replica
    deployment = deployed.options(
        max_ongoing_requests=serve_limit(serving),
        max_queued_requests=-1,
        max_constructor_retry_count=1,
        logging_config=QUIET,
        user_config=changeable(serving),
        **_resources(serving),
        **replicas(serving),
        **options,
    )
    lasting = internals.versioned(deployment, built_in(serving, tracking))
    bound: Application = lasting.bind(serving, tracking)
    return bound


def built_in(serving: Serving, tracking: Tracking) -> str:
    """Return what names replicas that can be the same: a digest of all that they are started with."""
    own = serving.model_dump(mode="json", exclude={*PLACE, *BY_SERVE, *changeable(serving)})
    parts = [__version__, own, tracking.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _resources(serving: Serving) -> dict[str, Any]:
    if serving.kind == "llm":
        return resources(serving)
    return {"ray_actor_options": {"num_cpus": serving.cpus_per_replica, "num_gpus": serving.gpus_per_replica}}


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
@ingress.with_rpcs
class Replica(Relayed, Asked):
    """One copy of the model, and what answers for it."""

    def __init__(self, serving: Serving, tracking: Tracking) -> None:
        from raystack.serving.host import Host  # needs PyTorch, which the driver does without

        assert serving.name is not None
        self._serving = serving
        device = "cuda" if serving.gpus_per_replica else "cpu"
        replica = serve.get_replica_context().replica_id.unique_id
        self._host = self._application = Host(
            serving.name, tracking, device=device, replica=replica, reach=reach
        )
        front.answer_here(self._host)
        ingress.answer_here(self._host.server)

    def __serve_build_asgi_app__(self) -> Any:
        return Whole(self._host, f"{MODELS}{self._serving.name}")

    async def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Take over settings. Serve calls it when the replica starts and when they have changed.

        A replica that has a version never fails here: Serve would stop it.
        """
        await self._host.apply(self._asked(settings))

    async def prepare(self, settings: Mapping[str, Any]) -> tuple[str | None, str]:
        """Load what is asked for beside what answers; return its version's name, or None and why not."""
        try:
            return await self._host.prepare(self._asked(settings)), ""
        except RaystackError as error:
            return None, str(error)

    async def discard(self) -> None:
        """Let go of what was prepared."""
        self._host.discard()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the number of requests, which Serve does not see, in place of Serve's own number."""
        return {internals.REQUESTS: self._host.load.now()}

    async def check_health(self) -> None:
        """Raise if the model does not answer; Serve then replaces the replica."""
        await self._host.check()

    def __del__(self) -> None:
        self._host.close()

    def _asked(self, settings: Mapping[str, Any]) -> Serving:
        own = self._serving.model_dump(mode="json")
        return Serving.model_validate({**own, **settings}, strict=False)
