"""Private parts of Ray's start: how it spawns the processes of a node, and its handlers of SIGTERM."""

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray._private import services, utils

REACHED = ((services, ("ConsolePopen",)), (utils, ("set_sigterm_handler",)))
"""The attributes replaced of what is imported here, for the contract test."""
POLLING = "ray.serve._private.long_poll"
"""The module of what asks Serve's controller for changes. A process that does not use Serve has none."""


class OwnNode:
    """The processes of a node that this process starts.

    No signal to this process's group reaches them, because each is in a group of its own, and no SIGTERM to
    every process of a unit or a job step, because they are deaf to it. The kernel still ends them with this
    process.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """`environment` is that of its processes beside this one's."""
        self._environment = dict(environment or {})
        self._spawned: list[_Process] = []

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Take note of the processes that `ray.init` spawns in the block, and keep the handler of SIGTERM.

        Ray's own handler would end this process without a word.
        """
        spawning: Any = services  # a type checker wants a class to stay
        popen, install = spawning.ConsolePopen, utils.set_sigterm_handler

        def spawn(*args: Any, env: Mapping[str, str] | None = None, **options: Any) -> _Process:
            options["env"] = {**(os.environ if env is None else env), **self._environment}
            process = _Process(*args, **options)
            self._spawned.append(process)
            return process

        spawning.ConsolePopen, utils.set_sigterm_handler = spawn, _install_none
        try:
            yield
        finally:
            spawning.ConsolePopen, utils.set_sigterm_handler = popen, install
            _handle_again()

    def kill(self) -> None:
        """End those that still run without a warning, and what they have started in their groups."""
        # Agents of a raylet that dies while they start would look for it for half a minute.
        for process in self._spawned:
            process.terminate()


class _Process(subprocess.Popen[Any]):
    """A process of the node, which Ray ends by `terminate`."""

    def __init__(self, *args: Any, preexec_fn: Callable[[], None], **options: Any) -> None:
        def prepare() -> None:
            preexec_fn()  # it blocks SIGINT in the same way
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

        options.update(preexec_fn=prepare, process_group=0)
        super().__init__(*args, **options)

    def terminate(self) -> None:
        """End it and what it has started in its group, without a warning: it is deaf to one."""
        if self.returncode is None:  # not waited for, so the id is still this process's
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


def outlast_sigterm() -> None:
    """Have a worker of an OwnNode do nothing at SIGTERM; call it before the worker takes work.

    It inherits that it is deaf to the signal. What it starts itself must not be, or could not be terminated.
    """
    if signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        utils.set_sigterm_handler = _install_none
        signal.signal(signal.SIGTERM, lambda number, frame: None)  # not SIG_IGN, which children would inherit
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def shut_down() -> None:
    """Disconnect this process, end the node that it has started, and handle SIGTERM again."""
    poll_no_more()
    ray.shutdown()
    _handle_again()


def poll_no_more() -> None:
    """Have Serve's threads of this process not ask its controller again.

    One that did after the end of the connection would make another by itself, to whatever cluster it finds.
    """
    if (polling := sys.modules.get(POLLING)) is not None:
        for each in gc.get_objects():
            if type(each) is polling.LongPollClient:
                each.stop()


def _install_none(handler: Any) -> None:
    """Stand for Ray's function that installs its own handler."""


def _handle_again() -> None:
    """Put Python's handler of SIGTERM back in its place."""
    # Ray's C++ part puts its own before it, which prints a stack and may abort, and takes both away at last.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
