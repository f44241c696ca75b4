"""What a task's `predict` takes and returns <-> arrays: tensors, and arrays of objects for "bytes"."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from raystack.errors import Problem, ServingError
from raystack.serving.protocol.tensors import NUMPY, Array
from raystack.serving.protocol.values import to_array
from raystack.task import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

_BFLOAT16 = NUMPY["bfloat16"]


def given(array: Array, device: str) -> "Tensor | Array":
    """Return what `predict` takes for an array. A tensor on the CPU shares its memory if possible."""
    if array.dtype.kind == "O":
        return array
    # Arrays over a request's bytes are read-only, which torch does not support, as strides below 0.
    array = np.ascontiguousarray(array) if array.flags.writeable else array.copy()
    if array.dtype == _BFLOAT16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16).to(device)
    return torch.from_numpy(array).to(device)


def answered(output: Any, spec: TensorSpec, batch: int) -> Array:
    """Return the array for what `predict` returned, of `batch` samples. Raises ServingError if it is not as
    `spec` says.
    """
    if spec.dtype == "bytes":
        array = _strings(output, spec)
        _check_shape(spec, array.shape, batch)
        return array
    if not isinstance(output, torch.Tensor):
        raise _mismatch(spec, "a tensor", type(output).__name__)
    if output.dtype != torch_dtype(spec):
        raise _mismatch(spec, spec.dtype, str(output.dtype).removeprefix("torch."))
    _check_shape(spec, output.shape, batch)
    return to_numpy(output)


def to_numpy(tensor: "Tensor") -> Array:
    """Return the array with a tensor's values."""
    tensor = tensor.cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(_BFLOAT16)
    array: Array = tensor.numpy()
    return array


def torch_dtype(spec: TensorSpec) -> "torch.dtype | None":
    """The dtype of an input's or output's tensors; None for "bytes", which are in no tensors."""
    return getattr(torch, spec.dtype, None)


def _strings(output: Any, spec: TensorSpec) -> Array:
    if not isinstance(output, (np.ndarray, list, tuple)):
        raise _mismatch(spec, "bytes, which are in a NumPy array or a list", type(output).__name__)
    try:
        return to_array(output, "bytes")
    except ValueError as error:
        raise _mismatch(spec, "bytes or str", str(error)) from None


def _check_shape(spec: TensorSpec, shape: tuple[int, ...], batch: int) -> None:
    fits = len(shape) == len(spec.shape) and shape[0] == batch
    if not fits or any(
        size != wanted and wanted != -1 for size, wanted in zip(shape, spec.shape, strict=True)
    ):
        raise _mismatch(spec, f"shape {list(spec.shape)} for {batch} samples", f"shape {list(shape)}")


def _mismatch(spec: TensorSpec, wanted: str, got: str) -> ServingError:
    return ServingError(
        Problem(f"task: predict, output '{spec.name}'", rule=f"the signature says {wanted}", got=got)
    )
