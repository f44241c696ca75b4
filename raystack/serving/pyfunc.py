"""How MLflow loads a registered model as a `python_function`: named in its MLmodel, imported by MLflow alone.

`mlflow.pyfunc.load_model`, `mlflow models serve` and `mlflow.models.evaluate` come through here. MLflow makes
named arrays of what it is given (a dict of arrays, a DataFrame with a column per input, one array for one
input) and compares them with the signature before it calls `predict`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raystack.serving.predictor import Predictor
from raystack.serving.protocol.tensors import Array


class Model:
    """A Predictor behind MLflow's interface."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(
        self, model_input: Mapping[str, Any], params: Mapping[str, Any] | None = None
    ) -> Array | dict[str, Array]:
        """The outputs by name; of a model with one output that array itself. The model takes no `params`.

        Raises ServingError as `Predictor.predict` does.
        """
        outputs = self._predictor.predict(model_input)
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))


def _load_pyfunc(path: str) -> Model:
    """MLflow's entry point; `path` is the folder of the model's files."""
    return Model(Predictor.read(Path(path)))
