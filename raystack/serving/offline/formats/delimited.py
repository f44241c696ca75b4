"""CSV and TSV with a line of names: parts are ranges of bytes, which begin where a row does."""

import io
from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
from pyarrow import csv

from raystack.plan.prediction import InputFile
from raystack.serving.offline.formats.reader import Measured, Rows, reading
from raystack.serving.offline.work import Part
from raystack.storage import Storage

BLOCK = 16 * 2**20
"""Bytes of rows of which the types are found at a time."""
BOM = b"\xef\xbb\xbf"


class Delimited:
    """A reader that keeps the line of names of the file that it has read last."""

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter
        self._header: tuple[str, bytes] | None = None

    def measure(self, file: InputFile, inputs: Collection[str]) -> Measured:
        """Read the whole file. A column has the narrowest type that all its rows have; text stays text."""
        with reading(file), Storage(file.url).open() as opened:
            header = b"".join(_first(opened, self._delimiter))
            offsets, schema, block = array("Q", [len(header)]), None, io.BytesIO()
            end = len(header)
            for row in _rows(opened, self._delimiter):
                if row.strip(b"\r\n"):  # an empty line is no row
                    offsets.append(end + len(row))
                    block.write(row)
                else:
                    offsets[-1] = end + len(row)
                end += len(row)
                if block.tell() > BLOCK:
                    schema = _widened(schema, self._types(header, block.getvalue()))
                    block = io.BytesIO()
            schema = _widened(schema, self._types(header, block.getvalue()))
            return Measured(len(offsets) - 1, schema, offsets=offsets)

    def read(
        self, file: InputFile, part: Part, columns: Sequence[str], schema: pa.Schema, size: int
    ) -> Iterator[Rows]:
        """Yield the rows of a part."""
        with reading(file), Storage(file.url).open() as opened:
            if self._header is None or self._header[0] != file.url:
                self._header = file.url, b"".join(_first(opened, self._delimiter))
            opened.seek(part.offset)
            types = {name: schema.field(name).type for name in columns}
            table = self._parsed(self._header[1], opened.read(part.length), types)
            if len(table) != part.stop - part.start:
                counted = f"rows {part.start} to {part.stop - 1} are {len(table)} rows"
                raise ValueError(f"{counted}: it has changed, or has an unusual end of line")
            for batch in table.to_batches(size):
                yield dict(zip(batch.schema.names, batch.columns, strict=True))

    def _types(self, header: bytes, rows: bytes) -> pa.Schema:
        return self._parsed(header, rows, None).schema

    def _parsed(self, header: bytes, rows: bytes, types: dict[str, pa.DataType] | None) -> pa.Table:
        end = b"" if header.endswith(b"\n") else b"\n"
        return csv.read_csv(
            pa.BufferReader(header.removeprefix(BOM) + end + rows),
            read_options=csv.ReadOptions(use_threads=False, block_size=max(len(header) + len(rows) + 1, 1)),
            parse_options=csv.ParseOptions(
                delimiter=self._delimiter.decode(), newlines_in_values=True, ignore_empty_lines=True
            ),
            convert_options=csv.ConvertOptions(column_types=types, include_columns=list(types or ())),
        )


def _first(opened: BinaryIO, delimiter: bytes) -> Iterator[bytes]:
    """Yield the lines of the file up to that with the names."""
    for row in _rows(opened, delimiter):
        yield row
        if row.removeprefix(BOM).strip(b"\r\n"):
            return
    raise ValueError("it is empty, and its first line should have the names of its columns")


def _rows(opened: BinaryIO, delimiter: bytes) -> Iterator[bytes]:
    """Yield rows, each of one line, or of several where one is within quotes."""
    parts: list[bytes] = []
    is_open = False
    # Not `for line in opened`: a file may be asked for its place only if it is not iterated over.
    while line := opened.readline():
        if is_open or line.count(b'"') % 2:
            is_open = _is_open(line, delimiter, is_open)
        parts.append(line)
        if not is_open:
            yield b"".join(parts)
            parts = []
    if parts:
        raise ValueError("a quote is opened, and never closed")


def _is_open(line: bytes, delimiter: bytes, is_open: bool) -> bool:
    """Return whether a quoted value goes on after the end of `line`; `is_open` says so of its beginning."""
    at = 0
    if not is_open and line.removeprefix(BOM).startswith(b'"'):
        is_open, at = True, line.index(b'"') + 1
    while True:
        if is_open:
            at = line.find(b'"', at)
            if at < 0:
                return True
            if line[at + 1 : at + 2] == b'"':
                at += 2
                continue
            is_open, at = False, at + 1
        at = line.find(delimiter + b'"', at)
        if at < 0:
            return False
        is_open, at = True, at + 2


def _widened(one: pa.Schema | None, other: pa.Schema) -> pa.Schema:
    """Return the types that values of both have."""
    fields = [pa.field(field.name, _textual(field.type)) for field in other]
    if one is None:
        return pa.schema(fields)
    return pa.schema([pa.field(a.name, _both(a.type, b.type)) for a, b in zip(one, fields, strict=True)])


def _textual(type_: pa.DataType) -> pa.DataType:
    """Return text for what Arrow has found to be a date or a time, so that it stays as it is written."""
    return pa.string() if pa.types.is_temporal(type_) else type_


def _both(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    numbers = pa.types.is_integer(one) or pa.types.is_floating(one)
    if numbers and (pa.types.is_integer(other) or pa.types.is_floating(other)):
        return pa.float64()
    return pa.string()
