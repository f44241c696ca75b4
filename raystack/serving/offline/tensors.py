"""Columns of Arrow and of JSON <-> arrays of NumPy [rows, ...]. A row's tensor is lists within lists."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from raystack.serving.protocol.tensors import Array
from raystack.serving.protocol.values import nesting
from raystack.task import TensorSpec

Column = Any
"""Values of some rows: an array as Arrow has them, as NumPy has them [rows, ...], or as JSON has them."""


def type_of(dtype: np.dtype[Any], depth: int) -> pa.DataType:
    """Return the type of a column of tensors of `depth` dimensions."""
    type_ = (
        pa.binary() if dtype.kind == "S" else pa.string() if dtype.kind == "U" else pa.from_numpy_dtype(dtype)
    )
    for _ in range(depth):
        type_ = pa.list_(type_)
    return type_


def written_type(spec: TensorSpec) -> pa.DataType:
    """Return the type of the column of an output: bytes are text, bfloat16 is float32."""
    type_ = {"bytes": pa.string(), "bfloat16": pa.float32(), "bool": pa.bool_()}.get(spec.dtype)
    if type_ is None:
        type_ = pa.from_numpy_dtype(np.dtype(spec.dtype))
    for _ in spec.shape[1:]:
        type_ = pa.list_(type_)
    return type_


def leaf(type_: pa.DataType) -> tuple[pa.DataType, int]:
    """Return the type of a tensor's elements, and its number of dimensions."""
    depth = 0
    while True:
        if isinstance(type_, pa.BaseExtensionType):
            type_ = type_.storage_type
        elif pa.types.is_dictionary(type_):
            type_ = type_.value_type
        elif _is_list(type_):
            type_, depth = type_.value_type, depth + 1
        else:
            return type_, depth


def to_numpy(column: pa.Array) -> Array:
    """Return a column of tensors of one shape as one array. Raises ValueError for others, and for nulls."""
    shape = [len(column)]
    while True:
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        elif pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        elif not _is_list(column.type):
            break
        else:
            size, column = _opened(column)
            shape.append(size)
    if column.null_count:
        raise ValueError("holds nulls")
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    values: Array = column.to_numpy(zero_copy_only=False)
    return values.reshape(shape)


def _opened(column: pa.Array) -> tuple[int, pa.Array]:
    """Return the length of all lists, and what is in them."""
    if column.null_count:
        raise ValueError("holds nulls")
    if pa.types.is_fixed_size_list(column.type):
        return column.type.list_size, column.flatten()
    lengths = _lengths(column)
    if lengths.size and (lengths != lengths[0]).any():
        raise ValueError("holds lists of different lengths")
    return int(lengths[0]) if lengths.size else 0, column.flatten()


def _lengths(column: pa.Array) -> Array:
    lengths: Array = np.diff(column.offsets.to_numpy())
    return lengths


def shapes(column: Column) -> list[tuple[int, ...] | None]:
    """Return the shape of each row's tensor; None for one that has none, such as uneven lists."""
    if isinstance(column, np.ndarray):
        return [column.shape[1:]] * len(column)
    if isinstance(column, list):
        return [tuple(nesting(row)) for row in column]
    depth = leaf(column.type)[1]
    simple = depth == 1 and _is_list(column.type) and not pa.types.is_fixed_size_list(column.type)
    if simple and not column.null_count:
        return [(int(length),) for length in _lengths(column)]
    return [_shape(column.slice(row, 1)) for row in range(len(column))]


def _shape(row: pa.Array) -> tuple[int, ...] | None:
    try:
        shape: tuple[int, ...] = to_numpy(row).shape[1:]
        return shape
    except ValueError:
        return None


def taken(column: Column, rows: Sequence[int] | Array) -> Column:
    """Return some rows, in the order that `rows` has them in, which rises."""
    first, count = int(rows[0]), len(rows)
    if int(rows[-1]) - first + 1 == count:
        return column[first : first + count]
    if isinstance(column, list):
        return [column[row] for row in rows]
    return column[rows] if isinstance(column, np.ndarray) else column.take(pa.array(rows))


def parsed(column: pa.Array) -> list[Any]:
    """Return what texts say as JSON, such as numbers and lists of them; other texts and nulls as they are."""
    return [_parsed(text) for text in column.to_pylist()]


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def to_arrow(array: Array, type_: pa.DataType) -> pa.Array:
    """Return an array as a column of `type_`. Raises ValueError if bytes are no UTF-8 where it is text."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind == "O":
        values = pa.array([text if isinstance(text, str) else text.decode() for text in flat], pa.string())
    elif flat.dtype.kind == "V":  # bfloat16, which Arrow does not have
        values = pa.array(flat.astype(np.float32))
    else:
        values = pa.array(flat)
    for depth in range(array.ndim - 1, 0, -1):
        size = array.shape[depth]
        count = len(values) // size if size else int(np.prod(array.shape[:depth]))
        values = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * size), values)
    return values.cast(type_)


def kept(column: Column, type_: pa.DataType) -> pa.Array:
    """Return a column of the input as the output has it."""
    if isinstance(column, list):
        return pa.array(column, type_)
    if isinstance(column, np.ndarray):
        return to_arrow(column, type_)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(type_)


def _is_list(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
    )
