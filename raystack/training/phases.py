"""The loop's instrument: `with phase("data"):` times a phase and reports this worker's position.

The times are for the report, the position for the watchdog.
"""

from time import perf_counter
from types import TracebackType

from torch import Tensor

from raystack.training.throughput import Throughput
from raystack.training.watchdog.hang import StepPhase
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World

LAST: frozenset[StepPhase] = frozenset({"optimizer", "evaluate", "save"})
"""Phases after which the worker is between two steps; another is followed by the next phase of the step."""


class Phases:
    """The context manager of every phase, which feeds the throughput and the heartbeats."""

    # Phases are not nested, so one object serves all of them: a step enters several, at a microsecond each.

    def __init__(self, world: World, throughput: Throughput, heartbeats: HeartbeatSender) -> None:
        self._world, self._throughput, self._heartbeats = world, throughput, heartbeats
        self._phase: StepPhase = "idle"
        self._loss: Tensor | None = None
        self._began = 0.0

    def begin(self, step: int, *, precise: bool) -> None:
        """Begin step `step`, counted from 0; its phases are timed, waiting for the device, if `precise`."""
        self._heartbeats.begin(step)
        self._throughput.begin(precise=precise)

    def __call__(self, phase: StepPhase, loss: Tensor | None = None) -> "Phases":
        """Return the context of a phase; `loss` is given for the backward pass, which starts from it."""
        self._phase, self._loss = phase, loss
        return self

    def __enter__(self) -> None:
        if self._loss is not None:
            self._heartbeats.backward(self._loss)
            self._loss = None
        else:
            self._heartbeats.enter(self._phase)
        if self._throughput.precise:
            self._began = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._throughput.precise and error is None:
            self._world.synchronize()
            self._throughput.add(self._phase, perf_counter() - self._began)
        if self._phase in LAST and error is None:
            self._heartbeats.enter("idle")
