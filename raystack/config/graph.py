"""A graph of models and functions that is served as one model."""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from raystack.config.names import ModelReference
from raystack.config.section import ConflictError, Pattern, Section
from raystack.errors import nearest

Dtype = Literal[
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "bytes",
]
"""Types of tensors: those of a TensorSpec."""

StepName = Annotated[
    str, Pattern(r"^[A-Za-z0-9][\w-]{0,100}$", "should be letters, digits, '_' and '-', 100 at most")
]
Source = Annotated[
    str, Pattern(r"^[^\s.](\S*[^\s.])?$", "should be an input of the graph, or an output as step.output")
]
Shape = Annotated[list[Annotated[int, Field(ge=-1)]], Field(min_length=1)]
Function = Annotated[
    str, Pattern(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", "should be a function, written module:name")
]


class Tensor(Section):
    """An input or output of a function."""

    dtype: Dtype
    """Type of the elements: NumPy's name, or `bytes` for texts."""

    shape: Shape
    """Sizes, with -1 for any; the first is the batch and always -1."""

    @model_validator(mode="after")
    def _batched(self) -> Self:
        if self.shape[0] != -1:
            raise ConflictError("should begin with -1, the batch", "shape")
        return self


class Step(Section):
    """A step: a model, a function or a combination of other steps' outputs; one of them."""

    model: ModelReference | None = None
    """`models:/name@alias` or `models:/name/version` from the registry, or a checkpoint's folder or URL."""

    function: Function | None = None
    """`module:name` of a Python function that the replicas can import. It is called with NumPy arrays by
    name, each of shape [batch, ...], and returns arrays or tensors by name.
    """

    combine: Literal["mean", "vote"] | None = None
    """`mean` of tensors of floating point numbers, `vote` for the most frequent label. The output is
    `combined`.
    """

    inputs: dict[str, Source] = Field(default={})
    """Where each input comes from: `step.output`, or the name of an input of the graph. Not set, for a model
    or function: inputs of the graph that have the same names.
    """

    weights: dict[str, PositiveFloat] = Field(default={})
    """Weight of each input of `combine`, by its name; 1 for those left out."""

    takes: dict[str, Tensor] = Field(default={})
    """Inputs of a function."""

    gives: dict[str, Tensor] = Field(default={})
    """Outputs of a function."""

    @property
    def what(self) -> str:
        """What it is of, as text."""
        return self.model or self.function or str(self.combine)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [kind for kind in ("model", "function", "combine") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            rule = "should have one of model, function and combine"
            raise ConflictError(rule, *(kinds or ["model"]))
        typed = [key for key in ("takes", "gives") if getattr(self, key)]
        if self.function is None and typed:
            raise ConflictError("is for a function alone", typed[0])
        if self.function is not None and len(typed) < 2:
            raise ConflictError("needs takes and gives, the types of its inputs and outputs", "function")
        if self.combine is not None and not self.inputs:
            raise ConflictError("needs inputs, by any names", "combine")
        unknown = next(iter(self.weights.keys() - self.inputs.keys()), None)
        if unknown is not None and self.combine is not None:
            raise ConflictError(f"names '{unknown}', which is none of the inputs", "weights")
        if self.weights and self.combine is None:
            raise ConflictError("is for combine alone", "weights")
        return self


class Graph(Section):
    """Steps that are served as one model. Those that do not need each other run at the same time."""

    steps: Annotated[dict[StepName, Step], Field(min_length=1)]
    """Steps by name, in any order."""

    outputs: Annotated[dict[str, Source], Field(min_length=1)]
    """Outputs of the graph by name, each `step.output`."""

    @property
    def models(self) -> dict[str, str]:
        """References to models, by step."""
        return {name: step.model for name, step in self.steps.items() if step.model is not None}

    def ordered(self) -> list[str]:
        """Names of the steps, each after those that it needs. Raises CycleError."""
        needs = {
            name: [before for source in step.inputs.values() if (before := origin(source)[0])]
            for name, step in self.steps.items()
        }
        return list(TopologicalSorter(needs).static_order())

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for key, source in self._sources():
            step = origin(source)[0]
            if step is None and key.startswith("outputs"):
                raise ConflictError(f"{key} should be step.output, and is '{source}'")
            if step is not None and step not in self.steps:
                close = nearest(step, list(self.steps))
                remedy = f"did you mean '{close}'?" if close else f"there are {', '.join(self.steps)}"
                raise ConflictError(f"{key} names step '{step}', which there is not", remedy=remedy)
        try:
            self.ordered()
        except CycleError as error:
            circle = " -> ".join(reversed(error.args[1]))
            raise ConflictError(f"steps need each other in a circle: {circle}") from None
        return self

    def _sources(self) -> Iterator[tuple[str, str]]:
        for name, step in self.steps.items():
            for key, source in step.inputs.items():
                yield f"steps.{name}.inputs.{key}", source
        for key, source in self.outputs.items():
            yield f"outputs.{key}", source


def origin(source: str) -> tuple[str | None, str]:
    """Return the step and the name of its output, or None and the name of an input of the graph."""
    step, dot, output = source.partition(".")
    return (step, output) if dot else (None, source)
