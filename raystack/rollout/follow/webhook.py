"""The HTTP server of the webhook: every request gets one answer, within a time and a size.

It only wakes whoever follows the alias. Nothing of a body is used to choose a version.
"""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from raystack import interrupts
from raystack.config.follow import Webhook
from raystack.errors import LaunchError, Problem, RaystackError
from raystack.rollout.follow.deliveries import Answer, Deliveries

BODY_BYTES, BODY_S = 1_000_000, 10.0
"""Largest body, and the seconds in which it has to arrive. MLflow's have some hundred bytes."""
UNREAD_BYTES = 16_000_000
"""Size from which a body is not read to its end before it is refused."""
CONNECTIONS = 32
"""Connections at a time; more are refused with status 503."""
IDLE_S, END_S = 5, 5.0

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

logger = logging.getLogger(__name__)


class Listener:
    """An ASGI application."""

    def __init__(self, path: str, deliveries: Deliveries, wake: Callable[[], None]) -> None:
        self._path, self._deliveries, self._wake = path, deliveries, wake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        answer = await self._answer(scope, receive)
        if answer.wakes:
            self._wake()
        who = (scope.get("client") or ("?",))[0]
        level = logging.INFO if answer.wakes else logging.WARNING
        logger.log(level, "webhook: a request of %s %s (%d)", who, answer.why, answer.status)
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        if answer.status == 503:
            headers.append((b"retry-after", b"1"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": f"{answer.why}\n".encode()})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            async with asyncio.timeout(BODY_S):
                body = await _body(receive, headers.get("content-length", ""))
        except TimeoutError:
            return Answer(408, f"has a body that did not arrive within {BODY_S:g} s")
        if scope["path"] != self._path:
            return Answer(404, "is for another path")
        if scope["method"] != "POST":
            return Answer(405, "is no POST")
        if body is None:
            return Answer(413, f"has a body of more than {BODY_BYTES:,} bytes")
        try:
            # It writes to the storage.
            return await asyncio.to_thread(self._deliveries.answer, headers, body, time.time())
        except (RaystackError, OSError) as error:
            return Answer(503, f"cannot be remembered: {error}")


async def _body(receive: Receive, declared: str) -> bytes | None:
    """Return the body; None if it is too large.

    What is too much is thrown away: a client whose connection ends while it sends does not see its answer.
    """
    if declared.isdigit() and int(declared[:20]) > UNREAD_BYTES:
        return None
    body, size, more = bytearray(), 0, True
    while more and size <= UNREAD_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size <= BODY_BYTES:
            body += part
    return bytes(body) if size <= BODY_BYTES else None


@contextmanager
def listening(config: Webhook, deliveries: Deliveries, wake: Callable[[], None]) -> Iterator[None]:
    """Listen during the block, in a thread. Raises LaunchError if the port is taken."""
    listener = _bound(config.host, config.port)
    settings = uvicorn.Config(
        Listener(config.path, deliveries, wake),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(settings)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    thread: threading.Thread = interrupts.start_deaf(
        lambda: asyncio.run(server.serve([listener])), "raystack-webhook"
    )
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(END_S)
        with suppress(OSError):
            listener.close()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(CONNECTIONS)
    except OSError as error:
        listener.close()
        rule = f"cannot be listened at: {error.strerror}"
        raise LaunchError(Problem("rollout.follow.webhook.port", rule=rule, got=f"{host}:{port}")) from None
    return listener
