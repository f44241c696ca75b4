"""The protocol over HTTP: bodies of infer requests and responses, in JSON and with the binary tensor
extension.

With the extension a body is JSON followed by the raw bytes of the tensors whose parameters carry
`binary_data_size`, in order; the header Inference-Header-Content-Length holds the length of the JSON. It is
what Triton's client sends by default. A length of 0 means that there is no JSON: the body is the raw bytes of
one sample of the model's only input, and the outputs are raw bytes, too.

Every request comes through here, so the common case is a straight line, and reasons are looked for where it
fails.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import orjson

from raystack.errors import Problem
from raystack.serving.protocol import tensors, values
from raystack.serving.protocol.contract import NOTHING, Contract, InferRequest, OutputRequest
from raystack.serving.protocol.parameters import check_input, check_output, check_request
from raystack.serving.protocol.refusal import RequestError, short
from raystack.serving.protocol.tensors import Array

HEADER_LENGTH = "Inference-Header-Content-Length"
JSON, BINARY = "application/json", "application/octet-stream"
EXTENSIONS = ("binary_tensor_data",)

_NO_BYTES = memoryview(b"")


def parse(body: bytes, header_length: str | None, contract: Contract) -> InferRequest:
    """Read the body of an infer request. Raises RequestError, status 400, with what was got and what the
    signature says.

    `header_length` is the value of Inference-Header-Content-Length, None where the request has no such
    header.
    """
    head, blob = (body, _NO_BYTES) if header_length is None else _split(body, header_length)
    if header_length is not None and not head:
        return _raw(blob, contract)
    request = document(head)
    parameters = request.get("parameters")
    if parameters is None:
        parameters = NOTHING
    else:
        check_request(_object(parameters, "body, parameters"), "body")
    identity = request.get("id")
    if identity is not None and type(identity) is not str:
        raise RequestError(Problem("id", rule="should be a string", got=short(identity)))
    inputs = _inputs(_list(request, "inputs", "body"), head, blob, contract)
    binary = parameters.get("binary_data_output", False)
    chosen = request.get("outputs")
    outputs = contract.everything[binary] if chosen is None else _outputs(request, binary, contract)
    return InferRequest(identity, inputs, contract.batch(inputs), outputs, parameters)


def render(
    request: InferRequest, outputs: Mapping[str, Array], contract: Contract
) -> tuple[bytes, int | None]:
    """Body of the response, and the length of its JSON if raw bytes follow it. NaN and infinities are written
    as Triton and Python do. Raises RequestError for BYTES that JSON cannot hold.
    """
    described, blobs = [], []
    for name, binary in request.outputs:
        array = outputs[name]
        output = {"name": name, "datatype": contract.datatypes[name], "shape": array.shape}
        if binary:
            blobs.append(tensors.to_bytes(array))
            output["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            try:
                output["data"] = tensors.to_json(array)
            except UnicodeDecodeError:
                remedy = "ask for it with binary_data"
                raise RequestError(Problem(f"output '{name}'", rule="is not UTF-8", remedy=remedy)) from None
        described.append(output)
    response = {"model_name": contract.name, "model_version": contract.version, "outputs": described}
    if request.id is not None:
        response["id"] = request.id
    head = to_json(response)
    return (b"".join((head, *blobs)), len(head)) if blobs else (head, None)


def error_body(message: str) -> bytes:
    """Body of a response that is not 200."""
    return orjson.dumps({"error": message.encode(errors="replace").decode()})


def document(head: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises RequestError."""
    try:
        found = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        missed = b"NaN" in head or b"Infinity" in head
        remedy = "it has no NaN and no infinities, which binary data has" if missed else None
        raise RequestError(Problem("body", rule=f"should be JSON: {error}", remedy=remedy)) from None
    return _object(found, "body")


def to_json(response: Mapping[str, Any]) -> bytes:
    """JSON of a response, with NaN, Infinity and -Infinity where there are some."""
    text = orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY)
    # What is not finite became null. The word may be from elsewhere; the result is right all the same.
    if b"null" in text:
        return json.dumps(response, default=lambda array: array.tolist(), separators=(",", ":")).encode()
    return text


def _split(body: bytes, header_length: str) -> tuple[bytes, memoryview]:
    # A longer number is too large, and int() refuses one of thousands of digits.
    digits = header_length.isascii() and header_length.isdigit() and len(header_length) <= 20
    if not digits or int(header_length) > len(body):
        rule = f"should be a whole number up to the body's length, {len(body)}"
        raise RequestError(Problem(HEADER_LENGTH, rule=rule, got=short(header_length)))
    length = int(header_length)
    return body[:length], memoryview(body)[length:]


