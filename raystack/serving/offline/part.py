"""One part: its rows are read, predicted and written."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raystack import registry
from raystack.config.serving import Serving
from raystack.config.tracking import Tracking
from raystack.plan.prediction import InputFile, OnError
from raystack.serving.offline.batches import Batches, Predicted
from raystack.serving.offline.decide import ROW
from raystack.serving.offline.formats import READERS, Reader
from raystack.serving.offline.formats.reader import Rows, ahead, windows
from raystack.serving.offline.inputs import Inputs
from raystack.serving.offline.output import Done, Output, Skipped
from raystack.serving.offline.tensors import kept, taken, written_type
from raystack.serving.offline.work import Part, Work
from raystack.serving.predictor import Predictor
from raystack.task import Signature

WINDOW = 16
"""Batches of rows that are read at a time, out of which rows of equal shapes are predicted together."""


@dataclass(frozen=True)
class Job:
    """What every worker is told."""

    work: Work
    out: str
    serving: Serving
    tracking: Tracking
    device: str
    threads: int
    batch: int
    on_error: OnError


class Worker:
    """A model in memory that does parts; it is loaded with the first."""

    def __init__(self, job: Job) -> None:
        self._job, self._work = job, job.work
        self._output = Output(job.out)
        self._signature = Signature.from_dict(self._work.signature)
        self._inputs = Inputs(self._signature, self._work.columns)
        self._columns = list(dict.fromkeys([*self._inputs.columns, *self._work.keep]))
        self._types = {
            spec.name: written_type(spec)
            for spec in self._signature.outputs
            if spec.name in self._work.outputs
        }
        self._readers: dict[str, Reader] = {}
        self._batches: Batches | None = None

    @property
    def schema(self) -> pa.Schema:
        """The columns of the output."""
        numbered = [pa.field(ROW, pa.int64())] if self._work.numbered else []
        keys = [self._work.schema.field(name) for name in self._work.keep]
        found = [pa.field(self._work.outputs[name], type_) for name, type_ in self._types.items()]
        return pa.schema([*numbered, *keys, *found])

    def load(self) -> Batches:
        """Read the model, if it is not in memory. Raises the errors of `Predictor.read`."""
        if self._batches is not None:
            return self._batches
        folder = registry.resolve(self._work.model.uri, self._job.tracking)
        job, serving = self._job, self._job.serving
        predictor = Predictor.read(
            folder,
            job.device,
            job.threads,
            precision=serving.precision,
            compiled=serving.compile,
            verify=serving.verify,
        )
        self._batches = Batches(predictor, self._inputs, self._types, job.batch, job.on_error)
        return self._batches

    def do(self, number: int, advance: Callable[[int], None] = lambda rows: None) -> Done:
        """Do a part, and write it. `advance` is called with the number of rows that are over."""
        batches, part = self.load(), self._work.parts[number]
        file, first = self._work.inputs[part.file], self._work.first_rows[part.file]
        start, rows, skipped = part.start, 0, list[Skipped]()
        with self._output.writing(self._work, number, self.schema) as writer:
            for window in ahead(windows(self._read(file, part), self._job.batch * WINDOW)):
                predicted = batches.predict(window, file.url, start)
                if len(predicted.rows):
                    writer.add(self._written(window, predicted, first + start))
                count = len(next(iter(window.values())))
                rows, start = rows + len(predicted.rows), start + count
                skipped += predicted.skipped
                advance(count)
            writer.note(skipped)
        return Done(number, rows, tuple(skipped))

    def _read(self, file: InputFile, part: Part) -> Iterator[Rows]:
        if part.start == part.stop:  # of an input without rows
            return iter(())
        reader = self._readers.setdefault(file.format, READERS[file.format]())
        return reader.read(file, part, self._columns, self._work.schema, self._job.batch * WINDOW)

    def _written(self, window: Rows, predicted: Predicted, first: int) -> pa.RecordBatch:
        numbers = [pa.array(predicted.rows.astype(np.int64) + first)] if self._work.numbered else []
        keys = [
            kept(taken(window[name], predicted.rows), self._work.schema.field(name).type)
            for name in self._work.keep
        ]
        return pa.record_batch([*numbers, *keys, *predicted.outputs.values()], schema=self.schema)
