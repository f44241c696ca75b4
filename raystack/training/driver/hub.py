"""The coordinator in the driver's own process, and the way to it from the processes that train.

It runs on an event loop in a thread. The others reach it through a socket in a folder that only this user may
enter. A message is (method, arguments, whether an answer is awaited).
"""

import asyncio
import shutil
import tempfile
import threading
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from raystack.config.faults import Watchdog
from raystack.interrupts import start_deaf
from raystack.training.driver.coordinator import RunCoordinator


class LocalCoordinator(RunCoordinator):
    """A coordinator that also hears why a worker ended, because no controller is between them."""

    def __init__(self, watchdog: Watchdog) -> None:
        super().__init__(watchdog)
        self._failures: dict[int, BaseException] = {}

    async def failed(self, rank: int, failure: BaseException) -> None:
        """Take a worker's last word."""
        self._failures[rank] = failure

    async def failures(self) -> dict[int, BaseException]:
        """Return the last words since the last call, by rank."""
        failures, self._failures = self._failures, {}
        return failures


class Hub:
    """A `Link` to a coordinator that lives as long as the `with` block; others reach it at `address`."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._coordinator = LocalCoordinator(watchdog)
        self._loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="raystack-"))
        """A folder for what the processes of the run leave; it ends with the block."""
        self.address = str(self.folder / "hub")

    def __enter__(self) -> Self:
        self._listener = Listener(self.address, "AF_UNIX", backlog=64)
        self._thread = start_deaf(self._loop.run_forever, "raystack-hub")
        start_deaf(self._accept, "raystack-hub-door")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        with suppress(OSError):
            Client(self.address, "AF_UNIX").close()  # wakes up the thread at the door, which ends
        self._listener.close()
        self._loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, order: str, *values: Any) -> Any:
        """Call the coordinator's method `order`, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(
            getattr(self._coordinator, order)(*values), self._loop
        ).result()

    def send(self, order: str, *values: Any) -> None:
        """Call the coordinator's method `order` without waiting for it."""
        asyncio.run_coroutine_threadsafe(getattr(self._coordinator, order)(*values), self._loop)

    def _accept(self) -> None:
        while self._thread.is_alive():
            with suppress(OSError):
                start_deaf(partial(self._serve, self._listener.accept()), "raystack-hub-line")

    def _serve(self, connection: "Connection[Any, Any]") -> None:
        # The other end has gone, with its process.
        with suppress(EOFError, OSError), connection:
            while True:
                order, values, awaited = connection.recv()
                if awaited:
                    connection.send(self.ask(order, *values))
                else:
                    self.send(order, *values)


class SocketLink:
    """A `Link` from another process to the hub at `address`, for the time of a `with` block."""

    def __init__(self, address: str) -> None:
        self._asking, self._lock = Client(address, "AF_UNIX"), threading.Lock()
        self._sending: SimpleQueue[tuple[str, tuple[Any, ...]] | None] = SimpleQueue()
        line = Client(address, "AF_UNIX")
        self._thread = threading.Thread(target=self._send, args=(line,), name="raystack-events", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sending.put(None)
        self._thread.join()
        self._asking.close()

    def ask(self, order: str, *values: Any) -> Any:
        """Call the coordinator's method `order`, and return what it returns."""
        with self._lock:
            self._asking.send((order, values, True))
            return self._asking.recv()

    def send(self, order: str, *values: Any) -> None:
        """Call the coordinator's method `order` without waiting for it, however busy the driver is."""
        self._sending.put((order, values))

    def _send(self, line: "Connection[Any, Any]") -> None:
        with line, suppress(EOFError, OSError):
            while (message := self._sending.get()) is not None:
                line.send((*message, False))
            # The driver reads a line in order: the answer says that it has all of them.
            line.send(("put", ([],), True))
            line.recv()
