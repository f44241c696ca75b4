"""Dynamic batching: concurrent requests share a forward pass, in order, and fail separately.

Plain asyncio, no Ray. One pass runs at a time; requests that arrive meanwhile join the next one. While the
model is idle, a pass starts in the next turn of the event loop, so that requests which were received together
share it. It waits longer only if more are to be expected: until as many requests are there as were for the
last pass, for at most `wait_s` and no longer than a pass takes. A lone client waits for nothing.

Only requests whose inputs have equal shapes share a pass; of several shapes the one that has waited longest
is next. A request larger than a batch takes several passes and goes to the end of the queue after each, so
that it takes turns with the others.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, thread_time
from typing import NamedTuple

import numpy as np

from raystack.errors import Problem, ServingError
from raystack.serving.pace import Pace
from raystack.serving.protocol.tensors import Array
from raystack.serving.statistics import Duration

Arrays = Mapping[str, Array]
Kind = tuple[tuple[int, ...], ...]
"""Shapes of the inputs without the batch dimension."""

ALONE = 16
"""Number of passes in a row with one request after which a request runs at once; see `_alone`."""
TICK_S = 0.001
"""Shorter waits are left out: the event loop's timers are no finer, and so short a pass gains little."""
KINDS = 256
"""Number of shapes whose passes are remembered."""


class Answer(NamedTuple):
    """The outputs of one request, and what they took."""

    outputs: Arrays
    wait_s: float
    """Seconds until its first forward pass started."""
    compute_s: float
    """Seconds in forward passes."""
    batch: int
    """Number of samples in the forward pass that it shared; in the largest, if it took several."""


Outcome = Answer | Exception | None
"""What a request has after a pass: its answer, its error, or None while samples are missing."""


class _Request:
    """One request in the queue."""

    __slots__ = ("answer", "arrived", "batch", "compute_s", "done", "inputs", "parts", "size", "started")

    def __init__(self, inputs: Arrays, size: int, answer: asyncio.Future[Answer]) -> None:
        self.inputs, self.size, self.answer = inputs, size, answer
        self.arrived = perf_counter()
        self.started = 0.0
        self.done = 0
        """Number of samples that are in a pass or behind it."""
        self.parts: list[Arrays] = []
        self.compute_s = 0.0
        self.batch = 0

    def add(self, outputs: Arrays, seconds: float, batch: int) -> None:
        """Take the outputs of its next samples."""
        self.parts.append(outputs)
        self.compute_s += seconds
        self.batch = max(self.batch, batch)

    def whole(self) -> Answer | ServingError:
        """Return the answer, once all samples are there, or why the parts are none."""
        try:
            return Answer(_join(self.parts), self.started - self.arrived, self.compute_s, self.batch)
        except ServingError as error:
            return error


class _Part(NamedTuple):
    """The samples of one request in one pass."""

    request: _Request
    start: int
    stop: int

    def inputs(self) -> Arrays:
        inputs = self.request.inputs
        if self.stop - self.start == self.request.size:
            return inputs
        return {name: array[self.start : self.stop] for name, array in inputs.items()}


class _Lane:
    """Requests of equal shapes, and what is known of their passes."""

    __slots__ = ("alone", "expected", "pace", "queue", "samples", "since")

    def __init__(self) -> None:
        self.queue: deque[_Request] = deque()
        self.samples = 0
        """In the queue."""
        self.since = 0.0
        """When the first in the queue arrived, or the lane had its last turn."""
        self.expected = 1
        """Number of requests that were there when the last pass started."""
        self.alone = 0
        """Number of passes with one request since the last with several."""
        self.pace = Pace()


