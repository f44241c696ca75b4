"""Values of JSON, of gRPC's typed contents or of Python -> NumPy arrays.

Nothing is converted in silence: no text to numbers, no truth value to a number, no fraction to an integer, no
value that the datatype cannot hold. Whole numbers are numbers for floats, at any size that these hold, and
5.0 is one for integers.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from raystack.serving.protocol.tensors import DATATYPES, NUMPY, Array
from raystack.task import Dtype

_CODES: Mapping[Dtype, str] = {
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "float16": "e",
    "bfloat16": "f",
    "float32": "f",
    "float64": "d",
}
"""Codes of `struct`, which is fast and refuses what does not fit, except truth values."""

_PACKED: Mapping[Dtype, np.dtype[Any]] = {**NUMPY, "bfloat16": np.dtype(np.float32)}

_EXACT = 2**53
"""From here on a number with a point or an exponent may not be the one that was written."""

_TURN = 50_000
"""Number of values after which another thread gets the interpreter if it waits for it."""

_LISTS = (list, tuple)
_UNEVEN = "lists should be nested evenly"


def from_json(data: Any, dtype: Dtype, shape: Sequence[int], truths: bool = True) -> Array:
    """`data`, a flat list or lists nested as `shape`, as an array. Raises ValueError that says what is wrong
    with it.

    `truths` is False where the whole document is known to have no `true` and no `false`.
    """
    flat = type(data) is list and 0 < math.prod(shape) == len(data) and type(data[0]) is not list
    return _array(data if flat else _flat(data, shape), dtype, shape, DATATYPES[dtype], truths)


def from_contents(values: Sequence[Any], dtype: Dtype, shape: Sequence[int]) -> Array:
    """Values of a field of gRPC's typed contents as an array. Raises ValueError that says what is wrong."""
    return _array(_counted(values, shape), dtype, shape, DATATYPES[dtype], False)


def to_array(values: Any, dtype: Dtype) -> Array:
    """An array, or lists nested as one, as an array of `dtype`; one that has it already stays the same.

    Raises ValueError that says what is wrong with it, as `from_json` does.
    """
    if isinstance(values, _LISTS) and type(_leaf(values)) in (int, float, bool, str, bytes):
        return _array(_even(values), dtype, nesting(values), dtype, True)
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        raise ValueError(_UNEVEN) from None
    if dtype == "bytes":
        flat = array.ravel().tolist() if array.dtype.kind in "OSU" else [None]
        return _strings(flat, array.shape, dtype)
    # C has two names for 64 bits, which are equal for NumPy, and of which torch knows one.
    return np.asarray(array, NUMPY[dtype]) if array.dtype == NUMPY[dtype] else _cast(array, dtype)


def nesting(data: Any) -> list[int]:
    """The shape that nested lists have, if they are nested evenly."""
    shape = []
    while isinstance(data, _LISTS):
        shape.append(len(data))
        data = data[0] if data else None
    return shape


def _leaf(data: Any) -> Any:
    while isinstance(data, _LISTS) and data:
        data = data[0]
    return data


def _even(data: Sequence[Any]) -> Sequence[Any]:
    try:
        return _flat(data, nesting(data))
    except ValueError:
        raise ValueError(_UNEVEN) from None


def _flat(data: Any, shape: Sequence[int]) -> Sequence[Any]:
    """All values of a list that is flat already, or nested exactly as `shape`."""
    if not isinstance(data, _LISTS):
        raise ValueError("data should be a list")
    if not data or not isinstance(data[0], _LISTS):
        return _counted(data, shape)
    level: list[Any] = [data]
    for size in shape:
        for row in level:
            if not isinstance(row, _LISTS) or len(row) != size:
                if (nested := nesting(data)) != list(shape):
                    raise ValueError(f"data is nested as {nested}, and shape says {list(shape)}")
                raise ValueError("data should be flat, or nested exactly as the shape")
        level = list(chain.from_iterable(level))
    return level


def _counted(values: Sequence[Any], shape: Sequence[int]) -> Sequence[Any]:
    if len(values) != (needed := math.prod(shape)):
        raise ValueError(f"data has {len(values)} values, and shape {list(shape)} needs {needed}")
    return values


