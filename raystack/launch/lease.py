"""A driver's hold on its run: a small file that it renews, so that no second driver goes on with a run that is still going on.

Clocks of two machines are not compared: a file that changes is held, one that does not is a dead driver's.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from raystack.checkpoint.storage import Storage
from raystack.errors import RaystackError

NAME = "driver.json"
RENEW_S = 4.0
EXPIRED_S = 15.0


@contextmanager
def hold(folder: str) -> Iterator[None]:
    """Hold the run in `folder`, a local path or fsspec URL, for the time of the block. A store that is away loses a renewal."""
    storage = Storage(folder)
    if storage.local:
        storage.make("")
    stop = threading.Event()

    def renew() -> None:
        while True:
            with suppress(RaystackError):
                storage.write(NAME, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}))
            if stop.wait(RENEW_S):
                return

    thread = threading.Thread(target=renew, name="raystack-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with suppress(RaystackError):
            storage.delete(NAME)


def holder(folder: str) -> str | None:
    """Who holds the run in `folder`, or None. Waits until it is sure where a driver of another machine may be dead."""
    storage = Storage(folder)
    first = _read(storage)
    if first is None or _is_dead_here(first):
        return None
    deadline = time.monotonic() + EXPIRED_S
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = _read(storage)
        if now is None:
            return None
        if now != first:
            return f"process {now['pid']} on {now['host']}"
    return None


def _is_dead_here(held: dict[str, object]) -> bool:
    """The driver was a process of this machine, and is gone."""
    return held["host"] == socket.gethostname() and not os.path.exists(f"/proc/{held['pid']}") and os.path.isdir("/proc/self")


def _read(storage: Storage) -> dict[str, object] | None:
    try:
        held = json.loads(storage.read(NAME))
    except (FileNotFoundError, ValueError):
        return None
    return held if isinstance(held, dict) and {"host", "pid"} <= held.keys() else None
