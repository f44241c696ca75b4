"""One tensor on its way in or out: the protocol's datatypes, raw bytes <-> NumPy arrays -> JSON values.

Raw bytes are row-major and little-endian, BOOL is one byte, BYTES are a length of four bytes and as many
bytes for each element. A tensor of BYTES is an array of objects, which are bytes.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from raystack.task import Dtype

Array = np.ndarray[Any, np.dtype[Any]]

DATATYPES: Mapping[Dtype, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
    "bytes": "BYTES",
}
"""The signature's name -> the protocol's name."""

NUMPY: Mapping[Dtype, np.dtype[Any]] = {
    **{dtype: np.dtype(dtype) for dtype in DATATYPES if dtype not in ("bfloat16", "bytes")},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "bytes": np.dtype(object),
}
"""The signature's name -> the dtype of arrays."""

_LAYOUTS = {dtype: layout.newbyteorder("<") for dtype, layout in NUMPY.items()}

_LISTED = 32
"""Up to this size a list is written as JSON faster than an array."""

_LENGTH = struct.Struct("<I")


def from_bytes(data: bytes | memoryview, dtype: Dtype, shape: Sequence[int]) -> Array:
    """Raw bytes as a read-only array over the same memory. Raises ValueError where they do not match
    `shape`.
    """
    if dtype == "bytes":
        return _strings(memoryview(data), shape)
    layout = _LAYOUTS[dtype]
    needed = math.prod(shape) * layout.itemsize
    if len(data) != needed:
        raise ValueError(
            f"there are {len(data)} bytes, and {DATATYPES[dtype]} of shape {list(shape)} needs {needed}"
        )
    array = np.frombuffer(data, layout).reshape(shape)
    if dtype == "bool" and int(array.view(np.uint8).max()) > 1:
        raise ValueError("a byte of BOOL is 0 or 1")
    return array if layout.isnative else array.astype(NUMPY[dtype])


def to_bytes(array: Array) -> bytes:
    """The values of an array as raw bytes."""
    if array.dtype.kind != "O":
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    parts: list[bytes] = []
    for value in array.ravel().tolist():
        parts += (_LENGTH.pack(len(value)), value)
    return b"".join(parts)


def to_json(array: Array) -> list[Any] | Array:
    """The values of an array, flat, for orjson with OPT_SERIALIZE_NUMPY.

    Floats are written as 64-bit ones. Raises UnicodeDecodeError for BYTES that are no UTF-8.
    """
    kind = array.dtype.kind
    if kind == "O":
        return [value.decode() for value in array.ravel().tolist()]
    if array.size <= _LISTED and kind != "V":
        values: list[Any] = array.ravel().tolist()
        return values
    return array.ravel() if kind in "biu" else array.ravel().astype(np.float64)


def _strings(data: memoryview, shape: Sequence[int]) -> Array:
    values: list[bytes] = []
    at, needed = 0, math.prod(shape)
    while at < len(data) and len(values) < needed:
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(data, at)[0] if start <= len(data) else start
        values.append(bytes(data[start:at]))
    if at != len(data) or len(values) != needed:
        rule = f"BYTES of shape {list(shape)} needs {needed} strings, each after its length in four bytes"
        raise ValueError(f"there are {len(data)} bytes, and {rule}")
    array = np.empty(needed, object)
    array[:] = values
    return array.reshape(shape)
