"""The Serve application that answers for a server of several models."""

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
from raystack.errors import RaystackError
from raystack.plan.serving import DEPLOYMENT
from raystack.ray_internals import serve as internals
from raystack.serving import front
from raystack.serving.grpc import ingress
from raystack.serving.guard import guard
from raystack.serving.pin import version_of
from raystack.serving.rest.body import Limits
from raystack.serving.server import Elsewhere, Server
from raystack.serving.several.gateway import Gateway, Latest
from raystack.serving.several.remote import Handles
from raystack.serving.several.rpcs import relaying

POLL_S = 1.0
"""Seconds between two looks at the state of the models."""
MOST = 10_000
"""Requests that the gateway takes at a time; the models' own limits are far below."""

logger = logging.getLogger(__name__)


def settings(serving: Serving) -> dict[str, Any]:
    """Return what the gateway has to know, and takes over while it runs: the models and the limits."""
    models = {name: version_of(own.model or "") or "" for name, own in serving.models.items()}
    return {
        "models": models,
        "body_mb": serving.body_mb,
        "body_s": serving.body_s,
        "tokens": dict(serving.tokens),
    }


def bind_gateway(own: Mapping[str, Any]) -> Application:
    """The application, of its settings. It needs no core of its own."""
    deployment = GatewayReplica.options(  # type: ignore[attr-defined]
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=MOST,
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        user_config=dict(own),
    )
    digest = hashlib.sha256(json.dumps([__version__]).encode()).hexdigest()[:16]
    bound: Application = internals.versioned(deployment, digest).bind()
    return bound


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
@ingress.with_rpcs
class GatewayReplica:
    """What answers for the server."""

    def __init__(self) -> None:
        self._server, self._remote = Server(), Handles()
        self._models: dict[str, str] = {}
        self._latest = Latest(Gateway(self._server, self._remote, Limits()))
        front.answer_here(self._latest)
        ingress.answer_here(self._server, relaying(self._server, self._remote))
        self._polls = asyncio.get_running_loop().create_task(self._poll())

    def __serve_build_asgi_app__(self) -> Any:
        return self._latest

    async def reconfigure(self, own: Mapping[str, Any]) -> None:
        """Take over settings."""
        limits = Limits(int(own["body_mb"] * 1_000_000), own["body_s"])
        self._admit(own["tokens"])
        self._models = dict(own["models"])
        self._server.largest = limits.size
        self._latest.gateway = Gateway(self._server, self._remote, limits)
        known = self._server.elsewhere
        self._server.elsewhere = {name: known.get(name, Elsewhere()) for name in self._models}
        await self._look()

    def _admit(self, tokens: Mapping[str, str]) -> None:
        """Have those ask that have a token. Later ones that are missing here are logged."""
        try:
            self._server.guard = guard(tokens)
        except RaystackError as error:
            if not self._models:
                raise
            logger.error("%s; the tokens are what they were", error)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self._look()

    async def _look(self) -> None:
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
