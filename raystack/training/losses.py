"""What a task's `loss` takes and returns.

It may take the progress of the run. It returns a mean, or a sum with the number of terms that it is made of;
with either it may return a mapping of more values, which are means or such pairs as well.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raystack.errors import Problem, TrainingError
from raystack.task import Objective, Progress, Task

_RULE = "loss returns a scalar tensor with a gradient, or a pair of such a sum and its count"
_TAKEN = ("loss", "lr", "epoch", "grad_norm")
"""Names that the loop's own values have."""
Value = Any
"""A number or a tensor with one element, or a pair of them; on the device, and not read yet."""


@dataclass(frozen=True)
class Loss:
    """What `loss` returned for a batch."""

    total: Tensor
    """The scalar to differentiate."""
    count: Tensor | float | None
    """Number of terms in it; None where it is a mean."""
    values: Mapping[str, Value]
    """What else is logged, detached, by name."""


def bound(task: Task | Objective, progress: Callable[[], Progress]) -> Callable[[nn.Module, Any], Any]:
    """Return the loss as a function of model and batch; it gets the `progress` if it takes it.

    That is, if it has a parameter `progress`, or a third one without a default.
    """
    given: Any = task.loss
    parameters = list(inspect.signature(given).parameters.values())
    if any(each.name == "progress" for each in parameters):
        return lambda model, batch: given(model, batch, progress=progress())
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) > 2 and parameters[2].kind in by_place and parameters[2].default is inspect._empty:
        return lambda model, batch: given(model, batch, progress())
    function: Callable[[nn.Module, Any], Any] = given
    return function


def parts(returned: Any) -> Loss:
    """Return the loss, its count and the further values.

    Raises TrainingError for anything else, with what was returned.
    """
    values: Any = {}
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping):
        returned, values = returned
    total, count = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if not isinstance(total, Tensor) or (isinstance(returned, tuple) and not _is_number(count)):
        got = type(returned).__name__
        if isinstance(returned, tuple):
            got = f"a tuple of {', '.join(type(each).__name__ for each in returned) or 'nothing'}"
        raise _refused(got, "what else is to be seen goes into a mapping: return loss, {'name': value}")
    if total.numel() != 1:
        raise _refused(f"shape {list(total.shape)}", "take the mean, or return (losses.sum(), count)")
    if not total.requires_grad:
        raise _refused("a tensor without a gradient", "compute it from what the model returns, not detached")
    if total.is_complex():
        raise _refused(str(total.dtype), "return a real number, such as its absolute value")
    return Loss(
        total.reshape(()),
        count.detach().reshape(()) if isinstance(count, Tensor) else count,
        {name: _value(name, value) for name, value in values.items()},
    )


def check_names(names: Sequence[Any]) -> None:
    """Raise TrainingError if a value has a name that no metric of the training can have."""
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[/\w.\- :]{1,200}", name) or name in _TAKEN:
            rule = f"a value has a name of letters, digits and '/_-.:', and not {', '.join(_TAKEN)}"
            raise TrainingError(Problem("task: loss", rule=rule, got=repr(name)))


def totals(passes: Sequence[tuple[int, Mapping[str, Value]]], names: Sequence[str]) -> list[float]:
    """Return sum and count of each value over passes of so many samples, 0 for padding.

    Waits for the device.
    """
    terms: dict[str, list[tuple[Any, Any]]] = {name: [] for name in names}
    for samples, values in passes:
        for name in names if samples else ():
            value = values[name]
            terms[name].append(value if isinstance(value, tuple) else (value * samples, samples))
    flat = [torch.as_tensor(each) for name in names for pair in terms[name] for each in pair]
    devices = {each.device for each in flat if each.device.type != "cpu"} or {torch.device("cpu")}
    device = next(iter(devices))
    read = iter(torch.stack([each.reshape(()).double().to(device) for each in flat]).tolist() if flat else [])
    found: list[float] = []
    for name in names:
        pairs = [(next(read), next(read)) for _ in terms[name]]
        found += [sum(total for total, _ in pairs), sum(count for _, count in pairs)]
    return found


def means(names: Sequence[str], everyone: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the mean of each value from all workers' `totals`; a value of nothing, 0 of 0, is left out."""
    found = {}
    for index, name in enumerate(names):
        total, count = (sum(row[2 * index + part] for row in everyone) for part in (0, 1))
        if count:
            found[f"train/{name}"] = total / count
    return found


def _value(name: Any, value: Any) -> Value:
    pair = value if isinstance(value, tuple) and len(value) == 2 else (value,)
    if not all(_is_scalar(each) for each in pair):
        rule = "a value beside the loss is a number, or a pair of a sum and its count"
        got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TrainingError(Problem(f"task: loss['{name}']", rule=rule, got=got, remedy="take its mean"))
    read = tuple(each.detach() if isinstance(each, Tensor) else each for each in pair)
    return read if len(read) == 2 else read[0]


def _is_scalar(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, (int, float))


def _is_number(count: Any) -> bool:
    return _is_scalar(count) and not (isinstance(count, Tensor) and count.requires_grad)


def _refused(got: str, remedy: str) -> TrainingError:
    return TrainingError(Problem("task: loss", rule=_RULE, got=got, remedy=remedy))
