"""One tensor on its way in or out: the protocol's datatypes, JSON values and raw bytes <-> NumPy arrays.

Raw bytes are row-major and little-endian, BOOL is one byte. A datatype of variable length (BYTES) would be
one more pair of functions here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raystack.task import Dtype

Array = np.ndarray[Any, np.dtype[Any]]

DATATYPES: Mapping[Dtype, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
"""NumPy's name -> the protocol's name."""

_KINDS: Mapping[str, str] = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}
"""Kind of a dtype -> the kinds of JSON values it is made of."""


def from_json(data: Any, dtype: Dtype, shape: Sequence[int]) -> Array:
    """`data`, a flat list or lists nested as `shape`, as an array. Raises ValueError that says what is wrong
    with it.

    Nothing is converted in silence: no text to numbers, no fraction to an integer, no value that the dtype
    cannot hold.
    """
    if not isinstance(data, list):
        raise ValueError("data should be a list")
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError):
        raise ValueError("data should be flat, or nested exactly as the shape") from None
    if values.ndim > 1 and values.shape != tuple(shape):
        raise ValueError(f"data is nested as {list(values.shape)}, and shape says {list(shape)}")
    if values.size != math.prod(shape):
        raise ValueError(f"data has {values.size} values, and shape {list(shape)} needs {math.prod(shape)}")
    return _cast(values, np.dtype(dtype), DATATYPES[dtype]).reshape(shape)


def to_array(values: Any, dtype: Dtype) -> Array:
    """An array, or lists nested as one, as an array of `dtype`; one that has it already stays the same.

    Raises ValueError that says what is wrong with it, as `from_json` does.
    """
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        raise ValueError("lists should be nested evenly") from None
    return array if array.dtype == dtype else _cast(array, np.dtype(dtype), dtype)


def from_bytes(data: bytes | memoryview, dtype: Dtype, shape: Sequence[int]) -> Array:
    """Raw bytes as a read-only array over the same memory. Raises ValueError where their number does not
    match `shape`.
    """
    layout = np.dtype(dtype).newbyteorder("<")
    needed = math.prod(shape) * layout.itemsize
    if len(data) != needed:
        raise ValueError(
            f"there are {len(data)} bytes, and {DATATYPES[dtype]} of shape {list(shape)} needs {needed}"
        )
    return np.frombuffer(data, layout).reshape(shape).astype(dtype, copy=False)


def to_json(array: Array) -> list[Any]:
    """The values of an array as a flat list."""
    values: list[Any] = array.ravel().tolist()
    return values


def to_bytes(array: Array) -> bytes:
    """The values of an array as raw bytes."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _cast(values: Array, dtype: np.dtype[Any], name: str) -> Array:
    if values.dtype.kind not in _KINDS[dtype.kind]:
        raise ValueError(f"data holds values that are not {name}")
    if dtype.kind in "iu" and values.size:
        limits = np.iinfo(dtype)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            raise ValueError(f"data holds values beyond {name}, {limits.min} to {limits.max}")
    try:
        with np.errstate(over="raise"):
            return values.astype(dtype)
    except FloatingPointError:
        raise ValueError(f"data holds values beyond {name}") from None
