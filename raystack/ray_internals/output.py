"""What Ray prints in the driver: the words of its workers, its own of a lost one, and its core's."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import worker

REACHED = ((worker, ("print_to_stdstream",)),)
"""The attribute replaced of what is imported here, for the contract test."""


@contextmanager
def off_stdout(*, verbose: bool) -> Iterator[None]:
    """Have Ray print to stderr in the block, and nothing at all unless `verbose`.

    stdout has the command's result. Ray's files of logs have all of it.
    """
    # `log_to_driver` is for the workers' words. Of a worker that died Ray tells a paragraph on stdout anyway.
    show = worker.print_to_stdstream

    def redirected(data: dict[str, Any], ignore_prefix: bool) -> None:
        if verbose:
            show({**data, "is_err": True}, ignore_prefix)

    worker.print_to_stdstream = redirected
    try:
        yield
    finally:
        worker.print_to_stdstream = show


@contextmanager
def native_off_stderr(*, verbose: bool) -> Iterator[None]:
    """Have what is not Python, such as Ray's core, print nothing on stderr in the block, unless `verbose`.

    Ray's core warns there of every pool of actors of Ray Data's. Its log files have it.
    """
    if verbose:
        yield
        return
    before = sys.stderr
    before.flush()
    real = os.dup(2)
    # A notebook's stderr, and a test's, is another one.
    ours = getattr(before, "rich_proxied_file", before) is sys.__stderr__
    with open(real, "w", buffering=1, encoding="utf-8", errors="backslashreplace") as own:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        sys.stderr = own if ours else before
        try:
            yield
        finally:
            sys.stderr = before
            own.flush()
            os.dup2(real, 2)