def _raw(blob: memoryview, contract: Contract) -> InferRequest:
    """A body without JSON."""
    spec, *others = contract.signature.inputs
    if others:
        rule = "0 is for a model with one input: describe them in JSON before the data"
        raise RequestError(Problem(HEADER_LENGTH, rule=rule))
    shape = [max(size, 1) for size in spec.shape]
    try:
        if spec.dtype == "bytes":
            array = values.from_contents([bytes(blob)], spec.dtype, shape)
        else:
            if -1 in spec.shape[1:]:
                free = spec.shape.index(-1, 1)
                shape[free] = max(len(blob) // (math.prod(shape) * tensors.NUMPY[spec.dtype].itemsize), 1)
            array = tensors.from_bytes(blob, spec.dtype, shape)
    except ValueError as error:
        raise RequestError(Problem(f"input '{spec.name}'", rule=str(error))) from None
    return InferRequest(None, {spec.name: array}, 1, contract.everything[True])


def _inputs(described: list[Any], head: bytes, blob: memoryview, contract: Contract) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    position = 0
    truths: bool | None = None
    for index, tensor in enumerate(described):
        if type(tensor) is not dict or type(name := tensor.get("name")) is not str:
            raise _unnamed(tensor, f"inputs[{index}]")
        if name in inputs:
            raise RequestError(Problem(f"input {short(name)}", rule="is there twice"))
        shape = tensor.get("shape")
        if type(shape) is not list:
            shape = _list(tensor, "shape", f"input {short(name)}")
        spec = contract.input(name, tensor.get("datatype"), shape)
        size = None if tensor.get("parameters") is None else _binary_size(tensor, f"input '{name}'")
        try:
            if size is None:
                if truths is None:
                    truths = _has_truths(head)
                inputs[name] = values.from_json(tensor.get("data"), spec.dtype, shape, truths)
            else:
                inputs[name] = tensors.from_bytes(blob[position : position + size], spec.dtype, shape)
                position += size
        except ValueError as error:
            raise RequestError(Problem(f"input '{name}'", rule=str(error))) from None
    if position != len(blob):
        rule = f"the binary_data_size of all inputs together is {position}"
        raise RequestError(Problem("body", rule=rule, got=f"{len(blob)} bytes after the JSON"))
    return inputs


def _has_truths(head: bytes) -> bool:
    """Whether a document may have `true` or `false` somewhere."""
    # To look for the words is faster than to look at the type of each value, and for one letter still faster.
    return (b"r" in head and b"true" in head) or (b"l" in head and b"false" in head)


def _binary_size(tensor: Mapping[str, Any], where: str) -> int | None:
    parameters = _object(tensor["parameters"], f"{where}, parameters")
    check_input(parameters, where)
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        rule = "should be a whole number of bytes"
        raise RequestError(Problem(f"{where}, parameters.binary_data_size", rule=rule, got=short(size)))
    if tensor.get("data") is not None:
        raise RequestError(Problem(where, rule="has either data or parameters.binary_data_size", got="both"))
    return size


def _outputs(request: Mapping[str, Any], binary: bool, contract: Contract) -> tuple[OutputRequest, ...]:
    chosen: dict[str, OutputRequest] = {}
    for index, output in enumerate(_list(request, "outputs", "body")):
        where = f"outputs[{index}]"
        if type(output) is not dict or type(name := output.get("name")) is not str:
            raise _unnamed(output, where)
        contract.output(name)
        if name in chosen:
            raise RequestError(Problem(f"output '{name}'", rule="is there twice"))
        parameters = output.get("parameters")
        if parameters is None:
            chosen[name] = OutputRequest(name, binary)
        else:
            check_output(_object(parameters, f"{where}, parameters"), where)
            chosen[name] = OutputRequest(name, parameters.get("binary_data", binary))
    return tuple(chosen.values()) or contract.everything[binary]


def _unnamed(tensor: Any, where: str) -> RequestError:
    if type(tensor) is not dict:
        return RequestError(Problem(where, rule="should be a JSON object", got=short(tensor)))
    return RequestError(Problem(f"{where}.name", rule="should be a string", got=short(tensor.get("name"))))


def _object(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise RequestError(Problem(where, rule="should be a JSON object", got=short(value)))
    return value


def _list(document: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = document.get(key)
    if type(value) is not list:
        got = short(value) if key in document else "nothing"
        raise RequestError(Problem(where, rule=f"needs '{key}', a list", got=got))
    return value
