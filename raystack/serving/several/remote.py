"""The processes of the other models, as the gateway asks them: through Serve's handles."""

from collections.abc import AsyncGenerator
from typing import Any, Protocol, cast

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from raystack.errors import Problem
from raystack.plan.serving import DEPLOYMENT
from raystack.serving.admission import RETRY_S
from raystack.serving.protocol import RequestError
from raystack.serving.rest.response import Response
from raystack.serving.several.relay import GrpcAsk, HttpAsk, Said

TRIES = 3
"""Times that a request is handed on whose replica is lost before it answers. A prediction changes nothing, so
it may be computed twice.
"""


class Remote(Protocol):
    """The models of other processes."""

    async def http(self, model: str, ask: HttpAsk) -> Response:
        """Hand on a request. Raises RequestError (503) if no replica answers."""

    async def grpc(self, model: str, ask: GrpcAsk) -> Said:
        """Hand on a call. Raises RequestError (503) if no replica answers."""

    def stream(self, model: str, ask: GrpcAsk) -> AsyncGenerator[Said, None]:
        """Hand on one request of a stream. Raises RequestError (503) if no replica answers."""


class Handles:
    """A Remote of Serve's applications, which have the models' names."""

    def __init__(self) -> None:
        self._handles: dict[str, DeploymentHandle[Any]] = {}

    async def http(self, model: str, ask: HttpAsk) -> Response:
        """Hand on a request."""
        return Response(*await self._asked(model, "relay_http", ask))

    async def grpc(self, model: str, ask: GrpcAsk) -> Said:
        """Hand on a call."""
        return Said(*await self._asked(model, "relay_grpc", ask))

    async def stream(self, model: str, ask: GrpcAsk) -> AsyncGenerator[Said, None]:
        """Hand on one request of a stream. One whose replica is lost ends there."""
        handle = self._handle(model).options(stream=True, method_name="relay_stream")
        answers = cast(DeploymentResponseGenerator[Any], handle.remote(ask))
        try:
            async for said in answers:
                yield Said(*said)
        except (RayActorError, RayServeException) as error:
            raise _nobody(model) from error

    async def _asked(self, model: str, method: str, ask: HttpAsk | GrpcAsk) -> Any:
        handle = self._handle(model).options(method_name=method)
        for _ in range(TRIES):
            try:
                return await handle.remote(ask)
            except RayActorError:
                continue
            except RayServeException:
                break
        raise _nobody(model)

    def _handle(self, model: str) -> DeploymentHandle[Any]:
        if model not in self._handles:
            # Whether it is there is known already, and would be asked for on the event loop.
            self._handles[model] = serve.get_deployment_handle(DEPLOYMENT, model, _check_exists=False)
        return self._handles[model]


def _nobody(model: str) -> RequestError:
    problem = Problem(f"model '{model}'", rule="no replica answers", remedy="try again later")
    return RequestError(problem, 503, (("retry-after", str(RETRY_S)),))
