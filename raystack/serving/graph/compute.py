"""What steps compute that are no models: the user's functions, and combinations."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from raystack.config.graph import Step
from raystack.errors import Problem, ServingError, nearest
from raystack.serving.engine import Arrays
from raystack.serving.exchange import to_numpy
from raystack.serving.graph.signature import COMBINED, words
from raystack.serving.protocol.tensors import NUMPY, Array
from raystack.serving.protocol.values import to_array
from raystack.task import Signature, TensorSpec


def function(name: str, path: str, signature: Signature) -> Callable[[Arrays], Arrays]:
    """Import a function of the user. What it returns is compared with its signature at each call.

    Raises ServingError if there is none.
    """
    where = f"serving.graph.steps.{name}.function"
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's module runs
        rule = f"{module_name} cannot be imported where the model is served: {type(error).__name__}: {error}"
        raise ServingError(
            Problem(where, rule=rule, got=path, remedy="install it, or set PYTHONPATH")
        ) from error
    called = getattr(module, attribute, None)
    if not callable(called):
        close = nearest(attribute, [each for each in vars(module) if not each.startswith("_")])
        remedy = f"did you mean '{module_name}:{close}'?" if close else None
        file = getattr(sys.modules[module_name], "__file__", module_name)
        raise ServingError(
            Problem(where, rule=f"there is no function '{attribute}' in {file}", got=path, remedy=remedy)
        )

    def checked(inputs: Arrays) -> Arrays:
        size = len(next(iter(inputs.values())))
        outputs = called(dict(inputs))
        names = [spec.name for spec in signature.outputs]
        if not isinstance(outputs, Mapping) or outputs.keys() != set(names):
            got = ", ".join(map(str, outputs)) if isinstance(outputs, Mapping) else type(outputs).__name__
            raise ServingError(
                Problem(path, rule=f"should return a mapping with {', '.join(names)}", got=got)
            )
        return {spec.name: _answered(path, outputs[spec.name], spec, size) for spec in signature.outputs}

    return checked


def combination(step: Step) -> Callable[[Arrays], Arrays]:
    """Return what computes a step that combines."""
    weights = np.array([step.weights.get(name, 1.0) for name in step.inputs])
    combine = _mean if step.combine == "mean" else _vote
    names = list(step.inputs)
    return lambda inputs: {COMBINED: combine([inputs[name] for name in names], weights)}


def _mean(arrays: list[Array], weights: Array) -> Array:
    shares = weights / weights.sum()
    total = sum(share * array.astype(np.float64) for share, array in zip(shares, arrays, strict=True))
    return np.asarray(total, arrays[0].dtype)


def _vote(arrays: list[Array], weights: Array) -> Array:
    """Return the label with the most weight, element by element; of several, the smallest."""
    votes = np.stack(arrays)
    order = np.argsort(votes, axis=0, kind="stable")
    votes, weights = np.take_along_axis(votes, order, 0), weights[order]
    scores = np.stack([((votes == label) * weights).sum(0) for label in votes])
    # Rounded, so that the order in which equal weights are added does not decide.
    winner: Array = np.take_along_axis(votes, scores.round(9).argmax(0)[None], 0)[0]
    return winner


def _answered(path: str, output: Any, spec: TensorSpec, size: int) -> Array:
    if isinstance(output, torch.Tensor):
        output = to_numpy(output.detach())
    if spec.dtype == "bytes":
        output = to_array(output, "bytes")
    elif not isinstance(output, np.ndarray):
        rule = f"output '{spec.name}' should be an array or a tensor"
        raise ServingError(Problem(path, rule=rule, got=type(output).__name__))
    array: Array = output
    same = array.dtype == NUMPY[spec.dtype] and array.ndim == len(spec.shape) and len(array) == size
    if not same or any(
        wanted not in (-1, each) for each, wanted in zip(array.shape, spec.shape, strict=True)
    ):
        rule = f"output '{spec.name}' should be {words(spec)}, here of {size} samples"
        raise ServingError(Problem(path, rule=rule, got=f"{array.dtype}{list(array.shape)}"))
    return array
