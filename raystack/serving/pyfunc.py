"""How MLflow loads a registered model as a `python_function`: named in its MLmodel, imported by MLflow alone.

`mlflow.pyfunc.load_model`, `mlflow models serve` and `mlflow.models.evaluate` come through here. MLflow makes
named arrays of what it is given (a dict of arrays, a DataFrame with a column per input, one array for one
input) and compares them with the signature before it calls `predict`. Its evaluators want one array, so
`model_config={"output": "digit"}` chooses one of several outputs. It has no bfloat16, and texts are objects:
both sides are float32 and str there; bytes that are not UTF-8 stay bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raystack.errors import Problem, ServingError, nearest
from raystack.serving.predictor import Predictor
from raystack.serving.protocol.tensors import NUMPY, Array


class Model:
    """A Predictor behind MLflow's interface. `output`: the only one that is answered; None: all."""

    def __init__(self, predictor: Predictor, output: str | None = None) -> None:
        self._predictor = predictor
        names = [spec.name for spec in predictor.signature.outputs]
        if output is not None and output not in names:
            close = nearest(output, names)
            remedy = f"did you mean '{close}'?" if close else None
            rule = f"the signature has the outputs {', '.join(map(repr, names))}"
            raise ServingError(Problem("model_config: output", rule=rule, got=output, remedy=remedy))
        self._output = names[0] if len(names) == 1 else output

    def predict(
        self, model_input: Mapping[str, Any], params: Mapping[str, Any] | None = None
    ) -> Array | dict[str, Array]:
        """The outputs by name; where there is one, or one was chosen, that array itself. Takes no `params`.

        Raises ServingError as `Predictor.predict` does.
        """
        outputs = {name: _plain(array) for name, array in self._predictor.predict(model_input).items()}
        return outputs if self._output is None else outputs[self._output]


def _plain(array: Array) -> Array:
    if array.dtype == NUMPY["bfloat16"]:
        return array.astype(np.float32)
    if array.dtype != NUMPY["bytes"]:
        return array
    texts = np.empty(array.size, object)
    texts[:] = [_text(value) for value in array.ravel().tolist()]
    return texts.reshape(array.shape)


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _load_pyfunc(path: str, model_config: Mapping[str, Any]) -> Model:
    """MLflow's entry point; `path` is the folder of the model's files."""
    return Model(Predictor.read(Path(path)), model_config.get("output"))