def _array(values: Sequence[Any], dtype: Dtype, shape: Sequence[int], name: str, truths: bool) -> Array:
    """As many values as `shape` has. `name` is the dtype's in messages."""
    code = _CODES.get(dtype)
    if code is None:
        return _truths(values, shape, name) if dtype == "bool" else _strings(values, shape, name)
    if truths and bool in set(map(type, values)):
        raise ValueError(f"data holds values that are not {name}")
    array = np.empty(shape, _PACKED[dtype])
    try:
        _pack(array, code, values)
    except (struct.error, OverflowError):
        _repack(array, values, dtype, name)
    return _to_bfloat16(array, name) if dtype == "bfloat16" else array


def _pack(buffer: Any, code: str, values: Sequence[Any]) -> None:
    """Fill an array."""
    if len(values) <= _TURN:
        struct.pack_into(f"={len(values)}{code}", buffer, 0, *values)
        return
    for start in range(0, len(values), _TURN):
        part = values[start : start + _TURN]
        struct.pack_into(f"={len(part)}{code}", buffer, start * buffer.itemsize, *part)


def _repack(array: Array, values: Sequence[Any], dtype: Dtype, name: str) -> None:
    """Fill `array` with values that `struct` refused, if they fit all the same; else raise what is wrong."""
    if not {int, float}.issuperset(map(type, values)):
        raise ValueError(f"data holds values that are not {name}")
    if array.dtype.kind == "f":
        raise ValueError(f"data holds values beyond {name}")
    points = [value for value in values if type(value) is float]
    if not all(value.is_integer() for value in points):
        raise ValueError(f"data holds values that are not {name}")
    whole = list(map(int, values))
    limits = np.iinfo(array.dtype)
    if min(whole) < limits.min or max(whole) > limits.max:
        raise ValueError(f"data holds values beyond {name}, {limits.min} to {limits.max}")
    if any(abs(value) >= _EXACT for value in points):
        raise ValueError(f"data holds whole numbers from 2**53 on with a point or an exponent, not as {name}")
    _pack(array, _CODES[dtype], whole)


def _to_bfloat16(array: Array, name: str) -> Array:
    with np.errstate(over="ignore"):
        rounded = array.astype(NUMPY["bfloat16"])
    if not np.array_equal(np.isfinite(rounded), np.isfinite(array)):
        raise ValueError(f"data holds values beyond {name}")
    return rounded


def _truths(values: Sequence[Any], shape: Sequence[int], name: str) -> Array:
    if not {bool}.issuperset(map(type, values)):
        raise ValueError(f"data holds values that are not {name}")
    return np.array(values, np.bool_).reshape(shape)


def _strings(values: Sequence[Any], shape: Sequence[int], name: str) -> Array:
    if not {str, bytes}.issuperset(map(type, values)):
        raise ValueError(f"data holds values that are not {name}")
    array = np.empty(len(values), object)
    array[:] = [value.encode() if type(value) is str else value for value in values]
    return array.reshape(shape)


def _cast(values: Array, dtype: Dtype) -> Array:
    """An array of numbers of another dtype."""
    wanted = NUMPY[dtype]
    if values.dtype == NUMPY["bfloat16"]:
        values = values.astype(np.float32)
    if values.dtype.kind == "O":
        return _array(values.ravel().tolist(), dtype, values.shape, dtype, True)
    if wanted.kind == "b" or values.dtype.kind not in "iuf":
        raise ValueError(f"data holds values that are not {dtype}")
    if wanted.kind in "iu" and values.size:
        if values.dtype.kind == "f":
            return _array(values.ravel().tolist(), dtype, values.shape, dtype, False)
        limits = np.iinfo(wanted)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            raise ValueError(f"data holds values beyond {dtype}, {limits.min} to {limits.max}")
    if dtype == "bfloat16":
        return _to_bfloat16(values, dtype)
    try:
        with np.errstate(over="raise"):
            return values.astype(wanted)
    except FloatingPointError:
        raise ValueError(f"data holds values beyond {dtype}") from None
