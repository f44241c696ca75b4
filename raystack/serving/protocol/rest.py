"""The protocol over HTTP: bodies of infer requests and responses, in JSON and with the binary tensor
extension.

With the extension a body is JSON followed by the raw bytes of the tensors whose parameters carry
`binary_data_size`, in order; the header Inference-Header-Content-Length holds the length of the JSON. It is
what Triton's client sends by default.
"""

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from raystack.errors import Problem
from raystack.serving.protocol import tensors
from raystack.serving.protocol.contract import Contract, InferRequest, OutputRequest, RequestError
from raystack.serving.protocol.tensors import DATATYPES, Array

HEADER_LENGTH = "Inference-Header-Content-Length"
JSON, BINARY = "application/json", "application/octet-stream"
EXTENSIONS = ("binary_tensor_data",)

_MEANINGFUL = ("shared_memory_region", "classification", "sequence_id")
"""Parameters of other extensions that change what is answered; to ignore one would be to answer something
else.
"""


def parse(body: bytes, header_length: str | None, contract: Contract) -> InferRequest:
    """Read the body of an infer request. Raises RequestError, status 400, with what was got and what the
    signature says.

    `header_length` is the value of Inference-Header-Content-Length, None where the request has no such
    header.
    """
    split = _split(header_length, len(body))
    try:
        document = from_json(body if split == len(body) else body[:split])
    except ValueError as error:
        raise RequestError(Problem("body", rule=f"should be JSON: {error}")) from None
    request = _object(document, "body")
    parameters = _parameters(request, "body")
    identity = request.get("id")
    if identity is not None and not isinstance(identity, str):
        raise RequestError(Problem("id", rule="should be a string", got=_short(identity)))
    inputs = _inputs(_list(request, "inputs", "body"), memoryview(body)[split:], contract)
    return InferRequest(identity, inputs, contract.batch(inputs), _outputs(request, parameters, contract))


def render(
    request: InferRequest, outputs: Mapping[str, Array], contract: Contract
) -> tuple[bytes, int | None]:
    """Body of the response, and the length of its JSON if raw bytes follow it. NaN and infinities are written
    as Python does.
    """
    described, blobs = [], []
    for config in request.outputs:
        array = outputs[config.name]
        values: dict[str, Any] = {
            "name": config.name,
            "datatype": DATATYPES[contract.outputs[config.name].dtype],
            "shape": array.shape,
        }
        if config.binary:
            blobs.append(tensors.to_bytes(array))
            values["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            values["data"] = tensors.to_json(array)
        described.append(values)
    response: dict[str, Any] = {
        "model_name": contract.name,
        "model_version": contract.version,
        "outputs": described,
    }
    if request.id is not None:
        response["id"] = request.id
    head = to_json(response)
    return (b"".join((head, *blobs)), len(head)) if blobs else (head, None)


def error_body(message: str) -> bytes:
    """Body of a response that is not 200."""
    return to_json({"error": message})


def _split(header_length: str | None, length: int) -> int:
    if header_length is None:
        return length
    if not header_length.isascii() or not header_length.isdigit() or int(header_length) > length:
        raise RequestError(
            Problem(
                HEADER_LENGTH,
                rule=f"should be a whole number up to the body's length, {length}",
                got=_short(header_length),
            )
        )
    return int(header_length)


def _inputs(described: list[Any], blob: memoryview, contract: Contract) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    position = 0
    for index, item in enumerate(described):
        where = f"inputs[{index}]"
        tensor = _object(item, where)
        name = tensor.get("name")
        if not isinstance(name, str):
            raise RequestError(Problem(f"{where}.name", rule="should be a string", got=_short(name)))
        if name in inputs:
            raise RequestError(Problem(f"input '{name}'", rule="is there twice"))
        where = f"input '{name}'"
        shape = _list(tensor, "shape", where)
        if any(type(size) is not int for size in shape):
            raise RequestError(
                Problem(f"{where}, shape", rule="should be a list of whole numbers", got=_short(shape))
            )
        spec = contract.input(name, tensor.get("datatype", "no datatype"), shape)
        size = _binary_size(tensor, where)
        try:
            if size is None:
                inputs[name] = tensors.from_json(tensor.get("data"), spec.dtype, shape)
            else:
                inputs[name] = tensors.from_bytes(blob[position : position + size], spec.dtype, shape)
                position += size
        except ValueError as error:
            raise RequestError(Problem(where, rule=str(error))) from None
    if position != len(blob):
        got = f"{len(blob)} bytes after the JSON"
        raise RequestError(
            Problem("body", rule=f"the binary_data_size of all inputs together is {position}", got=got)
        )
    return inputs


def _binary_size(tensor: Mapping[str, Any], where: str) -> int | None:
    size = _parameters(tensor, where).get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise RequestError(
            Problem(
                f"{where}, parameters.binary_data_size",
                rule="should be a whole number of bytes",
                got=_short(size),
            )
        )
    if "data" in tensor:
        raise RequestError(Problem(where, rule="has either data or parameters.binary_data_size", got="both"))
    return size


def _outputs(
    request: Mapping[str, Any], parameters: Mapping[str, Any], contract: Contract
) -> tuple[OutputRequest, ...]:
    binary = _flag(parameters, "binary_data_output", False, "body")
    if not request.get("outputs"):
        return tuple(OutputRequest(name, binary) for name in contract.outputs)
    config = {}
    for index, item in enumerate(_list(request, "outputs", "body")):
        where = f"outputs[{index}]"
        output = _object(item, where)
        name = output.get("name")
        if not isinstance(name, str):
            raise RequestError(Problem(f"{where}.name", rule="should be a string", got=_short(name)))
        contract.output(name)
        config[name] = OutputRequest(name, _flag(_parameters(output, where), "binary_data", binary, where))
    return tuple(config.values())


def _parameters(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = values.get("parameters")
    if parameters is None:
        return {}
    parameters = _object(parameters, f"{where}, parameters")
    for name in _MEANINGFUL:
        if name in parameters:
            raise RequestError(
                Problem(
                    f"{where}, parameters.{name}",
                    rule=f"is not supported; the extensions are: {', '.join(EXTENSIONS)}",
                )
            )
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, default: bool, where: str) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(
            Problem(f"{where}, parameters.{name}", rule="should be true or false", got=_short(value))
        )
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(Problem(where, rule="should be a JSON object", got=_short(value)))
    return value


def _list(values: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = values.get(key)
    if not isinstance(value, list):
        got = _short(value) if key in values else "nothing"
        raise RequestError(Problem(where, rule=f"needs '{key}', a list", got=got))
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
