"""Predictions for some rows of a file, in batches. A row that fails does not take others along.

A batch that fails is halved until it is known which rows fail alone; the others are predicted all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from raystack.errors import Problem, ServingError
from raystack.plan.prediction import OnError
from raystack.serving.offline.formats.reader import Rows
from raystack.serving.offline.inputs import Inputs, MisfitError
from raystack.serving.offline.output import Skipped
from raystack.serving.offline.tensors import to_arrow
from raystack.serving.predictor import Predictor, zeros
from raystack.serving.protocol.tensors import Array

Outputs = Mapping[str, pa.Array]


@dataclass(frozen=True)
class Predicted:
    """What the model answers for rows."""

    rows: Array
    """Numbers of the rows that are predicted, in order, from 0 for the first that was given."""
    outputs: Outputs
    """Columns by the name of the output, for each of them."""
    skipped: tuple[Skipped, ...]


class Batches:
    """Predicts rows of the columns that `inputs` names; `types` are those of the outputs that are wanted."""

    def __init__(
        self,
        predictor: Predictor,
        inputs: Inputs,
        types: Mapping[str, pa.DataType],
        batch: int,
        on_error: OnError,
    ) -> None:
        self._predictor, self._inputs, self._types = predictor, inputs, types
        self._batch, self._on_error = batch, on_error

    def predict(self, rows: Rows, url: str, first: int) -> Predicted:
        """Predict rows of the file at `url`, of which `first` is the number of the first.

        Raises ServingError with the file and the row that the model cannot take, unless it is to be skipped.
        """
        pieces: list[tuple[Array, Outputs]] = []
        skipped: list[Skipped] = []
        for chosen in self._inputs.groups(rows, self._batch):
            before = len(skipped)
            self._try(rows, chosen, url, first, pieces, skipped)
            if len(skipped) - before == len(chosen) > 1:
                self._check(skipped[-1])
        return self._in_order(pieces, sorted(skipped, key=lambda each: each.row))

    def _try(
        self,
        rows: Rows,
        chosen: Array,
        url: str,
        first: int,
        pieces: list[tuple[Array, Outputs]],
        skipped: list[Skipped],
    ) -> None:
        try:
            pieces.append((chosen, self._forward(rows, chosen)))
        except (MisfitError, ServingError) as error:
            if len(chosen) > 1:
                middle = len(chosen) // 2
                for half in (chosen[:middle], chosen[middle:]):
                    self._try(rows, half, url, first, pieces, skipped)
                return
            row = first + int(chosen[0])
            problem = error.problem if isinstance(error, MisfitError) else error.problems[0]
            if self._on_error == "skip":
                skipped.append(Skipped(row, str(problem)))
                return
            where, remedy = f"{url}, row {row}", "--on-error skip leaves such rows out"
            if isinstance(error, MisfitError):
                raise ServingError(
                    replace(problem, where=f"{where}, {problem.where}", remedy=remedy)
                ) from error
            rule = f"{problem.where}: {problem.rule}"
            raise ServingError(
                Problem(where, rule=rule, got=problem.got, remedy=problem.remedy or remedy), error.trace
            ) from error

    def _forward(self, rows: Rows, chosen: Array) -> Outputs:
        found = self._predictor.forward(self._inputs.arrays(rows, chosen))
        try:
            return {name: to_arrow(found[name], type_) for name, type_ in self._types.items()}
        except UnicodeDecodeError as error:
            rule = f"an output of bytes is written as text, and this one is no UTF-8: {error.reason}"
            raise ServingError(Problem("task: predict", rule=rule)) from None

    def _check(self, last: Skipped) -> None:
        """Raise ServingError if the model answers nothing any more, as after an error of its device."""
        signature = self._predictor.signature
        try:
            self._predictor.forward({spec.name: zeros(spec, 1) for spec in signature.inputs})
        except ServingError as error:
            if any(-1 in spec.shape[1:] for spec in signature.inputs):
                return  # some models need more than one pixel or token
            rule = f"all rows fail near row {last.row}, and so do zeros: {error.problems[0].rule}"
            raise ServingError(Problem("the model", rule=rule)) from error

    def _in_order(self, pieces: Sequence[tuple[Array, Outputs]], skipped: Sequence[Skipped]) -> Predicted:
        if not pieces:
            none = {name: pa.array([], type_) for name, type_ in self._types.items()}
            return Predicted(np.array([], np.int64), none, tuple(skipped))
        rows = np.concatenate([chosen for chosen, _ in pieces])
        outputs = {name: pa.concat_arrays([found[name] for _, found in pieces]) for name in self._types}
        order = np.argsort(rows)
        if not np.array_equal(order, np.arange(len(order))):
            outputs = {name: column.take(pa.array(order)) for name, column in outputs.items()}
        return Predicted(rows[order], outputs, tuple(skipped))
