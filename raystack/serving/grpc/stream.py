"""The requests of one ModelStreamInfer call, which arrive one after another and are worked on together, so
that they share forward passes.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from raystack.errors import Problem
from raystack.serving.grpc.messages import Message
from raystack.serving.protocol import RequestError

ONGOING = 64
"""Requests of one stream that are worked on; the next one is read when one of them has its last answer."""
UNREAD = 64
"""Answers that wait for the client to read them; then the model waits."""

Turn = Callable[[], Awaitable[None]]
"""Waits until the requests before have all their answers."""


class Stream:
    """The answers to a stream of requests. `answer` yields those to one of them.

    From the moment that `closing` is set no more requests are read.
    """

    def __init__(
        self, answer: Callable[[bytes, Turn], AsyncGenerator[Message, None]], closing: asyncio.Event
    ) -> None:
        self._answer, self._closing = answer, closing
        self._ready: asyncio.Queue[Message | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(UNREAD)
        self._slots = asyncio.Semaphore(ONGOING)

    async def answers(self, bodies: AsyncIterator[bytes]) -> AsyncGenerator[Message, None]:
        """Yield the answers to all requests. What is unfinished ends with the iteration.

        Raises what `answer` does, and RequestError (503) if requests are not read any more.
        """
        work = asyncio.create_task(self._work(bodies))
        work.add_done_callback(lambda _: self._ready.put_nowait(None))
        try:
            while (message := await self._ready.get()) is not None:
                self._room.release()
                yield message
            await work
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            work.cancel()

    async def _work(self, bodies: AsyncIterator[bytes]) -> None:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(bodies, group))
            closer = asyncio.create_task(self._closing.wait())
            closer.add_done_callback(lambda _: reading.cancel())
            reading.add_done_callback(lambda _: closer.cancel())
        if reading.cancelled():
            rule = "is closing; open a stream to another"
            raise RequestError(Problem("server", rule=rule), 503)

    async def _read(self, bodies: AsyncIterator[bytes], group: asyncio.TaskGroup) -> None:
        before: asyncio.Task[None] | None = None
        async for body in bodies:
            await self._slots.acquire()
            before = group.create_task(self._one(body, before))

    async def _one(self, body: bytes, before: asyncio.Task[None] | None) -> None:
        async def turn() -> None:
            if before is not None:
                await asyncio.wait((before,))

        try:
            async with aclosing(self._answer(body, turn)) as answers:
                async for message in answers:
                    await self._room.acquire()
                    self._ready.put_nowait(message)
        finally:
            self._slots.release()
