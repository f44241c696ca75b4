"""What a task's `loss` may return: a mean, or a sum with the number of terms that it is made of."""

from typing import Any

from torch import Tensor

from raystack.errors import Problem, TrainingError

_RULE = "loss returns a scalar tensor with a gradient, or a pair of such a sum and its count"


def sum_and_count(loss: Any) -> tuple[Tensor, Tensor | float | None]:
    """Return the scalar to differentiate and, for a pair, its count; None where the loss is a mean.

    Raises TrainingError for anything else, with what was returned.
    """
    total, count = loss if isinstance(loss, tuple) and len(loss) == 2 else (loss, None)
    if not isinstance(total, Tensor) or (isinstance(loss, tuple) and not _is_number(count)):
        got = type(loss).__name__
        if isinstance(loss, tuple):
            got = f"a tuple of {', '.join(type(each).__name__ for each in loss) or 'nothing'}"
        raise _refused(got, "what else is to be seen belongs into metrics")
    if total.numel() != 1:
        raise _refused(f"shape {list(total.shape)}", "take the mean, or return (losses.sum(), count)")
    if not total.requires_grad:
        raise _refused("a tensor without a gradient", "compute it from what the model returns, not detached")
    if total.is_complex():
        raise _refused(str(total.dtype), "return a real number, such as its absolute value")
    return total.reshape(()), count.detach().reshape(()) if isinstance(count, Tensor) else count


def _is_number(count: Any) -> bool:
    if isinstance(count, Tensor):
        return count.numel() == 1 and not count.is_complex() and not count.requires_grad
    return isinstance(count, (int, float))


def _refused(got: str, remedy: str) -> TrainingError:
    return TrainingError(Problem("task: loss", rule=_RULE, got=got, remedy=remedy))
