"""Processes that end with the one that started them, and not before it wants them to."""

import ctypes
import os
import signal

from raystack.interrupts import BOTH

PR_SET_PDEATHSIG = 1
"""The option of Linux' prctl(2) that has the kernel signal a process whose parent ends."""


def end_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that ends. `parent` is its id."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before that
        os._exit(1)


def outlast_signals() -> None:
    """Do nothing at SIGTERM and SIGINT, which the driver handles for all. They may be blocked until now."""
    for number in BOTH:
        signal.signal(number, lambda number, frame: None)  # not SIG_IGN, which children would inherit
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BOTH)
