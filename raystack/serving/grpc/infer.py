"""An infer request in the protocol's gRPC messages -> arrays that fit a contract, and back.

Pure, as `protocol/rest.py` is for HTTP.
"""

from collections.abc import Mapping
from typing import Any

from raystack.errors import Problem
from raystack.serving.grpc.messages import Message, message_class
from raystack.serving.protocol import Contract, InferRequest, OutputRequest, RequestError, tensors, values
from raystack.serving.protocol.parameters import check_input, check_output, check_request
from raystack.serving.protocol.refusal import short
from raystack.serving.protocol.tensors import DATATYPES, Array
from raystack.task import TensorSpec

Response = message_class("inference.ModelInferResponse")

_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype -> the list of InferTensorContents that has its values."""


def read(request: Message, contract: Contract) -> InferRequest:
    """Return what a ModelInferRequest asks for. Raises RequestError, status 400."""
    parameters = read_parameters(request.parameters, "request")
    check_request(parameters, "request")
    inputs = _inputs(request, contract)
    outputs = _outputs(request, contract)
    return InferRequest(request.id or None, inputs, contract.batch(inputs), outputs, parameters)


def write(request: InferRequest, outputs: Mapping[str, Array], contract: Contract) -> Message:
    """Return the ModelInferResponse with the outputs as raw bytes, as Triton sends them."""
    response = empty(request.id, contract)
    for wanted in request.outputs:
        array = outputs[wanted.name]
        datatype = DATATYPES[contract.outputs[wanted.name].dtype]
        response.outputs.add(name=wanted.name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(tensors.to_bytes(array))
    return response


def empty(identity: str | None, contract: Contract) -> Message:
    """Return a ModelInferResponse without outputs."""
    return Response(model_name=contract.name, model_version=contract.version, id=identity or "")


def read_parameters(parameters: Mapping[str, Message], where: str) -> dict[str, Any]:
    """Return the values of parameters of any of the protocol's messages. Raises RequestError, status 400."""
    found = {}
    for name, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is None:
            raise RequestError(Problem(f"{where}, parameters.{short(name)}", rule="has no value"))
        found[name] = getattr(parameter, kind)
    return found


def _inputs(request: Message, contract: Contract) -> dict[str, Array]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        rule = f"has the bytes of all {len(request.inputs)} inputs, or of none"
        raise RequestError(Problem("raw_input_contents", rule=rule, got=f"{len(raw)}"))
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(request.inputs):
        name = tensor.name
        spec = contract.input(name, tensor.datatype, tensor.shape)
        where = f"input '{name}'"
        if name in inputs:
            raise RequestError(Problem(where, rule="is there twice"))
        if tensor.parameters:
            check_input(read_parameters(tensor.parameters, where), where)
        try:
            if not raw:
                inputs[name] = _typed(tensor, spec)
            elif tensor.HasField("contents"):
                raise ValueError("has contents, and the request has raw_input_contents: send one of them")
            else:
                inputs[name] = tensors.from_bytes(raw[index], spec.dtype, tuple(tensor.shape))
        except ValueError as error:
            raise RequestError(Problem(where, rule=str(error))) from None
    return inputs


def _typed(tensor: Message, spec: TensorSpec) -> Array:
    """Return the values of `contents`. Raises ValueError."""
    wanted = _CONTENTS.get(tensor.datatype)
    if wanted is None:
        raise ValueError(f"contents has no list for {tensor.datatype}: send raw_input_contents")
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if filled != [wanted]:
        got = ", ".join(filled) or "nothing"
        raise ValueError(f"values of {tensor.datatype} are in contents.{wanted}, and there is {got}")
    return values.from_contents(getattr(tensor.contents, wanted), spec.dtype, tuple(tensor.shape))


def _outputs(request: Message, contract: Contract) -> tuple[OutputRequest, ...]:
    if not request.outputs:
        return contract.everything[1]
    wanted = {}
    for output in request.outputs:
        contract.output(output.name)
        if output.parameters:
            where = f"output '{output.name}'"
            check_output(read_parameters(output.parameters, where), where)
        wanted[output.name] = OutputRequest(output.name, True)
    return tuple(wanted.values())
