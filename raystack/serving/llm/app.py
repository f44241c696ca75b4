"""Ray Serve's deployment of a language model.

It is the ingress, as for other models: vLLM's own HTTP routes answer in the replica, so that a token passes
through no other Python process on its way to the client. vLLM is imported in the replicas alone.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

from ray import serve

from raystack.config.serving import Serving
from raystack.config.tracking import Tracking
from raystack.plan.llm import bundles
from raystack.plan.serving import DEPLOYMENT, OF_LLM
from raystack.serving.llm.gate import Gate

logger = logging.getLogger(__name__)


def resources(serving: Serving) -> dict[str, Any]:
    """Return Serve's options for what a replica needs: it runs in the first of the bundles."""
    return {
        "ray_actor_options": {"num_cpus": 0},
        "placement_group_bundles": bundles(serving),
        "placement_group_strategy": "PACK",
    }


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
class LanguageModel:
    """One copy of the model, in vLLM."""

    async def __init__(self, serving: Serving, tracking: Tracking) -> None:  # type: ignore[misc]
        from raystack.serving.llm import engine

        self._server: Any = None
        self._serving, self._gate = serving, Gate(serving, self._end_if_dead)
        self._server = await engine.start(serving, tracking)

    async def __serve_build_asgi_app__(self) -> Any:
        return self._gate.around(await self._server.__serve_build_asgi_app__())

    async def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Take over limits. Serve calls it when the replica starts and when they have changed."""
        own = self._serving.model_dump(mode="json", include=set(OF_LLM))
        self._gate.limit(self._serving.model_copy(update={**own, **settings}))

    async def check_health(self) -> None:
        """Raise if vLLM's engine has died; Serve then replaces the replica."""
        await self._server.check_health()

    async def _end_if_dead(self) -> None:
        """End this process if vLLM's engine has died: HAProxy then sends its requests to others, or waits."""
        try:
            await self._server.check_health()
        except Exception:  # vLLM's own
            logger.exception("vLLM's engine has died, and this replica with it")
            os._exit(1)

    async def __del__(self) -> None:
        if self._server is not None:
            await self._server.__del__()
