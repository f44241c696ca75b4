"""A version that other replicas have, which are asked through Serve's handle."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, NamedTuple

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from raystack.config.serving import Serving
from raystack.errors import Problem, ServingError
from raystack.plan.serving import DEPLOYMENT
from raystack.plan.split import application, beside
from raystack.ray_internals import serve as internals
from raystack.serving.engine import Answer, Arrays, LostError
from raystack.serving.protocol import Contract, RequestError
from raystack.serving.statistics import Duration
from raystack.serving.versions import Version
from raystack.task import Signature

TRIES = 2
"""Times that a request is handed on whose replica is lost; then the stable version answers it."""
ASSIGNED_S = 1.0
"""Seconds in which a replica has to take a request, if there is always to be one."""
REACHED_S = 20.0
"""Seconds in which a version has to tell of itself, if there is always to be a replica."""
AWAKE_S = 300.0
"""Seconds in which a version without a replica has to get one and load."""


class Described(NamedTuple):
    """What a replica tells of its version."""

    version: str
    signature: Signature
    max_size: int
    run: str | None


class Failed(NamedTuple):
    """A request that a replica refuses."""

    problem: Problem
    status: int
    headers: tuple[tuple[str, str], ...]


class RemoteEngine:
    """Engine of a version that the replicas of another application have."""

    decoupled = False

    def __init__(self, handle: Any, described: Described, *, wakes: bool) -> None:
        self.signature, self.max_size = described.signature, described.max_size
        self.passes: Mapping[int, Duration] = {}
        self._handle = handle.options(method_name="compute")
        self._assigned_s = AWAKE_S if wakes else ASSIGNED_S

    async def predict(self, inputs: Arrays, size: int) -> Answer:
        """Return the outputs. Raises LostError if no replica answers, else what the model raised."""
        for _ in range(TRIES):
            response = self._handle.remote(dict(inputs), size)
            try:
                async with asyncio.timeout(self._assigned_s):
                    await internals.assigned(response)
            except TimeoutError:
                response.cancel()
                raise LostError(f"no replica takes the request within {self._assigned_s:g} s") from None
            except (RayError, RayServeException):
                response.cancel()
                break
            try:
                answer = await response
            except RayTaskError as error:
                raise error.cause from None
            except (RayError, RayServeException):
                continue
            if isinstance(answer, Failed):
                raise RequestError(*answer)
            return Answer(*answer)
        raise LostError

    async def stream(self, inputs: Arrays, size: int) -> AsyncGenerator[Arrays, None]:
        """Yield the one answer."""
        yield (await self.predict(inputs, size)).outputs

    def close(self) -> None:
        """Hold nothing."""


async def reach(reference: str, serving: Serving) -> Version:
    """Return the version that the application for a reference has. Raises ServingError if none answers."""
    assert serving.name is not None
    name = application(serving.name, reference)
    scaling = beside(serving, reference).autoscaling
    wakes = scaling is not None and not scaling.min_replicas
    handle: Any = serve.get_deployment_handle(DEPLOYMENT, name, _check_exists=False)
    try:
        async with asyncio.timeout(AWAKE_S if wakes else REACHED_S):
            described = Described(*await handle.describe.remote())
    except (TimeoutError, RayError, RayServeException) as error:
        rule = f"no replica of it answers: {str(error).partition(chr(10))[0] or type(error).__name__}"
        raise ServingError(Problem(reference, rule=rule)) from None
    contract = Contract(serving.name, described.version, described.signature)
    return Version(contract, RemoteEngine(handle, described, wakes=wakes), run=described.run)
