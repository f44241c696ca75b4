"""The engine of a graph: each step has an engine of its own, and starts when what it needs is there."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace

from raystack.errors import Problem, RaystackError, ServingError
from raystack.serving.engine import Answer, Arrays, ModelEngine
from raystack.serving.graph.signature import Wired, words
from raystack.serving.protocol import RequestError
from raystack.serving.statistics import Duration, Statistics
from raystack.task import TensorSpec

Origin = tuple[str | None, str]
"""A step, or None for the graph, and the name of its output, or input."""


@dataclass(frozen=True)
class Part:
    """A step of a graph in this process."""

    name: str
    version: str
    """The model's, or that of the raystack that has it."""
    engine: ModelEngine
    sources: Mapping[str, Origin]
    uncertain: tuple[TensorSpec, ...]
    """Inputs whose sizes only a request tells."""
    shared: frozenset[str]
    """Inputs that something else has, too, so that the step must not write to them."""
    statistics: Statistics

    def inputs(self, given: Arrays, answers: Mapping[str, Answer]) -> Arrays:
        """Return what it computes from. Raises RequestError for sizes that it does not take."""
        inputs = {
            name: given[tensor] if step is None else answers[step].outputs[tensor]
            for name, (step, tensor) in self.sources.items()
        }
        for name in self.shared:
            inputs[name] = inputs[name].view()
            inputs[name].flags.writeable = False
        for spec in self.uncertain:
            shape = inputs[spec.name].shape
            if any(size != wanted != -1 for size, wanted in zip(shape, spec.shape, strict=True)):
                where = f"step '{self.name}', input '{spec.name}'"
                raise RequestError(
                    Problem(where, rule=f"the step takes {words(spec)}", got=f"shape {list(shape)}")
                )
        return inputs


class GraphEngine:
    """Steps that answer as one model. For use on one event loop."""

    decoupled = False

    def __init__(self, wired: Wired, parts: Mapping[str, Part], outputs: Mapping[str, Origin]) -> None:
        self.signature, self.parts = wired.signature, parts
        self._outputs = {name: (step or "", tensor) for name, (step, tensor) in outputs.items()}
        self.max_size = min(part.engine.max_size for part in parts.values())
        self.passes: dict[int, Duration] = {}
        """Requests, by number of samples up to `max_size`: the forward passes are the steps'."""

    async def predict(self, inputs: Arrays, size: int) -> Answer:
        """Return the outputs for `size` samples. Raises the errors of a step, with its name."""
        tasks: dict[str, asyncio.Task[Answer]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for name, part in self.parts.items():
                    tasks[name] = group.create_task(self._step(part, inputs, size, tasks))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        answers = {name: task.result() for name, task in tasks.items()}
        outputs = {name: answers[step].outputs[tensor] for name, (step, tensor) in self._outputs.items()}
        compute_s = max(answers[step].compute_s for step, _ in self._outputs.values())
        batch = min(size, self.max_size)
        self.passes.setdefault(batch, Duration()).add(compute_s)
        return Answer(outputs, 0.0, compute_s, max(answer.batch for answer in answers.values()))

    async def stream(self, inputs: Arrays, size: int) -> AsyncGenerator[Arrays, None]:
        """Yield the one answer."""
        yield (await self.predict(inputs, size)).outputs

    def close(self) -> None:
        """End the threads of the steps."""
        for part in self.parts.values():
            part.engine.close()

    async def _step(
        self, part: Part, inputs: Arrays, size: int, tasks: Mapping[str, asyncio.Task[Answer]]
    ) -> Answer:
        """Return a step's answer, with the seconds that it and all before it computed."""
        before = {step: await tasks[step] for step, _ in part.sources.values() if step is not None}
        since = max((answer.compute_s for answer in before.values()), default=0.0)
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            answer = await part.engine.predict(part.inputs(inputs, before), size)
        except RequestError:
            raise
        except RaystackError as error:
            part.statistics.failed(clock() - began)
            raise ServingError(of_step(part.name, error), error.trace) from error
        except Exception as error:
            part.statistics.failed(clock() - began)
            rule = f"raised {type(error).__name__}: {' '.join(str(error).split())}"
            raise ServingError(Problem(f"step '{part.name}'", rule=rule)) from error
        part.statistics.answered(size, clock() - began, answer.wait_s, answer.compute_s)
        return answer._replace(compute_s=since + answer.compute_s)


def of_step(name: str, error: RaystackError) -> list[Problem]:
    """Return the problems of an error with the step's name."""
    return [replace(problem, where=f"step '{name}', {problem.where}") for problem in error.problems]
