"""A driver's hold on its run: a small file that it renews, so that no second driver goes on with a run that is still going on.

Clocks of two machines are not compared: a file that changes is held, one that does not is a dead driver's. A driver that was given
up for dead and lives is told by the same file: it has a greater number in it then than the driver's own (`checkpoint/fence.py`).
"""

import _thread
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from raystack.checkpoint import fence
from raystack.checkpoint.fence import Fence, Holder
from raystack.checkpoint.storage import Storage
from raystack.errors import LaunchError, PausedError, Problem, RaystackError
from raystack.launch import inside

RENEW_S = 4.0
EXPIRED_S = 15.0


@contextmanager
def hold(folder: str) -> Iterator[Fence]:
    """Take the run in `folder`, a local path or fsspec URL, and hold it for the time of the block. Gives what its workers ask.

    A store that is away loses a renewal. Raises LaunchError where this is the late attempt of a job whose run goes on elsewhere, and
    TrainingError where another driver takes the run meanwhile: the block is then asked to stop as by SIGTERM.
    """
    storage = Storage(folder)
    if storage.local:
        storage.make("")
    held = Fence(folder, _next(folder, storage))
    fence.write(storage, held.holder, time.time())
    stop, taken = threading.Event(), threading.Event()
    in_main = threading.current_thread() is threading.main_thread()

    def renew() -> None:
        while not stop.wait(RENEW_S):
            with suppress(RaystackError):
                if held.holder.yields_to(fence.read(storage)):
                    taken.set()
                    if in_main:
                        _thread.interrupt_main(signal.SIGTERM)
                    return
                fence.write(storage, held.holder, time.time())

    thread = threading.Thread(target=renew, name="raystack-lease", daemon=True)
    thread.start()
    try:
        yield held
    except (KeyboardInterrupt, PausedError):
        if taken.is_set():
            held.check()
        raise
    finally:
        stop.set()
        thread.join()
        with suppress(RaystackError):
            _release(storage, held.holder)


def holder(folder: str) -> str | None:
    """Who holds the run in `folder`, or None. Waits until it is sure where a driver of another machine may be dead."""
    storage = Storage(folder)
    first = fence.read(storage)
    if first is None or not first.held or _is_dead_here(first):
        return None
    deadline = time.monotonic() + EXPIRED_S
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = fence.read(storage)
        if now is None or not now.held:
            return None
        if now != first:
            return str(now)
    return None


def _next(folder: str, storage: Storage) -> Holder:
    """This driver, after whoever had the run before."""
    before, job = fence.read(storage), inside.submitted()
    attempt = job.attempt if job is not None else None
    late = before is not None and attempt is not None and (before.job is None or before.job >= attempt)
    if late and (other := holder(folder)) is not None:
        rule = f"the run goes on without this attempt of the job, which began late: {other}"
        raise LaunchError(Problem("run", rule=rule, got=f"attempt {attempt}", remedy="leave it to that one"))
    number = before.number + 1 if before is not None else 1
    return Holder(number, secrets.token_hex(8), socket.gethostname(), os.getpid(), attempt)


def _release(storage: Storage, mine: Holder) -> None:
    """Say that nobody holds the run, unless somebody does. The file stays, so that the next driver's number is greater."""
    if not mine.yields_to(fence.read(storage)):
        fence.write(storage, replace(mine, held=False), time.time())


def _is_dead_here(held: Holder) -> bool:
    """The driver was a process of this machine, and is gone."""
    return held.host == socket.gethostname() and not os.path.exists(f"/proc/{held.pid}") and os.path.isdir("/proc/self")
