"""What worker 0 alone computes, from what all have: the result of an evaluation's whole set."""

from collections.abc import Callable
from typing import TypeVar

from raystack.training.data.reading import Failure
from raystack.training.world import World

Result = TypeVar("Result")


def on_first(world: World, compute: Callable[[], Result]) -> Result:
    """Return on every worker what `compute` returns on worker 0. What it raises there is raised on all."""
    if world.size == 1:
        return compute()
    result: Result | Failure | None = None
    if world.rank == 0:
        try:
            result = compute()
        except Exception as error:  # any: it is raised again by all
            world.share(Failure(error))
            raise
    result = world.share(result)
    if isinstance(result, Failure):
        result.reraise()
    return result  # type: ignore[return-value]
