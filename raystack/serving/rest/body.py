"""A request's body, which has to come within a time and a size."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

from raystack.errors import Problem
from raystack.serving.protocol import RequestError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
CLOSE = (("connection", "close"),)


class Limits(NamedTuple):
    """Limits of one body."""

    size: int = 64_000_000
    """Bytes, unpacked if it is compressed."""
    seconds: float = 60.0
    """From the end of the headers to the last byte."""


DEFAULT = Limits()


class DisconnectedError(Exception):
    """The client went away before its request was whole."""


async def read(receive: Receive, declared: bytes | None, limits: Limits) -> bytes:
    """Read the whole body. `declared` is the header Content-Length, None where there is none.

    Raises RequestError, 413 where the body is too large and 408 where it does not come in time, and
    DisconnectedError.
    """
    if declared is not None and _number(declared) > limits.size:
        raise _too_large(limits)
    deadline = _Deadline(limits.seconds)
    try:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        if message.get("more_body", False):
            return await _rest(message.get("body", b""), receive, limits)
        return _bounded(message.get("body", b""), limits)
    except asyncio.CancelledError:
        if not deadline.ended():
            raise
        rule = f"did not arrive within {limits.seconds:g} s"
        raise RequestError(Problem("body", rule=rule), 408, CLOSE) from None
    finally:
        deadline.timer.cancel()


class _Deadline:
    """`asyncio.timeout` with the work left out that a body which is there already need not pay for."""

    __slots__ = ("passed", "task", "timer")

    def __init__(self, seconds: float) -> None:
        self.task, self.passed = asyncio.current_task(), False
        self.timer = asyncio.get_running_loop().call_later(seconds, self._pass)

    def ended(self) -> bool:
        """Whether it was the deadline, and nothing else, that cancelled the task."""
        return self.passed and self.task is not None and self.task.uncancel() == 0

    def _pass(self) -> None:
        assert self.task is not None
        self.passed = True
        self.task.cancel()


async def _rest(first: bytes, receive: Receive, limits: Limits) -> bytes:
    body = bytearray(first)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        body += message.get("body", b"")
        if len(body) > limits.size:
            raise _too_large(limits, CLOSE)
        if not message.get("more_body", False):
            return bytes(body)


def _bounded(body: bytes, limits: Limits) -> bytes:
    if len(body) > limits.size:
        raise _too_large(limits)
    return body


def _number(declared: bytes) -> int:
    """The header's number; one that is none, which servers refuse before, is 0: the bytes count anyway."""
    if not declared.isdigit():
        return 0
    return int(declared) if len(declared) < 20 else sys.maxsize


def _too_large(limits: Limits, headers: tuple[tuple[str, str], ...] = ()) -> RequestError:
    rule = f"should have at most {limits.size / 1e6:g} MB"
    remedy = "send fewer samples, or raise serving.body_mb"
    return RequestError(Problem("body", rule=rule, remedy=remedy), 413, headers)
