"""The model's inputs, out of columns: which they are, whether they fit, and the arrays of some rows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raystack.errors import ConfigError, Problem, nearest
from raystack.serving.offline.formats.arrays import ALONE
from raystack.serving.offline.formats.reader import Measured, Rows
from raystack.serving.offline.tensors import leaf, parsed, shapes, taken, to_numpy
from raystack.serving.protocol.tensors import Array
from raystack.serving.protocol.values import to_array
from raystack.task import Signature, TensorSpec

FLAG = "--columns"


class MisfitError(ValueError):
    """A column whose values do not fit its input; `problem` begins with the column."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


def columns_of(
    signature: Signature, asked: Mapping[str, tuple[str, ...]], alone: bool
) -> dict[str, tuple[str, ...]]:
    """Return the columns of each input. `alone`: the file has one column, without a name.

    Raises ConfigError if `asked` names an input that the model does not have.
    """
    names = [spec.name for spec in signature.inputs]
    for name in asked:
        if name not in names:
            close = nearest(name, names)
            remedy = f"did you mean '{close}'?" if close else None
            raise ConfigError(
                Problem(FLAG, rule=f"the model's inputs are {_quoted(names)}", got=name, remedy=remedy)
            )
    default = {name: (ALONE,) if alone and len(names) == 1 else (name,) for name in names}
    return {**default, **asked}


class Inputs:
    """What makes the model's inputs of columns."""

    def __init__(self, signature: Signature, columns: Mapping[str, tuple[str, ...]]) -> None:
        self._specs, self._columns = signature.inputs, columns
        self._free = [spec for spec in self._specs if -1 in spec.shape[1:]]

    @property
    def columns(self) -> list[str]:
        """The columns that are needed."""
        return list(dict.fromkeys(column for spec in self._specs for column in self._columns[spec.name]))

    @property
    def texts(self) -> list[str]:
        """The columns of inputs that are texts, also where all of them look like numbers."""
        return [
            column for spec in self._specs if spec.dtype == "bytes" for column in self._columns[spec.name]
        ]

    def check(self, where: str, measured: Measured, *, text: bool) -> Iterator[Problem]:
        """Yield what is wrong with the columns of a file. `text`: it is CSV, whose values are all text."""
        known = list(measured.schema.names)
        for spec in self._specs:
            for column in self._columns[spec.name]:
                if known.count(column) != 1:
                    yield _missing(where, column, spec, known)
                    continue
                type_ = measured.schema.field(column).type
                shape = (measured.tensors or {}).get(column)
                if not self._fits(spec, type_, shape, text=text):
                    yield Problem(f"{where}, column '{column}'", rule=_rule(spec), got=_written(type_, shape))

    def groups(self, rows: Rows, size: int) -> Iterator[Array]:
        """Yield the numbers of rows that can be predicted at once: `size` at most, of inputs of one shape."""
        count = len(next(iter(rows.values())))
        if not self._free:
            yield from (np.arange(start, min(start + size, count)) for start in range(0, count, size))
            return
        each = [shapes(self._column(rows, spec)) for spec in self._free]
        alike: dict[Any, list[int]] = {}
        for row, found in enumerate(zip(*each, strict=True)):
            alike.setdefault(found if None not in found else row, []).append(row)
        for group in alike.values():
            yield from (np.array(group[start : start + size]) for start in range(0, len(group), size))

    def arrays(self, rows: Rows, chosen: Array) -> dict[str, Array]:
        """Return the inputs of the chosen rows. Raises MisfitError."""
        return {spec.name: self._array(rows, spec, chosen) for spec in self._specs}

    def _array(self, rows: Rows, spec: TensorSpec, chosen: Array) -> Array:
        names = self._columns[spec.name]
        if len(names) == 1:
            return self._converted(rows, spec, names[0], chosen)
        parts = [self._converted(rows, spec, name, chosen, scalar=True) for name in names]
        return self._shaped(np.stack(parts, 1), spec, ", ".join(names))

    def _converted(
        self, rows: Rows, spec: TensorSpec, name: str, chosen: Array, *, scalar: bool = False
    ) -> Array:
        column = taken(self._plain(rows[name], spec), chosen)
        try:
            array = to_array(
                column if isinstance(column, list | np.ndarray) else to_numpy(column), spec.dtype
            )
        except ValueError as error:
            raise MisfitError(Problem(f"column '{name}'", rule=_rule(spec), got=_said(error))) from None
        if not scalar:
            return self._shaped(array, spec, name)
        if array.ndim != 1:
            rule = "one of several columns of an input has one value in each row"
            raise MisfitError(Problem(f"column '{name}'", rule=rule, got=f"shape {list(array.shape[1:])}"))
        return array

    def _shaped(self, array: Array, spec: TensorSpec, name: str) -> Array:
        """Return an array with the shape of the input, which flat values have as well, if it is fixed."""
        wanted, got = spec.shape[1:], array.shape[1:]
        if len(wanted) == len(got):
            if 0 not in got and _agree(wanted, got):
                return array
        elif -1 not in wanted and len(got) <= 1 and math.prod(wanted) == math.prod(got):
            return array.reshape(len(array), *wanted)
        raise MisfitError(Problem(f"column '{name}'", rule=_rule(spec), got=f"shape {list(got)}"))

    def _column(self, rows: Rows, spec: TensorSpec) -> Any:
        return self._plain(rows[self._columns[spec.name][0]], spec)

    @staticmethod
    def _plain(column: Any, spec: TensorSpec) -> Any:
        """Return a column of text as what it says, where the input is no text."""
        is_text = isinstance(column, pa.Array) and pa.types.is_string(column.type)
        return parsed(column) if is_text and spec.dtype != "bytes" else column

    def _fits(
        self, spec: TensorSpec, type_: pa.DataType, shape: tuple[int, ...] | None, *, text: bool
    ) -> bool:
        element, depth = leaf(type_)
        if pa.types.is_null(element) or (text and pa.types.is_string(element)):
            return True  # looked at row by row
        if not _is_kind(element, spec.dtype):
            return False
        wanted = spec.shape[1:]
        if len(self._columns[spec.name]) > 1:
            return depth == 0 and wanted in ((-1,), (len(self._columns[spec.name]),))
        if shape is not None and len(shape) == len(wanted):
            return _agree(wanted, shape)
        if depth == len(wanted):
            return True
        flat = -1 not in wanted and depth <= 1 and (depth == 1 or math.prod(wanted) == 1)
        return flat and (shape is None or math.prod(shape) == math.prod(wanted))


