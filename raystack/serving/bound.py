"""The time in which a request has to be answered."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from raystack.errors import Problem
from raystack.serving.protocol import InferRequest, RequestError


class Bound:
    """The time of one request, which starts now. `limit_s` None is no bound."""

    def __init__(self, limit_s: float | None, request: InferRequest) -> None:
        self._limit_s, self._request = limit_s, request
        self._when = None if limit_s is None else asyncio.get_running_loop().time() + limit_s

    @asynccontextmanager
    async def until(self) -> AsyncGenerator[None, None]:
        """Raise RequestError (504) if what is inside has not ended by then."""
        try:
            async with asyncio.timeout_at(self._when) as bound:
                yield
        except TimeoutError:
            if not bound.expired():
                raise
            rule = f"was not answered within {self._limit_s:g} s"
            raise RequestError(Problem(name(self._request), rule=rule), 504) from None


def asked(request: InferRequest, timeout_s: float | None) -> float | None:
    """Return the client's own bound in seconds: the transport's, or Triton's parameter in microseconds."""
    if "timeout" not in request.parameters:
        return timeout_s
    bounds = (request.parameters["timeout"] / 1e6, timeout_s)
    return min((bound for bound in bounds if bound), default=None)


def name(request: InferRequest) -> str:
    """Return the name of a request, for a message."""
    return "request" if request.id is None else f"request {request.id[:80]!r}"
