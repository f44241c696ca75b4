"""What computes a model's answers: arrays in, arrays out, for any transport."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Protocol

from raystack.serving.batcher import Answer, Arrays, Batcher
from raystack.serving.statistics import Duration
from raystack.task import Signature

__all__ = ["Answer", "Arrays", "Engine", "LostError", "ModelEngine"]


class LostError(Exception):
    """No process answers that has the model; the text says more, if there is any."""


class Engine(Protocol):
    """What answers for one version of a model."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""

    @property
    def max_size(self) -> int:
        """Maximum number of samples in one forward pass."""

    @property
    def passes(self) -> Mapping[int, Duration]:
        """Forward passes so far, by number of samples."""

    @property
    def decoupled(self) -> bool:
        """Whether a request may have several answers, as text that is generated, and not just one."""

    def predict(self, inputs: Arrays, size: int) -> Awaitable[Answer]:
        """Return the outputs for `size` samples. Raises the errors of the model."""

    def stream(self, inputs: Arrays, size: int) -> AsyncGenerator[Arrays, None]:
        """Yield answers as they come, at least one."""

    def close(self) -> None:
        """Free what it holds. Called once, when no request is left."""


class ModelEngine:
    """A model in this process: requests that arrive together share a forward pass."""

    decoupled = False

    def __init__(
        self, signature: Signature, forward: Callable[[Arrays], Arrays], max_size: int, wait_s: float
    ) -> None:
        self.signature, self.max_size = signature, max_size
        self._batcher = Batcher(forward, max_size, wait_s)
        self.passes = self._batcher.passes
        self.predict = self._batcher.predict

    async def stream(self, inputs: Arrays, size: int) -> AsyncGenerator[Arrays, None]:
        """Yield the one answer."""
        yield (await self.predict(inputs, size)).outputs

    def close(self) -> None:
        """End the thread of the forward passes."""
        self._batcher.close()
