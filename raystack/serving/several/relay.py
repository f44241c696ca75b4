"""Requests that the gateway hands on, on the model's side: whole ones, answered in memory. Knows no Ray."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import unquote

from raystack.serving.front import Application
from raystack.serving.grpc.rpc import Answering, Caller, failed
from raystack.serving.protocol import RequestError
from raystack.serving.rest.body import Message
from raystack.serving.rest.infer import LENGTH
from raystack.serving.rest.response import Headers, Response


class HttpAsk(NamedTuple):
    """A request over HTTP."""

    method: str
    raw_path: bytes
    headers: Headers
    body: bytes


class GrpcAsk(NamedTuple):
    """A call over gRPC, or one request of a stream."""

    rpc: str
    body: bytes
    headers: dict[str, str]
    timeout_s: float | None
    """What is left of the client's deadline; None if it has none."""

    @property
    def caller(self) -> Caller:
        """The client, as the model's process sees it."""
        deadline = None if self.timeout_s is None else perf_counter() + self.timeout_s
        return Caller(self.headers, deadline, len(self.body))


class Said(NamedTuple):
    """An answer over gRPC."""

    body: bytes
    refused: RequestError | None = None


async def answer_http(application: Application, ask: HttpAsk) -> Response:
    """Answer a request with an ASGI application, a HEAD as a GET and without a length: these are the
    gateway's.
    """
    left = [ask.body]
    sent: list[Message] = []

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()  # the client's end cancels the call
        return {"type": "http.request", "body": left.pop(), "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await application(_scope(ask), receive, send)
    start, *bodies = sent
    headers = [(name, value) for name, value in start["headers"] if name != LENGTH]
    return Response(start["status"], headers, b"".join(each.get("body", b"") for each in bodies))


def _scope(ask: HttpAsk) -> Message:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": "GET" if ask.method == "HEAD" else ask.method,
        "path": unquote(ask.raw_path.decode("latin-1")),
        "raw_path": ask.raw_path,
        "query_string": b"",
        "root_path": "",
        "headers": ask.headers,
        "client": None,
        "server": None,
    }


async def answer_grpc(answering: Answering, ask: GrpcAsk) -> Said:
    """Answer a call that has one answer."""
    try:
        message = await answering.method(answering.rpc.read(ask.body), ask.caller)
        return Said(message.SerializeToString())
    except RequestError as error:
        return Said(b"", error)
    except Exception:
        return Said(b"", failed(ask.rpc))


async def answer_stream(answering: Answering, ask: GrpcAsk) -> AsyncIterator[Said]:
    """Answer one request of a stream."""
    try:
        async with aclosing(answering.method(_one(ask.body), ask.caller)) as answers:
            async for message in answers:
                yield Said(message.SerializeToString())
    except RequestError as error:
        yield Said(b"", error)
    except Exception:
        yield Said(b"", failed(ask.rpc))


async def _one(body: bytes) -> AsyncIterator[Any]:
    yield body
