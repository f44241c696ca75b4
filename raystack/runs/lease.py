"""A driver's lease on its run: a small file that it renews, so that no second driver trains the run.

Clocks of two machines are not compared: a file that changes is held, one that does not is a dead driver's. A
driver that was taken for dead but still runs finds the file of one with a greater number beside its own
(`checkpoint/fence.py`).
"""

import _thread
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from raystack import interrupts, job_context
from raystack.checkpoint import fence
from raystack.checkpoint.fence import Fence, Holder
from raystack.errors import LaunchError, PausedError, Problem, RaystackError
from raystack.storage import Storage

RENEW_S = 4.0
EXPIRED_S = 15.0


@contextmanager
def hold(folder: str, tell: Callable[[str], None]) -> Iterator[Fence]:
    """Take the run in `folder`, a local path or fsspec URL, and hold it during the block.

    Yields the fence that the run's workers check. `tell` takes a line for people: a wait for a driver that
    may be dead is reported. While the store is unavailable, renewals are skipped. Raises LaunchError if this
    is a late attempt of a job whose run continues elsewhere. Raises TrainingError if another driver takes the
    run during the block, which is then interrupted as by SIGTERM.
    """
    storage = Storage(folder)
    if storage.local:
        storage.make("")
    before = fence.read(storage)
    held = Fence(folder, _next(folder, before, tell))
    fence.write(storage, held.holder, time.time())
    # Of two that take it at the same moment, the one whose file was overwritten ends here, or at a renewal.
    held.check()
    if before is not None:
        fence.forget(storage, before)
    stop, taken = threading.Event(), threading.Event()
    patient = storage.until(stop)
    in_main = threading.current_thread() is threading.main_thread()

    def renew() -> None:
        while not stop.wait(RENEW_S):
            with suppress(RaystackError, OSError):
                if held.holder.yields_to(fence.read(patient)):
                    taken.set()
                    if in_main:
                        _thread.interrupt_main(signal.SIGTERM)
                    return
                fence.write(patient, held.holder, time.time())

    # A thread renews, because this one runs the block.
    thread = interrupts.start_deaf(renew, "raystack-lease")
    try:
        yield held
    except (KeyboardInterrupt, PausedError):
        if taken.is_set():
            held.check()
        raise
    finally:
        stop.set()
        thread.join()
        with suppress(RaystackError, OSError):
            # The file stays, so that the next driver's number is greater. A driver that took the run at the
            # same moment has the same file.
            if not held.holder.yields_to(fence.read(storage)):
                fence.write(storage, replace(held.holder, held=False), time.time())


def holder(folder: str, tell: Callable[[str], None]) -> str | None:
    """Return the holder of the run in `folder`, or None.

    If a driver of another machine may be dead, waits until this is certain, and reports the wait.
    """
    storage = Storage(folder)
    first = fence.read(storage)
    if first is None or not first.held or is_dead_here(first):
        return None
    tell(f"waiting up to {EXPIRED_S:.0f} s for a sign of life of the run's last driver, {first}: {folder}")
    deadline = time.monotonic() + EXPIRED_S
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = fence.read(storage)
        if now is None or not now.held:
            return None
        if now != first:
            return str(now)
    return None


def _next(folder: str, before: Holder | None, tell: Callable[[str], None]) -> Holder:
    """Return this driver as the holder after `before`.

    In a job it takes the run from an earlier attempt of that job, and from a dead driver.
    """
    job = job_context.submitted()
    if job is not None and before is not None:
        earlier = (
            before.job == job.job
            and before.attempt is not None
            and job.attempt is not None
            and before.attempt < job.attempt
        )
        if not earlier and (other := holder(folder, tell)) is not None:
            rule = f"the run goes on without this attempt of the job, which began late: {other}"
            got = f"job {job.job}" if job.attempt is None else f"attempt {job.attempt} of job {job.job}"
            raise LaunchError(Problem("run", rule=rule, got=got, remedy="leave it to that one"))
    number = before.number + 1 if before is not None else 1
    name, attempt = (job.job, job.attempt) if job is not None else (None, None)
    return Holder(number, secrets.token_hex(8), socket.gethostname(), os.getpid(), name, attempt)


def is_dead_here(held: Holder) -> bool:
    """Return whether the driver was a process of this machine that has ended."""
    return (
        held.host == socket.gethostname()
        and not os.path.exists(f"/proc/{held.pid}")
        and os.path.isdir("/proc/self")
    )
