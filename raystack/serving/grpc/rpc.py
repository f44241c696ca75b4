"""What all RPCs have in common: bytes <-> messages, errors -> status codes, the handlers of a gRPC server.

A service is an object with a method for each RPC, by the RPC's name. A method takes the request, or an
iterator of requests that are still bytes, and the Caller. It raises RequestError, and knows neither gRPC's
server nor Serve's.
"""

import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from functools import cache
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import grpc
from google.protobuf import message_factory

from raystack.errors import Problem
from raystack.serving.grpc.messages import POOL, DecodeError, Message
from raystack.serving.guard import Guard
from raystack.serving.protocol import RequestError

CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""HTTP status -> status code, of those that have their own."""
DETAILS = 2000
"""Bytes of a status message: clients refuse more than 8 KiB of metadata, and a byte may be sent as three."""

logger = logging.getLogger(__name__)


class Context(Protocol):
    """What grpc.aio's context of a call and Serve's have in common."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return the client's metadata."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status code."""

    def set_details(self, details: str) -> None:
        """Set the status message."""

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Set the metadata that follows the answer."""


class Caller(NamedTuple):
    """What is known of a call beside its messages."""

    headers: Mapping[str, str]
    """The client's metadata."""
    deadline: float | None
    """The client's, as `time.perf_counter()`; None if it has none."""
    size: int = 0
    """Bytes of the request; 0 for a stream of them."""

    @classmethod
    def of(cls, context: Context) -> "Caller":
        """Return the caller of a context. Serve's has no deadline: Serve cancels the call instead."""
        metadata = context.invocation_metadata() or ()
        remaining = getattr(context, "time_remaining", None)
        remaining_s = remaining() if remaining is not None else None
        return cls(
            {key: value for key, value in metadata if isinstance(value, str)},
            None if remaining_s is None else perf_counter() + remaining_s,
        )


class Raw(NamedTuple):
    """A message that is not read."""

    body: bytes

    @classmethod
    def FromString(cls, body: bytes) -> "Raw":
        """Return the message of some bytes."""
        return cls(body)

    def SerializeToString(self) -> bytes:
        """Return its bytes."""
        return self.body


class Rpc(NamedTuple):
    """One RPC of a service."""

    name: str
    request: Any
    """Class of its messages."""
    response: Any
    streams_in: bool
    streams_out: bool

    def read(self, body: bytes) -> Message:
        """Return the request. Raises RequestError, status 400."""
        try:
            return self.request.FromString(body)
        except DecodeError:
            rule = f"should be a message {self.request.DESCRIPTOR.full_name}"
            raise RequestError(Problem("request", rule=rule, got=f"{len(body)} other bytes")) from None


@cache
def rpcs(service: str) -> Mapping[str, Rpc]:
    """Return the RPCs of a service, by its full name, by theirs."""
    return {
        method.name: Rpc(
            method.name,
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
            method.client_streaming,
            method.server_streaming,
        )
        for method in POOL.FindServiceByName(service).methods
    }


def _nobody() -> None:
    """No guard."""


class Answering(NamedTuple):
    """How one RPC is answered: by a method, with messages of at most `largest()` bytes, in and out, to those
    that `guard()` lets in.
    """

    rpc: Rpc
    method: Any
    largest: Callable[[], int | None]
    guard: Callable[[], Guard | None] = _nobody

    async def unary(self, body: bytes, context: Context) -> bytes:
        """Answer a call that has one answer."""
        try:
            caller = self._admitted(context)._replace(size=len(body))
            self._fits("request", body)
            answer: bytes = (await self.method(self.rpc.read(body), caller)).SerializeToString()
            self._fits("answer", answer)
            return answer
        except RequestError as refused:
            _refuse(context, refused)
        except Exception:
            _refuse(context, failed(self.rpc.name))
        return b""

    async def stream(self, asked: Any, context: Context) -> AsyncIterator[bytes]:
        """Answer a call that has any number of answers, to one request or to a stream of them."""
        try:
            caller = self._admitted(context)
            request = self._sized(asked) if self.rpc.streams_in else self.rpc.read(asked)
            async with aclosing(self.method(request, caller)) as answers:
                async for message in answers:
                    answer = message.SerializeToString()
                    self._fits("answer", answer)
                    yield answer
        except RequestError as refused:
            _refuse(context, refused)
        except Exception:
            _refuse(context, failed(self.rpc.name))

    def _admitted(self, context: Context) -> Caller:
        caller, guard = Caller.of(context), self.guard()
        if guard is not None:
            guard.check(caller.headers.get("authorization"))
        return caller

    async def _sized(self, bodies: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for body in bodies:
            self._fits("request", body)
            yield body

    def _fits(self, where: str, body: bytes) -> None:
        largest = self.largest()
        if largest is not None and len(body) > largest:
            rule = f"should have at most {largest / 1e6:g} MB"
            raise RequestError(Problem(where, rule=rule, got=f"{len(body)} bytes"), 413)


def answered(service: str, servicer: object, largest: Callable[[], int | None]) -> list[Answering]:
    """Return how a service's RPCs are answered with the methods of an object."""
    return [Answering(rpc, getattr(servicer, rpc.name), largest) for rpc in rpcs(service).values()]


def handlers(service: str, answering: Iterable[Answering]) -> grpc.GenericRpcHandler:
    """Return what a grpc.aio server needs to answer a service's RPCs."""
    made = {}
    for each in answering:
        if each.rpc.streams_in:
            made[each.rpc.name] = grpc.stream_stream_rpc_method_handler(each.stream)
        elif each.rpc.streams_out:
            made[each.rpc.name] = grpc.unary_stream_rpc_method_handler(each.stream)
        else:
            made[each.rpc.name] = grpc.unary_unary_rpc_method_handler(each.unary)
    return grpc.method_handlers_generic_handler(service, made)


def code(status: int) -> grpc.StatusCode:
    """Return the status code for an HTTP status."""
    others = grpc.StatusCode.INVALID_ARGUMENT if status < 500 else grpc.StatusCode.INTERNAL
    return CODES.get(status, others)


def failed(where: str) -> RequestError:
    """Log the present exception, which is an error of raystack's, and return what the client is told."""
    identity = uuid.uuid4().hex
    logger.exception("%s failed, id %s", where, identity)
    return RequestError(Problem(where, rule=f"the server failed; its log has more under id {identity}"), 500)


def _refuse(context: Context, refused: RequestError) -> None:
    context.set_code(code(refused.status))
    context.set_details(str(refused).encode()[:DETAILS].decode(errors="ignore"))
    headers = [(name, value) for name, value in refused.headers if value]
    if headers:
        context.set_trailing_metadata(headers)
