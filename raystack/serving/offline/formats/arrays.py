"""NumPy's files: one array, or several by name; the first size is the number of rows."""

import math
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from raystack.plan.prediction import InputFile
from raystack.serving.offline.formats.reader import Measured, Rows, reading
from raystack.serving.offline.tensors import type_of
from raystack.serving.offline.work import Part
from raystack.serving.protocol.tensors import Array
from raystack.storage import Storage

ALONE = "array"
"""The name of the column of a file with one array, which has none."""


class Npy:
    """One array, of which the rows of a part are read alone."""

    def measure(self, file: InputFile, inputs: Collection[str]) -> Measured:
        """Read the header."""
        with reading(file), Storage(file.url).open() as opened:
            shape, _, dtype = _header(opened)
            return _measured({ALONE: (shape, dtype)})

    def read(
        self, file: InputFile, part: Part, columns: Sequence[str], schema: pa.Schema, size: int
    ) -> Iterator[Rows]:
        """Yield the rows of a part."""
        with reading(file), Storage(file.url).open() as opened:
            rows = _read(opened, part.start, part.stop)
        yield from _pieces({ALONE: rows}, columns, size)


class Npz:
    """Arrays by name; a reader keeps those of the file that it has read last, because they may be packed."""

    def __init__(self) -> None:
        self._url: str | None = None
        self._arrays: dict[str, Array] = {}

    def measure(self, file: InputFile, inputs: Collection[str]) -> Measured:
        """Read the headers."""
        with reading(file), Storage(file.url).open() as opened, _archive(opened) as archive:
            headers = {}
            for entry in archive.namelist():
                with archive.open(entry) as member:
                    shape, _, dtype = _header(member)
                headers[entry.removesuffix(".npy")] = shape, dtype
            return _measured(headers)

    def read(
        self, file: InputFile, part: Part, columns: Sequence[str], schema: pa.Schema, size: int
    ) -> Iterator[Rows]:
        """Yield the rows of a part."""
        if self._url != file.url:
            with reading(file), Storage(file.url).open() as opened, np.load(opened) as arrays:
                self._arrays, self._url = {name: arrays[name] for name in columns}, file.url
        rows = {name: self._arrays[name][part.start : part.stop] for name in columns}
        yield from _pieces(rows, columns, size)


def _archive(opened: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(opened)
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None


def _measured(headers: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> Measured:
    sizes = {name: shape[0] if shape else None for name, (shape, _) in headers.items()}
    if None in sizes.values() or len(set(sizes.values())) > 1:
        told = ", ".join(f"'{name}' {size}" for name, size in sizes.items())
        raise ValueError(f"all arrays should have the same first size, the number of rows (got {told})")
    if not sizes:
        raise ValueError("it has no array")
    fields = [(name, type_of(dtype, len(shape) - 1)) for name, (shape, dtype) in headers.items()]
    return Measured(
        next(size for size in sizes.values() if size is not None),
        pa.schema(fields),
        tensors={name: shape[1:] for name, (shape, _) in headers.items()},
    )


def _header(opened: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether columns come first, and dtype; the file is then at the first value."""
    version = np.lib.format.read_magic(opened)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(opened)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which would have to be unpickled")
    return shape, by_columns, dtype


def _read(opened: Any, start: int, stop: int) -> Array:
    shape, by_columns, dtype = _header(opened)
    if by_columns and len(shape) > 1:
        values = np.frombuffer(opened.read(), dtype, math.prod(shape))
        return values.reshape(shape, order="F")[start:stop]
    row = math.prod(shape[1:])
    opened.seek(start * row * dtype.itemsize, 1)
    content = opened.read((stop - start) * row * dtype.itemsize)
    return np.frombuffer(content, dtype).reshape(stop - start, *shape[1:])


def _pieces(rows: Mapping[str, Array], columns: Sequence[str], size: int) -> Iterator[Rows]:
    for start in range(0, len(next(iter(rows.values()))), size):
        yield {name: rows[name][start : start + size] for name in columns}
