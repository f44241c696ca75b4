"""JSON: a list of objects, or an object a line."""

from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa

from raystack.errors import ConfigError, Problem
from raystack.plan.prediction import InputFile
from raystack.serving.offline.formats.reader import UNKNOWN, Measured, Rows, reading
from raystack.serving.offline.work import Part
from raystack.storage import Storage

BLOCK_ROWS = 10_000
"""Rows of which the types are found at a time."""


class Lines:
    """JSON lines: parts are ranges of bytes."""

    def measure(self, file: InputFile, inputs: Collection[str]) -> Measured:
        """Read the whole file."""
        with reading(file), Storage(file.url).open() as opened:
            offsets, types, block = array("Q", [0]), _Types(file, inputs), []
            end = 0
            while line := opened.readline():
                end += len(line)
                if not line.strip():
                    offsets[-1] = end
                    continue
                offsets.append(end)
                block.append(_object(line, len(offsets) - 2))
                if len(block) == BLOCK_ROWS:
                    types.add(block)
                    block = []
            types.add(block)
            return Measured(len(offsets) - 1, types.schema, offsets=offsets)

    def read(
        self, file: InputFile, part: Part, columns: Sequence[str], schema: pa.Schema, size: int
    ) -> Iterator[Rows]:
        """Yield the rows of a part."""
        with reading(file), Storage(file.url).open() as opened:
            opened.seek(part.offset)
            lines = [line for line in opened.read(part.length).split(b"\n") if line.strip()]
            if len(lines) != part.stop - part.start:
                counted = f"rows {part.start} to {part.stop - 1} are {len(lines)} lines"
                raise ValueError(f"{counted}: it has changed")
            yield from _columns(
                [_object(line, part.start + number) for number, line in enumerate(lines)], columns, size
            )


class Documents:
    """One JSON document, which is read whole; a reader keeps that which it has read last."""

    def __init__(self) -> None:
        self._url: str | None = None
        self._rows: list[dict[str, Any]] = []

    def measure(self, file: InputFile, inputs: Collection[str]) -> Measured:
        """Read the whole file."""
        rows, types = self._all(file), _Types(file, inputs)
        with reading(file):
            types.add(rows)
            return Measured(len(rows), types.schema)

    def read(
        self, file: InputFile, part: Part, columns: Sequence[str], schema: pa.Schema, size: int
    ) -> Iterator[Rows]:
        """Yield the rows of a part."""
        rows = self._all(file)[part.start : part.stop]
        with reading(file):
            if len(rows) != part.stop - part.start:
                raise ValueError("it has changed")
            yield from _columns(rows, columns, size)

    def _all(self, file: InputFile) -> list[dict[str, Any]]:
        if self._url != file.url:
            with reading(file), Storage(file.url).open() as opened:
                self._rows, self._url = _document(opened.read()), file.url
        return self._rows


class _Types:
    """The types of the columns of all rows that were added."""

    def __init__(self, file: InputFile, inputs: Collection[str]) -> None:
        self._file, self._inputs = file, inputs
        self._types: dict[str, pa.DataType] = {}

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(list(self._types.items()))

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        names = dict.fromkeys(name for row in rows for name in row)
        for name in names:
            known = self._types.get(name, UNKNOWN)
            if name in self._inputs:
                self._types[name] = UNKNOWN
                continue
            try:
                found = pa.array([row.get(name) for row in rows]).type
                schemas = (pa.schema([(name, type_)]) for type_ in (known, found))
                merged = pa.unify_schemas(schemas, promote_options="permissive")
            except (pa.ArrowException, OverflowError) as error:
                rule = f"column '{name}' has values of more than one type: {error}"
                remedy = "leave it out with --keep"
                raise ConfigError(Problem(f"--in {self._file.url}", rule=rule, remedy=remedy)) from None
            self._types[name] = merged.field(name).type


def _document(content: bytes) -> list[dict[str, Any]]:
    try:
        values = orjson.loads(content)
    except orjson.JSONDecodeError:
        # Writers of JSON lines often call their files .json.
        lines = [line for line in content.split(b"\n") if line.strip()]
        if not (lines and lines[0].lstrip().startswith(b"{")):
            raise
        return [_object(line, number) for number, line in enumerate(lines)]
    if isinstance(values, dict):
        values = [values]
    if not isinstance(values, list) or not all(isinstance(row, dict) for row in values):
        raise ValueError("it should be a list of objects, one for each row")
    return values


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"row {number} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"row {number} should be an object")
    return value


def _columns(rows: Sequence[dict[str, Any]], columns: Sequence[str], size: int) -> Iterator[Rows]:
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        yield {name: [row.get(name) for row in some] for name in columns}
