"""The server's limits around vLLM's HTTP routes: a body comes whole and in time, requests wait in order or
are refused, and an answer has a bound.

Refusals are in the form of OpenAI's errors, which its clients understand: they try a 429 again by themselves.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from raystack.config.serving import Serving
from raystack.errors import ConfigError, Problem
from raystack.serving.admission import Admission
from raystack.serving.front import Application
from raystack.serving.guard import guard
from raystack.serving.protocol import RequestError
from raystack.serving.rest.body import DisconnectedError, Limits, Message, Receive, read
from raystack.serving.writing import Send

LENGTH = b"content-length"
OPEN = ("/health", "/ping")
"""Paths for everybody, who is told no more than whether the model answers."""
TYPES = {408: "timeout_error", 429: "rate_limit_error", 504: "timeout_error"}
"""OpenAI's types of errors, by status."""


logger = logging.getLogger(__name__)


class Gate:
    """ASGI application around another. For use on one event loop."""

    def __init__(self, serving: Serving, failed: Callable[[], Awaitable[None]]) -> None:
        """Take the limits and read the tokens. Raises ConfigError for one that cannot be read.

        `failed` is called before a client is told of an error of the server's.
        """
        self._failed = failed
        self._admission = Admission(1, 1)
        self._tokens, self._guard = serving.tokens, guard(serving.tokens)
        self.limit(serving)

    def limit(self, serving: Serving) -> None:
        """Take over limits and tokens. One that cannot be read is logged, and all stay what they were."""
        self._limits = Limits(serving.body_bytes, serving.body_s)
        self._timeout_s = serving.timeout_s
        self._admission.limit(serving.max_ongoing, serving.max_queued)
        if serving.tokens != self._tokens:
            try:
                self._tokens, self._guard = serving.tokens, guard(serving.tokens)
            except ConfigError as error:
                logger.error("%s; the tokens are what they were", error)

    def around(self, application: Application) -> Application:
        """Return the application behind the limits, which are for what is posted, and the tokens."""

        async def limited(scope: Message, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})  # realtime audio, beside all limits
                return
            if scope["type"] != "http":
                await application(scope, receive, send)
                return
            answer = _Answer(send, self._failed)
            try:
                if self._guard is not None and scope["path"] not in OPEN:
                    self._guard.check(_header(scope, b"authorization"))
                if scope["method"] == "POST":
                    await self._answer(application, scope, receive, answer)
                else:
                    await application(scope, receive, send)
            except RequestError as refused:
                await answer.refuse(refused)
            except DisconnectedError:
                return

        return limited

    async def _answer(
        self, application: Application, scope: Message, receive: Receive, send: "_Answer"
    ) -> None:
        declared = _header(scope, LENGTH)
        body = await read(receive, None if declared is None else declared.encode(), self._limits)
        try:
            async with asyncio.timeout(self._timeout_s) as bound, self._admission:
                await application(scope, _again(body, receive), send)
        except TimeoutError:
            if not bound.expired():
                raise
            rule = f"took longer than {self._timeout_s:g} s"
            raise RequestError(Problem("request", rule=rule, remedy="ask for fewer tokens"), 504) from None


class _Answer:
    """What is sent of an answer; after its beginning an error can only be its end."""

    def __init__(self, send: Send, failed: Callable[[], Awaitable[None]]) -> None:
        self._send, self._failed = send, failed
        self._begun = self._ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 500:
            await self._failed()
        self._begun = True
        self._ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, refused: RequestError) -> None:
        """Answer with the error; where an answer has begun, end its events with it."""
        if self._ended:
            return
        status = refused.status
        kind = TYPES.get(status, "invalid_request_error")
        error = {"message": str(refused), "type": kind, "param": None, "code": status}
        body = orjson.dumps({"error": error})
        if self._begun:
            await self._send({"type": "http.response.body", "body": b"data: " + body + b"\n\n"})
            return
        headers = [(name.encode(), value.encode()) for name, value in refused.headers]
        headers += [(b"content-type", b"application/json"), (LENGTH, b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _header(scope: Message, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def _again(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """Return a `receive` that gives a body which was read, and then what else comes."""
    first: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again
