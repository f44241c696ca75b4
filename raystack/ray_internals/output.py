"""Private parts of what Ray prints in the driver: the words of its workers, and its own of a lost one."""

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
