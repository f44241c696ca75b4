"""Threads that read files, none of which is left behind by an interrupt."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Result = TypeVar("Result")

WAIT_S = 8.0
"""Seconds that a read may take to end."""


class ReadingPool(ThreadPoolExecutor):
    """A pool of which no thread works any more when an error, such as an interrupt, has ended the block.

    An interrupt that meets the start of a thread leaves one that the executor does not know. It would begin
    its work when the interpreter ends, and a thread that is in PyArrow's C++ then aborts the process.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._changed = threading.Condition()
        self._working, self._over = 0, False

    def submit(self, function: Callable[..., Result], /, *args: Any, **named: Any) -> Future[Result]:
        """Have a thread call a function, unless an error ends the block before."""
        return super().submit(self._counted, function, args, named)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if error is not None:
            with self._changed:
                self._over = True
                self._changed.wait_for(lambda: not self._working, WAIT_S)
        return super().__exit__(kind, error, trace)

    def _counted(self, function: Callable[..., Result], args: Any, named: Any) -> Result:
        with self._changed:
            if self._over:
                raise CancelledError
            self._working += 1
        try:
            return function(*args, **named)
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()
