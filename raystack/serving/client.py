"""A served model, as a program asks it: named arrays in, named arrays out, over HTTP as raw bytes."""

import json
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy.typing as npt

from raystack.errors import Problem, ServingError
from raystack.outcome import Outcome
from raystack.serving.access import Access
from raystack.serving.protocol.rest import BINARY, HEADER_LENGTH
from raystack.serving.protocol.tensors import DATATYPES, Array, from_bytes, to_bytes
from raystack.serving.protocol.values import to_array
from raystack.task import Dtype

_DTYPES: Mapping[str, Dtype] = {datatype: dtype for dtype, datatype in DATATYPES.items()}
ANSWER_S = 300.0
"""How long one request may take, in seconds."""


@dataclass(frozen=True)
class ServedModel:
    """One model that answers at `url` (`http://host:port/v2/models/name`).

    For a server of several models it is the server, which has each as `model(name)`.
    """

    url: str
    outcome: Outcome
    """What was deployed, and where to look."""
    access: Access = field(default_factory=Access)
    """The token and the certificate of the server."""

    def __repr__(self) -> str:
        return f"ServedModel({self.url!r})"

    def model(self, name: str) -> "ServedModel":
        """Another model of the same server."""
        return replace(self, url=f"{self.url.partition('/v2')[0]}/v2/models/{name}")

    def predict(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
        """The model's outputs for `inputs`: arrays of shape [batch, ...] by the names of the signature.

        Numbers are converted to the types of the signature where they fit; texts are str or bytes, and bytes
        in the answer. Raises ServingError with the reason where they do not fit, the server refuses them or
        does not answer.
        """
        arrays = {name: self._array(name, values) for name, values in inputs.items()}
        blobs = [to_bytes(array) for array, _ in arrays.values()]
        described = [
            {
                "name": name,
                "datatype": DATATYPES[dtype],
                "shape": array.shape,
                "parameters": {"binary_data_size": len(blob)},
            }
            for (name, (array, dtype)), blob in zip(arrays.items(), blobs, strict=True)
        ]
        head = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
        headers = {"Content-Type": BINARY, HEADER_LENGTH: str(len(head))}
        body, length = self._ask(f"{self.url}/infer", b"".join((head, *blobs)), headers)
        return _outputs(body, length)

    @cached_property
    def signature(self) -> Mapping[str, Any]:
        """The model's metadata: `inputs` and `outputs`, each with name, datatype and shape."""
        described: Mapping[str, Any] = json.loads(self._ask(self.url)[0])
        return described

    def _array(self, name: str, values: npt.ArrayLike) -> tuple[Array, Dtype]:
        datatypes = {each["name"]: each["datatype"] for each in self.signature["inputs"]}
        if name not in datatypes:
            rule = f"the model's inputs are {', '.join(map(repr, datatypes))}"
            raise ServingError(Problem("inputs", rule=rule, got=repr(name)))
        dtype = _DTYPES[datatypes[name]]
        try:
            return to_array(values, dtype), dtype
        except ValueError as error:
            raise ServingError(Problem(f"input '{name}'", rule=str(error))) from None

    def _ask(
        self, url: str, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[bytes, int]:
        """Return the body of an answer and the length of the JSON in it."""
        try:
            with self.access.open(url, ANSWER_S, data, headers) as response:
                body: bytes = response.read()
                return body, int(response.headers.get(HEADER_LENGTH, len(body)))
        except urllib.error.HTTPError as error:
            raise ServingError(Problem(url, rule=_reason(error))) from None
        except (urllib.error.URLError, OSError) as error:
            raise ServingError(Problem(url, rule=f"does not answer: {error}")) from None


def _outputs(body: bytes, length: int) -> dict[str, Array]:
    found = {}
    position = length
    for output in json.loads(body[:length])["outputs"]:
        end = position + output["parameters"]["binary_data_size"]
        found[output["name"]] = from_bytes(
            body[position:end], _DTYPES[output["datatype"]], output["shape"]
        ).copy()
        position = end
    return found


def _reason(error: urllib.error.HTTPError) -> str:
    """The protocol's own words where there are some."""
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"it answers {error.code} {error.reason}"
