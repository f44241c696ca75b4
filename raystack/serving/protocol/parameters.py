"""Parameters that mean something in the protocol's extensions, of requests and tensors of any transport.

A model has no state and one queue here, and no memory is shared with clients. So `sequence_id`,
`sequence_start`, `sequence_end` and `priority` are checked and have no effect, as in Triton; what would
change the answer is refused. `timeout`, in microseconds, is for the server to keep. Any other parameter is
the model's or the client's own.
"""

from collections.abc import Callable, Mapping
from typing import Any

from raystack.errors import Problem
from raystack.serving.protocol.refusal import RequestError, short


def _truth(value: Any) -> bool:
    return type(value) is bool


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**64


def _sequence(value: Any) -> bool:
    return isinstance(value, str) or _count(value)


_REQUEST: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "sequence_id": (_sequence, "should be a whole number or a string"),
    "sequence_start": (_truth, "should be true or false"),
    "sequence_end": (_truth, "should be true or false"),
    "priority": (_count, "should be a whole number from 0"),
    "timeout": (_count, "should be a whole number of microseconds"),
    "binary_data_output": (_truth, "should be true or false"),
}
_SHARED = "shared_memory_region"


def check_request(parameters: Mapping[str, Any], where: str) -> None:
    """Check the parameters of a request. Raises RequestError."""
    for name, value in parameters.items():
        if (rule := _REQUEST.get(name)) is not None and not rule[0](value):
            raise RequestError(Problem(f"{where}, parameters.{name}", rule=rule[1], got=short(value)))


def check_input(parameters: Mapping[str, Any], where: str) -> None:
    """Check the parameters of an input. Raises RequestError."""
    if _SHARED in parameters:
        rule = "is not supported: send the data in the request"
        raise RequestError(Problem(f"{where}, parameters.{_SHARED}", rule=rule))


def check_output(parameters: Mapping[str, Any], where: str) -> None:
    """Check the parameters of an output. Raises RequestError."""
    if _SHARED in parameters:
        rule = "is not supported: the data is sent in the response"
        raise RequestError(Problem(f"{where}, parameters.{_SHARED}", rule=rule))
    if parameters.get("classification", 0) != 0:
        rule = "is not supported: outputs are answered as they are, with a class_count of 0"
        got = short(parameters["classification"])
        raise RequestError(Problem(f"{where}, parameters.classification", rule=rule, got=got))
    if not _truth(binary := parameters.get("binary_data", False)):
        rule = "should be true or false"
        raise RequestError(Problem(f"{where}, parameters.binary_data", rule=rule, got=short(binary)))