class Batcher:
    """Batcher that calls `forward` with at most `max_size` samples, one call at a time."""

    def __init__(self, forward: Callable[[Arrays], Arrays], max_size: int, wait_s: float) -> None:
        self._forward, self._max_size, self._wait_s = forward, max_size, wait_s
        self._lanes: dict[Kind, _Lane] = {}
        self._waiting: dict[_Lane, None] = {}
        """Lanes with requests, in the order of their turns."""
        self._busy = False
        self._scheduled = False
        """Whether a look at the queue is due in the next turn of the event loop."""
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._thread = ThreadPoolExecutor(1, "predict")
        self.passes: dict[int, Duration] = {}
        """Forward passes so far, by number of samples."""

    def predict(self, inputs: Arrays, size: int) -> asyncio.Future[Answer]:
        """Return the outputs of a request of `size` samples.

        Raises the errors of `forward` for this request only. A request that is cancelled takes part in no
        further pass.
        """
        loop = asyncio.get_running_loop()
        kind = tuple([array.shape[1:] for array in inputs.values()])
        lane = self._lanes.get(kind) or self._lane(kind)
        request = _Request(inputs, size, loop.create_future())
        if self._alone(lane, size):
            self._pass_inline(loop, lane, [_Part(request, 0, size)], size)
            return request.answer
        if not lane.queue:
            lane.since = request.arrived
            self._waiting[lane] = None
        lane.queue.append(request)
        lane.samples += size
        if not (self._busy or self._scheduled) and (self._timer is None or self._ready(lane)):
            self._schedule(loop)
        return request.answer

    def close(self) -> None:
        """End the thread. Called when no request is left."""
        self._thread.shutdown(wait=False)

    def _lane(self, kind: Kind) -> _Lane:
        if len(self._lanes) >= KINDS:
            empty = next((key for key, lane in self._lanes.items() if not lane.queue), None)
            if empty is not None:
                del self._lanes[empty]
        return self._lanes.setdefault(kind, _Lane())

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._scheduled = True
        loop.call_soon(self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a pass for the first lane that does not wait for others, or come back later."""
        self._scheduled, self._timer = False, None
        soonest = float("inf")
        for lane in self._waiting:
            left = self._left(lane)
            if left <= 0:
                self._start(loop, lane)
                return
            soonest = min(soonest, left)
        if self._waiting:
            self._timer = loop.call_later(soonest, self._look, loop)

    def _ready(self, lane: _Lane) -> bool:
        return len(lane.queue) >= lane.expected or lane.samples >= self._max_size

    def _left(self, lane: _Lane) -> float:
        """Return the seconds that a lane still waits for others."""
        if self._ready(lane):
            return 0.0
        bound = min(self._wait_s, lane.pace.seconds(lane.samples))
        return max(lane.since, self._idle_since) + bound - perf_counter() if bound >= TICK_S else 0.0

    def _start(self, loop: asyncio.AbstractEventLoop, lane: _Lane) -> None:
        lane.expected = len(lane.queue)
        parts = self._take(lane)
        del self._waiting[lane]
        if lane.queue:
            lane.since = perf_counter()
            self._waiting[lane] = None
        if not parts:
            self._after(loop)
            return
        size = sum([part.stop - part.start for part in parts])
        lane.alone = lane.alone + 1 if len(parts) == 1 else 0
        if lane.pace.inline(size):
            self._pass_inline(loop, lane, parts, size)
            return
        self._busy = True
        before_s = thread_time()
        run = loop.run_in_executor(self._thread, self._run_aside, parts, size)

        def finish(done: asyncio.Future[tuple[list[Outcome], float, float]]) -> None:
            answers, seconds, cpu_s = done.result()
            lane.pace.ran_aside(seconds, cpu_s, thread_time() - before_s)
            self._finish(loop, parts, answers)

        run.add_done_callback(finish)

    def _take(self, lane: _Lane) -> list[_Part]:
        """Take the samples of a pass from the requests in order. One that is larger than a batch gives a part
        of them and goes to the end.
        """
        parts: list[_Part] = []
        again: list[_Request] = []
        queue, room = lane.queue, self._max_size
        while queue and room:
            request = queue[0]
            left = request.size - request.done
            if request.answer.done():
                queue.popleft()
                lane.samples -= left
                continue
            if left > room and request.size <= self._max_size:
                break
            queue.popleft()
            size = min(left, room)
            parts.append(_Part(request, request.done, request.done + size))
            request.done += size
            room -= size
            lane.samples -= size
            if left > size:
                again.append(request)
        queue.extend(again)
        return parts

    def _alone(self, lane: _Lane, size: int) -> bool:
        """Whether to run a pass for a request at once: the last ones had no company, and it is short.

        Every so often one waits for the next turn of the event loop all the same, to see if it has company.
        """
        if lane.alone < ALONE or self._busy or self._waiting or size > self._max_size:
            return False
        if lane.alone % ALONE == 0 or not lane.pace.inline(size):
            return False
        lane.alone += 1
        return True

    def _pass_inline(
        self, loop: asyncio.AbstractEventLoop, lane: _Lane, parts: list[_Part], size: int
    ) -> None:
        answers, seconds = self._run(parts, size)
        lane.pace.ran(size, seconds)
        self._finish(loop, parts, answers)

    def _run_aside(self, parts: list[_Part], size: int) -> tuple[list[Outcome], float, float]:
        """Run a pass in the thread. Return the processor's seconds in it, too."""
        before_s = thread_time()
        return *self._run(parts, size), thread_time() - before_s

    def _run(self, parts: list[_Part], size: int) -> tuple[list[Outcome], float]:
        """Run a pass. Return what each request has then, and the seconds that the pass took."""
        started = perf_counter()
        for part in parts:
            if not part.start:
                part.request.started = started
        try:
            outputs = self._forward(
                parts[0].inputs() if len(parts) == 1 else _join([part.inputs() for part in parts])
            )
        except Exception as error:
            # Repeat it request by request, so that only the one at fault fails.
            if len(parts) == 1:
                return [error], perf_counter() - started
            alone = [self._run([part], part.stop - part.start)[0][0] for part in parts]
            return alone, perf_counter() - started
        seconds = perf_counter() - started
        self._count(size, seconds)
        return _split(parts, outputs, seconds, size), seconds

    def _count(self, size: int, seconds: float) -> None:
        passes = self.passes.get(size)
        if passes is None:
            passes = self.passes[size] = Duration()
        passes.add(seconds)

    def _finish(self, loop: asyncio.AbstractEventLoop, parts: list[_Part], answers: list[Outcome]) -> None:
        self._busy = False
        for part, answer in zip(parts, answers, strict=True):
            waiting = part.request.answer
            if answer is None or waiting.done():
                continue
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)
        self._after(loop)

    def _after(self, loop: asyncio.AbstractEventLoop) -> None:
        self._idle_since = perf_counter()
        if self._waiting and not self._scheduled:
            self._schedule(loop)


def _split(parts: list[_Part], outputs: Arrays, seconds: float, batch: int) -> list[Outcome]:
    answers: list[Outcome] = []
    at = 0
    for part in parts:
        size = part.stop - part.start
        own = outputs if len(parts) == 1 else {name: each[at : at + size] for name, each in outputs.items()}
        at += size
        request = part.request
        if size == request.size:
            answers.append(Answer(own, request.started - request.arrived, seconds, batch))
        else:
            request.add(own, seconds, batch)
            answers.append(request.whole() if part.stop == request.size else None)
    return answers


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
