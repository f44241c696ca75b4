"""How many requests a model takes at a time, over any transport: some are worked on, some wait, others are
refused.
"""

import asyncio
from collections import deque

from raystack.errors import Problem
from raystack.serving.protocol import RequestError

RETRY_S = 1
"""Seconds after which a refused client is told to try again."""


class Admission:
    """Slots of one model: `max_ongoing` requests run at a time, and `max_queued` more wait in order.

    `async with admission:` holds a slot. A request asks for one when it is whole, so that a client that sends
    slowly holds none. For use on one event loop.
    """

    def __init__(self, max_ongoing: int, max_queued: int) -> None:
        self._max_ongoing, self._max_queued = max_ongoing, max_queued
        self._queue: deque[asyncio.Future[None]] = deque()
        self.ongoing = 0

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a slot."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether a request would have to wait."""
        return self.ongoing >= self._max_ongoing or bool(self._queue)

    def limit(self, max_ongoing: int, max_queued: int) -> None:
        """Change the numbers; those that wait take the slots that are new."""
        self._max_ongoing, self._max_queued = max_ongoing, max_queued
        while self._queue and self.ongoing < max_ongoing:
            self.ongoing += 1
            self.leave()

    def check(self) -> None:
        """Raise RequestError (429) if nobody can wait any more, before work is done for a request."""
        if self.ongoing >= self._max_ongoing and len(self._queue) >= self._max_queued:
            raise self._full()

    def enter(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self.full:
            return False
        self.ongoing += 1
        return True

    async def wait(self) -> None:
        """Wait in order for a slot and take it. Raises RequestError (429) if the queue is full."""
        if self.enter():
            return
        self.check()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.leave()  # its turn came in the same moment
            elif turn in self._queue:
                self._queue.remove(turn)
            raise

    def leave(self) -> None:
        """Give a slot back: to the first that waits, if any."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.ongoing -= 1

    async def __aenter__(self) -> None:
        await self.wait()

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def _full(self) -> RequestError:
        rule = (
            f"{self._max_ongoing} requests are worked on and {self._max_queued} wait, which is all that this"
            " server takes"
        )
        problem = Problem("queue", rule=rule, remedy="try again later")
        return RequestError(problem, 429, (("retry-after", str(RETRY_S)),))
