"""SIGTERM and SIGINT of a driver: the end at once, or at a step with a checkpoint.

A command has `Interrupts` from its first import to the end of its process. `graceful` is for the part of it
that can stop with a checkpoint, and works without the former, in a script or notebook. Signals are handled
only in the main thread; elsewhere the caller's handling stays.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any

_LEAVING: list[Callable[[], None]] = []
_COMMANDS: "list[Interrupts]" = []
"""The command that this process is, if any."""

BOTH = frozenset((signal.SIGTERM, signal.SIGINT))
INTERRUPTED = 130
"""Exit status of a command that was interrupted."""
WORD = "interrupted"
SAME_S = 0.5
"""Seconds in which a signal that comes again is the same request."""
# `timeout` sends its signal to the command and then to the group that the command is in.
LOOK_S = 0.1
"""Seconds between two looks for an interrupt that was lost."""
END_S = 30.0
"""Seconds that an interrupted command may take to stop what it has started."""


class Interrupts:
    """The handling of both signals by a command that owns its process.

    The first raises KeyboardInterrupt: after an import, and again where it is lost in a destructor or
    callback. A second one ends the process at once, and so do END_S seconds.
    """

    def __init__(self) -> None:
        self._status, self._told = INTERRUPTED, False
        self.first: float | None = None
        """When the first signal came; None if none did."""
        self.deferred: float | None = None
        """When the signal came that is handled now, if it had to wait."""
        self._raised, self._pending = threading.Event(), threading.Event()
        self._retried = False
        self._process = os.getpid()

    def install(self) -> None:
        """Handle the signals from now on. SIGINT stays ignored where a shell started the command so."""
        start_deaf(self._enforce, "raystack-interrupts")
        for number in (signal.SIGTERM, signal.SIGINT):
            if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)
        _COMMANDS.append(self)
        self._others = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        # It runs after all other exit functions. The interpreter would put the default action back, which
        # changes the status of a command that has already shown its result.
        atexit.register(_ignore)

    def over(self, status: int) -> None:
        """Have a signal end the process with `status`, which the command has shown."""
        self._status, self._told = status, True
        # A KeyboardInterrupt that has left an `exec`, such as that of a dataclass, has the interpreter end
        # itself with SIGINT, even if it was caught. The next `exec` begins anew.
        exec("")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            _act_by_default(number)
        if self._told:
            self.leave()
        retried, self._retried = self._retried, False
        if self.first is None:
            self.first, self.deferred = self.deferred or time.monotonic(), None
            self._number = number
            self._raised.set()
        elif not retried:
            if time.monotonic() - self.first > SAME_S:
                self.leave()
            return
        # An extension module that is interrupted while it is imported may end the process by SIGABRT.
        if _is_importing(frame):
            self._pending.set()
            return
        self._pending.clear()
        raise KeyboardInterrupt

    def _unraisable(self, lost: "sys.UnraisableHookArgs") -> None:
        """Take note of an interrupt that Python would only print, as one in a callback."""
        if lost.exc_type is KeyboardInterrupt and self._raised.is_set():
            self._pending.set()
        else:
            self._others(lost)

    def _enforce(self) -> None:
        while True:
            self._raised.wait()
            deadline = time.monotonic() + END_S
            while self._raised.is_set():
                time.sleep(LOOK_S)
                if time.monotonic() > deadline:
                    self.leave()
                if self._pending.is_set():
                    self._retry()

    def _retry(self) -> None:
        if signal.getsignal(self._number) == self._handle:
            self._retried = True
        else:  # meanwhile the run can stop with a checkpoint
            self.first = None
            self._raised.clear()
            self._pending.clear()
        signal.pthread_kill(threading.main_thread().ident or 0, self._number)

    def leave(self) -> None:
        """End the process at once, and what it has started."""
        if not self._told:
            tell()
        for end in _LEAVING:
            end()
        os._exit(self._status)


class _Deferral:
    """The signals of a command during a block that none may interrupt."""

    def __init__(self, command: Interrupts) -> None:
        self._command = command
        self._ended, self._lock = False, threading.Lock()
        self._first = command.first
        self._number: int | None = None
        ignored = (number for number in BOTH if signal.getsignal(number) == signal.SIG_IGN)
        self._numbers = BOTH.difference(ignored)

    def watch(self) -> None:
        """Take the signals until the end of the block, all threads being deaf to them."""
        while True:
            came = signal.sigtimedwait(self._numbers, LOOK_S)
            with self._lock:
                if self._ended:
                    if came is not None:  # it was meant for the main thread, which is not deaf any more
                        os.kill(os.getpid(), came.si_signo)
                    return
                self._take(came.si_signo if came is not None else None)

    def end(self) -> None:
        """Take no more of them; call it while the main thread is deaf."""
        with self._lock:
            self._ended = True

    def handle(self) -> None:
        """Handle the signal that came, if any; call it when the main thread is not deaf any more."""
        if self._number is not None:
            self._command.deferred = self._first
            signal.raise_signal(self._number)

    def _take(self, number: int | None) -> None:
        now = time.monotonic()
        if self._first is None:
            if number is not None:
                self._first, self._number = now, number
        elif now - self._first > (END_S if number is None else SAME_S):
            self._command.leave()


@contextmanager
def deferred() -> Iterator[None]:
    """Have a command's signals wait for the end of the block, but no longer than END_S.

    A second one still ends the process at once. All threads that began before the block have to be deaf.
    """
    if not _COMMANDS or threading.current_thread() is not threading.main_thread():
        yield
        return
    deferral = _Deferral(_COMMANDS[-1])
    try:
        with deaf():
            start_deaf(deferral.watch, "raystack-deferral")
            try:
                yield
            finally:
                deferral.end()
    finally:
        deferral.handle()


def start_deaf(work: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon thread that gets none of both signals, and neither do the threads that it starts."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    with deaf():
        thread.start()
    return thread


@contextmanager
def deaf() -> Iterator[None]:
    """Have this thread get none of both signals in the block, nor what it starts there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)  # it handles a signal that has come just before
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def leaving(end: Callable[[], None]) -> Iterator[None]:
    """Have a command that ends at once during the block call `end`, which must not wait."""
    _LEAVING.append(end)
    try:
        yield
    finally:
        _LEAVING.remove(end)


def tell() -> None:
    """Write the line of a command that was interrupted, past whatever the process was doing."""
    shown = "\x1b[?25h" if os.isatty(2) else ""  # the progress display hides the cursor
    with suppress(OSError):
        os.write(2, f"{shown}{WORD}\n".encode())


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _act_by_default(number: int) -> None:
    """Do what the signal does by default, in a fork that has inherited this process's handlers."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _ignore() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def graceful(ask: Callable[[], Any]) -> Iterator[None]:
    """Have SIGTERM call `ask` during the block, and a second SIGTERM interrupt it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[float] = []
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            _act_by_default(number)
        elif not asked:
            asked.append(time.monotonic())
            ask()
        elif time.monotonic() - asked[0] > SAME_S:
            again(number, frame)

    before = signal.signal(signal.SIGTERM, handle)
    again = before if callable(before) else signal.default_int_handler
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


Stoppable = Callable[[Callable[[], Any]], AbstractContextManager[None]]
"""Makes its argument, which asks for a stop with a checkpoint, available during the block, as `graceful`."""
