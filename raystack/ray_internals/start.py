"""Private parts of Ray's start: how it spawns the processes of a node, and its handler of SIGTERM."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ray._private import services, utils

REACHED = ((services, ("ConsolePopen",)), (utils, ("set_sigterm_handler",)))
"""The attributes replaced of what is imported here, for the contract test."""


class OwnNode:
    """The processes of a node that this process starts.

    Each is in a process group of its own, so that a signal to this process's group does not reach it. The
    kernel still ends them with this process.
    """

    def __init__(self) -> None:
        self._spawned: list[subprocess.Popen[Any]] = []

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Take note of the processes that `ray.init` spawns in the block, and keep the handler of SIGTERM.

        Ray's own handler would end this process without a word.
        """
        spawning: Any = services  # a type checker wants a class to stay
        popen, install = spawning.ConsolePopen, utils.set_sigterm_handler

        def spawn(*args: Any, **options: Any) -> "subprocess.Popen[Any]":
            process: subprocess.Popen[Any] = popen(*args, process_group=0, **options)
            self._spawned.append(process)
            return process

        spawning.ConsolePopen, utils.set_sigterm_handler = spawn, lambda handler: None
        try:
            yield
        finally:
            spawning.ConsolePopen, utils.set_sigterm_handler = popen, install
            _handle_again()

    def kill(self) -> None:
        """End those that still run without a warning, and what they have started in their groups."""
        # Agents of a raylet that dies while they start would look for it for half a minute.
        for process in self._spawned:
            if process.returncode is None:  # not waited for, so the id is still this process's
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _handle_again() -> None:
    """Put Python's handler of SIGTERM back in its place."""
    # Ray's C++ part has put its own before it, which prints a stack and may abort.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