def _agree(wanted: Sequence[int], got: Sequence[int]) -> bool:
    return all(one in (-1, other) for one, other in zip(wanted, got, strict=True))


def _is_kind(type_: pa.DataType, dtype: str) -> bool:
    types = pa.types
    if dtype == "bytes":
        return bool(
            types.is_string(type_)
            or types.is_large_string(type_)
            or types.is_binary(type_)
            or types.is_large_binary(type_)
        )
    if dtype == "bool":
        return bool(types.is_boolean(type_))
    return bool(types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_))


def _missing(where: str, column: str, spec: TensorSpec, known: Sequence[str]) -> Problem:
    if column in known:
        return Problem(f"{where}, column '{column}'", rule="is there more than once", remedy="rename one")
    close = nearest(column, known)
    mapped = f"{FLAG} {spec.name}=COLUMN"
    remedy = f"did you mean {FLAG} {spec.name}={close}?" if close else f"say which it is with {mapped}"
    rule = f"the model's input '{spec.name}' is a column, {spec.dtype} {list(spec.shape)}"
    return Problem(
        f"{where}, column '{column}'", rule=rule, got=f"the columns {_quoted(known)}", remedy=remedy
    )


def _rule(spec: TensorSpec) -> str:
    return f"the signature says {spec.dtype} {list(spec.shape)} of input '{spec.name}'"


def _written(type_: pa.DataType, shape: tuple[int, ...] | None) -> str:
    return str(type_) if shape is None else f"{leaf(type_)[0]} {[-1, *shape]}"


def _said(error: ValueError) -> str:
    return str(error).removeprefix("data ").removeprefix("holds ")


def _quoted(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more
