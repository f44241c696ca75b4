"""What a model accepts and answers, in the protocol's words: its Signature, applied to requests of any
transport.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

from raystack.errors import Problem, nearest
from raystack.serving.protocol.refusal import RequestError, short
from raystack.serving.protocol.tensors import DATATYPES, Array
from raystack.serving.protocol.values import to_array
from raystack.task import Signature, TensorSpec

PLATFORM = "raystack_pytorch"
NOTHING: Mapping[str, Any] = MappingProxyType({})


class OutputRequest(NamedTuple):
    """One output that the client asked for."""

    name: str
    binary: bool
    """As raw bytes rather than as JSON values."""


class InferRequest(NamedTuple):
    """An inference request that fits the signature."""

    id: str | None
    """The client's own name for the request; None if it gave none."""
    inputs: Mapping[str, Array]
    """All inputs of the signature, each of shape [batch, ...]."""
    batch: int
    """Samples in it, at least 1."""
    outputs: tuple[OutputRequest, ...]
    """What to answer, in the order to answer it."""
    parameters: Mapping[str, Any] = NOTHING
    """What the client sent along: the protocol's own, such as `timeout`, and any others."""


@dataclass(frozen=True)
class Contract:
    """A served model: its name, its version and its signature."""

    name: str
    version: str
    signature: Signature

    @cached_property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """By name."""
        return {spec.name: spec for spec in self.signature.inputs}

    @cached_property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """By name."""
        return {spec.name: spec for spec in self.signature.outputs}

    @cached_property
    def everything(self) -> tuple[tuple[OutputRequest, ...], tuple[OutputRequest, ...]]:
        """What to answer where a client chooses no outputs: as JSON values, and as raw bytes."""
        values, raw = ([OutputRequest(name, binary) for name in self.outputs] for binary in (False, True))
        return tuple(values), tuple(raw)

    @cached_property
    def datatypes(self) -> Mapping[str, str]:
        """Of the outputs, by name."""
        return {name: DATATYPES[spec.dtype] for name, spec in self.outputs.items()}

    def metadata(self) -> dict[str, Any]:
        """The model's metadata, JSON-ready; -1 stands for a size that is free."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": PLATFORM,
            "inputs": [_describe(spec) for spec in self.signature.inputs],
            "outputs": [_describe(spec) for spec in self.signature.outputs],
        }

    def known(self, name: str) -> TensorSpec:
        """The input of a name. Raises RequestError where there is none."""
        spec = self.inputs.get(name)
        if spec is None:
            raise RequestError(_unknown("input", name, self.inputs))
        return spec

    def input(self, name: str, datatype: Any, shape: Sequence[Any]) -> TensorSpec:
        """The input that a client's tensor is meant for. Raises RequestError where it is none, or its
        datatype or shape is not right.
        """
        spec = self.inputs.get(name) or self.known(name)
        if datatype != DATATYPES[spec.dtype]:
            rule = f"the signature says datatype {DATATYPES[spec.dtype]}"
            raise RequestError(Problem(f"input '{name}'", rule=rule, got=short(datatype).strip("'")))
        self.fits(spec, shape)
        return spec

    @staticmethod
    def fits(spec: TensorSpec, shape: Sequence[Any]) -> None:
        """Raise RequestError where an input's shape is not right."""
        if len(shape) != len(spec.shape):
            raise _misfit(spec, shape)
        for size, wanted in zip(shape, spec.shape):  # noqa: B905, which takes time
            if type(size) is not int or size < 1 or (size != wanted and wanted != -1):
                raise _misfit(spec, shape)

    def arrays(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The inputs of a caller in this process, arrays or nested lists, as arrays that fit. Raises
        RequestError where they do not.
        """
        found = {}
        for name, values in inputs.items():
            spec = self.known(name)
            try:
                found[name] = to_array(values, spec.dtype)
            except ValueError as error:
                raise RequestError(Problem(f"input '{name}'", rule=str(error))) from None
            self.fits(spec, found[name].shape)
        self.batch(found)
        return found

    def batch(self, inputs: Mapping[str, Array]) -> int:
        """Samples in a request. Raises RequestError where an input is missing or two differ in their number
        of samples.
        """
        if len(inputs) != len(self.inputs):
            missing = [name for name in self.inputs if name not in inputs]
            got = ", ".join(inputs) or "no inputs"
            raise RequestError(Problem("inputs", rule=f"the signature also has {_quoted(missing)}", got=got))
        size = 0
        for array in inputs.values():
            if size and len(array) != size:
                rule = "all have the same number of samples, the first size of the shape"
                got = ", ".join(f"'{name}' {len(array)}" for name, array in inputs.items())
                raise RequestError(Problem("inputs", rule=rule, got=got))
            size = len(array)
        return size

    def output(self, name: str) -> TensorSpec:
        """The output a client asks for. Raises RequestError where there is none of that name."""
        spec = self.outputs.get(name)
        if spec is None:
            raise RequestError(_unknown("output", name, self.outputs))
        return spec


def _misfit(spec: TensorSpec, shape: Sequence[Any]) -> RequestError:
    if not {int}.issuperset(map(type, shape)):
        rule = "should be a list of whole numbers"
        return RequestError(Problem(f"input '{spec.name}', shape", rule=rule, got=short(shape)))
    if len(shape) == len(spec.shape) and shape[0] == 0:
        rule = "a batch has at least one sample"
    else:
        rule = f"the signature says shape {list(spec.shape)}, -1 for any size from 1"
    return RequestError(Problem(f"input '{spec.name}'", rule=rule, got=f"shape {short(list(shape))}"))


def _describe(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": list(spec.shape)}


def _unknown(side: str, name: str, known: Iterable[str]) -> Problem:
    close = nearest(name[:100], known)
    return Problem(
        f"{side} {short(name)}",
        rule=f"the signature has {_quoted(known)}",
        remedy=f"did you mean '{close}'?" if close else None,
    )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
