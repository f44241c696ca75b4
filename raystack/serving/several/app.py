"""The Serve application that answers for a server of several models, and has those that share replicas."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, LoggingConfig

from raystack import __version__
from raystack.config.serving import Serving
from raystack.config.tracking import Tracking
from raystack.plan.serving import DEPLOYMENT, gateway
from raystack.ray_internals import serve as internals
from raystack.serving import front
from raystack.serving.grpc import ingress
from raystack.serving.guard import renewed
from raystack.serving.observers import Watcher
from raystack.serving.rest.body import Limits
from raystack.serving.server import Elsewhere, Server, Version
from raystack.serving.several.gateway import Gateway, Latest
from raystack.serving.several.pool import Pool
from raystack.serving.several.remote import Handles
from raystack.serving.several.rpcs import relaying
from raystack.serving.telemetry import end, watched

POLL_S = 1.0
"""Seconds between two looks at the state of the models."""

logger = logging.getLogger(__name__)


def bind_gateway(serving: Serving, tracking: Tracking) -> Application:
    """The application of a plan's sections, whose models are pinned."""
    options = gateway(serving)
    resources = options["ray_actor_options"]
    deployment = GatewayReplica.options(  # type: ignore[attr-defined]
        **options,
        max_queued_requests=-1,
        max_constructor_retry_count=1,
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
    )
    parts = [__version__, resources, tracking.model_dump(mode="json")]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    threads, gpu = max(1, int(resources["num_cpus"])), bool(resources["num_gpus"])
    bound: Application = internals.versioned(deployment, digest).bind(tracking, threads, gpu)
    return bound


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
@ingress.with_rpcs
class GatewayReplica:
    """What answers for the server."""

    def __init__(self, tracking: Tracking, threads: int, gpu: bool) -> None:
        self._tracking, self._threads, self._device = tracking, threads, "cuda" if gpu else "cpu"
        self._server, self._remote = Server(), Handles()
        self._pool = Pool(self._server, self._read)
        self._server.repository = self._pool
        self._models: dict[str, str] = {}
        self._first = True
        self._watchers: list[Watcher] = []
        self._asked: Serving | None = None
        self._latest = Latest(Gateway(self._server, self._remote, self._pool, Limits()))
        front.answer_here(self._latest)
        ingress.answer_here(self._server, relaying(self._server, self._remote, self._pool))
        self._polls = asyncio.get_running_loop().create_task(self._poll())

    def __serve_build_asgi_app__(self) -> Any:
        return self._latest

    async def reconfigure(self, own: Mapping[str, Any]) -> None:
        """Take over settings."""
        common = Serving.model_validate(own["common"], strict=False)
        limits = Limits(common.body_bytes, common.body_s)
        self._models = dict(own["models"])
        self._server.largest, self._server.lineage = limits.size, common.lineage
        self._server.guard = renewed(self._server.guard, common.tokens, first=self._first)
        self._first = False
        self._latest.gateway = Gateway(self._server, self._remote, self._pool, limits)
        known = self._server.elsewhere
        self._server.elsewhere = {name: known.get(name, Elsewhere()) for name in self._models}
        shared = {
            name: Serving.model_validate(
                {**own["common"], **keys, "name": name, "cpus_per_replica": self._threads}, strict=False
            )
            for name, keys in own["shared"].items()
        }
        await self._pool.offer(shared, own["max_loaded"])
        if shared:
            self._watch(common)
        await self._look()

    def __del__(self) -> None:
        end(self._watchers)

    def _watch(self, common: Serving) -> None:
        """Have the requests to the models of this process observed as the section says."""
        if common != self._asked:
            replica = serve.get_replica_context().replica_id.unique_id
            first = self._asked is None
            self._watchers = watched(self._watchers, common, self._server, replica, first=first)
            self._asked = common

    async def _read(self, serving: Serving) -> Version:
        from raystack.serving.host import Host  # needs PyTorch, which a gateway alone does without

        assert serving.name is not None
        host = Host(serving.name, self._tracking, device=self._device)
        await host.prepare(serving)
        return host.hand_over()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self._look()

    async def _look(self) -> None:
        if not self._models:
            return
        try:
            # In a thread, because it waits for Serve's controller.
            status = await asyncio.to_thread(serve.status)
        except Exception:
            # The controller may be starting again; what was known last is the best there is.
            logger.warning("the state of the models is not known", exc_info=True)
            return
        self._server.elsewhere = {
            name: _state(status.applications.get(name), version) for name, version in self._models.items()
        }


def _state(found: ApplicationStatusOverview | None, version: str) -> Elsewhere:
    if found is None:
        return Elsewhere(version=version, reason="it is not deployed")
    if internals.has_replica(found):
        return Elsewhere(ready=True, version=version)  # it answers, whatever becomes of other replicas
    if found.status != ApplicationStatus.RUNNING:
        return Elsewhere(version=version, reason=found.message or found.status.value.lower())
    reason = "it has no replica until a request comes"
    return Elsewhere(ready=True, asleep=True, version=version, reason=reason)
