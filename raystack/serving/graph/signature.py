"""The signatures of a graph's steps -> the graph's own, checked: what a step is given fits what it takes.

Needs no PyTorch, so that it is known before a replica is started.
"""

from collections.abc import Iterator, Mapping

from raystack.config.graph import Graph, Step, Tensor, origin
from raystack.errors import ConfigError, Problem, nearest
from raystack.task import Signature, TensorSpec

COMBINED = "combined"
"""Name of the output of a step that combines."""
FLOATS = ("float16", "float32", "float64")
"""Types that have a mean."""


class Wired:
    """A graph whose steps fit each other. Raises ConfigError with all that does not fit."""

    def __init__(self, graph: Graph, models: Mapping[str, Signature], where: str = "serving.graph") -> None:
        self._graph, self._where = graph, where
        self._given: dict[str, TensorSpec] = {}
        """Inputs of the graph."""
        self.steps: dict[str, Signature] = {}
        """Signatures by step, each after the steps that it needs."""
        self.sources: dict[str, dict[str, tuple[str | None, str]]] = {}
        """Where each input of a step comes from: a step or None for the graph, and its output or input."""
        problems: list[Problem] = []
        for name in graph.ordered():
            problems += self._add(name, graph.steps[name], models.get(name))
        outputs = [spec for spec in self._outputs(problems) if spec is not None]
        if problems:
            raise ConfigError(problems)
        self.signature = Signature(tuple(self._given.values()), tuple(outputs))

    def source(self, step: str, name: str) -> TensorSpec:
        """What an input of a step comes from."""
        before, tensor = self.sources[step][name]
        return self._given[tensor] if before is None else _named(self.steps[before].outputs)[tensor]

    def uncertain(self, step: str, taken: TensorSpec) -> bool:
        """Whether an input of a step has a size that only a request tells."""
        given = self.source(step, taken.name).shape
        return any(size == -1 != wanted for size, wanted in zip(given, taken.shape, strict=True))

    def _add(self, name: str, step: Step, model: Signature | None) -> Iterator[Problem]:
        where = f"{self._where}.steps.{name}"
        if step.combine is not None:
            yield from self._combine(name, step, where)
            return
        signature = model or _function(step)
        takes = _named(signature.inputs)
        sources = step.inputs or {each: each for each in takes}
        for each in sources.keys() - takes.keys():
            yield _unknown(f"{where}.inputs.{each}", "is no input of the step", each, takes)
        missing = [each for each in takes if each not in sources]
        if missing:
            rule = f"also has to say where {_quoted(missing)} comes from"
            yield Problem(f"{where}.inputs", rule=rule, got=", ".join(sources))
        self.steps[name] = signature
        self.sources[name] = {each: origin(source) for each, source in sources.items() if each in takes}
        for each, (before, tensor) in self.sources[name].items():
            place = f"{where}.inputs.{each}"
            if before is None:
                yield from self._take(place, tensor, takes[each])
                continue
            found = self._output(place, before, tensor)
            if isinstance(found, Problem):
                yield found
            elif found is not None and not fits(found, takes[each]):
                rule = f"the step takes {words(takes[each])}"
                yield Problem(place, rule=rule, got=f"'{before}.{tensor}', which is {words(found)}")

    def _take(self, where: str, tensor: str, wanted: TensorSpec) -> Iterator[Problem]:
        """Have an input of the graph fit what a step takes, beside the steps that have it already."""
        spec = TensorSpec(tensor, wanted.dtype, wanted.shape)
        before = self._given.setdefault(tensor, spec)
        if fits(before, spec):
            sizes = tuple(max(pair) for pair in zip(before.shape, spec.shape, strict=True))
            self._given[tensor] = TensorSpec(tensor, spec.dtype, sizes)
        else:
            rule = f"the step takes {words(spec)}, and another one takes '{tensor}' as {words(before)}"
            yield Problem(where, rule=rule)

    def _combine(self, name: str, step: Step, where: str) -> Iterator[Problem]:
        sources = {each: origin(source) for each, source in step.inputs.items()}
        specs: list[TensorSpec] = []
        for each, (before, tensor) in sources.items():
            place = f"{where}.inputs.{each}"
            if before is None:
                yield Problem(place, rule="should be an output, as step.output", got=tensor)
                continue
            found = self._output(place, before, tensor)
            if isinstance(found, Problem):
                yield found
            if not isinstance(found, TensorSpec):
                continue
            floats = found.dtype in FLOATS
            if floats != (step.combine == "mean") or found.dtype == "bfloat16":
                takes = ", ".join(FLOATS) if step.combine == "mean" else "labels, which are no floats"
                rule = f"{step.combine} is for {takes}"
                yield Problem(place, rule=rule, got=f"'{before}.{tensor}', which is {words(found)}")
            elif specs and not fits(found, specs[0]):
                rule = f"should be {words(specs[0])}, as the first input"
                yield Problem(place, rule=rule, got=f"'{before}.{tensor}', which is {words(found)}")
            else:
                specs.append(found)
        if len(specs) == len(sources):
            sizes = tuple(max(column) for column in zip(*(spec.shape for spec in specs), strict=True))
            output = TensorSpec(COMBINED, specs[0].dtype, sizes)
            inputs = tuple(
                TensorSpec(each, spec.dtype, sizes) for each, spec in zip(sources, specs, strict=True)
            )
            self.steps[name], self.sources[name] = Signature(inputs, (output,)), sources

    def _output(self, where: str, step: str, tensor: str) -> TensorSpec | Problem | None:
        """An output of a step; None where the step is wrong itself, of which there is a problem already."""
        if step not in self.steps:
            return None
        outputs = _named(self.steps[step].outputs)
        if tensor not in outputs:
            return _unknown(where, f"is no output of step '{step}'", tensor, outputs)
        return outputs[tensor]

    def _outputs(self, problems: list[Problem]) -> Iterator[TensorSpec | None]:
        for name, source in self._graph.outputs.items():
            step, tensor = origin(source)
            assert step is not None
            found = self._output(f"{self._where}.outputs.{name}", step, tensor)
            if isinstance(found, Problem):
                problems.append(found)
            elif found is not None:
                yield TensorSpec(name, found.dtype, found.shape)


def fits(given: TensorSpec, taken: TensorSpec) -> bool:
    """Whether a tensor can be what is taken; a size that is free may turn out to be right."""
    sizes = zip(given.shape, taken.shape, strict=False)
    return (
        given.dtype == taken.dtype
        and len(given.shape) == len(taken.shape)
        and all(one == other or -1 in (one, other) for one, other in sizes)
    )


def words(spec: TensorSpec) -> str:
    """A tensor's type, as text."""
    return f"{spec.dtype}{list(spec.shape)}"


def _function(step: Step) -> Signature:
    def specs(tensors: Mapping[str, Tensor]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, each.dtype, tuple(each.shape)) for name, each in tensors.items())

    return Signature(specs(step.takes), specs(step.gives))


def _named(specs: tuple[TensorSpec, ...]) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in specs}


def _unknown(where: str, rule: str, name: str, known: Mapping[str, object]) -> Problem:
    close = nearest(name, list(known))
    remedy = f"did you mean '{close}'?" if close else f"it has {_quoted(list(known))}"
    return Problem(where, rule=rule, got=f"'{name}'", remedy=remedy)


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
