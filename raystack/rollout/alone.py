"""One process at a time for what stays: an automation, or the follower of an alias."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raystack.checkpoint.fence import Fence
from raystack.errors import LaunchError, Problem
from raystack.runs import lease


@contextmanager
def alone(folder: str, what: str, say: Callable[[str], None]) -> Iterator[Fence]:
    """Hold `folder` during the block. Raises LaunchError if another process has it."""
    if (other := lease.holder(folder, say)) is not None:
        raise LaunchError(
            Problem(folder, rule=f"{what} already has a process: {other}", remedy="stop it first")
        )
    with lease.hold(folder, say) as fence:
        yield fence
