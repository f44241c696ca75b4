"""What all formats have in common."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import pyarrow as pa

from raystack.errors import ConfigError, Problem
from raystack.plan.prediction import InputFile
from raystack.serving.offline.files import of_input
from raystack.serving.offline.tensors import Column
from raystack.serving.offline.threads import ReadingPool
from raystack.serving.offline.work import Part

Rows = Mapping[str, Column]
"""Columns by name, all of the same length."""

UNKNOWN = pa.null()
"""The type of a column whose values are looked at row by row."""


@dataclass(frozen=True)
class Measured:
    """What is known of a file that was counted."""

    rows: int
    schema: pa.Schema
    """Columns and their types; UNKNOWN for inputs of the model that are JSON."""
    groups: Sequence[int] = ()
    """Rows of each part of the file that is read as one; empty: it is read row by row."""
    offsets: Sequence[int] | None = None
    """The byte at which each row begins, and that after the last one; None where none is needed."""
    tensors: Mapping[str, tuple[int, ...]] | None = None
    """Shapes of the rows of columns that are tensors by their type."""


class Reader(Protocol):
    """One format."""

    def measure(self, file: InputFile, inputs: Collection[str]) -> Measured:
        """Count the rows of a file. `inputs` are columns whose type need not be known.

        Raises ConfigError if it is not of this format.
        """

    def read(
        self, file: InputFile, part: Part, columns: Sequence[str], schema: pa.Schema, size: int
    ) -> Iterator[Rows]:
        """Yield the columns of all rows of a part, `size` rows at a time.

        `schema` has the types of the columns that were measured. Raises ConfigError if the file cannot be
        read.
        """


@contextmanager
def reading(file: InputFile) -> Iterator[None]:
    """Have what a library says of a damaged or foreign file be one ConfigError that names it."""
    try:
        with of_input(file.url):
            yield
    except (pa.ArrowException, ValueError, EOFError, KeyError) as error:
        reason = " ".join(str(error).split())
        rule = f"cannot be read as {file.format}: {reason}"
        raise ConfigError(Problem(f"--in {file.url}", rule=rule)) from error


def windows(pieces: Iterator[Rows], size: int) -> Iterator[Rows]:
    """Yield the rows of all pieces, `size` at a time, wherever the pieces end."""
    held: list[Rows] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += _length(piece)
        while count >= size:
            whole = _joined(held)
            yield {name: column[:size] for name, column in whole.items()}
            count -= size
            held = [{name: column[size:] for name, column in whole.items()}]
    if count:
        yield _joined(held)


def ahead(pieces: Iterator[Rows]) -> Iterator[Rows]:
    """Yield the same, with the next one being read while the caller works with one."""
    with ReadingPool(1) as reader:
        following = reader.submit(next, pieces, None)
        while (piece := following.result()) is not None:
            following = reader.submit(next, pieces, None)
            yield piece


def _length(rows: Rows) -> int:
    return len(next(iter(rows.values())))


def _joined(held: Sequence[Rows]) -> Rows:
    if len(held) == 1:
        return held[0]
    return {name: _concatenated([rows[name] for rows in held if _length(rows)]) for name in held[0]}


def _concatenated(columns: Sequence[Column]) -> Column:
    first = columns[0]
    if isinstance(first, list):
        return list(chain.from_iterable(columns))
    return np.concatenate(columns) if isinstance(first, np.ndarray) else pa.concat_arrays(columns)
