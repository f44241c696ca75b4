"""A served model, as a program asks it: named arrays in, named arrays out, over HTTP and JSON."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from raystack.errors import Problem, ServingError
from raystack.outcome import Outcome
from raystack.serving.protocol.tensors import DATATYPES

_DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
ANSWER_S = 300.0
"""How long one request may take, in seconds."""


@dataclass(frozen=True)
class ServedModel:
    """One model that answers at `url` (`http://host:port/v2/models/name`)."""

    url: str
    outcome: Outcome
    """What was deployed, and where to look."""

    def __repr__(self) -> str:
        return f"ServedModel({self.url!r})"

    def predict(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
        """The model's outputs for `inputs`: arrays of shape [batch, ...] by the names of the signature.

        Values are converted to the types of the signature. Raises ServingError with the server's reason where
        it refuses them or does not answer.
        """
        tensors = [self._tensor(name, values) for name, values in inputs.items()]
        answer = self._ask(f"{self.url}/infer", {"inputs": tensors})
        return {output["name"]: _array(output) for output in answer["outputs"]}

    @cached_property
    def signature(self) -> Mapping[str, Any]:
        """The model's metadata: `inputs` and `outputs`, each with name, datatype and shape."""
        described: Mapping[str, Any] = self._ask(self.url)
        return described

    def _tensor(self, name: str, values: npt.ArrayLike) -> dict[str, Any]:
        datatypes = {each["name"]: each["datatype"] for each in self.signature["inputs"]}
        if name not in datatypes:
            rule = f"the model's inputs are {', '.join(map(repr, datatypes))}"
            raise ServingError(Problem("inputs", rule=rule, got=repr(name)))
        array = np.asarray(values, dtype=_DTYPES[datatypes[name]])
        return {
            "name": name,
            "datatype": datatypes[name],
            "shape": list(array.shape),
            "data": array.ravel().tolist(),
        }

    def _ask(self, url: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ServingError(Problem(url, rule=_reason(error))) from None
        except (urllib.error.URLError, OSError) as error:
            raise ServingError(Problem(url, rule=f"does not answer: {error}")) from None


def _array(output: Mapping[str, Any]) -> npt.NDArray[Any]:
    return np.asarray(output["data"], dtype=_DTYPES[output["datatype"]]).reshape(output["shape"])


def _reason(error: urllib.error.HTTPError) -> str:
    """The protocol's own words where there are some."""
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"it answers {error.code} {error.reason}"
