"""Parquet: row groups, of which only the columns that are needed are read."""

from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from raystack.plan.prediction import InputFile
from raystack.serving.offline.formats.reader import Measured, Rows, reading
from raystack.serving.offline.work import Part
from raystack.storage import Storage


class Parquet:
    """A reader that goes on where the part before has ended, since a row group is read from its beginning."""

    def __init__(self) -> None:
        self._url: str | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._position = 0
        self._rest: pa.RecordBatch | None = None

    def measure(self, file: InputFile, inputs: Collection[str]) -> Measured:
        """Read the footer."""
        with reading(file), pq.ParquetFile(_source(file)) as opened:
            footer = opened.metadata
            groups = [footer.row_group(index).num_rows for index in range(footer.num_row_groups)]
            schema = opened.schema_arrow.remove_metadata()
            return Measured(footer.num_rows, schema, groups)

    def read(
        self, file: InputFile, part: Part, columns: Sequence[str], schema: pa.Schema, size: int
    ) -> Iterator[Rows]:
        """Yield the rows of a part."""
        with reading(file):
            if self._url != file.url or part.start < self._position:
                self._open(file, part.start, columns, size)
            while self._position < part.stop:
                batch = self._next()
                first = max(part.start - self._position, 0)
                taken = min(part.stop - self._position, len(batch))
                self._position += taken
                self._rest = batch.slice(taken) if taken < len(batch) else None
                if first < taken:
                    chosen = batch.slice(first, taken - first)
                    yield dict(zip(chosen.schema.names, chosen.columns, strict=True))

    def _next(self) -> pa.RecordBatch:
        if self._rest is not None:
            return self._rest
        batch = next(self._batches, None)
        if batch is None:
            raise ValueError("it has fewer rows than its footer says")
        return batch

    def _open(self, file: InputFile, start: int, columns: Sequence[str], size: int) -> None:
        """Have the rows from the row group of `start` on come next."""
        opened = pq.ParquetFile(_source(file))
        footer = opened.metadata
        first = position = 0
        while position + footer.row_group(first).num_rows <= start:
            position += footer.row_group(first).num_rows
            first += 1
        groups = range(first, footer.num_row_groups)
        self._url, self._position, self._rest = file.url, position, None
        self._batches = opened.iter_batches(size, row_groups=list(groups), columns=list(columns))


def _source(file: InputFile) -> object:
    storage = Storage(file.url)
    return storage.path() if storage.local else storage.open()
