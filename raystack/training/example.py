"""One sample of the eval data -> what `predict` takes: the example that a registered model carries."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from raystack.checkpoint.example import Array
from raystack.config.data import Data
from raystack.task import Signature, Task, TensorSpec
from raystack.training.data import eval_batches
from raystack.training.data.eval_sets import EvalSet


def example_inputs(task: Task, sets: Iterable[EvalSet], data: Data) -> dict[str, Array] | None:
    """Return arrays of shape [1, ...] by the signature's names, of the first set whose samples have them."""
    # One sample is not worth starting loader processes.
    in_process = data.model_copy(update={"loaders": 0})
    for each in sets:
        batch, _ = next(eval_batches(task, each.data, 1, 0, 1, in_process, 0, False))
        if (inputs := inputs_of(batch, task.signature)) is not None:
            return inputs
    return None


def inputs_of(batch: Any, signature: Signature, samples: int = 1) -> dict[str, Array] | None:
    """Return the inputs of `predict` in a batch of `samples`: by name in a mapping, else the first values.

    None if a shape or dtype does not match the signature.
    """
    # A batch may hold anything that `loss` needs, so its values are checked and not trusted.
    names = [spec.name for spec in signature.inputs]
    if isinstance(batch, Mapping):
        found = [batch.get(name) for name in names]
    else:
        found = list(batch)[: len(names)] if isinstance(batch, (list, tuple)) else [batch]
    if len(found) != len(names):
        return None
    pairs = zip(signature.inputs, found, strict=True)
    arrays = {spec.name: _array(value, spec, samples) for spec, value in pairs}
    return None if any(array is None for array in arrays.values()) else cast(dict[str, Array], arrays)


def _array(value: Any, spec: TensorSpec, samples: int) -> Array | None:
    """Return the array of a value of `samples`; None if its dtype or shape is not that of `spec`."""
    if spec.dtype == "bytes":
        array = np.array(value, object) if isinstance(value, (list, tuple)) else np.empty(0)
        if not all(isinstance(text, str) for text in array.flat):
            return None
    elif not _is_array(value) or str(value.dtype) != f"torch.{spec.dtype}":
        return None
    elif spec.dtype == "bfloat16":
        array = value.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    else:
        array = value.numpy()
    wanted = (samples, *spec.shape[1:])
    fits = array.ndim == len(wanted) and all(
        size in (-1, there) for size, there in zip(wanted, array.shape, strict=True)
    )
    return array if fits else None


def _is_array(value: Any) -> bool:
    """Return whether a value is a tensor with an array, which nested and sparse ones have not."""
    return isinstance(value, Tensor) and value.layout == torch.strided
