"""The first version of the protocol, of TensorFlow Serving and KServe: bodies of `/v1/models/NAME:predict`.

    {"instances": [...]}    one entry for each sample         -> {"predictions": [...]}
    {"inputs": ...}         one entry for each input          -> {"outputs": ...}

An entry is the value alone where the model has one input or output, else an object with all of them by name.
Bytes that are not UTF-8 are {"b64": "..."} in base64. There is neither an id nor a choice of outputs.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from raystack.errors import Problem
from raystack.serving.protocol.contract import Contract, InferRequest
from raystack.serving.protocol.refusal import RequestError, short
from raystack.serving.protocol.rest import document, to_json
from raystack.serving.protocol.tensors import Array
from raystack.serving.protocol.values import from_json, nesting
from raystack.task import TensorSpec

B64 = "b64"


class ColumnRequest(InferRequest):
    """A request with one entry for each input, which is answered with one for each output."""

    __slots__ = ()


def parse(body: bytes, header_length: str | None, contract: Contract) -> InferRequest:
    """Read the body of a predict request. Raises RequestError, status 400.

    `header_length` is for the protocol's second version.
    """
    request = document(body)
    if ("instances" in request) == ("inputs" in request):
        got = "both" if "inputs" in request else "neither"
        raise RequestError(Problem("body", rule="needs either 'instances' or 'inputs'", got=got))
    by_rows = "instances" in request
    columns = (
        _columns(request["instances"], contract) if by_rows else _named(request["inputs"], "inputs", contract)
    )
    inputs = {name: _tensor(contract.inputs[name], data, contract) for name, data in columns.items()}
    kind = InferRequest if by_rows else ColumnRequest
    return kind(None, inputs, contract.batch(inputs), contract.everything[False])


def render(request: InferRequest, outputs: Mapping[str, Array], contract: Contract) -> tuple[bytes, None]:
    """Body of the response; no raw bytes follow it."""
    columns = {name: _values(outputs[name]) for name in contract.outputs}
    if isinstance(request, ColumnRequest):
        answer = columns if len(columns) > 1 else next(iter(columns.values()))
        return to_json({"outputs": answer}), None
    if len(columns) == 1:
        return to_json({"predictions": next(iter(columns.values()))}), None
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return to_json({"predictions": rows}), None


def _columns(instances: Any, contract: Contract) -> dict[str, Any]:
    """Lists of samples by the names of inputs."""
    if not isinstance(instances, list) or not instances:
        rule = "should be a list with at least one sample"
        raise RequestError(Problem("instances", rule=rule, got=short(instances)))
    columns: dict[str, list[Any]] = {}
    for index, instance in enumerate(instances):
        named = _named(instance, f"instances[{index}]", contract)
        if index and named.keys() != columns.keys():
            rule = f"has the same inputs as the first, {', '.join(columns)}"
            raise RequestError(Problem(f"instances[{index}]", rule=rule, got=", ".join(named)))
        for name, value in named.items():
            columns.setdefault(name, []).append(value)
    return columns


def _named(values: Any, where: str, contract: Contract) -> Mapping[str, Any]:
    """Values by the names of inputs; where there is one input, its value may be alone."""
    if isinstance(values, dict) and values.keys() != {B64}:
        for name in values:
            contract.known(name)
        return values
    if len(contract.inputs) == 1:
        return {next(iter(contract.inputs)): values}
    rule = f"should be an object with the inputs {', '.join(map(repr, contract.inputs))}"
    raise RequestError(Problem(where, rule=rule, got=short(values)))


def _tensor(spec: TensorSpec, data: Any, contract: Contract) -> Array:
    shape = nesting(data)
    if shape:
        contract.fits(spec, shape)
    try:
        if spec.dtype == "bytes":
            data = _decoded(data, len(shape))
        return from_json(data, spec.dtype, shape)
    except ValueError as error:
        raise RequestError(Problem(f"input '{spec.name}'", rule=str(error))) from None


def _decoded(data: Any, depth: int) -> Any:
    """Nested lists of texts with bytes for each object with `b64`."""
    if isinstance(data, list) and depth:
        return [_decoded(each, depth - 1) for each in data]
    if isinstance(data, dict) and data.keys() == {B64} and isinstance(data[B64], str):
        try:
            return base64.b64decode(data[B64], validate=True)
        except binascii.Error:
            raise ValueError(f"data holds {B64} that is not base64") from None
    return data


def _values(array: Array) -> Any:
    """Nested lists of an output, [samples, ...], for `to_json`."""
    if array.dtype.kind == "O":
        return _encoded(array.tolist())
    return array.astype("float64").tolist() if array.dtype.kind == "V" else array.tolist()


def _encoded(values: Any) -> Any:
    if isinstance(values, list):
        return [_encoded(each) for each in values]
    try:
        return values.decode()
    except UnicodeDecodeError:
        return {B64: base64.b64encode(values).decode()}
