"""Dynamic batching: concurrent requests share a forward pass, in order, and fail separately.

Plain asyncio, no Ray. A batch is closed when it is full or its first request has waited long enough, but
never while the model is busy: requests that arrive meanwhile join the next one.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from raystack.errors import Problem, ServingError
from raystack.serving.protocol.tensors import Array

Arrays = Mapping[str, Array]

INLINE_S = 0.002
"""Forward passes shorter than this run on the event loop, because a thread would cost more than it frees."""


@dataclass(frozen=True)
class _Waiting:
    inputs: Arrays
    size: int
    kind: tuple[tuple[int, ...], ...]
    """Shapes of the inputs without the batch dimension; only requests with equal shapes are joined."""
    since: float
    answer: asyncio.Future[Arrays]


class Batcher:
    """Batcher that calls `predict` with at most `max_size` samples, one call at a time."""

    def __init__(self, predict: Callable[[Arrays], Arrays], max_size: int, wait_s: float) -> None:
        self._predict, self._max_size, self._wait_s = predict, max_size, wait_s
        self._queue: deque[_Waiting] = deque()
        self._queued = 0
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, "predict")
        self._last_s = INLINE_S

    async def predict(self, inputs: Arrays, size: int) -> Arrays:
        """Return the outputs of a request of `size` samples; one above `max_size` takes several passes.

        Raises the errors of `predict` for this request only.
        """
        if size <= self._max_size:
            return await self._submit(inputs, size)
        starts = range(0, size, self._max_size)
        parts = [
            {name: array[start : start + self._max_size] for name, array in inputs.items()}
            for start in starts
        ]
        answers = await asyncio.gather(
            *(
                self._submit(part, min(self._max_size, size - start))
                for part, start in zip(parts, starts, strict=True)
            )
        )
        return _join(answers)

    def close(self) -> None:
        """End the thread. Called when no request is left."""
        self._thread.shutdown(wait=False)

    def _submit(self, inputs: Arrays, size: int) -> asyncio.Future[Arrays]:
        loop = asyncio.get_running_loop()
        kind = tuple(array.shape[1:] for array in inputs.values())
        waiting = _Waiting(inputs, size, kind, loop.time(), loop.create_future())
        self._queue.append(waiting)
        self._queued += size
        self._next(loop)
        return waiting.answer

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a pass, or the timer for one, if requests wait and no pass is running."""
        if self._busy or not self._queue:
            return
        left = self._queue[0].since + self._wait_s - loop.time()
        if self._queued >= self._max_size or (left <= 0 and self._wait_s > 0):
            self._start(loop)
        elif self._timer is None:
            self._timer = loop.call_later(max(left, 0), self._start, loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = self._take()
        if not batch:
            return
        self._busy = True
        if self._last_s < INLINE_S:
            self._finish(loop, batch, self._run(batch))
        else:
            run = loop.run_in_executor(self._thread, self._run, batch)
            run.add_done_callback(lambda done: self._finish(loop, batch, done.result()))

    def _take(self) -> list[_Waiting]:
        """Take the first request and those behind it that can be joined and fit, in order."""
        taken: list[_Waiting] = []
        passed: list[_Waiting] = []
        room = self._max_size
        while self._queue and room > 0:
            waiting = self._queue.popleft()
            if waiting.answer.cancelled():
                self._queued -= waiting.size
            elif waiting.size > room:
                passed.append(waiting)
                break
            elif taken and waiting.kind != taken[0].kind:
                passed.append(waiting)
            else:
                taken.append(waiting)
                room -= waiting.size
                self._queued -= waiting.size
        self._queue.extendleft(reversed(passed))
        return taken

    def _run(self, batch: list[_Waiting]) -> list[Arrays | Exception]:
        """Run one pass over the batch."""
        started = perf_counter()
        try:
            return list(self._pass(batch))
        except Exception as error:
            # Repeat it request by request, so that only the one at fault fails.
            return [error] if len(batch) == 1 else [self._run([waiting])[0] for waiting in batch]
        finally:
            self._last_s = perf_counter() - started

    def _pass(self, batch: list[_Waiting]) -> list[Arrays]:
        if len(batch) == 1:
            return [self._predict(batch[0].inputs)]
        outputs = self._predict(_join([waiting.inputs for waiting in batch]))
        ends = np.cumsum([waiting.size for waiting in batch])
        return [
            {name: array[end - waiting.size : end] for name, array in outputs.items()}
            for waiting, end in zip(batch, ends, strict=True)
        ]

    def _finish(
        self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], answers: list[Arrays | Exception]
    ) -> None:
        self._busy = False
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)
        if self._queue:
            loop.call_soon(self._next, loop)


def _join(parts: list[Arrays]) -> Arrays:
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except ValueError as error:
        raise ServingError(
            Problem(
                "batching",
                rule=f"parts of one request cannot be joined: {error}",
                remedy="send at most serving.batching.max_size samples",
            )
        ) from None
