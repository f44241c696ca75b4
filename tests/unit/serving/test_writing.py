"""A killed replica leaves HAProxy either a whole small response or nothing of it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from raystack.serving.rest.body import Message, Receive
from raystack.serving.writing import Send, Together

REQUEST = b"GET / HTTP/1.1\r\nhost: test\r\n%s\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what was written, part by part."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed_after: int | None = None

    def write(self, data: Any) -> None:
        if data:
            self.written.append(bytes(data))

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        self.closed_after = len(self.written)

    def is_closing(self) -> bool:
        return self.closed_after is not None


async def several_parts(scope: Message, receive: Receive, send: Send) -> None:
    send = Together(send)
    headers = [(b"content-length", b"6")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    await send({"type": "http.response.body", "body": b"two"})


async def failing(scope: Message, receive: Receive, send: Send) -> None:
    send = Together(send)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
    raise LookupError("after the head")


def written(make: Callable[..., Any], application: Any, header: bytes = b"") -> Wire:
    async def run() -> Wire:
        config = uvicorn.Config(application, lifespan="off", log_config=None)
        config.load()
        wire, state = Wire(), ServerState()
        protocol = make(config=config, server_state=state, app_state={})
        protocol.connection_made(wire)
        protocol.data_received(REQUEST % header)
        async with asyncio.timeout(10):
            await asyncio.gather(*state.tasks)
        return wire

    return asyncio.run(run())


@pytest.fixture(params=[H11Protocol, HttpToolsProtocol])
def protocol(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_the_head_is_written_with_the_first_part_of_the_body(protocol: Any) -> None:
    first, second = written(protocol, several_parts).written
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith(b"\r\n\r\none")
    assert second == b"two"


def test_a_connection_is_closed_after_all_was_written(protocol: Any) -> None:
    wire = written(protocol, several_parts, b"connection: close\r\n")
    assert wire.written[-1] == b"two"
    assert wire.closed_after == 2


def test_a_head_without_a_body_is_not_written(protocol: Any) -> None:
    assert written(protocol, failing).written[0].startswith(b"HTTP/1.1 500")
