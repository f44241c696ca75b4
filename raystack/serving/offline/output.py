"""The folder of the output: the manifest, the parts that are done, and the rows that were skipped.

    00000-data-0-1000.parquet   a part: the rows of the input's order, from the file `data`
    _manifest.json              the model, the input and the parts
    _skipped.jsonl              rows that are not in the output, with the reason; absent if there are none

Programs that read a folder of Parquet files leave out names that begin with `_`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raystack.errors import ConfigError, Problem
from raystack.serving.offline.files import of_output
from raystack.serving.offline.threads import ReadingPool
from raystack.serving.offline.work import Work
from raystack.storage import Storage

MANIFEST, SKIPPED = "_manifest.json", "_skipped.jsonl"
KEY = b"raystack"
"""The key of a part's footer that says which of its rows were skipped."""
FLUSH = 64 * 2**20
"""Bytes of rows that are held before they are written."""
READERS = 16
"""Footers that are read at the same time."""


@dataclass(frozen=True)
class Skipped:
    """A row that the model cannot take."""

    row: int
    """Counted from 0 in its file."""
    reason: str


@dataclass(frozen=True)
class Done:
    """A part that is done."""

    part: int
    rows: int
    """Rows of the output."""
    skipped: tuple[Skipped, ...] = ()


class Writer:
    """A part that is being written."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer, self._held, self._bytes = writer, list[pa.RecordBatch](), 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Write rows, soon."""
        self._held.append(rows)
        self._bytes += rows.nbytes
        if self._bytes > FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held))
        self._held, self._bytes = [], 0

    def note(self, skipped: Sequence[Skipped]) -> None:
        """Have the part say which of its rows were skipped."""
        told = json.dumps([[each.row, each.reason] for each in skipped])
        self._writer.add_key_value_metadata({KEY.decode(): told})


class Output:
    """The folder at `url`, a path or an fsspec URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        with of_output(url):
            self._storage = Storage(url)

    @property
    def manifest(self) -> str:
        """Path or URL of the manifest."""
        return self._place(MANIFEST)

    def find(self) -> Work | None:
        """Return what the folder is the output of; None if it is empty or missing.

        Raises ConfigError if it holds something else.
        """
        with of_output(self.url):
            if self._storage.local and Path(self._storage.path()).is_file():
                rule, remedy = "is a file, and the output is a folder", "name a new one"
                raise ConfigError(Problem(f"--out {self.url}", rule=rule, remedy=remedy))
            names = self._storage.names()
            if MANIFEST in names:
                return Work.from_json(self._storage.read(MANIFEST), self.manifest)
        if names:
            rule = f"the folder is not empty, and has no {MANIFEST}"
            remedy = "name a new folder, or empty this one"
            raise ConfigError(Problem(f"--out {self.url}", rule=rule, got=names[0], remedy=remedy))
        return None

    def decide(self, work: Work) -> None:
        """Write the manifest."""
        with of_output(self.url):
            if self._storage.local:
                self._storage.make("")
            self._storage.write(MANIFEST, work.as_json())

    def there(self, work: Work) -> list[int]:
        """Return the numbers of the parts that have a file."""
        with of_output(self.url):
            names = set(self._storage.names())
        return [number for number, name in enumerate(work.names) if name in names]

    def done(self, work: Work) -> dict[int, Done]:
        """Return the parts that are done, by number."""
        with ReadingPool(READERS) as pool:
            found = pool.map(lambda number: self._read(number, work.names[number]), self.there(work))
        return {done.part: done for done in found if done is not None}

    @contextmanager
    def writing(self, work: Work, number: int, schema: pa.Schema) -> Iterator[Writer]:
        """Write a part, which is there once the block has ended without an error."""
        with (
            of_output(self.url),
            self._storage.published(work.names[number]) as path,
            pq.ParquetWriter(path, schema) as writer,
        ):
            held = Writer(writer)
            yield held
            held.flush()

    def end(self, work: Work, every: Mapping[int, Done], seconds: float) -> Work:
        """Write the rows that were skipped, and that all is complete. Returns the manifest."""
        skipped = [
            json.dumps(
                {"file": work.inputs[work.parts[number].file].url, "row": row.row, "reason": row.reason}
            )
            for number in sorted(every)
            for row in every[number].skipped
        ]
        ended = work.ended(len(skipped), seconds)
        with of_output(self.url):
            if skipped:
                self._storage.write(SKIPPED, "\n".join(skipped) + "\n")
            for name in self._storage.unfinished():
                self._storage.delete(name)
            self._storage.write(MANIFEST, ended.as_json())
        return ended

    def _read(self, number: int, name: str) -> Done | None:
        """Return what a part's footer says; None if it has none."""
        try:
            with self._storage.open(name) as file:
                footer = pq.read_metadata(file)
        except (pa.ArrowException, OSError):
            return None  # it is damaged, and done again
        told = json.loads((footer.metadata or {}).get(KEY, b"[]"))
        return Done(number, footer.num_rows, tuple(Skipped(row, reason) for row, reason in told))

    def _place(self, name: str) -> str:
        return self._storage.path(name) if self._storage.local else f"{self._storage.url}/{name}"
